package fsview

import (
	"strconv"

	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
)

// withLayer is the getter of a text that a layer's record holds.
func withLayer(get func(l *store.Layer) []byte) func(place) ([]byte, error) {
	return func(p place) ([]byte, error) {
		l, err := p.layer()
		if err != nil {
			return nil, err
		}
		return get(l), nil
	}
}

func layerRows() []Row {
	const gen = vnode.ValidStore
	const dir = "/layers/<layer>"
	text := func(path, doc string, get func(l *store.Layer) []byte) Row {
		return Row{Path: dir + path, Kind: Text, Mode: modeRead, Valid: gen, Doc: doc, rowOps: rowOps{get: withLayer(get)}}
	}
	fixed := func(path, doc string) Row {
		return Row{Path: dir + path, Kind: Dir, Mode: modeDir, Valid: gen, Doc: doc}
	}
	rows := kindRows(store.KindLayer, mkdirLayer)
	rows = append(rows, Row{Path: dir, Kind: Dir, Mode: modeDir, Valid: gen, Doc: "One layer."})
	rows = append(rows, objectRows(store.KindLayer, dir)...)
	rows = append(rows, Row{Path: dir + "/parent", Kind: Link, Mode: modeLink, Valid: gen, Doc: "The layer below; absent for a base layer.",
		rowOps: rowOps{born: true, has: hasParent, target: targetParent}})
	rows = append(rows, linksRows(dir+"/children", store.KindLayer, "The layers on top of this one; mkdir makes one.", "A layer on top of this one.",
		mkdirChild, func(p place) []string { return idsOf(p.tx.Children(p.id), layerID) })...)
	rows = append(rows, linksRows(dir+"/images", store.KindImage, "The images whose top layer this is; mkdir makes one.", "An image whose top layer this is.",
		mkdirImageOn, func(p place) []string { return idsOf(p.tx.ImagesOn(p.id), imageID) })...)
	rows = append(rows,
		fixed("/digest", "Digests of the diff that was applied; each is empty if not known."),
		text("/digest/compressed", "Of the stream as it was applied.", func(l *store.Layer) []byte { return line(string(l.CompressedDigest)) }),
		text("/digest/uncompressed", "Of the tar archive inside.", func(l *store.Layer) []byte { return line(string(l.DiffDigest)) }),
		text("/digest/toc", "Of the table of contents, if the stream had one.", func(l *store.Layer) []byte { return line(string(l.TOCDigest)) }),
		fixed("/size", "Sizes in bytes of the diff that was applied; each is empty if none was."),
		text("/size/compressed", "Of the stream as it was applied.", func(l *store.Layer) []byte { return sizeText(l, l.CompressedSize) }),
		text("/size/uncompressed", "Of the tar archive inside.", func(l *store.Layer) []byte { return sizeText(l, l.DiffSize) }),
		text("/label", "The SELinux label for mounts, or empty.", func(l *store.Layer) []byte { return line(l.MountLabel) }),
		text("/readonly", "Whether the layer cannot be mounted for writing: true or false.", func(l *store.Layer) []byte { return boolText(readOnlyLayer(l)) }),
		fixed("/idmap", "The layer's ID maps, `CONTAINER HOST SIZE` a line; empty means that IDs are the same."),
		text("/idmap/uid", "Of users.", func(l *store.Layer) []byte { return showIDMap(l.Maps.UIDs) }),
		text("/idmap/gid", "Of groups.", func(l *store.Layer) []byte { return showIDMap(l.Maps.GIDs) }),
	)
	rows = append(rows, treeRows(dir, true)...)
	return append(rows, mountRows(dir)...)
}

// treeRows are the rows of the content of what has a layer. own says that the
// object has content of its own: images have not.
func treeRows(dir string, own bool) []Row {
	const gen = vnode.ValidStore
	rows := []Row{
		{Path: dir + "/tree", Kind: Subtree, Mode: modeDir, Valid: gen, Doc: "The merged tree, read-only, served without a mount. getxattr user.plyfs.layer says which layer a file is from.",
			rowOps: rowOps{has: hasLayer, hideable: true}},
	}
	if !own {
		return rows
	}
	return append(rows,
		Row{Path: dir + "/diff", Kind: Subtree, Mode: modeDir, Valid: gen, Doc: "The layer's own files, read-only, without marks of what it deletes (changes tells that); with drivers that keep whole copies (vfs), the whole tree.",
			rowOps: rowOps{has: hasLayer, hideable: true, own: true}},
		Row{Path: dir + "/merged", Kind: Subtree, Mode: modeMake, Valid: vnode.ValidNone, Listed: Held, Doc: "The merged tree, to read and write: a window on the driver's mount, which naming it takes. EROFS for a layer with children or an image, or read-only.",
			rowOps: rowOps{has: hasLayer}},
		Row{Path: dir + "/changes", Kind: Stream, Mode: modeOwn, Valid: gen, Listed: Sized, Doc: "What differs from the parent: `Add`, `Modify` or `Delete` and a quoted path a line.",
			rowOps: rowOps{has: hasLayer, exports: true, blob: openChanges}},
		Row{Path: dir + "/diff.tar", Kind: Stream, Mode: modeTake, Valid: gen, Listed: Sized, Doc: "The layer's diff. Reading gives the tar archive: byte for byte the one applied, at any offset, while its record stands, else a generated one. Writing applies an archive (plain or compressed), all or nothing.",
			rowOps: rowOps{has: hasLayer, hideable: true, exports: true, size: diffSize, blob: openDiff, sink: openSink, check: checkDiffWrite}},
		Row{Path: dir + "/diff.tar.gz", Kind: Stream, Mode: modeOwn, Valid: gen, Listed: Sized, Doc: "diff.tar, compressed by gzip while it is read.",
			rowOps: rowOps{has: hasLayer, hideable: true, exports: true, blob: packedDiff(layertar.Gzip)}},
		Row{Path: dir + "/diff.tar.zst", Kind: Stream, Mode: modeOwn, Valid: gen, Listed: Sized, Doc: "diff.tar, compressed by zstd while it is read.",
			rowOps: rowOps{has: hasLayer, hideable: true, exports: true, blob: packedDiff(layertar.Zstd)}},
	)
}

func mountRows(dir string) []Row {
	const gen = vnode.ValidStore
	return []Row{
		{Path: dir + "/mount", Kind: Text, Mode: modeRead, Valid: gen, Doc: "`count N`, and `path P` while mounted by anyone.",
			rowOps: rowOps{get: mountText}},
	}
}

func hasLayer(p place) bool {
	id, ok := p.layerID()
	return ok && p.tx.LayerByID(id) != nil
}

func hasParent(p place) bool {
	_, ok := targetParent(p)
	return ok
}

func targetParent(p place) (string, bool) {
	l := p.tx.LayerByID(p.id)
	if l == nil || l.Parent == "" {
		return "", false
	}
	return p.index().up(2, store.KindLayer, l.Parent)
}

// sizeText is a size of a layer, empty where no diff was applied.
func sizeText(l *store.Layer, n int64) []byte {
	if l.DiffDigest == "" && n == 0 {
		return nil
	}
	return line(strconv.FormatInt(n, 10))
}

func boolText(b bool) []byte { return line(strconv.FormatBool(b)) }

// readOnlyLayer tells whether a layer's record forbids mounting for writing.
func readOnlyLayer(l *store.Layer) bool { return l.ReadOnly || l.Sealed() }

func mountText(p place) ([]byte, error) {
	id, ok := p.layerID()
	if !ok {
		return line("count 0"), nil
	}
	m, ok := p.tx.Mountpoint(id)
	if !ok || m.Count == 0 {
		return line("count 0"), nil
	}
	return lines([]string{"count " + strconv.Itoa(m.Count), "path " + oneLine(m.Path)}), nil
}
