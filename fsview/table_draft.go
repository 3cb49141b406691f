package fsview

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
)

func draftRows() []Row {
	const none = vnode.ValidNone
	const dir = "/drafts/<draft>"
	text := func(path, doc string, check func(p place, v []byte) error) Row {
		return Row{Path: dir + "/" + path, Kind: Text, Mode: modeWrite, Valid: none, Doc: doc,
			rowOps: rowOps{get: draftGet(path), put: draftPut(path, check)}}
	}
	return []Row{
		{Path: "/drafts", Kind: Objects, Mode: modeMake, Valid: none, Doc: "Objects in the making. mkdir makes a draft; `mv -T drafts/x containers/NAME` (or layers/, images/) commits it, all or nothing; rmdir drops it; so does the end of the mount. Without a mount it lasts across commands, for a day at most.",
			rowOps: rowOps{list: listDrafts, dirs: func(p place) int { return len(listDrafts(p)) }, find: findDraft, mkdir: mkdirDraft, rmdir: rmdirDraft, rename: renameDraft}},
		{Path: dir, Kind: Dir, Mode: modeDir, Valid: none, Doc: "One draft. Its files are empty until they are written."},
		text("id", "The wanted ID; empty for a random one.", checkDraftID),
		text("names", "Names, one a line; the name that the draft is moved to is added as the oldest.", checkOf(func(v []byte) ([]string, error) { return parseNames(v, nil) })),
		text("parent", "Layer: the layer below (ID, name or unique prefix).", checkRef(store.KindLayer)),
		text("layer", "Image: the top layer.", checkRef(store.KindLayer)),
		text("image", "Container: the image.", checkRef(store.KindImage)),
		text("label", "Layer, container: the SELinux label for mounts.", checkOf(parseValue)),
		text("volatile", "Container, layer: true if it need not outlive a crash.", checkOf(parseBool)),
		text("readonly", "Layer: true if it is never to be mounted for writing nor filled further; such layers go to a separate image store, where there is one.", checkOf(parseBool)),
		text("size", "Container, layer: how many bytes it may take on disk; as bytes, or as 512m or 10g.", checkOf(parseLimit)),
		text("inodes", "Container, layer: how many files and directories it may have.", checkOf(parseCount)),
		text("digest", "Image: its digest, if not that of the manifest.", checkOf(parseDigest)),
		text("created", "Image: its time (RFC 3339), if not now.", checkOf(parseTime)),
		{Path: dir + "/metadata", Kind: Raw, Mode: modeWrite, Valid: none, Doc: "Free text.",
			rowOps: rowOps{get: draftGet("metadata"), put: draftPut("metadata", checkOf(parseMetadata))}},
		{Path: dir + "/idmap", Kind: Dir, Mode: modeDir, Valid: none, Doc: "Layer, container: ID maps, `CONTAINER HOST SIZE` a line."},
		text("idmap/uid", "Of users.", checkOf(parseIDMap)),
		text("idmap/gid", "Of groups.", checkOf(parseIDMap)),
		{Path: dir + "/bigdata", Kind: Dir, Mode: modeMake, Valid: none, Doc: "Data items; a new file is a new key, rm drops one.",
			rowOps: rowOps{list: listDraftItems, find: findDraftItem, create: createDraftItem, unlink: unlinkDraftItem}},
		{Path: dir + "/bigdata/<key>", Kind: Raw, Mode: modeWrite, Valid: none, Doc: "The bytes of one item.",
			rowOps: rowOps{has: hasDraftItem, get: draftItem, put: putDraftItem, check: checkBigData}},
		{Path: dir + "/diff.tar", Kind: Stream, Mode: modeWrite, Valid: none, Doc: "Layer: the archive of its content, plain or compressed; written last, extracted while it arrives. A second one replaces the first. Reads as empty.",
			rowOps: rowOps{size: func(context.Context, place) (int64, bool) { return 0, true }, blob: noRead, sink: openDraftSink}},
		{Path: dir + "/error", Kind: Text, Mode: modeRead, Valid: none, Doc: "The sentence of the last change of the draft that failed, else empty.",
			rowOps: rowOps{get: func(p place) ([]byte, error) { return line(p.fs.errs.of(subjectOf(p.where))), nil }}},
	}
}

// noRead is the content of a draft's diff.tar: what was written is in the
// stage already, and the layer's diff.tar will show it.
func noRead(context.Context, place) (blob, error) {
	return &readerBlob{r: strings.NewReader(""), after: nothing}, nil
}

func (p place) draft() (*draft, error) {
	if d := p.fs.draft(p.id); d != nil {
		return d, nil
	}
	return nil, unknown("there is no draft %q any more", clip(p.id))
}

func draftGet(key string) func(place) ([]byte, error) {
	return func(p place) ([]byte, error) {
		d, err := p.draft()
		if err != nil {
			return nil, err
		}
		return d.get(key), nil
	}
}

func draftPut(key string, check func(place, []byte) error) func(context.Context, place, []byte) error {
	return func(_ context.Context, p place, v []byte) error {
		d, err := p.draft()
		if err != nil {
			return err
		}
		if err := check(p, v); err != nil {
			return err
		}
		return d.put(key, v)
	}
}

// checkOf makes a check of a parser.
func checkOf[T any](parse func([]byte) (T, error)) func(place, []byte) error {
	return func(_ place, v []byte) error {
		_, err := parse(v)
		return err
	}
}

func checkRef(kind store.Kind) func(place, []byte) error {
	return func(p place, v []byte) error {
		_, err := p.reference(kind, v)
		return err
	}
}

func checkDraftID(_ place, v []byte) error {
	id, err := parseValue(v)
	if err != nil || id == "" {
		return err
	}
	if err := checkName(id); err != nil {
		return err
	}
	if strings.Contains(id, "/") || id == "." || id == ".." || len(id) > maxEntry {
		return errno.New(errno.ErrBadValue, "%q cannot be an ID: it must be a file name; 64 hexadecimal digits are usual", clip(id))
	}
	return nil
}

func listDraftItems(p place) []entry {
	d := p.fs.draft(p.id)
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	row := p.row.child("<key>")
	var list []entry
	for key := range d.items {
		if e := Encode(key); len(e) <= maxEntry {
			list = append(list, entry{e, where{row, p.id, key}})
		}
	}
	slices.SortFunc(list, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return list
}

func findDraftItem(_ context.Context, p place, name string) (entry, error) {
	key, err := Decode(name)
	if err != nil {
		return entry{}, unknown("%v", err)
	}
	e := entry{name, where{p.row.child("<key>"), p.id, key}}
	if !hasDraftItem(p.at(e.row, e.id, e.arg)) {
		return entry{}, unknown("the draft has no item %q", clip(name))
	}
	return e, nil
}

func hasDraftItem(p place) bool {
	if d := p.fs.draft(p.id); d != nil {
		d.mu.Lock()
		_, ok := d.items[p.arg]
		d.mu.Unlock()
		if ok {
			return true
		}
	}
	return len(p.fs.writersOf(p.where)) > 0
}

func createDraftItem(_ context.Context, p place, name string) (entry, error) {
	key, err := Decode(name)
	if err != nil {
		return entry{}, err
	}
	e := entry{name, where{p.row.child("<key>"), p.id, key}}
	return e, checkBigData(p.at(e.row, e.id, e.arg))
}

func draftItem(p place) ([]byte, error) {
	d, err := p.draft()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.items[p.arg], nil
}

func putDraftItem(_ context.Context, p place, v []byte) error {
	d, err := p.draft()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	total := int64(len(v))
	for key, have := range d.items {
		if key != p.arg {
			total += int64(len(have))
		}
	}
	_, replaces := d.items[p.arg]
	switch {
	case d.over:
		return unknown("the draft is gone: it was committed or removed")
	case !replaces && len(d.items) >= maxDraftItems:
		return errno.New(errno.ErrQuota, "a draft has at most %d data items: commit it and write the others into its bigdata/", maxDraftItems)
	case total > 4*p.fs.opts.BigDataLimit:
		return errno.New(errno.ErrTooLarge, "the data items of a draft have at most %d bytes together: commit it and write the others into its bigdata/", 4*p.fs.opts.BigDataLimit)
	}
	d.items[p.arg], d.changed = slices.Clone(v), true
	return nil
}

func unlinkDraftItem(_ context.Context, p place, name string) error {
	key, err := Decode(name)
	if err != nil {
		return err
	}
	d, err := p.draft()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.broken, where{p.row.child("<key>"), p.id, key})
	if _, ok := d.items[key]; !ok {
		return unknown("the draft has no item %q", clip(name))
	}
	delete(d.items, key)
	d.changed = true
	return nil
}

// draftTime is when the draft was made.
func (p place) draftTime() time.Time {
	if d := p.fs.draft(p.id); d != nil {
		return d.born
	}
	return p.fs.born
}
