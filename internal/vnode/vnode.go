// Package vnode is the contract between the trees that plyfs shows and the
// programs that show them.
//
// A tree (the control tree of fsview, a merged tree of fuse-overlay, a window
// on a host directory) is made of nodes. A server (the FUSE adapter in
// fsview/fusefs, the commands `plyfs ls` and `plyfs cat`) walks them. Neither
// side knows the other: a tree answers the small interfaces below, and a
// server finds out by type assertion, as io/fs does, what a node can do.
//
// # Identity and life
//
// A node stands for a file, not for a path. Two look-ups of one file may
// return two Go values; they are the same file exactly when Ino is equal, and
// a server keeps one of them. Ino is also what stat shows; it is the same at
// every mount. A server calls Forget, once, on a Forgetter that it drops.
//
// # Errors
//
// Methods return Go errors; a server turns them into an errno with errno.Of
// and may show the text. What a node does not implement is answered by the
// server: EPERM for a change of a directory's entries, EROFS for Setattr,
// EINVAL for Readlink, EOPNOTSUPP for extended attributes.
//
// # Locks and time
//
// Methods may be called from many goroutines at once. Each takes a context
// that ends when the caller is interrupted or killed; a method that can last
// must watch it.
package vnode

import (
	"context"
	"os"
	"syscall"
	"time"
)

// Attr is what stat(2) shows of a node. Mode holds the type bits. Sizes are in
// bytes, Blocks in units of 512 bytes.
type Attr struct {
	Ino                        uint64
	Mode, Nlink                uint32
	UID, GID                   uint32
	Size, Blocks               uint64
	Rdev                       uint64
	Atime, Mtime, Ctime, Btime time.Time
}

// Validity says how long what a node told may be believed without asking.
type Validity uint8

const (
	// ValidNone is asked again at every use.
	ValidNone Validity = iota
	// ValidStore holds until the store's generation changes; the server lets
	// go of it before the new generation is shown to anyone.
	ValidStore
	// ValidForever never changes while the mount lives.
	ValidForever
	// ValidCall is ValidNone, but attributes told with it hold for the system call that
	// looked the file up: that needs not ask for them again.
	ValidCall
)

// Child is the answer to a look-up. Entry is how long the name stays bound to
// this node (or, when Node is nil, to nothing: a negative entry), Attr how
// long the node's attributes may be believed.
type Child struct {
	Node        Node
	Entry, Attr Validity
}

// Dirent is one line of a directory. Type is the file type bits of Mode. Fixed
// says that the name means this file for as long as its directory is there.
type Dirent struct {
	Name  string
	Ino   uint64
	Type  uint32
	Fixed bool
}

// Lister is a Directory whose listing may hold until the store changes. Of its
// entries only those that are Fixed are worth telling attributes of unasked.
type Lister interface {
	Directory
	// ListingHolds tells whether a listing read now holds until the store
	// changes. It may change its mind at any time.
	ListingHolds() bool
}

// Snapshotter is a Directory that can be asked much about one state of its tree.
type Snapshotter interface {
	Directory
	// Snapshot returns a context in which the directory, and what is found in it,
	// show the present state and look for no newer. It is for a request that changes
	// nothing.
	Snapshot(ctx context.Context) context.Context
}

// Caller is who asks. A context without one means the process itself.
type Caller struct{ UID, GID, PID uint32 }

type callerKey struct{}

// WithCaller returns a context that carries c.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf returns the caller that ctx carries, and whether there is one.
func CallerOf(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	return c, ok
}

// Node is any file of a tree.
type Node interface {
	// Ino returns the node's identity and inode number, never 0 or ^0.
	Ino() uint64
	// Attr returns the attributes as they are now.
	Attr(ctx context.Context) (Attr, error)
}

// Directory is a node with entries. "." and ".." are the server's.
type Directory interface {
	Node
	// Lookup finds name. A missing name is an error of errno ENOENT, or a
	// Child without Node where the absence may be remembered.
	Lookup(ctx context.Context, name string) (Child, error)
	// ReadDir returns all entries, in an order that does not change while the
	// set does not. The slice is the caller's.
	ReadDir(ctx context.Context) ([]Dirent, error)
}

// Symlink is a node with a target.
type Symlink interface {
	Readlink(ctx context.Context) (string, error)
}

// Opener is a regular file. Flags are those of open(2), O_TRUNC among them.
// The handle is the caller's until Release.
type Opener interface {
	Open(ctx context.Context, flags int) (Handle, error)
}

// Mkdirer makes directories. A nested form of the control tree returns the
// symlink it left, with ValidNone.
type Mkdirer interface {
	Mkdir(ctx context.Context, name string, mode uint32) (Child, error)
}

// Creator makes and opens regular files.
type Creator interface {
	Create(ctx context.Context, name string, flags int, mode uint32) (Child, Handle, error)
}

// Mknoder makes device nodes, FIFOs, sockets and, with S_IFREG, files.
type Mknoder interface {
	Mknod(ctx context.Context, name string, mode uint32, rdev uint64) (Child, error)
}

// Symlinker makes symlinks.
type Symlinker interface {
	Symlink(ctx context.Context, name, target string) (Child, error)
}

// Linker makes hard links to target, a node of the same tree.
type Linker interface {
	Link(ctx context.Context, name string, target Node) (Child, error)
}

// Unlinker removes what is not a directory.
type Unlinker interface {
	Unlink(ctx context.Context, name string) error
}

// Rmdirer removes directories.
type Rmdirer interface {
	Rmdir(ctx context.Context, name string) error
}

// Renamer moves an entry. newParent is a node of any tree under the same
// server: a Renamer refuses those that are not its own with EINVAL (never
// EXDEV in the control tree: mv would copy). Flags are renameat2's.
type Renamer interface {
	Rename(ctx context.Context, name string, newParent Node, newName string, flags uint32) error
}

// SetAttr is a set of changes; a nil field is left alone. A time with IsZero
// true means now.
type SetAttr struct {
	Mode         *uint32
	UID, GID     *uint32
	Size         *uint64
	Atime, Mtime *time.Time
}

// Setattrer changes attributes (of the file, not of a descriptor).
type Setattrer interface {
	Setattr(ctx context.Context, s SetAttr) (Attr, error)
}

// OwnerShower is a node that may be shown with another owner than it has: the
// one that its container sees. Attr, callers and Setattr speak of real owners,
// by which permissions are checked.
type OwnerShower interface {
	// ShowOwner returns what is to be shown for an owner that Attr returned,
	// and false when that is to be shown as any other is.
	ShowOwner(ctx context.Context, uid, gid uint32) (shownUID, shownGID uint32, ok bool)
	// ShowIDs is the same for any IDs, those of an ACL.
	ShowIDs(uid, gid uint32) (shownUID, shownGID uint32, ok bool)
}

// OwnerTaker is an OwnerShower whose owner can be changed.
type OwnerTaker interface {
	OwnerShower
	// TakeOwner is the inverse: it returns the real IDs of two that are shown;
	// a nil one is nothing to change. False when they are shown as they are.
	// ErrBadValue for one that has no real ID.
	TakeOwner(uid, gid *uint32) (realUID, realGID *uint32, ok bool, err error)
}

// Xattrer holds extended attributes. A missing one is ENODATA.
type Xattrer interface {
	Getxattr(ctx context.Context, name string) ([]byte, error)
	Listxattr(ctx context.Context) ([]string, error)
}

// XattrSetter changes extended attributes. Flags are setxattr's.
type XattrSetter interface {
	Setxattr(ctx context.Context, name string, value []byte, flags int) error
	Removexattr(ctx context.Context, name string) error
}

// Statfser knows the size of the filesystem behind it.
type Statfser interface {
	Statfs(ctx context.Context) (syscall.Statfs_t, error)
}

// Forgetter gives back what it holds (descriptors) when a server drops it.
type Forgetter interface{ Forget() }

// OpenFlags tell a server how to treat a handle's pages.
type OpenFlags uint8

const (
	// DirectIO bypasses the page cache: the value was taken at open and the
	// file's next opening may see another.
	DirectIO OpenFlags = 1 << iota
	// KeepCache keeps pages from earlier opens: the content never changes.
	KeepCache
	// NonSeekable makes lseek and pread fail with ESPIPE.
	NonSeekable
	// NoFlush says that close(2) need not reach the handle.
	NoFlush
)

// Handle is an open file. ReadAt follows io.ReaderAt except that a short read
// without error means end of file. Release is called once, after the last
// reference is gone; its error reaches nobody but the log.
type Handle interface {
	Flags() OpenFlags
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
	Release(ctx context.Context) error
}

// Backed is a handle that reads what is in a file of the host, at the same places
// and to the same end. All handles of one node that are open at one time have the
// same file.
type Backed interface {
	// Backing opens that file once more, for the kernel to read by itself: so that
	// reading leaves its access time as it is. The file is the caller's to close.
	// Nil: the kernel had better ask.
	Backing() (*os.File, error)
}

// Writer is a handle that takes data.
type Writer interface {
	WriteAt(ctx context.Context, p []byte, off int64) (int, error)
}

// Flusher is told of every close(2) of a descriptor of the handle, of which
// there may be several; its error is close's.
type Flusher interface {
	Flush(ctx context.Context) error
}

// Truncater changes the size through the handle (ftruncate).
type Truncater interface {
	Truncate(ctx context.Context, size uint64) error
}

// HandleAttr answers fstat through the handle, also when the file has lost
// its last name.
type HandleAttr interface {
	Attr(ctx context.Context) (Attr, error)
}

// HandleSetattr answers fchmod, fchown and futimens through the handle.
type HandleSetattr interface {
	Setattr(ctx context.Context, s SetAttr) (Attr, error)
}

// Fsyncer makes what was written durable.
type Fsyncer interface {
	Fsync(ctx context.Context, dataOnly bool) error
}

// Seeker answers SEEK_DATA and SEEK_HOLE.
type Seeker interface {
	Seek(ctx context.Context, off int64, whence int) (int64, error)
}

// Allocator answers fallocate(2).
type Allocator interface {
	Allocate(ctx context.Context, off, size int64, mode uint32) error
}
