package hosttree

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/internal/vnode"
)

// node is one look-up's view of a file. One type serves every kind of file:
// what a kind cannot do, the backing refuses.
type node struct {
	w *Window
	f *file
	// seen is what the look-up that made the node saw; the first Attr returns
	// it, being part of that look-up.
	seen atomic.Pointer[vnode.Attr]
}

var (
	_ vnode.Directory   = (*node)(nil)
	_ vnode.Symlink     = (*node)(nil)
	_ vnode.Opener      = (*node)(nil)
	_ vnode.Mkdirer     = (*node)(nil)
	_ vnode.Creator     = (*node)(nil)
	_ vnode.Mknoder     = (*node)(nil)
	_ vnode.Symlinker   = (*node)(nil)
	_ vnode.Linker      = (*node)(nil)
	_ vnode.Unlinker    = (*node)(nil)
	_ vnode.Rmdirer     = (*node)(nil)
	_ vnode.Renamer     = (*node)(nil)
	_ vnode.Setattrer   = (*node)(nil)
	_ vnode.Xattrer     = (*node)(nil)
	_ vnode.XattrSetter = (*node)(nil)
	_ vnode.Statfser    = (*node)(nil)
	_ vnode.Forgetter   = (*node)(nil)
	_ vnode.Fsyncer     = (*node)(nil)
	_ vnode.OwnerTaker  = (*node)(nil)
)

// Ino mixes the window's key with the backing's device and inode numbers.
func (n *node) Ino() uint64 { return n.f.vino }

// Forget gives the memory back.
func (n *node) Forget() { n.w.forget(n.f) }

// OutsideStore says that changes here are none of the store's.
func (n *node) OutsideStore() {}

// with opens the file, calls do and closes it.
func (n *node) with(do func(*safefs.Ref) error) error {
	r, err := n.w.open(n.f)
	if err != nil {
		return err
	}
	return closing(r, do(r))
}

// withDir opens the directory, calls do and closes it.
func (n *node) withDir(do func(*safefs.Dir) error) error {
	d, err := n.w.openDir(n.f)
	if err != nil {
		return err
	}
	return closing(d, do(d))
}

// change is withDir for changes.
func (n *node) change(do func(*safefs.Dir) error) error {
	if err := n.w.writable(); err != nil {
		return err
	}
	return n.withDir(do)
}

// Attr returns what the backing tells now.
func (n *node) Attr(context.Context) (a vnode.Attr, err error) {
	if seen := n.seen.Swap(nil); seen != nil {
		return *seen, nil
	}
	err = n.with(func(r *safefs.Ref) error {
		st, err := r.Stat()
		a = attrOf(n.f.vino, st)
		return err
	})
	return a, err
}

// Lookup finds name and remembers it as the file's place.
func (n *node) Lookup(_ context.Context, name string) (c vnode.Child, err error) {
	err = n.withDir(func(d *safefs.Dir) error {
		c, err = n.child(d, name)
		return err
	})
	return c, err
}

func (n *node) child(d *safefs.Dir, name string) (vnode.Child, error) {
	st, err := d.Stat(name)
	if err != nil {
		return vnode.Child{}, err
	}
	c := n.w.found(n.f, name, st)
	a := attrOf(c.f.vino, st)
	c.seen.Store(&a)
	return vnode.Child{Node: c}, nil
}

// ReadDir lists the backing's entries. The inode number of an entry that is a
// mount point is the covered directory's, as in any readdir.
func (n *node) ReadDir(ctx context.Context) (list []vnode.Dirent, err error) {
	err = n.withDir(func(d *safefs.Dir) error {
		return d.ReadDir(func(e safefs.Entry) error {
			if len(list)%1024 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			list = append(list, vnode.Dirent{Name: e.Name, Ino: n.w.ino(ident{n.f.id.dev, e.Ino}), Type: e.Type})
			return nil
		})
	})
	return list, err
}

// Readlink returns a symlink's text.
func (n *node) Readlink(context.Context) (target string, err error) {
	err = n.with(func(r *safefs.Ref) error {
		target, err = r.Readlink()
		return err
	})
	return target, err
}

// Mkdir makes a directory.
func (n *node) Mkdir(ctx context.Context, name string, mode uint32) (c vnode.Child, err error) {
	return n.make(ctx, name, syscall.S_IFDIR|mode&0o7777, func(d *safefs.Dir) error { return d.Mkdir(name, mode&0o1777) })
}

// Mknod makes a device node, FIFO, socket or file.
func (n *node) Mknod(ctx context.Context, name string, mode uint32, rdev uint64) (vnode.Child, error) {
	return n.make(ctx, name, mode, func(d *safefs.Dir) error {
		return d.Mknod(name, mode&(syscall.S_IFMT|0o777), rdev)
	})
}

// Symlink makes a symlink.
func (n *node) Symlink(ctx context.Context, name, target string) (vnode.Child, error) {
	return n.make(ctx, name, syscall.S_IFLNK|0o777, func(d *safefs.Dir) error { return d.Symlink(target, name) })
}

// KeepsMode says whether the directory's default ACL takes the umask's place.
func (n *node) KeepsMode(context.Context) bool {
	keeps := false
	err := n.with(func(r *safefs.Ref) error {
		_, err := r.Getxattr(idmap.DefaultACL)
		keeps = err == nil
		return nil
	})
	return err == nil && keeps
}

// make makes an entry by do, gives it to the caller and looks it up.
func (n *node) make(ctx context.Context, name string, mode uint32, do func(*safefs.Dir) error) (c vnode.Child, err error) {
	err = n.change(func(d *safefs.Dir) error {
		if err := do(d); err != nil {
			return err
		}
		if err := n.give(ctx, d, name, mode); err != nil {
			return err
		}
		c, err = n.child(d, name)
		return err
	})
	return c, err
}

// give hands a new entry of d to the caller and sets the mode it asked for.
func (n *node) give(ctx context.Context, d *safefs.Dir, name string, mode uint32) error {
	dir, err := d.Stat(".")
	if err != nil {
		return err
	}
	sgid := dir.Mode&syscall.S_ISGID != 0
	uid, gid := effective()
	if c, ok := n.w.maker(ctx); ok && n.w.opts.Owners && (c.UID != uid || c.GID != gid) {
		group := int(c.GID)
		if sgid {
			group = -1
		}
		if err := d.Chown(name, int(c.UID), group); err != nil {
			return fmt.Errorf("give %s to its owner: %w", name, err)
		}
		gid = c.GID
	}
	if mode&syscall.S_IFMT == syscall.S_IFLNK {
		return nil
	}
	bits := modeBits(mode, sgid, gid == dir.GID)
	if _, err := d.Getxattr(".", idmap.DefaultACL); err == nil && bits&0o7000 == 0 {
		return nil
	}
	if err := d.Chmod(name, bits); err != nil {
		return fmt.Errorf("set the mode of %s: %w", name, err)
	}
	return nil
}

// modeBits are the permission bits of a new entry. In a directory with the
// set-group-ID bit a directory gets that bit too, and a program loses it when
// its group is not the caller's.
func modeBits(mode uint32, sgid, ownGroup bool) uint32 {
	bits := mode & 0o7777
	switch {
	case !sgid:
	case mode&syscall.S_IFMT == syscall.S_IFDIR:
		bits |= syscall.S_ISGID
	case bits&0o010 != 0 && !ownGroup:
		bits &^= syscall.S_ISGID
	}
	return bits
}

// Create makes and opens a file, or opens the one that appeared meanwhile.
func (n *node) Create(ctx context.Context, name string, flags int, mode uint32) (c vnode.Child, h vnode.Handle, err error) {
	err = n.change(func(d *safefs.Dir) error {
		f, made, err := createFile(d, name, backingFlags(flags), flags&syscall.O_EXCL != 0, mode)
		if err != nil {
			return err
		}
		if made {
			err = n.give(ctx, d, name, syscall.S_IFREG|mode)
		}
		var st unix.Stat_t
		if err == nil {
			err = control(f, func(fd int) error { return unix.Fstat(fd, &st) })
		}
		if err != nil {
			return closing(f, err)
		}
		nn := n.w.found(n.f, name, safefs.Stat{Dev: st.Dev, Ino: st.Ino})
		if a, err := attrOfFd(nn.f.vino, f); err == nil {
			nn.seen.Store(&a)
		}
		c, h = vnode.Child{Node: nn}, &handle{f: f, n: nn}
		return nil
	})
	return c, h, err
}

func createFile(d *safefs.Dir, name string, flags int, excl bool, mode uint32) (f *os.File, made bool, err error) {
	f, err = d.Open(name, flags|syscall.O_CREAT|syscall.O_EXCL, mode&0o777)
	if err == nil || excl || errno.Of(err) != syscall.EEXIST {
		return f, err == nil, err
	}
	st, err := d.Stat(name)
	if err != nil {
		return nil, false, err
	}
	if st.Type() != syscall.S_IFREG {
		return nil, false, syscall.EEXIST
	}
	f, err = d.Open(name, flags|syscall.O_NONBLOCK, 0)
	return f, false, err
}

// backingFlags are those of open(2) that the backing file is opened with.
func backingFlags(flags int) int {
	return flags & (syscall.O_ACCMODE | syscall.O_APPEND | syscall.O_TRUNC | syscall.O_SYNC | syscall.O_DSYNC)
}

// Link gives target, a node of the same window, another name.
func (n *node) Link(_ context.Context, name string, target vnode.Node) (c vnode.Child, err error) {
	t, ok := n.own(target)
	if !ok {
		return c, errno.New(otherTree(t), "%s: a hard link cannot lead to another tree", name)
	}
	err = n.change(func(d *safefs.Dir) error {
		return t.with(func(r *safefs.Ref) error {
			if err := r.Link(d, name); err != nil {
				return err
			}
			c, err = n.child(d, name)
			return err
		})
	})
	return c, err
}

// otherTree is the kind of error for what would lead from a window to the node
// n of another, or, if n is nil, to what is no window: into the control tree nothing is ever
// copied, but between directories of files mv copies and removes, and programs
// that link copy.
func otherTree(n *node) *errno.Kind {
	if n != nil {
		return errno.ErrCrossDevice
	}
	return errno.ErrBadValue
}

// own returns other as a node of the same window; false with a node of another,
// or with nil.
func (n *node) own(other vnode.Node) (*node, bool) {
	for i := 0; i < 4; i++ {
		switch o := other.(type) {
		case *node:
			return o, o.w == n.w
		case interface{ Unwrap() vnode.Node }:
			other = o.Unwrap()
		default:
			return nil, false
		}
	}
	return nil, false
}

// Unlink removes what is not a directory.
func (n *node) Unlink(_ context.Context, name string) error {
	return n.change(func(d *safefs.Dir) error { return d.Unlink(name) })
}

// Rmdir removes an empty directory.
func (n *node) Rmdir(_ context.Context, name string) error {
	return n.change(func(d *safefs.Dir) error { return d.Rmdir(name) })
}

// Rename moves an entry inside the window; into another window it is EXDEV, into
// what is none EINVAL.
// Where the backing itself says EXDEV (a mount inside) the caller copies.
func (n *node) Rename(_ context.Context, name string, newParent vnode.Node, newName string, flags uint32) error {
	to, ok := n.own(newParent)
	if !ok {
		return errno.New(otherTree(to), "%s cannot be moved into another tree: copy it", name)
	}
	return n.change(func(d *safefs.Dir) error {
		return to.withDir(func(td *safefs.Dir) error {
			src, err := d.Stat(name)
			if err != nil {
				return err
			}
			dst, dstErr := td.Stat(newName)
			if err := d.Rename(name, td, newName, uint(flags)); err != nil {
				return err
			}
			n.w.moved(ident{src.Dev, src.Ino}, to.f, newName)
			if flags&unix.RENAME_EXCHANGE != 0 && dstErr == nil {
				n.w.moved(ident{dst.Dev, dst.Ino}, n.f, name)
			}
			return nil
		})
	})
}

// Setattr changes owner, mode, size and times, in this order: chown clears
// bits that chmod sets, and a new size moves the times.
func (n *node) Setattr(_ context.Context, s vnode.SetAttr) (a vnode.Attr, err error) {
	if err := n.w.writable(); err != nil {
		return a, err
	}
	err = n.with(func(r *safefs.Ref) error {
		if err := setRef(r, s); err != nil {
			return err
		}
		st, err := r.Stat()
		a = attrOf(n.f.vino, st)
		return err
	})
	return a, err
}

func setRef(r *safefs.Ref, s vnode.SetAttr) error {
	if s.UID != nil || s.GID != nil {
		if err := r.Chown(id(s.UID), id(s.GID)); err != nil {
			return err
		}
	}
	if s.Mode != nil {
		if err := r.Chmod(*s.Mode & 0o7777); err != nil {
			return err
		}
	}
	if s.Size != nil {
		if err := truncateRef(r, int64(*s.Size)); err != nil {
			return err
		}
	}
	if s.Atime == nil && s.Mtime == nil {
		return nil
	}
	return r.Utimens(moment(s.Atime), moment(s.Mtime))
}

func truncateRef(r *safefs.Ref, size int64) error {
	st, err := r.Stat()
	if err != nil {
		return err
	}
	if st.Type() != syscall.S_IFREG {
		return syscall.EINVAL
	}
	f, err := r.Open(syscall.O_WRONLY | syscall.O_NONBLOCK)
	if err != nil {
		return err
	}
	return closing(f, f.Truncate(size))
}

// id returns an ID for chown, -1 for none.
func id(p *uint32) int {
	if p == nil {
		return -1
	}
	return int(*p)
}

// moment returns a time for Utimens: zero leaves it alone, and what vnode calls
// now is now.
func moment(t *time.Time) time.Time {
	switch {
	case t == nil:
		return time.Time{}
	case t.IsZero():
		return time.Now()
	}
	return *t
}

func stampOf(ts unix.Timespec) time.Time { return time.Unix(ts.Unix()) }

// Getxattr reads one attribute.
func (n *node) Getxattr(_ context.Context, name string) (v []byte, err error) {
	err = n.with(func(r *safefs.Ref) error {
		v, err = r.Getxattr(name)
		return err
	})
	return v, err
}

// Listxattr lists the names.
func (n *node) Listxattr(context.Context) (names []string, err error) {
	err = n.with(func(r *safefs.Ref) error {
		names, err = r.Listxattr()
		return err
	})
	return names, err
}

// Setxattr sets one attribute, an ACL too.
func (n *node) Setxattr(_ context.Context, name string, value []byte, flags int) error {
	if err := n.w.writable(); err != nil {
		return err
	}
	return n.with(func(r *safefs.Ref) error { return r.Setxattr(name, value, flags) })
}

// Removexattr removes one attribute.
func (n *node) Removexattr(_ context.Context, name string) error {
	if err := n.w.writable(); err != nil {
		return err
	}
	return n.with(func(r *safefs.Ref) error { return r.Removexattr(name) })
}

// Statfs tells of the backing filesystem.
func (n *node) Statfs(context.Context) (st syscall.Statfs_t, err error) {
	err = n.with(func(r *safefs.Ref) error { return syscall.Fstatfs(r.Fd(), &st) })
	return st, err
}

// Fsync makes a directory's entries durable.
func (n *node) Fsync(context.Context, bool) error {
	return n.withDir((*safefs.Dir).Sync)
}
