package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/plyfs/plyfs/internal/errno"
)

// settle completes or forgets what a dead process began; the rules are in the
// package comment.
func (s *Store) settle(ctx context.Context, e *stageEntry) error {
	j, err := e.readJournal()
	if err != nil || j == nil {
		return err
	}
	if s.driver == nil {
		e.keep = true
		return nil
	}
	return s.Update(ctx, func(w *WriteTx) error { return w.settle(e, j) })
}

func (w *WriteTx) settle(e *stageEntry, j *journal) error {
	_, known := w.Names(j.kind(), j.ID)
	switch j.Op {
	case journalCreate, journalDelete:
		if known {
			return nil
		}
		layers := j.Layers
		if j.Op == journalCreate { // what was not published is not what is in the home
			layers = slices.DeleteFunc(layers, e.staged)
		}
		return w.finishObjectDrop(e, j.kind(), j.ID, layers)
	case journalExchange:
		return w.settleExchange(e, j)
	case journalSeal:
		return w.settleSeal(e, j)
	case journalData:
		return w.settleData(j)
	case journalUndata:
		return w.settleUndata(e, j)
	case journalMap:
		return w.settleMap(e, j)
	}
	return errno.New(errno.ErrDamaged, "%s: the operation %q is not known to this version of plyfs", e.own(journalFile), j.Op)
}

// staged tells whether a layer is in the entry's stage still.
func (e *stageEntry) staged(id string) bool {
	_, err := os.Lstat(filepath.Join(e.root, e.stage(), id))
	return err == nil
}

// settleMap deletes a mapped layer that its image does not list.
func (w *WriteTx) settleMap(e *stageEntry, j *journal) error {
	img := w.ImageByID(j.ID)
	for _, id := range j.Layers {
		l := w.LayerByID(id)
		if l == nil || img != nil && slices.Contains(img.MappedLayers, id) || w.checkUnused(l) != nil {
			continue
		}
		if err := w.dropLayer(e, id); err != nil {
			return err
		}
	}
	return nil
}

func (w *WriteTx) settleExchange(e *stageEntry, j *journal) error {
	l := w.LayerByID(j.ID)
	if l == nil || j.Old == nil || j.New == nil || !contentOf(l).same(j.Old) {
		return nil
	}
	dirs, err := w.s.driver.Dirs(j.ID)
	if err != nil || len(dirs) == 0 {
		return err
	}
	dev, ino, err := identity(dirs[0])
	if err != nil || dev != j.Dev || ino != j.Ino {
		return err
	}
	return w.exchanged(e, j)
}

func (w *WriteTx) settleData(j *journal) error {
	_, known := w.Names(j.kind(), j.ID)
	name, err := dataFileName(j.Key)
	if err != nil || !known {
		return err
	}
	dev, ino, err := identity(filepath.Join(w.s.objectDir(j.kind(), j.ID), name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil || dev != j.Dev || ino != j.Ino {
		return err
	}
	return w.recordData(j.kind(), j.ID, dataItem{key: j.Key, size: j.Size, digest: j.Digest})
}

func (w *WriteTx) settleUndata(e *stageEntry, j *journal) error {
	keys, known := w.dataKeys(j.kind(), j.ID)
	if !known || slices.Contains(keys, j.Key) {
		return nil
	}
	name, err := readDataFileName(j.Key)
	if err != nil {
		return err
	}
	return e.trash(filepath.Join(w.s.objectDir(j.kind(), j.ID), name))
}

// sweepIncomplete removes records that are flagged incomplete, whoever left
// them, with what belongs to them. Update calls it under the write locks,
// before its function, when the loaded state has such records: no living
// writer holds the lock, so nobody is about to complete them. Layers go from
// the top down; one that something needs all the same is left and logged.
func (w *WriteTx) sweepIncomplete(k Kind, ids []string) error {
	if k != KindLayer {
		return w.sweepObjects(k, ids)
	}
	if w.s.driver == nil {
		return nil
	}
	entry, err := w.s.newEntry()
	if err != nil {
		return err
	}
	w.after(func() { w.s.discardLater(entry) })
	for len(ids) > 0 {
		var left []string
		for _, id := range ids {
			if len(w.Children(id)) > 0 {
				left = append(left, id)
				continue
			}
			if err := w.finishDrop(entry, id); err != nil {
				return fmt.Errorf("remove layer %s, which is incomplete: %w", id, err)
			}
		}
		if len(left) == len(ids) {
			w.logKept(left)
			return nil
		}
		ids = left
	}
	return nil
}

func (w *WriteTx) logKept(ids []string) {
	w.s.log.Warnf("layer %s is incomplete, but layer %s was made over it: it is kept", ids[0], w.Children(ids[0])[0].ID)
}

func (w *WriteTx) sweepObjects(k Kind, ids []string) error {
	entry, err := w.s.newEntry()
	if err != nil {
		return err
	}
	w.after(func() { w.s.discardLater(entry) })
	for _, id := range ids {
		if err := errors.Join(w.remove(k, id), w.save(k)); err != nil {
			return fmt.Errorf("remove %s %s, which is incomplete: %w", k, id, err)
		}
		if err := entry.trash(w.s.objectDir(k, id)); err != nil {
			return err
		}
	}
	return nil
}
