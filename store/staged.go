package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/internal/unix"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/layertar"
)

// StagedLayer is a layer in the making that nobody else sees: a new one
// (StageLayer) or a copy of one that is there (StageDiff). It ends with Commit
// or Discard; both may be called again, and do nothing then. Import, Push,
// Commit and Discard may be called from different goroutines.
type StagedLayer struct {
	s       *Store
	spec    LayerSpec // its ID is set
	private drivers.Private
	base    *baseState // of a StageDiff; nil for a new layer

	mu    sync.Mutex // guards what follows; held during Import and Commit
	entry *stageEntry
	split *os.File // tar-split.gz of the stream, open until the import ends
	toc   *os.File // its table of contents, likewise
	push  *layertar.Push
	// pushDir is the directory that push extracts to.
	pushDir *os.File
	// filled is set once a stream was begun, failed once one broke.
	filled bool
	failed error
	result *layertar.Result
	// content is what the record says in place of result, tocDigest what
	// beside it.
	content   *layerContent
	tocDigest digest.Digest
	// taken is set when content of another layer was extracted.
	taken bool
	over  bool
}

const splitFile = "tar-split.gz"

// StageLayer makes a private layer in the extract area; no lock is held. The
// ID, the names and the parent are looked at now, and again by Commit.
func (s *Store) StageLayer(ctx context.Context, spec LayerSpec) (*StagedLayer, error) {
	spec, err := s.checkLayerSpec(ctx, s.withDefaults(spec))
	if err != nil {
		return nil, err
	}
	return s.stageMapped(ctx, spec)
}

// stage makes the entry and has the driver make the layer.
func (s *Store) stage(ctx context.Context, spec LayerSpec, base *baseState) (*StagedLayer, error) {
	root := s.rootOf(spec)
	if base != nil {
		root = s.layerRoot(spec.ID)
	}
	entry, err := s.newEntryIn(root)
	if err != nil {
		return nil, err
	}
	s.fail("create:1")
	st := &StagedLayer{s: s, spec: spec, base: base, entry: entry}
	want := drivers.LayerSpec{
		ID: spec.ID, Parent: spec.Parent, Maps: spec.Maps, Twin: spec.twin,
		Limits: spec.Limits, Writable: spec.writable,
	}
	want.RootUID, want.RootGID = rootOwner(spec.Maps)
	if spec.Maps.Empty() {
		want.RootUID, want.RootGID = rootOwner(spec.owner)
	}
	if base != nil {
		want.From = spec.ID
	}
	st.private, err = s.driver.Create(ctx, entry.stage(), want)
	if err != nil {
		s.discard(ctx, entry)
		return nil, fmt.Errorf("make layer %s: %w", spec.ID, err)
	}
	s.fail("create:2")
	return st, nil
}

// rootOwner is the host owner of a new layer's root: what container ID 0 is
// mapped to, or else whoever we are.
func rootOwner(m idmap.Maps) (uid, gid int) {
	uid, gid = os.Geteuid(), os.Getegid()
	for _, r := range m.UIDs {
		if r.ContainerID == 0 && r.Size > 0 {
			uid = r.HostID
		}
	}
	for _, r := range m.GIDs {
		if r.ContainerID == 0 && r.Size > 0 {
			gid = r.HostID
		}
	}
	return uid, gid
}

// checkLayerSpec fills in the ID and refuses early what Commit would refuse.
func (s *Store) checkLayerSpec(ctx context.Context, spec LayerSpec) (LayerSpec, error) {
	if err := s.writable(); err != nil {
		return spec, err
	}
	if err := checkMaps(spec.Maps); err != nil {
		return spec, err
	}
	err := s.View(ctx, func(t *Tx) error {
		var err error
		if spec.ID, err = t.freeID(KindLayer, spec.ID); err != nil {
			return err
		}
		if err := t.freeNames(KindLayer, spec.Names); err != nil {
			return err
		}
		return t.checkParent(spec.Parent)
	})
	return spec, err
}

// writable refuses changes that need a driver or a writable store.
func (s *Store) writable() error {
	if s.opts.ReadOnly {
		return errno.New(errno.ErrReadOnly, "%s: the store is opened read-only", s.opts.GraphRoot)
	}
	if s.driver == nil {
		return errno.New(errno.ErrNotSupported, "%s: the store is open without a driver, so its layers cannot be touched", s.opts.GraphRoot)
	}
	return nil
}

// freeID returns id if no object of that kind has it, or a random one for "".
func (t *Tx) freeID(k Kind, id string) (string, error) {
	if id == "" {
		return newID()
	}
	if err := checkNewID(k, id); err != nil {
		return "", err
	}
	if _, taken := t.Names(k, id); taken {
		return "", errno.New(errno.ErrDuplicate, "%s %s exists already; choose another ID", k, id)
	}
	return id, nil
}

// freeNames refuses names that are unfit or taken.
func (t *Tx) freeNames(k Kind, names []string) error {
	if _, err := checkNames(names); err != nil {
		return err
	}
	for _, n := range names {
		if id, taken := t.ByName(k, n); taken {
			return errno.New(errno.ErrDuplicate, "the name %q belongs to %s %s already; choose another", n, k, id)
		}
	}
	return nil
}

// checkParent refuses parents that are gone or, as the peers do, a container's:
// its content changes.
func (t *Tx) checkParent(id string) error {
	if id == "" {
		return nil
	}
	if t.LayerByID(id) == nil {
		return errno.New(errno.ErrUnknown, "parent layer %s is not known; it may have been deleted", id)
	}
	if c := t.ContainersOnLayer(id); len(c) > 0 {
		return errno.New(errno.ErrInUse, "layer %s is that of container %s and cannot be a parent, since its content changes", id, c[0].ID)
	}
	return nil
}

// ID is the layer's ID.
func (st *StagedLayer) ID() string { return st.spec.ID }

// Dir is the directory of the layer's own content; it is the caller's to fill
// until Commit or Discard.
func (st *StagedLayer) Dir() string { return st.private.Dir }

// Import extracts the stream r into the layer. A staged layer takes one
// stream, by Import or by Push. After an error only Discard makes sense.
func (st *StagedLayer) Import(ctx context.Context, r io.Reader) (layertar.Result, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	dir, err := st.begin()
	if err != nil {
		return layertar.Result{}, err
	}
	res, err := layertar.Import(ctx, dir, r, st.split, st.streamOptions())
	err = errors.Join(err, dir.Close())
	err = st.imported(ctx, &res, err)
	return res, err
}

// Push is Import fed by writes. The caller writes to what it returns, and may
// ask for Boundary; Commit ends the stream, Discard aborts it.
func (st *StagedLayer) Push(ctx context.Context) (*layertar.Push, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	dir, err := st.begin()
	if err != nil {
		return nil, err
	}
	st.push = layertar.NewPush(ctx, dir, st.split, st.streamOptions())
	st.pushDir = dir
	return st.push, nil
}

func (st *StagedLayer) applyOptions() layertar.ApplyOptions {
	return layertar.ApplyOptions{
		Style: st.private.Style, Maps: st.spec.Maps,
		IgnoreChownErrors: st.private.IgnoreChownErrors,
		OverrideStat:      st.s.singleID(),
		SyncFiles:         st.s.opts.Sync == SyncFile && !st.spec.Volatile,
	}
}

// streamOptions are applyOptions for the one stream whose table of contents
// may be kept. The caller holds mu.
func (st *StagedLayer) streamOptions() layertar.ApplyOptions {
	o := st.applyOptions()
	o.TOC = st.toc
	return o
}

// SingleID tells whether we can give files no owner but ourselves: an ordinary
// user, or root of a user namespace that maps one ID.
func SingleID() bool {
	if os.Geteuid() != 0 {
		return true
	}
	text, err := os.ReadFile("/proc/self/uid_map")
	f := strings.Fields(string(text))
	return err == nil && len(f) == 3 && f[2] == "1"
}

// begin opens what a stream is extracted to. The caller holds mu.
func (st *StagedLayer) begin() (*os.File, error) {
	switch {
	case st.over:
		return nil, errno.New(errno.ErrBadValue, "layer %s is committed or discarded and takes no more content", st.spec.ID)
	case st.filled:
		return nil, errno.New(errno.ErrInUse, "layer %s has a stream already; commit it and begin another", st.spec.ID)
	case st.private.HasForceMask:
		return nil, errno.New(errno.ErrNotSupported, "layer %s: archives cannot be extracted with the driver option force_mask; leave it out", st.spec.ID)
	}
	dir, err := os.OpenFile(st.private.Dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open the new layer: %w", err)
	}
	st.split, err = os.OpenFile(st.entry.own(splitFile), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the tar-split record: %w", err), dir.Close())
	}
	st.toc, err = os.OpenFile(st.entry.own(tocFile), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the table of contents: %w", err), dir.Close(), st.split.Close())
	}
	st.filled = true
	return dir, nil
}

// imported ends a stream: the caller holds mu.
func (st *StagedLayer) imported(ctx context.Context, res *layertar.Result, err error) error {
	serr := st.split.Sync()
	if err == nil && res.TOCDigest != "" {
		serr = errors.Join(serr, st.toc.Sync())
	}
	err = errors.Join(err, serr, st.split.Close(), st.toc.Close())
	st.split, st.toc = nil, nil
	if err == nil {
		err = st.keepTOC(ctx, res)
	}
	if err != nil {
		st.failed = fmt.Errorf("layer %s: %w", st.spec.ID, err)
		return st.failed
	}
	st.result = res
	st.s.fail("create:3")
	return nil
}

// finish ends a Push, if there is one, and tells whether the layer is fit to
// be committed. The caller holds mu.
func (st *StagedLayer) finish(ctx context.Context) error {
	if st.push != nil {
		res, err := st.push.Finish()
		st.push = nil
		err = errors.Join(err, st.pushDir.Close())
		if err = st.imported(ctx, &res, err); err != nil {
			return err
		}
	}
	return st.failed
}

// Discard drops the layer and all that was extracted. When ctx ends, the
// removal goes on in the background.
func (st *StagedLayer) Discard(ctx context.Context) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.over {
		return nil
	}
	st.over = true
	var err error
	if st.push != nil {
		st.push.Abort()
		st.push = nil
		err = errors.Join(st.pushDir.Close(), st.split.Close(), st.toc.Close())
	}
	st.s.discard(ctx, st.entry)
	return err
}

// Commit publishes the layer (see the package comment for the steps) and
// returns its record. After an error the stage is gone and nothing else has
// changed.
func (st *StagedLayer) Commit(ctx context.Context) (*Layer, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.over {
		return nil, errno.New(errno.ErrBadValue, "layer %s is committed or discarded already", st.spec.ID)
	}
	st.over = true
	err := st.finish(ctx)
	var rec *Layer
	if err == nil {
		err = st.syncContent()
	}
	if err == nil && st.filled && st.s.opts.Dedup {
		err = st.s.dedupStaged(ctx, st.private.Dir)
	}
	if err == nil && st.base == nil {
		_, _, _, err = st.entry.stageData(st.spec.BigData)
	}
	if err == nil {
		if st.base != nil {
			rec, err = st.swap(ctx)
		} else {
			rec, err = st.publish(ctx)
		}
	}
	if err == nil {
		st.s.fail("create:8")
	}
	st.s.discard(ctx, st.entry)
	return rec, err
}

// syncContent makes what was extracted durable, so that a record never stands
// for content that a power loss took.
func (st *StagedLayer) syncContent() error {
	if !st.filled && !st.taken || st.spec.Volatile || st.s.opts.Sync == SyncNone {
		return nil
	}
	if st.s.opts.Sync == SyncFile && !st.taken {
		return nil // the import did
	}
	d, err := os.Open(st.private.Dir)
	if err != nil {
		return fmt.Errorf("sync the new layer: %w", err)
	}
	if err = unix.Syncfs(int(d.Fd())); err != nil {
		err = fmt.Errorf("sync the new layer: %w", err)
	}
	return errors.Join(err, d.Close())
}

// publish is Commit for a new layer.
func (st *StagedLayer) publish(ctx context.Context) (rec *Layer, err error) {
	err = st.s.Update(ctx, func(w *WriteTx) error {
		if err := w.publishLayer(st.entry, st.record(), st.hasSplit()); err != nil {
			return err
		}
		rec = w.LayerByID(st.spec.ID)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return rec, nil
}

// record is the new layer's.
func (st *StagedLayer) record() *Layer {
	rec := &Layer{
		ID: st.spec.ID, Names: st.spec.Names, Parent: st.spec.Parent,
		Metadata: st.spec.Metadata, MountLabel: st.spec.Label,
		Maps: st.spec.Maps, Volatile: st.spec.Volatile, Created: time.Now().UTC(),
	}
	if st.entry.root != st.s.opts.GraphRoot {
		rec.file = fileImages
	}
	if st.spec.Seal {
		rec.Flags = map[string]any{flagSealed: true}
	}
	for _, item := range st.spec.BigData {
		rec.BigDataNames = append(rec.BigDataNames, item.Key)
	}
	if st.result != nil {
		contentOfResult(*st.result).set(rec)
		if rec.TOCDigest != "" {
			rec.BigDataNames = tocNames(rec.BigDataNames, true)
		} else {
			rec.TOCDigest = st.tocDigest
		}
	}
	if st.content != nil {
		st.content.set(rec)
	}
	return rec
}

// hasSplit tells whether a tar-split record describes the content.
func (st *StagedLayer) hasSplit() bool { return st.result != nil }
