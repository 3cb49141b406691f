package fsview

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
)

// The modes of rows.
const (
	modeRead  = 0o444
	modeWrite = 0o644
	modeOwn   = 0o400 // tells what tree/ may refuse others
	modeTake  = 0o600 // the same, and can be written
	modeDir   = 0o555 // entries are fixed
	modeMake  = 0o755 // mkdir, rmdir or the like work in it
	modeLink  = 0o777
)

// table returns the rows of the tree, parents before what is in them.
func table() []Row {
	var rows []Row
	for _, part := range [][]Row{
		rootRows(), eventRows(), configRows(), lockRows(), statRows(), storeRows(),
		layerRows(), imageRows(), containerRows(), transferRows(), draftRows(), betweenRows(),
	} {
		rows = append(rows, part...)
	}
	return rows
}

func rootRows() []Row {
	const none, forever = vnode.ValidNone, vnode.ValidForever
	return []Row{
		{Path: "/", Kind: Dir, Mode: modeDir, Valid: forever, Doc: "The root of the control filesystem."},
		{Path: "/README", Kind: Text, Mode: modeRead, Valid: forever, Doc: "How to use the tree, in a page.",
			rowOps: rowOps{get: func(place) ([]byte, error) { return []byte(readme), nil }}},
		{Path: "/version", Kind: Text, Mode: modeRead, Valid: forever, Doc: "The program's name and version.",
			rowOps: rowOps{get: func(p place) ([]byte, error) { return line("plyfs " + p.fs.opts.Version), nil }}},
		{Path: "/status", Kind: Text, Mode: modeRead, Valid: none, Doc: "`key value` lines: driver, generation of the store, how many layers, images, containers, drafts and mounts held, `removals` (of how many deleted objects the files are still being removed), and `read-only`; a `running` line for each verb of ctl that runs, a `damaged` line for each thing that is wrong in the store.",
			rowOps: rowOps{get: statusText, mtime: modifiedAny}},
		{Path: "/features", Kind: Text, Mode: modeRead, Valid: forever, Doc: "`key value` lines: what the driver found, when the store was opened, that it can do here, and what this tree shows.",
			rowOps: rowOps{get: featuresText}},
		{Path: "/progress", Kind: Text, Mode: modeRead, Valid: none, Doc: "The verbs of ctl that run, where they are, then the last that ended: verb, running, done, failed or interrupted, time, text; `finding` lines follow what a check found.",
			rowOps: rowOps{get: func(p place) ([]byte, error) { return p.fs.jobs.text(), nil }, mtime: func(p place) time.Time { return p.fs.orBorn(p.fs.jobs.modified()) }}},
		ctlRow("/ctl", "Verbs for the whole store", storeVerbs),
		{Path: "/error_log", Kind: Text, Mode: modeRead, Valid: none, Doc: "The last 256 failed changes: time, errno, path, what was tried, the sentence.",
			rowOps: rowOps{get: func(p place) ([]byte, error) { return p.fs.errs.text(), nil }, mtime: func(p place) time.Time {
				if t := p.fs.errs.changed(); !t.IsZero() {
					return t
				}
				return p.fs.born
			}}},
	}
}

func configRows() []Row {
	const forever = vnode.ValidForever
	text := func(path, doc string, get func(p place) []byte) Row {
		return Row{Path: path, Kind: Text, Mode: modeRead, Valid: forever, Doc: doc,
			rowOps: rowOps{get: func(p place) ([]byte, error) { return get(p), nil }}}
	}
	return []Row{
		{Path: "/config", Kind: Dir, Mode: modeDir, Valid: forever, Doc: "The settings the store was opened with."},
		text("/config/driver", "The driver's name.", func(p place) []byte { return line(p.fs.store.DriverName()) }),
		text("/config/graphroot", "The directory of the store.", func(p place) []byte { return line(p.fs.store.GraphRoot()) }),
		text("/config/runroot", "The directory of what does not outlive a reboot.", func(p place) []byte { return line(p.fs.store.RunRoot()) }),
		text("/config/options", "The storage options, one `key=value` a line.", func(p place) []byte { return lines(p.fs.opts.Config.Options) }),
		text("/config/storage.conf", "The effective settings in the form of storage.conf.", func(p place) []byte { return p.fs.opts.Config.StorageConf }),
	}
}

// kindRows returns the rows of a kind's directory, without its objects'.
func kindRows(kind store.Kind, mkdir mkdirFunc) []Row {
	const gen = vnode.ValidStore
	dir := "/" + kind.Plural()
	modified := func(p place) time.Time { return p.fs.orBorn(p.tx.Modified(kind)) }
	rows := []Row{
		{Path: dir, Kind: Objects, Mode: modeMake, Valid: gen, Doc: "All " + kind.Plural() + ", each once, under its oldest name or else its ID. mkdir makes one (a name of 64 hex digits is taken as the ID), mv renames, rmdir removes. A full ID or another name of one resolves to a symlink.",
			rowOps: rowOps{mtime: modified, list: listObjects(kind), dirs: func(p place) int { return len(p.index().kinds[kind].ids) }, find: findObject(kind), mkdir: mkdir, rmdir: rmdirObject(kind), rename: renameObject(kind)}},
		{Path: dir + "/<name>", Kind: Link, Mode: modeLink, Valid: gen, Listed: Never, Doc: "A symlink from a full ID or another name of a " + kind.String() + " to its entry.",
			rowOps: rowOps{mtime: modified, target: func(p place) (string, bool) { return p.index().entry(kind, p.id) }}},
		{Path: dir + "/by-id", Kind: Links, Mode: modeDir, Valid: gen, Doc: "A symlink for every ID; unique prefixes resolve too, unlisted.",
			rowOps: rowOps{mtime: modified, list: listByID(kind), find: findByID(kind)}},
		{Path: dir + "/by-id/<id>", Kind: Link, Mode: modeLink, Valid: gen, Doc: "The " + kind.String() + " of this ID.",
			rowOps: rowOps{mtime: modified, target: linkUp(2, kind)}},
		{Path: dir + "/by-name", Kind: Links, Mode: modeMake, Valid: gen, Doc: "A symlink for every name, nested at each `/`, or encoded in one component where that cannot be. `ln -s OBJECT NAME` adds a name, mv changes it, rm removes it; mkdir makes a folder for names, which goes with the mount if it stays empty.",
			rowOps: byNameOps(kind, modified)},
		{Path: dir + "/by-name/<folder>", Kind: Links, Mode: modeMake, Valid: gen, Doc: "The names that begin with this folder's path.",
			rowOps: byNameOps(kind, modified)},
		{Path: dir + "/by-name/<name>", Kind: Link, Mode: modeLink, Valid: gen, Doc: "The " + kind.String() + " of this name.",
			rowOps: rowOps{mtime: modified, target: targetByName(kind)}},
	}
	if kind == store.KindContainer {
		return rows
	}
	return append(rows,
		Row{Path: dir + "/by-digest", Kind: Links, Mode: modeDir, Valid: gen, Doc: "A symlink for every digest; a further " + kind.String() + " of the same digest is `<digest>.<id>`.",
			rowOps: rowOps{mtime: modified, list: listByDigest(kind), find: findByDigest(kind)}},
		Row{Path: dir + "/by-digest/<digest>", Kind: Link, Mode: modeLink, Valid: gen, Doc: "The first " + kind.String() + " of this digest.",
			rowOps: rowOps{mtime: modified, target: linkUp(2, kind)}},
	)
}

// objectRows returns the rows that all kinds share. dir is the pattern of the
// object's directory.
func objectRows(kind store.Kind, dir string) []Row {
	const gen, none, forever = vnode.ValidStore, vnode.ValidNone, vnode.ValidForever
	rows := []Row{
		{Path: dir + "/id", Kind: Text, Mode: modeRead, Valid: forever, Doc: "The ID.",
			rowOps: rowOps{born: true, get: func(p place) ([]byte, error) { return line(p.id), nil }}},
		{Path: dir + "/names", Kind: Text, Mode: modeWrite, Valid: gen, Doc: "The names, one a line, newest first; writing sets the list, appending adds. A name moves here from another " + kind.String() + ".",
			rowOps: rowOps{adopts: true, get: namesText, put: putNames(kind), add: addNames(kind)}},
		{Path: dir + "/metadata", Kind: Raw, Mode: modeWrite, Valid: gen, Doc: "Free text of whoever made the " + kind.String() + " (podman keeps JSON here); replaced by what is written.",
			rowOps: rowOps{get: metadataBytes, put: putMetadata(kind)}},
		{Path: dir + "/created", Kind: Text, Mode: modeRead, Valid: gen, Doc: "When it was made, in UTC (RFC 3339).",
			rowOps: rowOps{born: true, get: func(p place) ([]byte, error) { return line(p.created().UTC().Format(time.RFC3339Nano)), nil }}},
		{Path: dir + "/state", Kind: Text, Mode: modeRead, Valid: gen, Doc: "One word: ok, mounted, read-only (from an additional store) or damaged.",
			rowOps: rowOps{get: stateText}},
		{Path: dir + "/error", Kind: Text, Mode: modeRead, Valid: none, Doc: "The sentence of the last change that failed here, since the mount; what is damaged, if anything; else empty.",
			rowOps: rowOps{get: objectError}},
		{Path: dir + "/used-by", Kind: Links, Mode: modeDir, Valid: gen, Doc: "A symlink `<kind>:<entry>` for everything that needs this " + kind.String() + ".",
			rowOps: rowOps{mtime: modifiedAny, list: listUsers, find: findUser}},
		{Path: dir + "/usage", Kind: Text, Mode: modeRead, Valid: gen, Doc: "Bytes and inodes on disk, counted when it is opened: `own`, what nothing else needs (an image: the layers that would go with it), `shared`, what it needs of others, `reclaimable`, what rmdir would free now.",
			rowOps: rowOps{size: usageSize, blob: openUsage}},
		{Path: dir + "/bigdata", Kind: Dir, Mode: modeMake, Valid: gen, Doc: "Data items by key, keys encoded as names are. A new file is a new key.",
			rowOps: rowOps{list: listBigData, find: findBigData, create: createBigData}},
		{Path: dir + "/bigdata/<key>", Kind: Raw, Mode: itemMode(kind), Valid: gen, Doc: "The bytes of one item; replaced by what is written.",
			rowOps: rowOps{has: hasBigData, size: bigDataSize, blob: openBigData, put: putBigData(kind), check: checkBigData}},
	}
	rows = append(rows, ctlRow(dir+"/ctl", "Verbs", verbsOf(kind)))
	if kind == store.KindContainer {
		return rows // nothing needs a container
	}
	return append(rows, Row{Path: dir + "/used-by/<user>", Kind: Link, Mode: modeLink, Valid: gen, Doc: "Something that needs this " + kind.String() + ".",
		rowOps: rowOps{mtime: modifiedAny, target: targetUser}})
}

// itemMode keeps what programs note about layers (lists of all files) and
// containers to the owner; the items of images are what manifest and config show.
func itemMode(kind store.Kind) uint32 {
	if kind == store.KindImage {
		return modeWrite
	}
	return modeTake
}

func (f *FS) orBorn(t time.Time) time.Time {
	if t.IsZero() {
		return f.born
	}
	return t
}

func modifiedAny(p place) time.Time {
	var t time.Time
	for kind := store.KindLayer; kind <= store.KindContainer; kind++ {
		if m := p.tx.Modified(kind); m.After(t) {
			t = m
		}
	}
	return p.fs.orBorn(t)
}

func (p place) index() *index { return p.fs.indexOf(p.tx) }

// line returns s as a text file of one value.
func line(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s + "\n")
}

func lines(list []string) []byte {
	if len(list) == 0 {
		return nil
	}
	return []byte(strings.Join(list, "\n") + "\n")
}

func statusText(p place) ([]byte, error) {
	var b bytes.Buffer
	f := p.fs
	f.mu.Lock()
	drafts := len(f.drafts)
	f.mu.Unlock()
	held := f.countHeld(p.tx)
	fmt.Fprintf(&b, "driver %s\ngeneration %d\n", f.store.DriverName(), p.tx.Generation())
	for kind := store.KindLayer; kind <= store.KindContainer; kind++ {
		fmt.Fprintf(&b, "%s %d\n", kind.Plural(), p.tx.Len(kind))
	}
	for _, verb := range f.jobs.names() {
		fmt.Fprintf(&b, "running %s\n", verb)
	}
	fmt.Fprintf(&b, "drafts %d\nmounts-held %d\nremovals %d\nread-only %t\n", drafts, held, f.store.Removals(), f.writable() != nil)
	b.Write(f.damage.of(p.tx))
	return b.Bytes(), nil
}

// featuresText is what `containers-storage status` tells of the driver, and
// what this tree was made with.
func featuresText(p place) ([]byte, error) {
	var b bytes.Buffer
	if d := p.fs.store.Driver(); d != nil {
		for _, kv := range d.Status() {
			key := strings.ToLower(strings.Join(strings.Fields(kv[0]), "-"))
			fmt.Fprintf(&b, "driver-%s %s\n", key, oneLine(kv[1]))
		}
	}
	o := p.fs.opts
	fmt.Fprintf(&b, "trees %t\nread-only %t\nhides-trees %t\nshows-streams %t\nshows-dirs %t\nbigdata-limit %d\n",
		o.Trees != nil, o.ReadOnly, o.HideTrees, o.ShowStreams, o.ShowDirs, o.BigDataLimit)
	return b.Bytes(), nil
}

// damageCache keeps the lines about damage, since to find it every object is
// looked at.
type damageCache struct {
	mu   sync.Mutex // guards what follows; held while it is looked for
	gen  uint64
	when time.Time
	text []byte
}

// damageAge is for how long a look at every object is good.
const damageAge = 10 * time.Second

func (c *damageCache) of(tx *store.Tx) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gen == tx.Generation() && time.Since(c.when) < damageAge {
		return c.text
	}
	var b bytes.Buffer
	for kind := store.KindLayer; kind <= store.KindContainer; kind++ {
		for _, d := range tx.Damaged(kind) {
			fmt.Fprintf(&b, "damaged %s %s: %s\n", kind, Encode(d.ID), oneLine(d.Err.Error()))
		}
	}
	c.gen, c.when, c.text = tx.Generation(), time.Now(), b.Bytes()
	return c.text
}

func namesText(p place) ([]byte, error) {
	names, ok := p.names()
	if !ok {
		return nil, p.gone()
	}
	shown := make([]string, len(names))
	for i, n := range names {
		shown[i] = showName(n)
	}
	return lines(shown), nil
}

func putNames(kind store.Kind) func(context.Context, place, []byte) error {
	return func(ctx context.Context, p place, v []byte) error {
		names, err := p.parseNames(kind, v)
		if err != nil {
			return err
		}
		return p.fs.update(ctx, func(w *store.WriteTx) error { return w.SetNames(kind, p.id, names...) })
	}
}

func addNames(kind store.Kind) func(context.Context, place, []byte) error {
	return func(ctx context.Context, p place, v []byte) error {
		names, err := p.parseNames(kind, v)
		if err != nil || len(names) == 0 {
			return err
		}
		return p.fs.update(ctx, func(w *store.WriteTx) error { return w.AddNames(kind, p.id, names...) })
	}
}

func (p place) parseNames(kind store.Kind, v []byte) ([]string, error) {
	have, ok := p.names()
	if !ok {
		return nil, p.gone()
	}
	names, err := parseNames(v, have)
	if err != nil {
		return nil, err
	}
	fresh := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(have, n) })
	return names, checkNewNames(kind, fresh...)
}

func (p place) metadata() (string, bool) {
	switch p.row.obj {
	case objLayer:
		if l := p.tx.LayerByID(p.id); l != nil {
			return l.Metadata, true
		}
	case objImage:
		if i := p.tx.ImageByID(p.id); i != nil {
			return i.Metadata, true
		}
	case objContainer:
		if c := p.tx.ContainerByID(p.id); c != nil {
			return c.Metadata, true
		}
	}
	return "", false
}

func metadataBytes(p place) ([]byte, error) {
	md, ok := p.metadata()
	if !ok {
		return nil, p.gone()
	}
	return []byte(md), nil
}

func putMetadata(kind store.Kind) func(context.Context, place, []byte) error {
	return func(ctx context.Context, p place, v []byte) error {
		md, err := parseMetadata(v)
		if err != nil {
			return err
		}
		return p.fs.update(ctx, func(w *store.WriteTx) error { return w.SetMetadata(kind, p.id, md) })
	}
}

func stateText(p place) ([]byte, error) {
	kind, _ := p.row.obj.kind()
	state := "ok"
	switch {
	case p.tx.Damage(kind, p.id) != nil:
		state = "damaged"
	case p.mounted():
		state = "mounted"
	case p.readOnlyObject():
		state = "read-only"
	}
	return line(state), nil
}

// mounted tells whether anyone has the layer, or the container's, mounted.
func (p place) mounted() bool {
	id, ok := p.layerID()
	if !ok || p.row.obj == objImage {
		return false
	}
	m, ok := p.tx.Mountpoint(id)
	return ok && m.Count > 0
}

// layerID returns the ID of the layer that the object is, sits on or owns.
func (p place) layerID() (string, bool) {
	switch p.row.obj {
	case objLayer:
		return p.id, true
	case objImage:
		if i := p.tx.ImageByID(p.id); i != nil && i.TopLayer != "" {
			return i.TopLayer, true
		}
	case objContainer:
		if c := p.tx.ContainerByID(p.id); c != nil && c.Layer != "" {
			return c.Layer, true
		}
	}
	return "", false
}

func objectError(p place) ([]byte, error) {
	var list []string
	kind, _ := p.row.obj.kind()
	if err := p.tx.Damage(kind, p.id); err != nil {
		list = append(list, oneLine(err.Error()))
	}
	if text := p.fs.errs.of(subjectOf(p.where)); text != "" {
		list = append(list, text)
	}
	return lines(list), nil
}

// update is a change of the store's records.
func (f *FS) update(ctx context.Context, fn func(w *store.WriteTx) error) error {
	return f.store.Update(ctx, fn)
}

// known tells a look-up that found nothing.
func unknown(format string, args ...any) error { return errno.New(errno.ErrUnknown, format, args...) }
