package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// loop is a loopback on go-fuse's raw interface that does as little as can be:
// one directory, no layers, no checks. The kernel is told to believe everything
// for good and not to ask about opens, as by fuse-overlay, so that what is
// between the two is what an overlay costs. It is measured, never used.
type loop struct {
	fuse.RawFileSystem
	top string

	mu    sync.Mutex
	nodes map[uint64]*loopNode
	next  uint64
	room  int // how many more descriptors are kept; guarded by mu
}

// loopNode is a name; all of it is guarded by loop.mu.
type loopNode struct {
	id, lookups uint64
	up          *loopNode
	name        string
	children    map[string]*loopNode
	fd          int // 0: none
	list        []fuse.DirEntry
}

const forever = 365 * 24 * time.Hour

// serveFloor mounts dir at mnt and serves until it is unmounted.
func serveFloor(dir, mnt string) error {
	l := &loop{RawFileSystem: fuse.NewDefaultRawFileSystem(), top: dir, nodes: map[uint64]*loopNode{}, next: 2}
	l.nodes[1] = &loopNode{id: 1, children: map[string]*loopNode{}}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	const others = 500 // for a moment, and the runtime's
	l.room = int(min(limit.Cur, 1<<20)) - others
	if l.room <= 0 {
		return fmt.Errorf("no more than %d files may be open (ulimit -n): the floor keeps many", limit.Cur)
	}
	unix.Umask(0)
	root := os.Geteuid() == 0
	s, err := fuse.NewServer(l, mnt, &fuse.MountOptions{
		Name: "floor", FsName: "floor", AllowOther: root, Options: []string{"default_permissions"}, DirectMountStrict: root,
		MaxWrite: 1 << 20, MaxBackground: 64, DisableSplice: true, EnableAcl: true, EnableSymlinkCaching: true, ExplicitDataCacheControl: true,
		ExtraCapabilities: fuse.CAP_DONT_MASK | fuse.CAP_ASYNC_DIO | fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_HANDLE_KILLPRIV_V2,
	})
	if err != nil {
		return err
	}
	s.Serve()
	return nil
}

func (l *loop) path(id uint64, name string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var parts []string
	for n := l.nodes[id]; n != nil && n.up != nil; n = n.up {
		parts = append(parts, n.name)
	}
	out := l.top
	for i := len(parts) - 1; i >= 0; i-- {
		out += "/" + parts[i]
	}
	if name != "" {
		out += "/" + name
	}
	return out
}

func failed(err error) fuse.Status {
	var no syscall.Errno
	if err == nil {
		return fuse.OK
	}
	if errors.As(err, &no) {
		return fuse.Status(no)
	}
	return fuse.EIO
}

// entered answers with the node of name, which was looked up once more.
func (l *loop) entered(dir uint64, name string, st *syscall.Stat_t, out *fuse.EntryOut) {
	l.mu.Lock()
	p := l.nodes[dir]
	n := p.children[name]
	if n == nil {
		n = &loopNode{id: l.next, up: p, name: name}
		l.next++
		l.nodes[n.id] = n
		if p.children == nil {
			p.children = map[string]*loopNode{}
		}
		p.children[name] = n
	}
	n.lookups++
	l.mu.Unlock()
	out.NodeId, out.Generation = n.id, 1
	out.SetEntryTimeout(forever)
	out.SetAttrTimeout(forever)
	out.FromStat(st)
}

func (l *loop) look(dir uint64, name string, out *fuse.EntryOut) fuse.Status {
	var st syscall.Stat_t
	if err := syscall.Lstat(l.path(dir, name), &st); err != nil {
		return failed(err)
	}
	l.entered(dir, name, &st, out)
	return fuse.OK
}

// Lookup implements fuse.RawFileSystem.
func (l *loop) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	s := l.look(h.NodeId, name, out)
	if s == fuse.ENOENT {
		out.SetEntryTimeout(forever)
		return fuse.OK
	}
	return s
}

// Forget implements fuse.RawFileSystem.
func (l *loop) Forget(id, k uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.nodes[id]
	if n == nil || n.up == nil {
		return
	}
	if n.lookups -= min(k, n.lookups); n.lookups > 0 {
		return
	}
	delete(l.nodes, id)
	if n.up.children[n.name] == n {
		delete(n.up.children, n.name)
	}
	if n.fd > 0 {
		_ = unix.Close(n.fd)
		l.room++
	}
}

// GetAttr implements fuse.RawFileSystem.
func (l *loop) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return l.attr(in.NodeId, out)
}

func (l *loop) attr(id uint64, out *fuse.AttrOut) fuse.Status {
	var st syscall.Stat_t
	var err error
	if fd := l.opened(id); fd > 0 {
		err = syscall.Fstat(fd, &st)
	} else {
		err = syscall.Lstat(l.path(id, ""), &st)
	}
	out.SetTimeout(forever)
	out.FromStat(&st)
	return failed(err)
}

func (l *loop) opened(id uint64) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nodes[id].fd
}

// SetAttr implements fuse.RawFileSystem.
func (l *loop) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	path := l.path(in.NodeId, "")
	var err error
	uid, hasUID := in.GetUID()
	gid, hasGID := in.GetGID()
	if hasUID || hasGID {
		u, g := -1, -1
		if hasUID {
			u = int(uid)
		}
		if hasGID {
			g = int(gid)
		}
		err = os.Lchown(path, u, g)
	}
	if mode, ok := in.GetMode(); ok {
		err = errors.Join(err, syscall.Chmod(path, mode))
	}
	if size, ok := in.GetSize(); ok {
		err = errors.Join(err, syscall.Truncate(path, int64(size)))
	}
	at, hasAt := in.GetATime()
	mt, hasMt := in.GetMTime()
	if hasAt || hasMt {
		ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
		for i, x := range []struct {
			t  time.Time
			ok bool
		}{{at, hasAt}, {mt, hasMt}} {
			if x.ok {
				ts[i] = unix.NsecToTimespec(x.t.UnixNano())
			}
		}
		err = errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW))
	}
	if err != nil {
		return failed(err)
	}
	return l.attr(in.NodeId, out)
}

// Readlink implements fuse.RawFileSystem.
func (l *loop) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	target, err := os.Readlink(l.path(h.NodeId, ""))
	return []byte(target), failed(err)
}

// GetXAttr implements fuse.RawFileSystem.
func (l *loop) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	n, err := unix.Lgetxattr(l.path(h.NodeId, ""), attr, dest)
	return uint32(max(n, 0)), failed(err)
}

// ListXAttr implements fuse.RawFileSystem.
func (l *loop) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	n, err := unix.Llistxattr(l.path(h.NodeId, ""), dest)
	return uint32(max(n, 0)), failed(err)
}

// SetXAttr implements fuse.RawFileSystem.
func (l *loop) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	return failed(unix.Lsetxattr(l.path(in.NodeId, ""), attr, data, int(in.Flags)))
}

// RemoveXAttr implements fuse.RawFileSystem.
func (l *loop) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string) fuse.Status {
	return failed(unix.Lremovexattr(l.path(h.NodeId, ""), attr))
}

// Mknod implements fuse.RawFileSystem. A file that is made is kept open.
func (l *loop) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	path, mode := l.path(in.NodeId, name), in.Mode&^in.Umask
	if mode&syscall.S_IFMT != syscall.S_IFREG {
		if err := syscall.Mknod(path, mode, int(in.Rdev)); err != nil {
			return failed(err)
		}
		return l.look(in.NodeId, name, out)
	}
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, mode&0o7777)
	if err != nil {
		return failed(err)
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return failed(err)
	}
	l.entered(in.NodeId, name, &st, out)
	if !l.keep(out.NodeId, fd) {
		return failed(unix.Close(fd))
	}
	return fuse.OK
}

// Mkdir implements fuse.RawFileSystem.
func (l *loop) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	if err := syscall.Mkdir(l.path(in.NodeId, name), in.Mode&^in.Umask); err != nil {
		return failed(err)
	}
	return l.look(in.NodeId, name, out)
}

// Symlink implements fuse.RawFileSystem.
func (l *loop) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	if err := os.Symlink(target, l.path(h.NodeId, name)); err != nil {
		return failed(err)
	}
	return l.look(h.NodeId, name, out)
}

// Link implements fuse.RawFileSystem, but for the two names' being one node.
func (l *loop) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if err := os.Link(l.path(in.Oldnodeid, ""), l.path(in.NodeId, name)); err != nil {
		return failed(err)
	}
	return l.look(in.NodeId, name, out)
}

func (l *loop) gone(dir uint64, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.nodes[dir].children, name)
}

// Unlink implements fuse.RawFileSystem.
func (l *loop) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	err := unix.Unlink(l.path(h.NodeId, name))
	if err == nil {
		l.gone(h.NodeId, name)
	}
	return failed(err)
}

// Rmdir implements fuse.RawFileSystem.
func (l *loop) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	err := unix.Rmdir(l.path(h.NodeId, name))
	if err == nil {
		l.gone(h.NodeId, name)
	}
	return failed(err)
}

// Rename implements fuse.RawFileSystem.
func (l *loop) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	if err := unix.Renameat2(unix.AT_FDCWD, l.path(in.NodeId, from), unix.AT_FDCWD, l.path(in.Newdir, to), uint(in.Flags)); err != nil {
		return failed(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	a, b := l.nodes[in.NodeId], l.nodes[in.Newdir]
	n := a.children[from]
	delete(a.children, from)
	if n != nil {
		if b.children == nil {
			b.children = map[string]*loopNode{}
		}
		n.up, n.name, b.children[to] = b, to, n
	}
	return fuse.OK
}

// StatFs implements fuse.RawFileSystem.
func (l *loop) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	var st syscall.Statfs_t
	err := syscall.Statfs(filepath.Clean(l.top), &st)
	out.FromStatfsT(&st)
	return failed(err)
}
