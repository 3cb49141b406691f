package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"github.com/plyfs/plyfs/internal/errno"
)

// CreateLayer makes an empty layer, over its parent if it has one.
func (s *Store) CreateLayer(ctx context.Context, spec LayerSpec) (*Layer, error) {
	st, err := s.StageLayer(ctx, spec)
	if err != nil {
		return nil, err
	}
	return st.Commit(ctx)
}

// publishLayer is create:4 to create:7 of the package comment: it makes the
// staged layer rec.ID of entry known. On error nothing of it is left but the
// stage.
func (w *WriteTx) publishLayer(entry *stageEntry, rec *Layer, split bool) error {
	if err := w.checkParent(rec.Parent); err != nil {
		return err
	}
	if err := w.freeNames(KindLayer, rec.Names); err != nil {
		return err
	}
	begun := rec.clone()
	if begun.Flags = maps.Clone(rec.Flags); begun.Flags == nil {
		begun.Flags = map[string]any{}
	}
	begun.Flags[flagIncomplete] = true
	if err := w.addLayer(begun); err != nil {
		return err
	}
	err := w.save(KindLayer)
	if err == nil {
		w.s.fail("create:4")
		err = w.putInPlace(entry, rec.ID, split)
	}
	if err == nil {
		err = w.setIncomplete(KindLayer, rec.ID, false)
	}
	if err == nil {
		err = w.save(KindLayer)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("publish layer %s: %w", rec.ID, err), w.unpublish(entry, rec.ID))
	}
	w.s.fail("create:7")
	return nil
}

// publishJournaled is publishLayer for a layer that the entry's journal names,
// so that a kill before its record is saved leaves no more than directories,
// which are moved away when the journal is settled: one save instead of two.
func (w *WriteTx) publishJournaled(entry *stageEntry, rec *Layer) error {
	if err := w.checkParent(rec.Parent); err != nil {
		return err
	}
	if err := w.freeNames(KindLayer, rec.Names); err != nil {
		return err
	}
	if err := w.addLayer(rec.clone()); err != nil {
		return err
	}
	err := w.putInPlace(entry, rec.ID, false)
	if err == nil {
		err = w.save(KindLayer)
	}
	if err != nil {
		undone := w.takeBack(entry, rec.ID)
		entry.keep = undone != nil // its journal tells the next opening
		return errors.Join(fmt.Errorf("publish layer %s: %w", rec.ID, err), undone)
	}
	w.s.fail("create:7")
	return nil
}

// takeBack undoes a publishJournaled that failed. The record is in the file
// only if its save failed after the rename; then it goes first.
func (w *WriteTx) takeBack(entry *stageEntry, id string) error {
	file := w.LayerByID(id).file
	same, err := unchangedFile(w.s.paths[KindLayer].own[file], w.base.kinds[KindLayer].stamp.own[file])
	if err == nil && !same {
		err = errors.Join(w.remove(KindLayer, id), w.save(KindLayer))
	}
	if err == nil && !entry.staged(id) {
		err = w.retire(entry, id)
	}
	return err
}

// putInPlace moves the directories and the tar-split file.
func (w *WriteTx) putInPlace(entry *stageEntry, id string, split bool) error {
	if err := w.s.driver.Publish(entry.stage(), id); err != nil {
		if errors.Is(err, errno.ErrDuplicate) {
			return errno.New(errno.ErrDamaged, "the driver holds directories of a layer %s that no record names; move them away or choose another ID", id)
		}
		return err
	}
	w.s.fail("create:5")
	if split {
		if err := os.Rename(entry.own(splitFile), w.s.splitPath(id)); err != nil {
			return err
		}
	}
	if l := w.LayerByID(id); l != nil && len(l.BigDataNames) > 0 {
		// There is no such directory when the table of contents is all.
		if err := os.Rename(entry.own(dataDir), w.s.objectDir(KindLayer, id)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := w.putTOC(entry, id); err != nil {
		return err
	}
	w.s.fail("create:6")
	return nil
}

// unpublish takes back what publishLayer did.
func (w *WriteTx) unpublish(entry *stageEntry, id string) error {
	// Publish refuses a home that holds foreign directories, and leaves the
	// layer in the stage: what is in the home then is not ours to retire.
	var err error
	if !entry.staged(id) {
		err = w.retire(entry, id)
	}
	if w.LayerByID(id) != nil {
		err = errors.Join(err, w.remove(KindLayer, id))
	}
	return errors.Join(err, w.save(KindLayer))
}

// retire moves all that belongs to a layer into the entry.
func (w *WriteTx) retire(entry *stageEntry, id string) error {
	if w.s.driver == nil {
		return w.s.writable()
	}
	split, data := w.s.splitPath(id), w.s.objectDir(KindLayer, id)
	on, err := entry.on(w.s.layerRoot(id))
	if err != nil {
		return err
	}
	return errors.Join(w.s.driver.Retire(on.stage(), id), on.trash(split), on.trash(data))
}

// retireLeft is retire for a layer whose record is gone and whose directories
// may be: so it looks everywhere.
func (w *WriteTx) retireLeft(entry *stageEntry, id string) error {
	on, err := entry.on(w.s.layerRoot(id))
	if err == nil {
		err = w.s.driver.Retire(on.stage(), id)
	}
	dirs := []string{w.s.kindDir(KindLayer)}
	if w.s.split() {
		dirs = append(dirs, w.s.imageLayersDir())
	}
	for _, dir := range dirs {
		err = errors.Join(err, entry.trash(filepath.Join(dir, id+"."+splitFile)), entry.trash(filepath.Join(dir, id)))
	}
	return err
}

// splitPath is where a layer's tar-split record is.
func (s *Store) splitPath(id string) string {
	return s.layerPath(id, id+"."+splitFile)
}

// objectDir is the directory of an object's big data.
func (s *Store) objectDir(k Kind, id string) string {
	if k == KindLayer {
		return s.layerPath(id, id)
	}
	return filepath.Join(s.kindDir(k), id)
}

// layerPath is a path in the directory of the records that layer id is among.
func (s *Store) layerPath(id, name string) string {
	if s.layerRoot(id) != s.opts.GraphRoot {
		return filepath.Join(s.imageLayersDir(), name)
	}
	return filepath.Join(s.kindDir(KindLayer), name)
}

// runObjectDir is the directory of an object in the run root.
func (s *Store) runObjectDir(k Kind, id string) string { return filepath.Join(s.runDir(k), id) }
