package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/plyfs/plyfs/internal/unix"
)

// errWritten ends a walk at the first file that is newer than the record.
var errWritten = errors.New("written to since")

// forgetOldContent drops digests, sizes and tar-split record of a layer that
// was written to while it was mounted: they would not describe it any more.
// (The peers keep them, and their `diff` then breaks off or leaves files out.)
// A kill before it does leaves what the peers leave. The walk is made with no
// lock held. Layers that nobody could have mounted for writing are left alone.
func (s *Store) forgetOldContent(ctx context.Context, l *Layer) error {
	if l.DiffDigest == "" || l.ReadOnly {
		return nil
	}
	written, err := s.writtenSince(ctx, l)
	if err != nil || !written {
		return err
	}
	return s.withEntry(ctx, func(entry *stageEntry) error {
		return s.Update(ctx, func(w *WriteTx) error {
			now := w.LayerByID(l.ID)
			if now == nil || !contentOf(now).same(contentOf(l)) || w.checkWritable(mountTarget{layer: now}) != nil {
				return nil
			}
			err := w.editLayer(l.ID, func(r *Layer) error {
				(&layerContent{}).set(r)
				return nil
			})
			if err == nil {
				err = w.save(KindLayer)
			}
			if err != nil {
				return fmt.Errorf("forget the old content of layer %s: %w", l.ID, err)
			}
			return entry.trash(s.splitPath(l.ID))
		})
	})
}

// clockTick is more than the longest step of the clock that files get their
// times from (10 ms where the kernel ticks 100 times a second).
const clockTick = 20 * time.Millisecond

// awaitClock waits until what is written to a layer that was imported a moment
// ago will be newer than its tar-split record.
func (s *Store) awaitClock(ctx context.Context, ref string) error {
	var target mountTarget
	err := s.View(ctx, func(t *Tx) (err error) {
		target, err = t.mountTarget(ref)
		return err
	})
	if err != nil || target.layer.DiffDigest == "" {
		return err
	}
	fi, err := os.Stat(s.splitPath(target.layer.ID))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	left := clockTick - time.Since(changeTime(fi))
	if left <= 0 || left > clockTick {
		return nil
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// writtenSince tells whether anything in the layer's own directory changed
// after its tar-split record was put in place, which is the last step of an
// import. The root itself is judged by its mtime, since mounting sets extended
// attributes on it.
func (s *Store) writtenSince(ctx context.Context, l *Layer) (bool, error) {
	fi, err := os.Stat(s.splitPath(l.ID))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	since := changeTime(fi)
	dirs, err := s.driver.Dirs(l.ID)
	if err != nil || len(dirs) == 0 {
		return false, err
	}
	err = filepath.WalkDir(dirs[0], func(path string, d fs.DirEntry, err error) error {
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
		if at := changeTime(fi); path != dirs[0] && at.After(since) || path == dirs[0] && fi.ModTime().After(since) {
			return errWritten
		}
		return nil
	})
	if errors.Is(err, errWritten) {
		return true, nil
	}
	return false, err
}

func changeTime(fi fs.FileInfo) time.Time {
	st, ok := unix.StatOf(fi)
	if !ok {
		return fi.ModTime()
	}
	return time.Unix(0, st.Ctime)
}
