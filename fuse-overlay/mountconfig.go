package fuseoverlay

import (
	"io"
	"path/filepath"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
)

// Subtype is what follows "fuse." in the type of our mounts, and their source.
const Subtype = "fuse-overlay"

// MountConfig says what a mount of the writable overlay is to be. The zero
// value of every field is its default; Lower is required.
type MountConfig struct {
	// Lower are the lower layers' directories, top first: 1 to MaxLayers, less
	// one when there is an Upper. They are only read. Symlinks in these paths
	// are followed.
	Lower []string
	// Upper takes the changes; Work is a directory on the same filesystem for
	// what is being prepared, of which the mount owns `work` and `index`.
	// Both or neither: without them the mount is read-only.
	Upper, Work string
	// Volatile syncs nothing: after a power loss the upper may hold anything.
	Volatile bool
	// Formats are the marks that are understood; 0 is AllMarks. Which of them
	// are written is found out from the upper: trusted.overlay.* where that
	// may be set, else user.overlay.*, and `.wh.` files where no device 0:0
	// can be made.
	Formats Format
	// Descriptors bounds the descriptors kept open for directories, and again
	// for files; 0 chooses by the process's limit.
	Descriptors int
	// Redirects lets a directory that lower layers have a part in be renamed
	// without copying what is below: a redirect says where that is (the
	// kernel's redirect_dir=on). Kernel mounts with userxattr, and Debian's
	// podman when it exports such an upper, do not follow them.
	Redirects bool
	// Metacopy lets a change of attributes copy no data (the kernel's
	// metacopy=on, of trusted.* only, needed to read such an upper).
	Metacopy bool
	// RenameFiles and RenameBytes are how much of lower layers the rename of a
	// directory may copy up, before it answers EXDEV and mv copies; 0: 10000
	// files, 256 MiB (the sum of the files' sizes: holes and reflinks count too).
	RenameFiles int
	RenameBytes int64

	// EntryTimeout and AttrTimeout say how long the kernel may believe names
	// and attributes; 0 is for good, since nobody else changes the layers.
	EntryTimeout, AttrTimeout time.Duration
	// missed is Tree.often, 0: oftenMissed.
	missed uint32
	// row is ahead.row, 0: walkRow; negative: nothing is read ahead. patience is
	// ahead.patience, 0: forsaken.
	row      int
	patience time.Duration
	// MaxWrite is the largest read or write request in bytes; 0: 512 KiB, which with its
	// header fits into the largest pipe of an ordinary user (internal/fusewire).
	MaxWrite int
	// NoACL switches POSIX ACLs off, NoXattrs all extended attributes: they
	// are neither shown nor taken; what is in the layers stays.
	NoACL, NoXattrs bool
	// Aside keeps owners and modes in an attribute of the files, which have what
	// the server has: AsideSecurity or AsideUser. It switches ACLs off.
	Aside Aside
	// AllowOther lets users other than the mounting one in. It is always on
	// for root.
	AllowOther bool
	// AllowRoot lets in root and the mounting user, and nobody else. The kernel
	// then keeps no names and no attributes, since it would show them to others.
	AllowRoot bool
	// Writeback lets the kernel gather writes: data comes late, and with it
	// ENOSPC. Holes of files are not told then. Not with MaxBytes or MaxFiles.
	Writeback bool
	// Passthrough lets the kernel read and write the upper's files without asking.
	// It needs CAP_SYS_ADMIN of the machine; not with Writeback, MaxBytes or
	// MaxFiles, nor without an upper. Where it cannot be had, the log says why.
	Passthrough Passthrough
	// ReadOnly refuses every change at the mount.
	ReadOnly bool
	// NoExec, NoSuid and NoDev are the mount flags; ordinary users' mounts are
	// always nosuid and nodev.
	NoExec, NoSuid, NoDev, NoAtime bool
	// UIDs and GIDs map the IDs in the layers (a range's ContainerID) to those
	// that the mount shows (its HostID), empty: the same. Others are shown as
	// 65534, which is also the owner of what they make, and cannot be set:
	// EOVERFLOW.
	UIDs, GIDs []idmap.Range
	// SquashUID and SquashGID show every file with that owner; what is made or
	// changed keeps its own in the upper. Nil: not.
	SquashUID, SquashGID *uint32
	// StaticNlink shows link count 1 for every directory; Ino32 folds inode
	// numbers to 32 bits, which makes them unique no more.
	StaticNlink, Ino32 bool
	// SingleThread serves one request at a time; MaxThreads is how many are
	// begun at once, 0: 64.
	SingleThread bool
	MaxThreads   int
	// GoFuse has go-fuse's server read requests, also where internal/fusewire could.
	GoFuse bool
	// FileWhiteouts writes `.wh.` files where devices 0:0 could be made.
	FileWhiteouts bool
	// MaxBytes and MaxFiles bound what the upper holds; 0: no bound. Over it
	// requests answer EDQUOT, and statfs shows the bound as the size.
	MaxBytes, MaxFiles int64
	// MountData are options for the kernel, as context="…".
	MountData []string
	// FsName is the mount's source; empty: Subtype.
	FsName string
	// Debug logs every request.
	Debug bool
	// Begin, if not nil, is called when the layers are open and before there is a
	// mount; its error is Mount's.
	Begin func() error
	// Log takes warnings, and errors of requests at debug level. Nil: nothing.
	Log *logrus.Entry
}

// Passthrough says whether a mount is in passthrough mode.
type Passthrough uint8

// Not, if it can be had, or not without (then Mount fails).
const (
	PassthroughOff Passthrough = iota
	PassthroughTry
	PassthroughOnly
)

// check fills in what is derived, and refuses what cannot be.
func (c *MountConfig) check() error {
	extra := 0
	if c.Upper != "" {
		extra = 1
	}
	if n := len(c.Lower); n == 0 || n+extra > MaxLayers {
		return errno.New(errno.ErrBadValue, "an overlay has 1 to %d layers, not %d: flatten the image or leave layers out", MaxLayers, n+extra)
	}
	if (c.Upper == "") != (c.Work == "") {
		return errno.New(errno.ErrBadValue, "upperdir and workdir go together: give both, or neither for a read-only mount")
	}
	if c.Upper != "" && filepath.Clean(c.Upper) == filepath.Clean(c.Work) {
		return errno.New(errno.ErrBadValue, "upperdir and workdir are both %s: make a directory for workdir beside it", c.Upper)
	}
	c.fill()
	return nil
}

// fill puts in what is meant where nothing is said.
func (c *MountConfig) fill() {
	if c.Log == nil {
		silent := logrus.New()
		silent.SetOutput(io.Discard)
		c.Log = logrus.NewEntry(silent)
	}
	if c.RenameFiles == 0 {
		c.RenameFiles = 10000
	}
	if c.RenameBytes == 0 {
		c.RenameBytes = 256 << 20
	}
	if c.Formats&AllMarks == 0 {
		c.Formats |= AllMarks
	}
	if c.Aside != AsideNone {
		c.Formats |= Override
		c.NoACL = true // they would say another mode than the attribute
	}
	if c.MaxWrite == 0 {
		c.MaxWrite = 1 << 19
	}
	c.Writeback = c.Writeback && c.MaxBytes == 0 && c.MaxFiles == 0
	if c.FsName == "" {
		c.FsName = Subtype
	}
}

// often returns Tree.often.
func (c *MountConfig) often() uint32 {
	if c.missed > 0 {
		return c.missed
	}
	return oftenMissed
}
