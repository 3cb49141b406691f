package store

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/lockfile"

	"github.com/plyfs/plyfs/internal/unix"
)

// swapTries bounds how often Commit compares a layer again that others mount
// and unmount meanwhile.
const swapTries = 5

// baseState is a layer as it was when StageDiff or Seal began.
type baseState struct {
	rec   *Layer
	dir   string         // its own directory
	empty bool           // it had no content of its own
	token lockfile.Token // of mountpoints.lock, before print was taken
	print uint64         // fingerprint of dir
	check func(*Tx, *Layer) error
}

// StageDiff makes a private copy of a layer's own content, for a stream to be
// added to it; Commit then puts it in the layer's place. ErrInUse when the
// layer is mounted, a parent, or used by an image or a container.
func (s *Store) StageDiff(ctx context.Context, ref string) (*StagedLayer, error) {
	return s.stageDiff(ctx, ref, (*Tx).checkSwappable)
}

// StageSharedDiff is StageDiff for a layer that others may stand on already, as
// scripts do that make a chain of layers first and fill them then: what is
// added shows in layers above, images and containers, except where a driver has
// copied the layer before. ErrInUse when the layer or one above it is mounted.
func (s *Store) StageSharedDiff(ctx context.Context, ref string) (*StagedLayer, error) {
	return s.stageDiff(ctx, ref, (*Tx).checkFillable)
}

func (s *Store) stageDiff(ctx context.Context, ref string, check func(*Tx, *Layer) error) (*StagedLayer, error) {
	if err := s.writable(); err != nil {
		return nil, err
	}
	base, err := s.observe(ctx, ref, check)
	if err != nil {
		return nil, err
	}
	if base.empty, err = s.hasNoContent(ctx, base.rec); err != nil {
		return nil, err
	}
	spec := LayerSpec{ID: base.rec.ID, Parent: base.rec.Parent, Maps: base.rec.Maps, Volatile: base.rec.Volatile}
	return s.stage(ctx, spec, base)
}

// observe takes down what a layer that check accepts is like.
func (s *Store) observe(ctx context.Context, ref string, check func(*Tx, *Layer) error) (*baseState, error) {
	token, err := s.mountsLock.Token()
	if err != nil {
		return nil, err
	}
	base := &baseState{token: token, check: check}
	err = s.View(ctx, func(t *Tx) error {
		if base.rec, err = t.Layer(ref); err != nil {
			return err
		}
		return check(t, base.rec)
	})
	if err != nil {
		return nil, err
	}
	dirs, err := s.driver.Dirs(base.rec.ID)
	if err != nil {
		return nil, err
	}
	if len(dirs) == 0 {
		return nil, errno.New(errno.ErrDamaged, "layer %s has no directory", base.rec.ID)
	}
	base.dir = dirs[0]
	if base.print, err = fingerprint(ctx, base.dir); err != nil {
		return nil, fmt.Errorf("look at layer %s: %w", base.rec.ID, err)
	}
	return base, nil
}

// checkSwappable is checkUnused, with an errno that says "busy" throughout.
func (t *Tx) checkSwappable(l *Layer) error {
	err := t.checkUnused(l)
	if errors.Is(err, errno.ErrHasChildren) {
		return errno.New(errno.ErrInUse, "layer %s is the parent of %s, so its content cannot change; make a child layer instead", l.ID, t.Children(l.ID)[0].ID)
	}
	return err
}

// checkFillable refuses a layer that is mounted, or that one above it is.
// Damaged records may go round in a circle; each layer is looked at once.
func (t *Tx) checkFillable(l *Layer) error {
	if l.ReadOnly {
		return errno.New(errno.ErrReadOnly, "layer %s belongs to a read-only store", l.ID)
	}
	if l.Sealed() {
		return errno.New(errno.ErrReadOnly, "layer %s was made read-only; make a child layer and write there", l.ID)
	}
	seen := map[string]bool{}
	for todo := []*Layer{l}; len(todo) > 0; {
		one := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[one.ID] {
			continue
		}
		seen[one.ID] = true
		if err := t.checkUnmounted(one.ID); err != nil {
			return err
		}
		todo = append(todo, t.Children(one.ID)...)
	}
	return nil
}

// errChanged ends a walk over changes at the first.
var errChanged = errors.New("there is a change")

// hasNoContent tells whether a layer adds nothing to its parent.
func (s *Store) hasNoContent(ctx context.Context, l *Layer) (bool, error) {
	if l.DiffDigest != "" {
		return false, nil
	}
	src, err := drivers.DiffSource(s.driver, l.ID, l.Parent)
	if err != nil {
		return false, err
	}
	err = layertar.Changes(ctx, src, func(layertar.Change) error { return errChanged })
	if errors.Is(err, errChanged) {
		return false, nil
	}
	return err == nil, err
}

// swap is Commit for a StageDiff.
func (st *StagedLayer) swap(ctx context.Context) (rec *Layer, err error) {
	base := st.base
	if st.result == nil || st.result.CompressedSize == 0 && !base.empty {
		return base.rec, nil // nothing came, so nothing changes
	}
	j, err := st.swapJournal()
	if err != nil {
		return nil, err
	}
	if err := st.entry.writeJournal(j); err != nil {
		return nil, err
	}
	st.s.fail("swap:3")
	return st.s.whenUnchanged(ctx, base, base.check, func(w *WriteTx) error {
		return w.exchange(st.entry, j)
	})
}

// whenUnchanged runs fn in an Update in which the layer is as it was observed,
// and returns its record after it.
func (s *Store) whenUnchanged(ctx context.Context, base *baseState, check func(*Tx, *Layer) error, fn func(*WriteTx) error) (rec *Layer, err error) {
	id := base.rec.ID
	for range swapTries {
		again := false
		err = s.Update(ctx, func(w *WriteTx) error {
			if again, err = w.mountedSince(base, check); again || err != nil {
				return err
			}
			if err := fn(w); err != nil {
				return err
			}
			rec = w.LayerByID(id)
			return nil
		})
		if err != nil {
			return nil, err
		}
		if !again {
			return rec, nil
		}
		if err := s.compare(ctx, base); err != nil {
			return nil, err
		}
	}
	return nil, errno.New(errno.ErrInUse, "layer %s is mounted again and again by others; try again later", id)
}

// swapJournal says what the exchange will have done.
func (st *StagedLayer) swapJournal() (journal, error) {
	dev, ino, err := identity(st.private.Dir)
	if err != nil {
		return journal{}, fmt.Errorf("look at the new content: %w", err)
	}
	j := journal{
		Op: journalExchange, Kind: journalKind(KindLayer), ID: st.spec.ID, Dev: dev, Ino: ino,
		Old: contentOf(st.base.rec), New: &layerContent{},
	}
	if st.base.empty {
		j.New = contentOfResult(*st.result)
		j.Split = st.hasSplit()
	}
	return j, nil
}

// mountedSince checks, under the locks, that the layer is as it was observed;
// again tells that it may have been mounted since and must be compared.
func (w *WriteTx) mountedSince(base *baseState, check func(*Tx, *Layer) error) (again bool, err error) {
	l := w.LayerByID(base.rec.ID)
	if l == nil {
		return false, errno.New(errno.ErrUnknown, "layer %s was deleted meanwhile", base.rec.ID)
	}
	if err := check(w.Tx, l); err != nil {
		return false, err
	}
	if !contentOf(l).same(contentOf(base.rec)) || l.Parent != base.rec.Parent || !l.Created.Equal(base.rec.Created) {
		return false, errno.New(errno.ErrInUse, "layer %s was changed by others meanwhile; try again", l.ID)
	}
	token, err := w.s.mountsLock.Token()
	return err == nil && token != base.token, err
}

// compare looks, with no lock, whether the layer's files are as they were.
func (s *Store) compare(ctx context.Context, base *baseState) error {
	token, err := s.mountsLock.Token()
	if err != nil {
		return err
	}
	print, err := fingerprint(ctx, base.dir)
	if err != nil {
		return fmt.Errorf("look at layer %s again: %w", base.rec.ID, err)
	}
	if print != base.print {
		return errno.New(errno.ErrInUse, "layer %s was written to by others meanwhile; try again", base.rec.ID)
	}
	base.token = token
	return nil
}

// exchange is swap:4 to swap:6.
func (w *WriteTx) exchange(entry *stageEntry, j journal) error {
	if err := w.s.driver.Exchange(entry.stage(), j.ID); err != nil {
		return fmt.Errorf("exchange the content of layer %s: %w", j.ID, err)
	}
	w.s.fail("swap:4")
	err := w.exchanged(entry, &j)
	if err != nil {
		// The journal is kept: the next sweep completes what is half done.
		entry.keep = true
	}
	return err
}

// exchanged is swap:5 and swap:6: the published directory is the new one.
func (w *WriteTx) exchanged(entry *stageEntry, j *journal) error {
	if err := w.exchangeSplit(entry, j); err != nil {
		return fmt.Errorf("put the tar-split record of layer %s in place: %w", j.ID, err)
	}
	if j.Op == journalExchange {
		if err := w.exchangeTOC(entry, j); err != nil {
			return fmt.Errorf("put the table of contents of layer %s in place: %w", j.ID, err)
		}
	}
	w.s.fail("swap:5")
	err := w.editLayer(j.ID, func(l *Layer) error {
		j.New.set(l)
		if j.Op == journalExchange {
			l.BigDataNames = tocNames(l.BigDataNames, l.TOCDigest != "")
		}
		return nil
	})
	if err == nil {
		err = w.save(KindLayer)
	}
	if err != nil {
		return fmt.Errorf("record the content of layer %s: %w", j.ID, err)
	}
	w.s.fail("swap:6")
	return nil
}

func (w *WriteTx) exchangeSplit(entry *stageEntry, j *journal) error {
	if !j.Split {
		return entry.trash(w.s.splitPath(j.ID))
	}
	err := os.Rename(entry.own(splitFile), w.s.splitPath(j.ID))
	if errors.Is(err, os.ErrNotExist) { // settled before
		return nil
	}
	return err
}

// fingerprint digests the names, identities, sizes and change times of what is
// below dir: any write to a file, and any change of a directory, alters it. Of
// dir itself only the mtime counts, since mounting sets attributes on it.
func fingerprint(ctx context.Context, dir string) (uint64, error) {
	h := fnv.New64a()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		return hashEntry(h, path, fi, path == dir)
	})
	return h.Sum64(), err
}

func hashEntry(h hash.Hash64, path string, fi fs.FileInfo, root bool) error {
	st, ok := unix.StatOf(fi)
	if !ok {
		return fmt.Errorf("stat %s: no inode number", path)
	}
	at := st.Ctime
	if root {
		at = st.Mtime
	}
	_, err := fmt.Fprintf(h, "%s\x00%d %d %d\n", path, st.Ino, st.Size, at)
	return err
}
