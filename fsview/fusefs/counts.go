package fusefs

import (
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Requests tells of one kind of request what was answered so far.
type Requests struct {
	// Kind is the request's name in lower case.
	Kind string
	// Count is how many were answered, Total and Longest how long that took
	// in the server: without the kernel's part and the wait for a turn.
	Count          uint64
	Total, Longest time.Duration
}

// counter counts the requests of one kind.
type counter struct{ count, total, longest atomic.Int64 }

func (c *counter) since(begin time.Time) {
	took := int64(time.Since(begin))
	c.count.Add(1)
	c.total.Add(took)
	for {
		was := c.longest.Load()
		if took <= was || c.longest.CompareAndSwap(was, took) {
			return
		}
	}
}

// The kinds of requests, in the order in which they are shown.
const (
	opLookup = iota
	opForget
	opGetAttr
	opSetAttr
	opReadlink
	opSymlink
	opMknod
	opMkdir
	opUnlink
	opRmdir
	opRename
	opLink
	opOpen
	opCreate
	opTmpfile
	opRead
	opWrite
	opLseek
	opFallocate
	opCopyFileRange
	opIoctl
	opFlush
	opFsync
	opRelease
	opOpenDir
	opReadDir
	opReadDirPlus
	opFsyncDir
	opReleaseDir
	opAccess
	opGetXAttr
	opListXAttr
	opSetXAttr
	opRemoveXAttr
	opStatFs
	opStatx
	numOps
)

func opNames() [numOps]string {
	return [numOps]string{
		opLookup:        "lookup",
		opForget:        "forget",
		opGetAttr:       "getattr",
		opSetAttr:       "setattr",
		opReadlink:      "readlink",
		opSymlink:       "symlink",
		opMknod:         "mknod",
		opMkdir:         "mkdir",
		opUnlink:        "unlink",
		opRmdir:         "rmdir",
		opRename:        "rename",
		opLink:          "link",
		opOpen:          "open",
		opCreate:        "create",
		opTmpfile:       "tmpfile",
		opRead:          "read",
		opWrite:         "write",
		opLseek:         "lseek",
		opFallocate:     "fallocate",
		opCopyFileRange: "copyfilerange",
		opIoctl:         "ioctl",
		opFlush:         "flush",
		opFsync:         "fsync",
		opRelease:       "release",
		opOpenDir:       "opendir",
		opReadDir:       "readdir",
		opReadDirPlus:   "readdirplus",
		opFsyncDir:      "fsyncdir",
		opReleaseDir:    "releasedir",
		opAccess:        "access",
		opGetXAttr:      "getxattr",
		opListXAttr:     "listxattr",
		opSetXAttr:      "setxattr",
		opRemoveXAttr:   "removexattr",
		opStatFs:        "statfs",
		opStatx:         "statx",
	}
}

// Requests returns the numbers now, always of the same kinds in the same order.
func (s *Server) Requests() []Requests {
	list := make([]Requests, numOps)
	for i, name := range opNames() {
		c := &s.counts[i]
		list[i] = Requests{name, uint64(c.count.Load()), time.Duration(c.total.Load()), time.Duration(c.longest.Load())}
	}
	return list
}

// counted counts what it hands on to raw.
type counted struct {
	*raw
	counts *[numOps]counter
}

// Lookup implements fuse.RawFileSystem.
func (c counted) Lookup(cancel <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	defer c.counts[opLookup].since(time.Now())
	return c.raw.Lookup(cancel, header, name, out)
}

// Forget implements fuse.RawFileSystem.
func (c counted) Forget(nodeid, nlookup uint64) {
	defer c.counts[opForget].since(time.Now())
	c.raw.Forget(nodeid, nlookup)
}

// GetAttr implements fuse.RawFileSystem.
func (c counted) GetAttr(cancel <-chan struct{}, input *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	defer c.counts[opGetAttr].since(time.Now())
	return c.raw.GetAttr(cancel, input, out)
}

// SetAttr implements fuse.RawFileSystem.
func (c counted) SetAttr(cancel <-chan struct{}, input *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	defer c.counts[opSetAttr].since(time.Now())
	cancel, answered := patient(cancel, input.Pid)
	defer answered()
	return c.raw.SetAttr(cancel, input, out)
}

// Readlink implements fuse.RawFileSystem.
func (c counted) Readlink(cancel <-chan struct{}, header *fuse.InHeader) ([]byte, fuse.Status) {
	defer c.counts[opReadlink].since(time.Now())
	return c.raw.Readlink(cancel, header)
}

// Symlink implements fuse.RawFileSystem.
func (c counted) Symlink(cancel <-chan struct{}, header *fuse.InHeader, pointedTo string, linkName string, out *fuse.EntryOut) fuse.Status {
	defer c.counts[opSymlink].since(time.Now())
	cancel, answered := patient(cancel, header.Pid)
	defer answered()
	return c.raw.Symlink(cancel, header, pointedTo, linkName, out)
}

// Mknod implements fuse.RawFileSystem.
func (c counted) Mknod(cancel <-chan struct{}, input *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	defer c.counts[opMknod].since(time.Now())
	cancel, answered := patient(cancel, input.Pid)
	defer answered()
	return c.raw.Mknod(cancel, input, name, out)
}

// Mkdir implements fuse.RawFileSystem.
func (c counted) Mkdir(cancel <-chan struct{}, input *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	defer c.counts[opMkdir].since(time.Now())
	cancel, answered := patient(cancel, input.Pid)
	defer answered()
	return c.raw.Mkdir(cancel, input, name, out)
}

// Unlink implements fuse.RawFileSystem.
func (c counted) Unlink(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	defer c.counts[opUnlink].since(time.Now())
	cancel, answered := patient(cancel, header.Pid)
	defer answered()
	return c.raw.Unlink(cancel, header, name)
}

// Rmdir implements fuse.RawFileSystem.
func (c counted) Rmdir(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	defer c.counts[opRmdir].since(time.Now())
	cancel, answered := patient(cancel, header.Pid)
	defer answered()
	return c.raw.Rmdir(cancel, header, name)
}

// Rename implements fuse.RawFileSystem.
func (c counted) Rename(cancel <-chan struct{}, input *fuse.RenameIn, oldName string, newName string) fuse.Status {
	defer c.counts[opRename].since(time.Now())
	cancel, answered := patient(cancel, input.Pid)
	defer answered()
	return c.raw.Rename(cancel, input, oldName, newName)
}

// Link implements fuse.RawFileSystem.
func (c counted) Link(cancel <-chan struct{}, input *fuse.LinkIn, filename string, out *fuse.EntryOut) fuse.Status {
	defer c.counts[opLink].since(time.Now())
	cancel, answered := patient(cancel, input.Pid)
	defer answered()
	return c.raw.Link(cancel, input, filename, out)
}

// Open implements fuse.RawFileSystem.
func (c counted) Open(cancel <-chan struct{}, input *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	defer c.counts[opOpen].since(time.Now())
	cancel, answered := patient(cancel, input.Pid)
	defer answered()
	return c.raw.Open(cancel, input, out)
}

// Create implements fuse.RawFileSystem.
func (c counted) Create(cancel <-chan struct{}, input *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	defer c.counts[opCreate].since(time.Now())
	cancel, answered := patient(cancel, input.Pid)
	defer answered()
	return c.raw.Create(cancel, input, name, out)
}

// Tmpfile implements fuse.RawFileSystem.
func (c counted) Tmpfile(cancel <-chan struct{}, input *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	defer c.counts[opTmpfile].since(time.Now())
	return c.raw.Tmpfile(cancel, input, out)
}

// Read implements fuse.RawFileSystem.
func (c counted) Read(cancel <-chan struct{}, input *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	defer c.counts[opRead].since(time.Now())
	return c.raw.Read(cancel, input, buf)
}

// Write implements fuse.RawFileSystem.
func (c counted) Write(cancel <-chan struct{}, input *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	defer c.counts[opWrite].since(time.Now())
	cancel, answered := patient(cancel, input.Pid)
	defer answered()
	return c.raw.Write(cancel, input, data)
}

// Lseek implements fuse.RawFileSystem.
func (c counted) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	defer c.counts[opLseek].since(time.Now())
	return c.raw.Lseek(cancel, in, out)
}

// Fallocate implements fuse.RawFileSystem.
func (c counted) Fallocate(cancel <-chan struct{}, input *fuse.FallocateIn) fuse.Status {
	defer c.counts[opFallocate].since(time.Now())
	return c.raw.Fallocate(cancel, input)
}

// CopyFileRange implements fuse.RawFileSystem.
func (c counted) CopyFileRange(cancel <-chan struct{}, input *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	defer c.counts[opCopyFileRange].since(time.Now())
	return c.raw.CopyFileRange(cancel, input)
}

// Ioctl implements fuse.RawFileSystem.
func (c counted) Ioctl(cancel <-chan struct{}, input *fuse.IoctlIn, inbuf []byte, output *fuse.IoctlOut, outbuf []byte) fuse.Status {
	defer c.counts[opIoctl].since(time.Now())
	return c.raw.Ioctl(cancel, input, inbuf, output, outbuf)
}

// Flush implements fuse.RawFileSystem.
func (c counted) Flush(cancel <-chan struct{}, input *fuse.FlushIn) fuse.Status {
	defer c.counts[opFlush].since(time.Now())
	cancel, answered := patient(cancel, input.Pid)
	defer answered()
	return c.raw.Flush(cancel, input)
}

// Fsync implements fuse.RawFileSystem.
func (c counted) Fsync(cancel <-chan struct{}, input *fuse.FsyncIn) fuse.Status {
	defer c.counts[opFsync].since(time.Now())
	cancel, answered := patient(cancel, input.Pid)
	defer answered()
	return c.raw.Fsync(cancel, input)
}

// Release implements fuse.RawFileSystem.
func (c counted) Release(cancel <-chan struct{}, input *fuse.ReleaseIn) {
	defer c.counts[opRelease].since(time.Now())
	c.raw.Release(cancel, input)
}

// OpenDir implements fuse.RawFileSystem.
func (c counted) OpenDir(cancel <-chan struct{}, input *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	defer c.counts[opOpenDir].since(time.Now())
	return c.raw.OpenDir(cancel, input, out)
}

// ReadDir implements fuse.RawFileSystem.
func (c counted) ReadDir(cancel <-chan struct{}, input *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	defer c.counts[opReadDir].since(time.Now())
	return c.raw.ReadDir(cancel, input, out)
}

// ReadDirPlus implements fuse.RawFileSystem.
func (c counted) ReadDirPlus(cancel <-chan struct{}, input *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	defer c.counts[opReadDirPlus].since(time.Now())
	return c.raw.ReadDirPlus(cancel, input, out)
}

// FsyncDir implements fuse.RawFileSystem.
func (c counted) FsyncDir(cancel <-chan struct{}, input *fuse.FsyncIn) fuse.Status {
	defer c.counts[opFsyncDir].since(time.Now())
	return c.raw.FsyncDir(cancel, input)
}

// ReleaseDir implements fuse.RawFileSystem.
func (c counted) ReleaseDir(input *fuse.ReleaseIn) {
	defer c.counts[opReleaseDir].since(time.Now())
	c.raw.ReleaseDir(input)
}

// Access implements fuse.RawFileSystem.
func (c counted) Access(cancel <-chan struct{}, input *fuse.AccessIn) fuse.Status {
	defer c.counts[opAccess].since(time.Now())
	return c.raw.Access(cancel, input)
}

// GetXAttr implements fuse.RawFileSystem.
func (c counted) GetXAttr(cancel <-chan struct{}, header *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	defer c.counts[opGetXAttr].since(time.Now())
	return c.raw.GetXAttr(cancel, header, attr, dest)
}

// ListXAttr implements fuse.RawFileSystem.
func (c counted) ListXAttr(cancel <-chan struct{}, header *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	defer c.counts[opListXAttr].since(time.Now())
	return c.raw.ListXAttr(cancel, header, dest)
}

// SetXAttr implements fuse.RawFileSystem.
func (c counted) SetXAttr(cancel <-chan struct{}, input *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	defer c.counts[opSetXAttr].since(time.Now())
	cancel, answered := patient(cancel, input.Pid)
	defer answered()
	return c.raw.SetXAttr(cancel, input, attr, data)
}

// RemoveXAttr implements fuse.RawFileSystem.
func (c counted) RemoveXAttr(cancel <-chan struct{}, header *fuse.InHeader, attr string) fuse.Status {
	defer c.counts[opRemoveXAttr].since(time.Now())
	cancel, answered := patient(cancel, header.Pid)
	defer answered()
	return c.raw.RemoveXAttr(cancel, header, attr)
}

// StatFs implements fuse.RawFileSystem.
func (c counted) StatFs(cancel <-chan struct{}, input *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	defer c.counts[opStatFs].since(time.Now())
	return c.raw.StatFs(cancel, input, out)
}

// Statx implements fuse.RawFileSystem.
func (c counted) Statx(cancel <-chan struct{}, input *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	defer c.counts[opStatx].since(time.Now())
	return c.raw.Statx(cancel, input, out)
}
