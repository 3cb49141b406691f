package main

import (
	"errors"
	"os"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Open implements fuse.RawFileSystem: the kernel need not ask.
func (l *loop) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

// OpenDir implements fuse.RawFileSystem.
func (l *loop) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

// Create implements fuse.RawFileSystem: it is Mknod.
func (l *loop) Create(<-chan struct{}, *fuse.CreateIn, string, *fuse.CreateOut) fuse.Status {
	return fuse.ENOSYS
}

// Flush implements fuse.RawFileSystem.
func (l *loop) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Access implements fuse.RawFileSystem.
func (l *loop) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.ENOSYS }

// with calls use with the descriptor of a node, which is kept until that is forgotten,
// while there is room for more.
func (l *loop) with(id uint64, use func(fd int) error) error {
	if fd := l.opened(id); fd > 0 {
		return use(fd)
	}
	path := l.path(id, "")
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	}
	if err != nil {
		return err
	}
	if l.keep(id, fd) {
		return use(fd)
	}
	return errors.Join(use(fd), unix.Close(fd))
}

// keep makes fd the node's, if it has none and there is room.
func (l *loop) keep(id uint64, fd int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.nodes[id]
	if n.fd != 0 || l.room == 0 {
		return false
	}
	n.fd = fd
	l.room--
	return true
}

// Read implements fuse.RawFileSystem.
func (l *loop) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n := 0
	err := l.with(in.NodeId, func(fd int) (err error) {
		n, err = unix.Pread(fd, buf, int64(in.Offset))
		return err
	})
	return fuse.ReadResultData(buf[:max(n, 0)]), failed(err)
}

// Write implements fuse.RawFileSystem.
func (l *loop) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n := 0
	err := l.with(in.NodeId, func(fd int) (err error) {
		n, err = unix.Pwrite(fd, data, int64(in.Offset))
		return err
	})
	return uint32(max(n, 0)), failed(err)
}

// Fallocate implements fuse.RawFileSystem.
func (l *loop) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	return failed(l.with(in.NodeId, func(fd int) error { return unix.Fallocate(fd, in.Mode, int64(in.Offset), int64(in.Length)) }))
}

// CopyFileRange implements fuse.RawFileSystem.
func (l *loop) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	n := 0
	err := l.with(in.NodeId, func(from int) error {
		return l.with(in.NodeIdOut, func(to int) (err error) {
			at, toAt := int64(in.OffIn), int64(in.OffOut)
			n, err = unix.CopyFileRange(from, &at, to, &toAt, int(min(in.Len, 1<<30)), 0)
			return err
		})
	})
	return uint32(max(n, 0)), failed(err)
}

// Fsync implements fuse.RawFileSystem.
func (l *loop) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return failed(l.with(in.NodeId, unix.Fsync))
}

// FsyncDir implements fuse.RawFileSystem.
func (l *loop) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	f, err := os.Open(l.path(in.NodeId, ""))
	if err != nil {
		return failed(err)
	}
	defer func() { _ = f.Close() }()
	return failed(f.Sync())
}

// Lseek implements fuse.RawFileSystem.
func (l *loop) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	off := int64(0)
	err := l.with(in.NodeId, func(fd int) (err error) {
		off, err = unix.Seek(fd, int64(in.Offset), int(in.Whence))
		return err
	})
	out.Offset = uint64(max(off, 0))
	return failed(err)
}

// ReadDir implements fuse.RawFileSystem.
func (l *loop) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	list, err := l.entries(in)
	for i := in.Offset; err == nil && i < uint64(len(list)); i++ {
		if !out.AddDirEntry(list[i]) {
			break
		}
	}
	return failed(err)
}

// ReadDirPlus implements fuse.RawFileSystem.
func (l *loop) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	list, err := l.entries(in)
	for i := in.Offset; err == nil && i < uint64(len(list)); i++ {
		e := out.AddDirLookupEntry(list[i])
		if e == nil {
			break
		}
		if i >= 2 {
			_ = l.look(in.NodeId, list[i].Name, e) // gone meanwhile: the entry stays without attributes
		}
	}
	return failed(err)
}

// entries lists the directory when it is read from its beginning.
func (l *loop) entries(in *fuse.ReadIn) ([]fuse.DirEntry, error) {
	l.mu.Lock()
	list := l.nodes[in.NodeId].list
	l.mu.Unlock()
	if in.Offset > 0 && list != nil {
		return list, nil
	}
	f, err := os.Open(l.path(in.NodeId, ""))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	list = []fuse.DirEntry{{Name: ".", Ino: in.NodeId, Mode: unix.S_IFDIR, Off: 1}, {Name: "..", Ino: 1, Mode: unix.S_IFDIR, Off: 2}}
	names, err := f.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	for i, e := range names {
		mode := uint32(unix.S_IFREG)
		switch {
		case e.IsDir():
			mode = unix.S_IFDIR
		case e.Type()&os.ModeSymlink != 0:
			mode = unix.S_IFLNK
		}
		list = append(list, fuse.DirEntry{Name: e.Name(), Ino: uint64(i) + 3, Mode: mode, Off: uint64(i) + 3})
	}
	l.mu.Lock()
	l.nodes[in.NodeId].list = list
	l.mu.Unlock()
	return list, nil
}
