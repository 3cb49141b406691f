package safefs

import (
	"io/fs"
	"strings"
	"syscall"
	"time"

	"github.com/plyfs/plyfs/internal/unix"
)

// Stat is what statx(2) tells of a file. Size is in bytes, Blocks in units of
// 512 bytes. Btime is zero where the filesystem keeps none; Mnt is 0 where the
// kernel does not tell (before 5.8).
type Stat struct {
	Dev, Ino, Mnt              uint64
	Mode, Nlink                uint32
	UID, GID                   uint32
	Rdev                       uint64
	Size, Blocks               uint64
	Blksize                    uint32
	Atime, Mtime, Ctime, Btime time.Time
}

// Type returns the file type bits (S_IFDIR and so on).
func (s *Stat) Type() uint32 { return s.Mode & unix.S_IFMT }

// IsDir tells whether the file is a directory.
func (s *Stat) IsDir() bool { return s.Type() == unix.S_IFDIR }

// Entry is one line of a directory, as getdents64(2) gives it: Ino is d_ino,
// Type the file type bits (S_IFDIR and so on), 0 where the filesystem does not
// tell.
type Entry struct {
	Name string
	Ino  uint64
	Type uint32
}

// Resolve says how a path of several components is walked.
type Resolve uint8

const (
	// NoSymlinks refuses every symlink on the way and at the end (ELOOP), and
	// whatever leads out (EXDEV).
	NoSymlinks Resolve = iota
	// Beneath follows symlinks that stay inside; one that is absolute or
	// climbs out is EXDEV.
	Beneath
	// InRoot takes the directory for "/": absolute symlinks and surplus ".."
	// are interpreted there, as chroot(2) would.
	InRoot
)

// maxSymlinks is the kernel's own limit on one walk (MAXSYMLINKS).
const maxSymlinks = 40

// maxPath bounds what is resolved: PATH_MAX, its NUL included.
const maxPath = 4096

// NamesBuf is the least size of the buffer of Dir.ReadNames: enough for most directories.
const NamesBuf = 4 << 10

func splitPath(p string) []string {
	return strings.FieldsFunc(p, func(r rune) bool { return r == '/' })
}

// ValidName tells whether name is one component that methods of Dir accept:
// not empty, not "." or "..", without '/' and NUL. Its length is the
// filesystem's to judge.
func ValidName(name string) bool {
	return name != "" && name != "." && name != ".." && strings.IndexByte(name, '/') < 0 && strings.IndexByte(name, 0) < 0 && !foreign(name)
}

func check(op, name string) error {
	if !ValidName(name) {
		return fail(op, name, syscall.EINVAL)
	}
	return nil
}

func checkOrDot(op, name string) error {
	if name == "." {
		return nil
	}
	return check(op, name)
}

// fail wraps err, unless nil, with the step and the name; errors.As finds the
// errno and errors.Is(err, fs.ErrNotExist) works.
func fail(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// SplitNames returns the names of a list as ListxattrTo returns it.
func SplitNames(list []byte) []string {
	if len(list) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(list), "\x00"), "\x00")
}
