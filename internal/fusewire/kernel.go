package fusewire

import (
	"bytes"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Opcodes and notices of linux/fuse.h.
const (
	opLookup        = 1
	opForget        = 2
	opGetAttr       = 3
	opSetAttr       = 4
	opSymlink       = 6
	opMknod         = 8
	opMkdir         = 9
	opUnlink        = 10
	opRmdir         = 11
	opRename        = 12
	opLink          = 13
	opOpen          = 14
	opRead          = 15
	opWrite         = 16
	opRelease       = 18
	opFsync         = 20
	opSetXattr      = 21
	opGetXattr      = 22
	opListXattr     = 23
	opRemoveXattr   = 24
	opFlush         = 25
	opReadDir       = 28
	opFsyncDir      = 30
	opSetLkW        = 33
	opCreate        = 35
	opInterrupt     = 36
	opDestroy       = 38
	opIoctl         = 39
	opBatchForget   = 42
	opFallocate     = 43
	opReadDirPlus   = 44
	opRename2       = 45
	opCopyFileRange = 47
	opSyncFS        = 50
	notifyInode     = 2
	notifyEntry     = 3
	notifyStore     = 4
)

// silent tells whether a request has no answer.
func silent(op uint32) bool { return op == opForget || op == opBatchForget }

// lengthy tells whether a request is one that may take as long as a disk, or
// another process, pleases.
func lengthy(r *reader) bool {
	switch r.head().Opcode {
	case opFsync, opFsyncDir, opSetLkW, opIoctl, opFallocate, opSyncFS, opDestroy:
		return true
	}
	return false
}

// Foresight may be implemented by a filesystem that knows beforehand what a request
// will take.
type Foresight interface {
	// BriefRmdir and BriefRename tell that RMDIR of name in the node dir, and RENAME of
	// it with these flags, need little processor time, whatever they wait for. They
	// wait for nothing themselves.
	BriefRmdir(dir uint64, name string) bool
	BriefRename(dir uint64, name string, flags uint32) bool
}

// laborious tells whether a request of n bytes may need much processor time: one that
// touches a whole directory, or tree.
func (s *Server) laborious(r *reader, n int) bool {
	switch r.head().Opcode {
	case opRmdir, opRename, opRename2:
		return !s.brief(r, n)
	case opReadDir, opReadDirPlus:
		return (*fuse.ReadIn)(unsafe.Pointer(&r.in[0])).Offset == 0
	}
	return false
}

// brief asks the filesystem what an RMDIR or a RENAME will take.
func (s *Server) brief(r *reader, n int) bool {
	h := r.head()
	sh, ok := shapeOf(h.Opcode)
	if !ok || s.foresight == nil || h.TotalExtlen != 0 || n < int(sh.in) {
		return false
	}
	end := bytes.IndexByte(r.in[sh.in:n], 0)
	if end < 0 {
		return false
	}
	name := string(r.in[sh.in:][:end])
	switch h.Opcode {
	case opRmdir:
		return s.foresight.BriefRmdir(h.NodeId, name)
	case opRename2:
		return s.foresight.BriefRename(h.NodeId, name, (*fuse.RenameIn)(unsafe.Pointer(h)).Flags)
	}
	return s.foresight.BriefRename(h.NodeId, name, 0)
}

// alters tells whether a request may change something: also the end of a file that
// was open for writing.
func alters(r *reader) bool {
	switch r.head().Opcode {
	case opSetAttr, opSymlink, opMknod, opMkdir, opUnlink, opRmdir, opRename, opRename2, opLink, opWrite, opSetXattr, opRemoveXattr,
		opFlush, opCreate, opCopyFileRange:
		return true
	case opOpen:
		return writes((*fuse.OpenIn)(unsafe.Pointer(&r.in[0])).Flags)
	case opRelease:
		return writes((*fuse.ReleaseIn)(unsafe.Pointer(&r.in[0])).Flags)
	}
	return false
}

func writes(flags uint32) bool {
	return flags&syscall.O_ACCMODE != syscall.O_RDONLY || flags&syscall.O_TRUNC != 0
}

// wanted returns how much data an answer may have, which is most at most.
func wanted(r *reader, most int) int {
	switch r.head().Opcode {
	case opRead, opReadDir, opReadDirPlus:
		return min(int((*fuse.ReadIn)(unsafe.Pointer(&r.in[0])).Size), most)
	case opIoctl:
		return min(int((*fuse.IoctlIn)(unsafe.Pointer(&r.in[0])).OutSize), most)
	}
	return attrMost
}

// bulky tells whether a request is one of those for much data that the kernel has
// several of at once: reader and server can work at the same time, and several
// threads go faster than one. Of WRITEs a program has one, and waits for it.
func bulky(r *reader) bool {
	const much = 1 << 16
	return r.head().Opcode == opRead && (*fuse.ReadIn)(unsafe.Pointer(&r.in[0])).Size > much
}

// copyMost is how much the talker copies in one request.
const copyMost = 1 << 20

// shorten has a COPY_FILE_RANGE copy less than it asks for, as it may: the
// program asks for the rest.
func shorten(r *reader) {
	if r.head().Opcode == opCopyFileRange {
		in := (*fuse.CopyFileRangeIn)(unsafe.Pointer(&r.in[0]))
		in.Len = min(in.Len, copyMost)
	}
}

// live calls f with the descriptor; EBADF when it is closed.
func (s *Server) live(f func() syscall.Errno) syscall.Errno {
	s.closing.RLock()
	defer s.closing.RUnlock()
	if s.closed {
		return syscall.EBADF
	}
	return f()
}

// InodeNotify tells the kernel that what it knows of an inode is no longer true:
// attributes, and data from off on; nothing of the data when off is negative.
func (s *Server) InodeNotify(id uint64, off, length int64) fuse.Status {
	m := struct {
		fuse.OutHeader
		fuse.NotifyInvalInodeOut
	}{fuse.OutHeader{Status: notifyInode}, fuse.NotifyInvalInodeOut{Ino: id, Off: off, Length: length}}
	m.OutHeader.Length = uint32(unsafe.Sizeof(m))
	return s.notify(unsafe.Slice((*byte)(unsafe.Pointer(&m)), unsafe.Sizeof(m)))
}

// EntryNotify tells the kernel that what it knows of a name is no longer true.
func (s *Server) EntryNotify(parent uint64, name string) fuse.Status {
	m := struct {
		fuse.OutHeader
		fuse.NotifyInvalEntryOut
	}{fuse.OutHeader{Status: notifyEntry}, fuse.NotifyInvalEntryOut{Parent: parent, NameLen: uint32(len(name))}}
	m.Length = uint32(unsafe.Sizeof(m)) + uint32(len(name)) + 1
	p := append(unsafe.Slice((*byte)(unsafe.Pointer(&m)), unsafe.Sizeof(m)), name...)
	return s.notify(append(p, 0))
}

// InodeNotifyStoreCache gives the kernel contents of a regular file, not none, in place
// of those that it has from off on; the file grows if they end behind its end. It waits
// for READs of them that are at work, and what a mapping has changed is overwritten: it
// is for files that nobody has open.
func (s *Server) InodeNotifyStoreCache(id uint64, off int64, data []byte) fuse.Status {
	m := struct {
		fuse.OutHeader
		fuse.NotifyStoreOut
	}{fuse.OutHeader{Status: notifyStore}, fuse.NotifyStoreOut{Nodeid: id, Offset: uint64(off), Size: uint32(len(data))}}
	m.Length = uint32(unsafe.Sizeof(m)) + uint32(len(data))
	var parts [2]syscall.Iovec
	parts[0].Base, parts[1].Base = (*byte)(unsafe.Pointer(&m)), &data[0]
	parts[0].SetLen(int(unsafe.Sizeof(m)))
	parts[1].SetLen(len(data))
	return fuse.Status(s.live(func() syscall.Errno {
		for {
			_, _, no := syscall.Syscall(syscall.SYS_WRITEV, uintptr(s.fd), uintptr(unsafe.Pointer(&parts[0])), uintptr(len(parts)))
			if no != syscall.EINTR {
				return no
			}
		}
	}))
}

func (s *Server) notify(p []byte) fuse.Status {
	return fuse.Status(s.live(func() syscall.Errno { return s.write(s.fd, p) }))
}

// FUSE_DEV_IOC_BACKING_OPEN and _CLOSE of linux/fuse.h.
const (
	backingOpen  = 0x4010e501
	backingClose = 0x4004e502
)

// RegisterBackingFd gives the kernel a file that it may read and write itself,
// and returns its number for OPEN's answer.
func (s *Server) RegisterBackingFd(m *fuse.BackingMap) (id int32, no syscall.Errno) {
	no = s.live(func() syscall.Errno {
		v, _, no := syscall.Syscall(syscall.SYS_IOCTL, uintptr(s.fd), backingOpen, uintptr(unsafe.Pointer(m)))
		id = int32(v)
		return no
	})
	return id, no
}

// UnregisterBackingFd takes it away.
func (s *Server) UnregisterBackingFd(id int32) syscall.Errno {
	return s.live(func() syscall.Errno {
		_, _, no := syscall.Syscall(syscall.SYS_IOCTL, uintptr(s.fd), backingClose, uintptr(unsafe.Pointer(&id)))
		return no
	})
}
