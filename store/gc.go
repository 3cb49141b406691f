package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/plyfs/plyfs/internal/durable"
)

// Progress is told, now and then, how many of all steps are done; nil is told
// nothing. It is called under store locks and must return at once.
type Progress func(done, all int)

func (p Progress) tell(done, all int) {
	if p != nil {
		p(done, all)
	}
}

// Swept is what GarbageCollect removed.
type Swept struct {
	// Layers, Images and Containers are the IDs of records that dead
	// processes left half made, removed with all that belonged to them.
	Layers, Images, Containers []string
	// Entries counts the dead processes' entries of the extract area, Files
	// their temporary files.
	Entries, Files int
}

// GarbageCollect removes, now and in this call (the directories of half-made
// records alone may still be on their way), what killed processes left:
// what every opening of the store removes (half-made records, entries of the
// extract area, temporary files of record files), and temporary files of big
// data. What has no record otherwise is damage, which Check shows and only
// Repair removes. An entry whose operation can neither be completed nor undone
// stays, and is told in the error beside what was removed. at is told of each
// entry. ErrReadOnly for a
// store opened read-only.
func (s *Store) GarbageCollect(ctx context.Context, at Progress) (sw Swept, err error) {
	if s.opts.ReadOnly {
		return sw, s.writable()
	}
	if err := s.WaitRemovals(ctx); err != nil { // these entries are ours, not a dead owner's
		return sw, fmt.Errorf("collect garbage: %w", err)
	}
	entries, err := s.deadEntries()
	if err != nil {
		return sw, fmt.Errorf("look at the extract area: %w", err)
	}
	var errs []error
	for i, e := range entries {
		at.tell(i, len(entries))
		err := s.settle(ctx, e)
		if err == nil && !e.keep {
			if err = e.remove(ctx); err == nil {
				sw.Entries++
				continue
			}
		}
		if err == nil {
			err = errUnfinished
		}
		errs = append(errs, fmt.Errorf("%s stays: %w", e.dir(), errors.Join(err, e.abandon())))
	}
	errs = append(errs, s.sweepRecords(ctx, &sw))
	if err := errors.Join(errs...); err != nil {
		return sw, fmt.Errorf("collect garbage: %w", err)
	}
	return sw, nil
}

// sweepRecords removes half-made records and temporary files.
func (s *Store) sweepRecords(ctx context.Context, sw *Swept) error {
	half := map[Kind][]string{}
	var temps []string
	err := s.View(ctx, func(t *Tx) (err error) {
		for k := range Kind(numKinds) {
			half[k] = t.st.part(k).incomplete()
		}
		temps, err = s.temps(t)
		return err
	})
	if err != nil {
		return err
	}
	return s.Update(ctx, func(w *WriteTx) error { // which sweeps the records first
		for k, lists := range map[Kind]*[]string{KindLayer: &sw.Layers, KindImage: &sw.Images, KindContainer: &sw.Containers} {
			for _, id := range half[k] {
				if w.st.of(k).anyOf(id) == nil {
					*lists = append(*lists, id)
				}
			}
		}
		var err error // their writers held these locks, so they are dead
		for _, path := range temps {
			switch rerr := os.Remove(path); {
			case rerr == nil:
				sw.Files++
			case !errors.Is(rerr, fs.ErrNotExist):
				err = errors.Join(err, rerr)
			}
		}
		return err
	})
}

// temps lists the temporary files of record files and of big data.
func (s *Store) temps(t *Tx) ([]string, error) {
	var temps []string
	list := func(dir, prefix string) error {
		found, err := os.ReadDir(dir)
		for _, e := range found {
			if durable.IsTemp(e.Name()) && strings.HasPrefix(e.Name(), durable.TempPrefix+prefix) && e.Type().IsRegular() {
				temps = append(temps, filepath.Join(dir, e.Name()))
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	for k := range Kind(numKinds) {
		for _, path := range s.paths[k].own {
			if path == "" {
				continue
			}
			if err := list(filepath.Dir(path), filepath.Base(path)); err != nil {
				return nil, err
			}
		}
		for o := range t.st.of(k).each {
			if o.m().shadow > 0 {
				continue
			}
			if err := list(s.objectDir(k, o.id()), ""); err != nil {
				return nil, err
			}
		}
	}
	return temps, nil
}
