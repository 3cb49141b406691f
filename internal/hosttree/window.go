package hosttree

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/internal/vnode"
)

// Options of a window.
type Options struct {
	// Owners gives what is created to the caller; else it stays this
	// process's user's.
	Owners bool
	// ReadOnly refuses every change with EROFS.
	ReadOnly bool
	// Shown, when set, are the maps from a container's IDs to those of the
	// backing: files are shown with the container's.
	Shown *idmap.Maps
}

// Window is one host directory seen as a tree.
type Window struct {
	key  string
	path string
	opts Options
	root *file

	mu    sync.Mutex
	files map[ident]*file // guarded by mu; without the root
}

// ident is a file's identity in the backing.
type ident struct{ dev, ino uint64 }

// file is what all nodes of one backing file share.
type file struct {
	id     ident
	vino   uint64 // what Ino shows
	parent *file  // guarded by Window.mu; nil for the root
	name   string // guarded by Window.mu
	nodes  int    // nodes not forgotten; guarded by Window.mu
	kids   int    // files whose parent this is; guarded by Window.mu
}

// Open returns a window on the directory at path, which is trusted; key tells
// windows apart and decides, with the backing's inode numbers, what Ino shows.
// The window holds no descriptor and needs no Close.
func Open(key, path string, o Options) (*Window, error) {
	d, err := safefs.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open the directory %s: %w", path, err)
	}
	st, err := d.Stat(".")
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("open the directory %s: %w", path, err)
	}
	w := &Window{key: key, path: path, opts: o, files: map[ident]*file{}}
	id := ident{st.Dev, st.Ino}
	w.root = &file{id: id, vino: w.ino(id), nodes: 1}
	return w, nil
}

// Root returns the node of the directory itself.
func (w *Window) Root() vnode.Node { return &node{w: w, f: w.root} }

// ino mixes key and identity to a number that is neither 0 nor ^0.
func (w *Window) ino(id ident) uint64 {
	h := fnv.New64a()
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], id.dev)
	binary.LittleEndian.PutUint64(b[8:], id.ino)
	_, _ = h.Write([]byte(w.key)) // hash.Hash never fails
	_, _ = h.Write(b[:])
	v := h.Sum64()
	if v == 0 || v == ^uint64(0) {
		v = 1 << 32
	}
	return v
}

// found returns a node for the file that was seen at name in parent.
func (w *Window) found(parent *file, name string, st safefs.Stat) *node {
	id := ident{st.Dev, st.Ino}
	w.mu.Lock()
	defer w.mu.Unlock()
	if id == w.root.id { // a bind mount of the directory inside itself
		return &node{w: w, f: w.root}
	}
	f := w.files[id]
	if f == nil {
		f = &file{id: id, vino: w.ino(id)}
		w.files[id] = f
	}
	w.placeLocked(f, parent, name)
	f.nodes++
	return &node{w: w, f: f}
}

// placeLocked notes where f was seen last, unless that is below f itself (a
// directory that was moved meanwhile).
func (w *Window) placeLocked(f, parent *file, name string) {
	for p := parent; p != nil; p = p.parent {
		if p == f {
			return
		}
	}
	old := f.parent
	f.parent, f.name = parent, name
	parent.kids++
	if old != nil {
		w.dropKidLocked(old)
	}
}

func (w *Window) dropKidLocked(f *file) {
	f.kids--
	w.reapLocked(f)
}

// reapLocked removes f, and the parents it was the last reason for.
func (w *Window) reapLocked(f *file) {
	for f != nil && f != w.root && f.nodes == 0 && f.kids == 0 && w.files[f.id] == f {
		delete(w.files, f.id)
		p := f.parent
		f.parent = nil
		if p != nil {
			p.kids--
		}
		f = p
	}
}

func (w *Window) forget(f *file) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f == w.root || f.nodes == 0 {
		return
	}
	f.nodes--
	w.reapLocked(f)
}

// moved notes that the file at name in from has gone to newName in to.
func (w *Window) moved(id ident, to *file, newName string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f := w.files[id]; f != nil {
		w.placeLocked(f, to, newName)
	}
}

// place returns the path of f below the root, "." for the root.
func (w *Window) place(f *file) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for ; f != nil && f.parent != nil; f = f.parent {
		names = append(names, f.name)
	}
	if len(names) == 0 {
		return "."
	}
	for i, j := 0, len(names)-1; i < j; i, j = i+1, j-1 {
		names[i], names[j] = names[j], names[i]
	}
	return strings.Join(names, "/")
}

// stepMax is the longest path handed to the kernel at once, below PATH_MAX.
const stepMax = 3500

// open opens f where it was seen last and makes sure that it is f.
func (w *Window) open(f *file) (_ *safefs.Ref, err error) {
	d, err := safefs.OpenRoot(w.path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", w.path, err)
	}
	rel := w.place(f)
	for len(rel) > stepMax {
		cut := strings.LastIndexByte(rel[:stepMax], '/')
		var next *safefs.Dir
		next, err = d.OpenDirAt(rel[:cut], safefs.NoSymlinks)
		if err = closing(d, err); err != nil {
			return nil, w.stale(f, err)
		}
		d, rel = next, rel[cut+1:]
	}
	var r *safefs.Ref
	if rel == "." {
		r, err = d.Ref(".")
	} else {
		r, err = d.RefAt(rel, safefs.NoSymlinks)
	}
	if err = closing(d, err); err != nil {
		if r != nil {
			err = closing(r, err)
		}
		return nil, w.stale(f, err)
	}
	st, err := r.Stat()
	if err == nil && (ident{st.Dev, st.Ino}) != f.id {
		err = w.stale(f, syscall.ENOENT)
	}
	if err != nil {
		return nil, closing(r, err)
	}
	return r, nil
}

// stale turns the errors of a place where f is no longer into ESTALE: the
// kernel then looks the path up again.
func (w *Window) stale(f *file, err error) error {
	switch errno.Of(err) {
	case syscall.ENOENT, syscall.ENOTDIR, syscall.ELOOP, syscall.EXDEV:
		return fmt.Errorf("%s is no longer there: %w", path.Join(w.path, w.place(f)), syscall.ESTALE)
	}
	return err
}

// openDir is open for a directory.
func (w *Window) openDir(f *file) (*safefs.Dir, error) {
	r, err := w.open(f)
	if err != nil {
		return nil, err
	}
	d, err := r.Dir()
	if cerr := closing(r, err); cerr != nil {
		if d != nil {
			cerr = closing(d, cerr)
		}
		return nil, cerr
	}
	return d, nil
}

func (w *Window) writable() error {
	if w.opts.ReadOnly {
		return errno.New(errno.ErrReadOnly, "%s is shown read-only", w.path)
	}
	return nil
}

// closing closes c and returns err, or the error of Close when err is nil.
func closing(c interface{ Close() error }, err error) error {
	if cerr := c.Close(); err == nil {
		err = cerr
	}
	return err
}

// effective returns this process's own IDs.
func effective() (uint32, uint32) { return uint32(os.Geteuid()), uint32(os.Getegid()) }

func attrOf(ino uint64, st safefs.Stat) vnode.Attr {
	return vnode.Attr{
		Ino: ino, Mode: st.Mode, Nlink: st.Nlink, UID: st.UID, GID: st.GID,
		Size: st.Size, Blocks: st.Blocks, Rdev: st.Rdev,
		Atime: st.Atime, Mtime: st.Mtime, Ctime: st.Ctime, Btime: st.Btime,
	}
}

func attrOfFd(ino uint64, f *os.File) (vnode.Attr, error) {
	var st unix.Stat_t
	if err := control(f, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		return vnode.Attr{}, fmt.Errorf("fstat: %w", err)
	}
	return vnode.Attr{
		Ino: ino, Mode: st.Mode, Nlink: uint32(st.Nlink), UID: st.Uid, GID: st.Gid,
		Size: uint64(st.Size), Blocks: uint64(st.Blocks), Rdev: st.Rdev,
		Atime: stampOf(st.Atim), Mtime: stampOf(st.Mtim), Ctime: stampOf(st.Ctim),
	}, nil
}
