package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/safefs"
)

// DedupMethod says how Dedup finds files that may be the same. Whether they
// are is always the kernel's to tell, which compares them.
type DedupMethod string

// The methods: files of one size are candidates by a checksum, by SHA-256, or
// by their size alone.
const (
	DedupCRC    DedupMethod = "crc"
	DedupSize   DedupMethod = "size"
	DedupSHA256 DedupMethod = "sha256"
)

// dedupMin is the size in bytes below which files are left alone: they share
// no block.
const dedupMin = 4096

// DedupOptions say how Dedup works.
type DedupOptions struct {
	// Method is DedupCRC when empty.
	Method DedupMethod
	// Progress, when set, is called with the bytes looked at so far, and those
	// that there are. It must be quick.
	Progress func(done, all int64)
}

// DedupResult is what Dedup achieved.
type DedupResult struct {
	// Deduped is the number of bytes that are shared with another file of the
	// store and need no room of their own, those that were before included: so
	// a second run tells the same.
	Deduped uint64
}

// Dedup lets files of the store's layers that have the same content share
// their blocks. No lock is held; a file that is being changed or goes meanwhile
// is passed over. Content, owners and times do not change. ErrNotSupported
// where the filesystem cannot do it; ErrBadValue for an unknown method. When
// ctx ends, what was done stays. Memory grows by some 100 bytes with each file.
func (s *Store) Dedup(ctx context.Context, o DedupOptions) (res DedupResult, err error) {
	if o.Method == "" {
		o.Method = DedupCRC
	}
	if !slices.Contains([]DedupMethod{DedupCRC, DedupSize, DedupSHA256}, o.Method) {
		return res, errno.New(errno.ErrBadValue, "%q is no method to find equal files by: say %s, %s or %s", o.Method, DedupCRC, DedupSize, DedupSHA256)
	}
	if err := s.writable(); err != nil {
		return res, err
	}
	d := &deduper{s: s, o: o, inodes: map[[2]uint64]struct{}{}}
	if err := d.probe(ctx); err != nil {
		return res, err
	}
	if err = d.collect(ctx); err == nil {
		err = d.share(ctx)
	}
	res.Deduped = d.shared
	if err != nil {
		return res, fmt.Errorf("dedup: %w", err)
	}
	return res, nil
}

// dedupStaged lets files of a layer that is not published yet share the blocks
// of equal files of other layers. That it cannot be done is no error: the layer
// is whole without. Nothing else of the store changes.
func (s *Store) dedupStaged(ctx context.Context, dir string) error {
	d := &deduper{s: s, o: DedupOptions{Method: DedupCRC}, inodes: map[[2]uint64]struct{}{}, only: dir}
	err := d.probe(ctx)
	if err == nil {
		err = d.collect(ctx)
	}
	if err == nil {
		err = d.walkLayer(ctx, dir)
	}
	if err == nil {
		err = d.share(ctx)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		s.log.WithError(err).Debugf("the new layer in %s shares no blocks with others", dir)
	}
	return nil
}

// deduper is one run of Dedup.
type deduper struct {
	s      *Store
	o      DedupOptions
	only   string   // the one root whose files are to share others' blocks; "" is all
	roots  []string // the layers' own directories
	files  []dedupFile
	inodes map[[2]uint64]struct{} // hard links count once
	all    int64                  // bytes of files that may be equal to another
	done   int64
	shared uint64
}

// dedupFile is a file of a layer: the number of its root, and its path there.
type dedupFile struct {
	root int
	path string
	dev  uint64
	size int64
}

// probe tells whether the filesystem can share blocks, by two files of its own.
func (d *deduper) probe(ctx context.Context) error {
	return d.s.withEntry(ctx, func(entry *stageEntry) error {
		var files [2]*os.File
		var err error
		for i := range files {
			f, oerr := os.OpenFile(entry.own(fmt.Sprintf("probe%d", i)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
			if oerr != nil {
				return errors.Join(oerr, err)
			}
			defer func() { err = errors.Join(err, f.Close()) }()
			if _, err := f.Write(make([]byte, dedupMin)); err != nil {
				return err
			}
			if err := f.Sync(); err != nil { // some share only what is on disk
				return err
			}
			files[i] = f
		}
		if _, err := shareRange(files[0], files[1], 0, dedupMin); err != nil {
			return errno.New(errno.ErrNotSupported, "the filesystem of %s cannot share blocks between files (%w); dedup needs btrfs, or xfs with reflink", d.s.opts.GraphRoot, err)
		}
		return err
	})
}

// collect lists the files of all own layers.
func (d *deduper) collect(ctx context.Context) error {
	var ids []string
	err := d.s.View(ctx, func(t *Tx) error {
		for l := range t.Layers() {
			if l.shadow == 0 {
				ids = append(ids, l.ID)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.Sort(ids)
	for _, id := range ids {
		dirs, err := d.s.driver.Dirs(id)
		if err != nil || len(dirs) == 0 {
			continue // damaged, or gone
		}
		err = d.walkLayer(ctx, dirs[0])
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // gone meanwhile
			return err
		}
	}
	return nil
}

func (d *deduper) walkLayer(ctx context.Context, dir string) error {
	root, err := safefs.OpenRoot(dir)
	if err != nil {
		return err
	}
	d.roots = append(d.roots, dir)
	return errors.Join(d.walk(ctx, root, ""), root.Close())
}

func (d *deduper) walk(ctx context.Context, dir *safefs.Dir, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return dir.ReadDir(func(e safefs.Entry) error {
		st, err := dir.Stat(e.Name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case st.IsDir():
			sub, err := dir.OpenDir(e.Name)
			if err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					return nil
				}
				return err
			}
			return errors.Join(d.walk(ctx, sub, path+e.Name+"/"), sub.Close())
		}
		d.add(&st, path+e.Name)
		return nil
	})
}

// add takes down a file that may be equal to another.
func (d *deduper) add(st *safefs.Stat, path string) {
	if fs.FileMode(st.Mode)&0o170000 != 0o100000 || st.Size < dedupMin {
		return
	}
	if st.Nlink > 1 {
		id := [2]uint64{st.Dev, st.Ino}
		if _, ok := d.inodes[id]; ok {
			return
		}
		d.inodes[id] = struct{}{}
	}
	d.files = append(d.files, dedupFile{len(d.roots) - 1, path, st.Dev, int64(st.Size)})
}

// share goes through the files, one size after the other.
func (d *deduper) share(ctx context.Context) error {
	slices.SortStableFunc(d.files, func(a, b dedupFile) int {
		return cmp.Or(cmp.Compare(a.dev, b.dev), cmp.Compare(a.size, b.size))
	})
	same := func(a, b dedupFile) bool { return a.dev == b.dev && a.size == b.size }
	var groups [][]dedupFile
	for rest := d.files; len(rest) > 0; {
		n := 1
		for n < len(rest) && same(rest[0], rest[n]) {
			n++
		}
		// The one root's files are the last of their group.
		if n > 1 && d.changes(rest[n-1]) {
			groups = append(groups, rest[:n])
			d.all += int64(n) * rest[0].size
		}
		rest = rest[n:]
	}
	for _, g := range groups {
		if err := d.group(ctx, g); err != nil {
			return err
		}
		d.done += int64(len(g)) * g[0].size
		if d.o.Progress != nil {
			d.o.Progress(d.done, d.all)
		}
	}
	return nil
}

// group shares the blocks of files of one size, with the first of each content.
func (d *deduper) group(ctx context.Context, files []dedupFile) error {
	bySum := map[string]dedupFile{}
	for _, file := range files {
		sum, err := d.sum(ctx, file)
		if err != nil {
			return err
		}
		first, ok := bySum[sum]
		if !ok {
			bySum[sum] = file
			continue
		}
		if !d.changes(file) {
			continue
		}
		if err := d.pair(ctx, first, file); err != nil {
			return err
		}
	}
	return nil
}

// changes tells whether a file may be given another's blocks.
func (d *deduper) changes(file dedupFile) bool {
	return d.only == "" || d.roots[file.root] == d.only
}

// sum is what tells candidates apart; "" for all of one size.
func (d *deduper) sum(ctx context.Context, file dedupFile) (sum string, err error) {
	if d.o.Method == DedupSize {
		return "", ctx.Err()
	}
	f, err := d.open(file)
	if err != nil || f == nil {
		return "gone " + file.path, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if d.o.Method == DedupSHA256 {
		h, err := digestOf(ctx, f)
		return string(h), err
	}
	h := crc64.New(crc64.MakeTable(crc64.ECMA))
	_, err = io.Copy(h, &contextReader{ctx, f})
	return string(h.Sum(nil)), err
}

// open opens a file for reading; nil when it is gone.
func (d *deduper) open(file dedupFile) (*os.File, error) {
	root, err := safefs.OpenRoot(d.roots[file.root])
	if err == nil {
		var f *os.File
		f, err = root.OpenAt(file.path, os.O_RDONLY|syscall.O_NONBLOCK, 0, safefs.NoSymlinks)
		if err = errors.Join(err, root.Close()); err == nil {
			return f, nil
		}
	}
	for _, gone := range []error{fs.ErrNotExist, syscall.ELOOP, syscall.ENOTDIR, syscall.ENXIO} {
		if errors.Is(err, gone) {
			return nil, nil
		}
	}
	return nil, err
}

// pair shares the blocks of two files, as far as they are the same.
func (d *deduper) pair(ctx context.Context, from, to dedupFile) (err error) {
	src, err := d.open(from)
	if err != nil || src == nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	dst, err := d.open(to)
	if err != nil || dst == nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	var n int64
	for n < from.size {
		if err := ctx.Err(); err != nil {
			return err
		}
		got, err := shareRange(src, dst, n, min(from.size-n, dedupChunk))
		if err != nil {
			d.s.log.WithError(err).Debugf("dedup: %s and %s", src.Name(), dst.Name())
		}
		if got == 0 { // they differ, or one is in use as a program or swap file
			return nil
		}
		n += got
		d.shared += uint64(got)
	}
	return nil
}

// dedupChunk is the most that btrfs compares in one call.
const dedupChunk = 16 << 20
