package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/plyfs/plyfs/internal/durable"
	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/unix"
)

// tocKey is the item of big data that holds a zstd:chunked layer's table of
// contents, uncompressed, as podman 4.3.1 leaves it when it pulls by the table.
const tocKey = "zstd-chunked-manifest"

// tocFile is where the table of a stream that is imported stands.
const tocFile = "toc"

// keepTOC judges the table of contents of the stream that was just imported:
// what is no true table of it is dropped. The caller holds mu.
func (st *StagedLayer) keepTOC(ctx context.Context, res *layertar.Result) (err error) {
	path := st.entry.own(tocFile)
	keep := false
	if res.TOCDigest != "" {
		if keep, err = st.checkTOC(ctx, path); err != nil {
			return fmt.Errorf("compare the table of contents with its stream: %w", err)
		}
	}
	if keep {
		return nil
	}
	res.TOCDigest = ""
	return os.Remove(path)
}

func (st *StagedLayer) checkTOC(ctx context.Context, path string) (ok bool, err error) {
	toc, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, toc.Close()) }()
	dir, err := os.OpenFile(st.private.Dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return layertar.CheckTOC(ctx, dir, st.entry.own(splitFile), toc)
}

// putTOC moves a stage's table, if it has one that is not there yet, to where
// layer id's big data is. The record names it (see tocNames).
func (w *WriteTx) putTOC(entry *stageEntry, id string) error {
	from := entry.own(tocFile)
	if _, err := os.Lstat(from); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	name, err := dataFileName(tocKey)
	if err != nil {
		return err
	}
	dir := w.s.objectDir(KindLayer, id)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make the data directory of layer %s: %w", id, err)
	}
	if err := os.Rename(from, filepath.Join(dir, name)); err != nil {
		return err
	}
	return durable.SyncDir(dir)
}

// exchangeTOC is putTOC for a layer whose content was exchanged: the table of
// the old content goes.
func (w *WriteTx) exchangeTOC(entry *stageEntry, j *journal) error {
	if j.New.TOCDigest != "" {
		return w.putTOC(entry, j.ID)
	}
	name, err := dataFileName(tocKey)
	if err != nil {
		return err
	}
	return entry.trash(filepath.Join(w.s.objectDir(KindLayer, j.ID), name))
}

// tocNames are a layer's big data names with the table or without it.
func tocNames(names []string, has bool) []string {
	names = slices.DeleteFunc(slices.Clone(names), func(k string) bool { return k == tocKey })
	if has {
		names = append(names, tocKey)
	}
	return names
}
