//go:build linux && !portable

package safefs

import (
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// OpenDirAt opens the directory at path, relative to d, resolved as how says.
// A last component that is a symlink is followed where how follows any.
func (d *Dir) OpenDirAt(path string, how Resolve) (*Dir, error) {
	fd, err := d.resolve(path, unix.O_PATH|unix.O_DIRECTORY, 0, how, openat2Works())
	if err != nil {
		return nil, fail("open directory", path, err)
	}
	return &Dir{fd: fd}, nil
}

// OpenAt opens the file at path, relative to d, with open(2)'s flags, resolved
// as how says. With O_NOFOLLOW in flags a last component that is a symlink is
// ELOOP.
func (d *Dir) OpenAt(path string, flags int, perm uint32, how Resolve) (*os.File, error) {
	fd, err := d.resolve(path, flags, perm, how, openat2Works())
	if err != nil {
		return nil, fail("open", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// RefAt opens the file at path as it is: a last component that is a symlink is
// not followed.
func (d *Dir) RefAt(path string, how Resolve) (*Ref, error) {
	fd, err := d.resolve(path, unix.O_PATH|unix.O_NOFOLLOW, 0, how, openat2Works())
	if err != nil {
		return nil, fail("open", path, err)
	}
	return &Ref{fd: fd}, nil
}

// openat2Works probes openat2 once: kernels before 5.6 do not have it and some
// seccomp filters answer EPERM or ENOSYS.
var openat2Works = sync.OnceValue(func() bool { //nolint:gochecknoglobals // a probe made once, never assigned
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC})
	if err != nil {
		return false
	}
	return unix.Close(fd) == nil
})

func (how Resolve) flags() uint64 {
	switch how {
	case Beneath:
		return unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS
	case InRoot:
		return unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	default:
		return unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS
	}
}

// resolve opens path below d. An openat2 that sees renames on its way answers
// EAGAIN, since it cannot vouch for ".." any more; after a few of them the
// walk, which does not depend on "..", takes over.
func (d *Dir) resolve(path string, flags int, perm uint32, how Resolve, openat2 bool) (int, error) {
	if path == "" || len(path) >= maxPath || strings.IndexByte(path, 0) >= 0 {
		return -1, syscall.EINVAL
	}
	flags |= unix.O_CLOEXEC
	if flags&(unix.O_CREAT|unix.O_TMPFILE) == 0 {
		perm = 0
	}
	if openat2 {
		req := unix.OpenHow{Flags: uint64(flags), Mode: uint64(perm), Resolve: how.flags()}
		for range 16 {
			fd, err := unix.Openat2(d.fd, path, &req)
			if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
				return fd, err
			}
		}
	}
	w := walker{how: how, stack: []int{d.fd}, rest: splitPath(path), dir: strings.HasSuffix(path, "/")}
	defer w.close()
	if strings.HasPrefix(path, "/") && how != InRoot {
		return -1, syscall.EXDEV
	}
	return w.walk(flags, perm)
}

// walker is the state of a walk done here. stack holds the directories from
// the root down to where the walk stands; [0] is borrowed, the others owned.
type walker struct {
	how   Resolve
	stack []int
	rest  []string
	links int
	dir   bool // a trailing slash: the end must be a directory
}

func (w *walker) top() int { return w.stack[len(w.stack)-1] }

func (w *walker) close() { w.popTo(1) }

func (w *walker) popTo(n int) {
	for len(w.stack) > n {
		_ = unix.Close(w.top()) // O_PATH: nothing to lose
		w.stack = w.stack[:len(w.stack)-1]
	}
}

// walk consumes rest and opens what it ends at.
func (w *walker) walk(flags int, perm uint32) (int, error) {
	for {
		if len(w.rest) == 0 {
			return openRetry(w.top(), ".", flags&^(unix.O_CREAT|unix.O_EXCL), 0)
		}
		name := w.rest[0]
		w.rest = w.rest[1:]
		var err error
		switch {
		case name == ".":
		case name == "..":
			err = w.up()
		case len(w.rest) == 0:
			if fd, done, err := w.last(name, flags, perm); done || err != nil {
				return fd, err
			}
		default:
			err = w.down(name)
		}
		if err != nil {
			return -1, err
		}
	}
}

func (w *walker) up() error {
	if len(w.stack) > 1 {
		w.popTo(len(w.stack) - 1)
		return nil
	}
	if w.how == InRoot {
		return nil
	}
	return syscall.EXDEV
}

// down enters name, or puts a symlink's text in front of what is left.
func (w *walker) down(name string) error {
	fd, err := openRetry(w.top(), name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err == nil {
		w.stack = append(w.stack, fd)
		return nil
	}
	if !errors.Is(err, unix.ENOTDIR) {
		return err
	}
	target, linkErr := readlinkAt(w.top(), name)
	if linkErr != nil {
		return err // no symlink: the ENOTDIR stands
	}
	return w.follow(target)
}

// last opens the last component, or follows it (done is false then).
func (w *walker) last(name string, flags int, perm uint32) (fd int, done bool, err error) {
	if w.dir && flags&unix.O_CREAT == 0 {
		flags |= unix.O_DIRECTORY
	}
	nofollow := flags&unix.O_NOFOLLOW != 0 && !w.dir
	target, err := readlinkAt(w.top(), name)
	if err == nil && !nofollow {
		if flags&(unix.O_CREAT|unix.O_EXCL) == unix.O_CREAT|unix.O_EXCL {
			return -1, true, syscall.EEXIST
		}
		return -1, false, w.follow(target)
	}
	if err == nil && w.how == NoSymlinks && flags&unix.O_PATH == 0 {
		return -1, true, syscall.ELOOP
	}
	fd, err = openRetry(w.top(), name, flags|unix.O_NOFOLLOW, perm)
	return fd, true, err
}

func (w *walker) follow(target string) error {
	w.links++
	if w.how == NoSymlinks || w.links > maxSymlinks {
		return syscall.ELOOP
	}
	if target == "" {
		return syscall.ENOENT
	}
	if strings.HasPrefix(target, "/") {
		if w.how != InRoot {
			return syscall.EXDEV
		}
		w.popTo(1)
	}
	if len(w.rest) == 0 && strings.HasSuffix(target, "/") {
		w.dir = true
	}
	w.rest = append(splitPath(target), w.rest...)
	return nil
}
