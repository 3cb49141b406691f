package fsview

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/store"
)

const (
	// maxDrafts is how many drafts there can be at once.
	maxDrafts = 1024
	// maxDraftItems is how many data items a draft can have.
	maxDraftItems = 256
)

// draft is an object in the making: the files that were written into
// drafts/<draft>. The rename that commits it makes the object by one call of
// the store.
type draft struct {
	born time.Time

	mu      sync.Mutex         // guards what follows; held while the draft is committed
	values  map[string][]byte  // by the file's path in the draft, as it was written
	items   map[string][]byte  // big data by key
	staged  *store.StagedLayer // the layer that diff.tar was extracted to
	archive string             // where diff.tar is kept, with Options.KeepDrafts
	changed bool               // since it was loaded
	streams int                // of diff.tar that are open for writing
	over    bool               // committed or discarded
	broken  map[where]error    // files whose last write failed, and why
}

// draft returns the draft of this name, or nil.
func (f *FS) draft(name string) *draft {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.drafts[name]
}

func (d *draft) use(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.streams += n
}

func (d *draft) get(key string) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.values[key]
}

// staging are the files that cannot change any more once diff.tar was taken.
func staging(key string) bool {
	return contains([]string{"id", "parent", "readonly", "volatile", "size", "inodes"}, key) || strings.HasPrefix(key, "idmap/")
}

func (d *draft) put(key string, v []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.over:
		return unknown("the draft is gone: it was committed or removed")
	case d.staged != nil && staging(key):
		return errno.New(errno.ErrInUse, "%s cannot change any more, since the draft's diff.tar was taken with it: rmdir the draft and begin again, diff.tar last", key)
	}
	d.values[key], d.changed = slices.Clone(v), true
	return nil
}

// spoil keeps a draft from being committed while the last write to one of its
// files is one that failed; with a nil error it is let go. What came too late
// to change anything (ErrInUse) leaves the file as it was meant before.
func (f *FS) spoil(w where, err error) {
	if w.row.obj != objDraft || errors.Is(err, errno.ErrInUse) {
		return
	}
	d := f.draft(w.id)
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changed = true
	if err == nil {
		delete(d.broken, w)
		return
	}
	if d.broken == nil {
		d.broken = map[where]error{}
	}
	d.broken[w] = err
}

// discard drops the draft and what was extracted for it.
func (d *draft) discard() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	if d.staged == nil {
		return nil
	}
	st := d.staged
	d.staged = nil
	return st.Discard(context.Background())
}

func mkdirDraft(_ context.Context, p place, name string) (entry, error) {
	if err := checkName(name); err != nil {
		return entry{}, err
	}
	f := p.fs
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.drafts[name] != nil:
		return entry{}, errno.New(errno.ErrDuplicate, "there is a draft %q already", clip(name))
	case len(f.drafts) >= maxDrafts:
		return entry{}, errno.New(errno.ErrQuota, "there are %d drafts already: commit some (mv -T) or remove some (rmdir)", maxDrafts)
	}
	f.drafts[name] = &draft{born: time.Now(), changed: true, values: map[string][]byte{}, items: map[string][]byte{}}
	return entry{name, where{row: p.row.child("<draft>"), id: name}}, nil
}

func rmdirDraft(_ context.Context, p place, name string) error {
	f := p.fs
	if err := f.draftIdle(name); err != nil {
		return err
	}
	f.mu.Lock()
	d := f.drafts[name]
	delete(f.drafts, name)
	f.mu.Unlock()
	if d == nil {
		return unknown("there is no draft %q", clip(name))
	}
	f.errs.forget(subject{objDraft, name})
	return errors.Join(d.discard(), f.forgetKept(name))
}

// draftIdle refuses what cannot be done while a draft's file is being written.
func (f *FS) draftIdle(name string) error {
	d := f.draft(name)
	if d == nil {
		return unknown("there is no draft %q", clip(name))
	}
	d.mu.Lock()
	streams := d.streams
	d.mu.Unlock()
	if streams > 0 || f.writing(objDraft, name) {
		return errno.New(errno.ErrInUse, "a file of the draft %q is open for writing: close it first", clip(name))
	}
	return nil
}

func listDrafts(p place) []entry {
	p.fs.mu.Lock()
	names := slices.Sorted(maps.Keys(p.fs.drafts))
	p.fs.mu.Unlock()
	row := p.row.child("<draft>")
	list := make([]entry, len(names))
	for i, n := range names {
		list[i] = entry{n, where{row: row, id: n}}
	}
	return list
}

func findDraft(_ context.Context, p place, name string) (entry, error) {
	if p.fs.draft(name) == nil {
		return entry{}, unknown("there is no draft %q: mkdir makes one", clip(name))
	}
	return entry{name, where{row: p.row.child("<draft>"), id: name}}, nil
}

// renameDraft commits a draft: where it is moved to says what it becomes.
func renameDraft(ctx context.Context, p place, name string, to where, newEntry string) error {
	f := p.fs
	if err := f.draftIdle(name); err != nil {
		return err
	}
	kind, ok := f.kindOfDir(to)
	if !ok {
		return errRename(p, name)
	}
	if to.row.child(newEntry) != nil {
		return errno.New(errno.ErrDuplicate, "%q is a fixed entry of /%s", newEntry, kind.Plural())
	}
	d := f.draft(name)
	if d == nil {
		return unknown("there is no draft %q", clip(name))
	}
	q := p.at(p.row.child("<draft>"), name, "")
	if err := d.commit(ctx, q, kind, newEntry); err != nil {
		return err
	}
	f.mu.Lock()
	delete(f.drafts, name)
	f.mu.Unlock()
	f.errs.forget(subject{objDraft, name})
	return f.forgetKept(name)
}

// kindOfDir tells which kind's directory w is.
func (f *FS) kindOfDir(w where) (store.Kind, bool) {
	for kind := store.KindLayer; kind <= store.KindContainer; kind++ {
		if w.row == f.paths["/"+kind.Plural()] {
			return kind, true
		}
	}
	return 0, false
}

// draftSpec is a draft, read.
type draftSpec struct {
	id       string
	names    []string
	parent   string
	image    string
	layer    string
	metadata string
	label    string
	digest   digest.Digest
	created  time.Time
	volatile bool
	readOnly bool
	limits   drivers.Limits
	maps     idmap.Maps
}

// layerSpec is the layer that the draft describes, but for what can change
// after its content was taken: names and data items.
func (s *draftSpec) layerSpec() store.LayerSpec {
	return store.LayerSpec{ID: s.id, Parent: s.parent, Metadata: s.metadata, Label: s.label,
		Maps: s.maps, Volatile: s.volatile, Limits: s.limits, ReadOnly: s.readOnly, Seal: s.readOnly}
}

// commit makes the object. The draft is over only when that worked.
func (d *draft) commit(ctx context.Context, p place, kind store.Kind, newEntry string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return unknown("the draft is gone: it was committed or removed")
	}
	for w, err := range d.broken {
		return errno.New(errno.ErrBadValue, "the draft's %s is not as it was meant, since writing it failed (%s): write it again, or rmdir the draft", w.row.name, err)
	}
	if err := d.checkFilesLocked(kind); err != nil {
		return err
	}
	spec, err := d.specLocked(p, newEntry)
	if err != nil {
		return err
	}
	switch kind {
	case store.KindLayer:
		err = d.commitLayerLocked(ctx, p, spec)
	case store.KindImage:
		_, err = p.makeImage(ctx, store.ImageSpec{ID: spec.id, Layer: spec.layer, Names: spec.names, Metadata: spec.metadata,
			Digest: spec.digest, Created: spec.created, BigData: d.bigDataLocked()})
	case store.KindContainer:
		_, err = p.fs.store.CreateContainer(ctx, store.ContainerSpec{ID: spec.id, Image: spec.image, Names: spec.names,
			Metadata: spec.metadata, Maps: spec.maps, MountLabel: spec.label, Volatile: spec.volatile, Limits: spec.limits, BigData: d.bigDataLocked()})
	}
	d.over = err == nil
	return err
}

func (d *draft) bigDataLocked() []store.BigDataItem {
	var list []store.BigDataItem
	for _, key := range slices.Sorted(maps.Keys(d.items)) {
		list = append(list, store.BigDataItem{Key: key, Data: d.items[key]})
	}
	return list
}

func (d *draft) commitLayerLocked(ctx context.Context, p place, spec draftSpec) error {
	if d.staged == nil {
		ls := spec.layerSpec()
		ls.Names, ls.BigData = spec.names, d.bigDataLocked()
		if d.archive != "" {
			_, err := d.stageArchive(ctx, p.fs.store, ls)
			return err
		}
		_, err := p.fs.store.CreateLayer(ctx, ls)
		return err
	}
	if spec.id != "" && spec.id != d.staged.ID() {
		return errno.New(errno.ErrBadValue, "the draft's diff.tar was taken for the ID %s: move the draft to a name, not to another ID", short(d.staged.ID()))
	}
	d.staged.Describe(spec.names, spec.metadata, spec.label, d.bigDataLocked())
	st := d.staged
	d.staged = nil // a failed commit drops the stage
	if _, err := st.Commit(ctx); err != nil {
		return errors.Join(err, errno.New(errno.ErrBadValue, "the draft's diff.tar is dropped: write it again"))
	}
	return nil
}

// checkFilesLocked refuses files that mean nothing for the kind that the draft
// is to become: they would be lost.
func (d *draft) checkFilesLocked(kind store.Kind) error {
	for _, key := range slices.Sorted(maps.Keys(d.values)) {
		if len(d.values[key]) > 0 && !contains(draftFiles(kind), key) {
			return errno.New(errno.ErrBadValue, "the draft's %s means nothing for a %s: empty it, or move the draft elsewhere", key, kind)
		}
	}
	if kind != store.KindLayer && (d.staged != nil || d.archive != "") {
		return errno.New(errno.ErrBadValue, "the draft has a diff.tar, which only a layer can have: move it into /layers and build on that")
	}
	return nil
}

// draftFiles are the files of a draft that a kind takes.
func draftFiles(kind store.Kind) []string {
	common := []string{"id", "names", "metadata"}
	switch kind {
	case store.KindLayer:
		return append(common, "parent", "label", "volatile", "readonly", "size", "inodes", "idmap/uid", "idmap/gid")
	case store.KindImage:
		return append(common, "layer", "digest", "created")
	}
	return append(common, "image", "label", "volatile", "size", "inodes", "idmap/uid", "idmap/gid")
}

// specLocked reads the draft's files; each was checked when it was written,
// and what it refers to is looked up again.
func (d *draft) specLocked(p place, newEntry string) (draftSpec, error) {
	var s draftSpec
	var errs [15]error
	s.id, errs[0] = parseValue(d.values["id"])
	s.names, errs[1] = parseNames(d.values["names"], nil)
	s.parent, errs[2] = p.reference(store.KindLayer, d.values["parent"])
	s.layer, errs[3] = p.reference(store.KindLayer, d.values["layer"])
	s.image, errs[4] = p.reference(store.KindImage, d.values["image"])
	s.metadata, errs[5] = parseMetadata(d.values["metadata"])
	s.label, errs[6] = parseValue(d.values["label"])
	s.digest, errs[7] = parseDigest(d.values["digest"])
	s.created, errs[8] = parseTime(d.values["created"])
	s.volatile, errs[9] = parseBool(d.values["volatile"])
	s.maps.UIDs, errs[10] = parseIDMap(d.values["idmap/uid"])
	s.maps.GIDs, errs[11] = parseIDMap(d.values["idmap/gid"])
	s.readOnly, errs[12] = parseBool(d.values["readonly"])
	s.limits.Bytes, errs[13] = parseLimit(d.values["size"])
	s.limits.Inodes, errs[14] = parseCount(d.values["inodes"])
	for _, err := range errs {
		if err != nil {
			return s, err
		}
	}
	w, err := want(newEntry)
	if err != nil {
		return s, err
	}
	if w.id != "" {
		if s.id != "" && s.id != w.id {
			return s, errno.New(errno.ErrBadValue, "the draft's id is %s, but it is moved to the ID %s: make them the same, or move it to a name", short(s.id), short(w.id))
		}
		s.id = w.id
	}
	for _, n := range w.names {
		s.names = append(slices.DeleteFunc(s.names, func(x string) bool { return x == n }), n)
	}
	return s, nil
}

// reference resolves what a draft's file says about another object: an ID, a
// name, a unique prefix of an ID, or the path of its entry.
func (p place) reference(kind store.Kind, v []byte) (string, error) {
	ref, err := parseValue(v)
	if err != nil || ref == "" {
		return "", err
	}
	id, err := p.tx.Resolve(kind, ref)
	if err == nil {
		return id, nil
	}
	if strings.HasPrefix(ref, "/") || strings.HasPrefix(ref, ".") || !strings.Contains(ref, "/") {
		if id, terr := p.targetOf(kind, ref); terr == nil {
			return id, nil
		}
	}
	return "", err
}

// openDraftSink stages the layer that a draft's diff.tar is extracted to.
func openDraftSink(ctx context.Context, p place) (sink, error) {
	d := p.fs.draft(p.id)
	if d == nil {
		return nil, unknown("there is no draft %q", clip(p.id))
	}
	d.mu.Lock()
	spec, err := d.specLocked(p, "draft")
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	staged, err := p.fs.store.StageLayer(ctx, spec.layerSpec())
	if err != nil {
		return nil, err
	}
	push, err := staged.Push(context.WithoutCancel(ctx))
	if err != nil {
		return nil, errors.Join(err, staged.Discard(ctx))
	}
	in := &stagedSink{push, staged, func(ctx context.Context) error { return d.keep(ctx, staged) }}
	if !p.fs.opts.KeepDrafts {
		return in, nil
	}
	kept, err := p.fs.newKeptSink(in, p.id, d)
	if err != nil {
		return nil, errors.Join(err, staged.Discard(ctx))
	}
	return kept, nil
}

// keep makes staged the layer that the draft will be, in place of an earlier.
func (d *draft) keep(ctx context.Context, staged *store.StagedLayer) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return errors.Join(unknown("the draft is gone"), staged.Discard(ctx))
	}
	old := d.staged
	d.staged = staged
	if old != nil {
		return old.Discard(ctx)
	}
	return nil
}

func parseDigest(v []byte) (digest.Digest, error) {
	s, err := parseValue(v)
	if err != nil || s == "" {
		return "", err
	}
	d := digest.Digest(s)
	if err := d.Validate(); err != nil {
		return "", errno.New(errno.ErrBadValue, "%q is no digest: write it as sha256: and 64 hexadecimal digits", clip(s))
	}
	return d, nil
}

func parseTime(v []byte) (time.Time, error) {
	s, err := parseValue(v)
	if err != nil || s == "" {
		return time.Time{}, err
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return t, errno.New(errno.ErrBadValue, "%q is no time: write it as 2006-01-02T15:04:05Z", clip(s))
	}
	return t.UTC(), nil
}
