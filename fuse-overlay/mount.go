package fuseoverlay

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/fusewire"
)

// Server is a mounted overlay.
type Server struct {
	o    *Overlay
	fuse server
	logw *io.PipeWriter
	at   unix.Statx_t // the mount's numbers
}

// server is what answers the kernel: fusewire's where there can be dialogues,
// else go-fuse's own.
type server interface {
	Serve()
	Show() error
	Statx(flags int, st *unix.Statx_t) error
	Unmount() error
	notifier
	InodeNotifyStoreCache(node uint64, off int64, data []byte) fuse.Status
	EntryNotify(parent uint64, name string) fuse.Status
	KernelSettings() *fuse.InitIn
	RegisterBackingFd(*fuse.BackingMap) (int32, syscall.Errno)
	UnregisterBackingFd(int32) syscall.Errno
}

// Mount is Prepare, and Show. When it returns, the mount is there; Serve must be
// called, or whoever looks at it waits.
func Mount(c MountConfig, dir string) (*Server, error) {
	s, err := Prepare(c, dir)
	if err != nil {
		return nil, err
	}
	if err := s.fuse.Show(); err != nil {
		return nil, errors.Join(err, s.abandon())
	}
	return s, nil
}

// Prepare opens the layers and mounts them, by mount(2)'s relatives as root, of a
// user namespace too, else through fusermount3. Serve must be called, and then Show,
// which puts the mount on dir; through fusermount3, or on old kernels, it is there
// before. With an error nothing is mounted. The process's umask becomes 0:
// callers' umasks come with their requests.
func Prepare(c MountConfig, dir string) (*Server, error) {
	o, err := newOverlay(c)
	if err != nil {
		return nil, err
	}
	if c.Begin != nil {
		if err := c.Begin(); err != nil {
			return nil, errors.Join(err, o.close())
		}
	}
	syscall.Umask(0)
	s := &Server{o: o, logw: o.log.WriterLevel(logrus.WarnLevel)}
	var fs fuse.RawFileSystem = newRaw(o)
	if c.AllowRoot {
		fs = newRootOnly(fs)
	}
	if err := s.mount(fs, dir); err != nil {
		return nil, errors.Join(err, s.logw.Close(), o.close())
	}
	if o.work != nil {
		if err := o.work.sign(dir, &s.at); err != nil {
			o.log.Debugf("the mount on %s is not written down in workdir: %v", dir, err)
		}
	}
	return s, nil
}

// undo ends a mount that is not served.
func (s *Server) undo() error {
	go s.fuse.Serve()
	return s.fuse.Unmount()
}

// abandon ends a mount that is not served, and gives everything back.
func (s *Server) abandon() error { return errors.Join(s.undo(), s.logw.Close(), s.o.close()) }

// Show puts the mount of Prepare, which must be served, into its place. With an error
// it is not there, and Unmount is still owed.
func (s *Server) Show() error {
	// The kernel knows nothing of the root's owner before it has asked once, and
	// would refuse its owner's chmod.
	var st unix.Statx_t
	if err := s.fuse.Statx(0, &st); err != nil {
		return fmt.Errorf("look at the mount: %w", err)
	}
	return s.fuse.Show()
}

// mount mounts, and tries passthrough when that is asked for: what the kernel
// is told at the mount's beginning is for good, so a mount without it is another.
func (s *Server) mount(fs fuse.RawFileSystem, dir string) (err error) {
	o := s.o
	why := o.c.noPassthrough()
	if o.c.Passthrough == PassthroughOff || why != nil {
		if o.c.Passthrough != PassthroughOff {
			err = o.errNoPassthrough(why)
		}
		if err != nil {
			return err
		}
		return s.start(fs, dir, 0)
	}
	if err := s.start(fs, dir, fuse.CAP_ATOMIC_O_TRUNC); err != nil {
		return err
	}
	if why = o.tryPassthrough(s.fuse); why == nil {
		return nil
	}
	if err := errors.Join(s.undo(), o.errNoPassthrough(why)); err != nil {
		return err
	}
	return s.start(fs, dir, 0)
}

// readAhead is how many KiB are read ahead where the server may say so: four times
// less requests than with the kernel's 128, of which each wakes both sides.
const readAhead = 512

func (s *Server) start(fs fuse.RawFileSystem, dir string, more uint64) error {
	if err := s.serveAt(fs, dir, more); err != nil {
		return err
	}
	if err := s.fuse.Statx(unix.AT_STATX_DONT_SYNC, &s.at); err != nil {
		return errors.Join(fmt.Errorf("device of the mount: %w", err), s.undo())
	}
	if err := fusewire.ReadAhead(s.at.Dev_major, s.at.Dev_minor, readAhead); err != nil {
		s.o.log.Debugf("the kernel reads ahead as it likes: %v", err)
	}
	return nil
}

// serveAt mounts.
func (s *Server) serveAt(fs fuse.RawFileSystem, dir string, more uint64) error {
	c := s.options()
	c.ExtraCapabilities |= more
	if !s.o.c.GoFuse && fusewire.Able(c) {
		w, err := fusewire.New(fs, dir, c)
		if err != nil {
			return explainMount(dir, err)
		}
		s.fuse = w
		s.o.tellKernel(w)
		return nil
	}
	g, err := newGoServer(fs, dir, c) // its Init is called
	if err != nil {
		return explainMount(dir, err)
	}
	s.fuse = g
	return nil
}

// goServer is go-fuse's server on a mount of fusewire's.
type goServer struct {
	*fuse.Server
	dir   string
	o     *fuse.MountOptions
	ended chan struct{}
}

func newGoServer(fs fuse.RawFileSystem, dir string, o *fuse.MountOptions) (*goServer, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	fd, err := fusewire.Mount(dir, o)
	if err != nil {
		return nil, err
	}
	given := *o
	given.DirectMount, given.DirectMountStrict = false, false // it is mounted
	srv, err := fuse.NewServer(fs, fmt.Sprintf("/dev/fd/%d", fd), &given)
	if err != nil {
		return nil, errors.Join(err, fusewire.Unmount(dir, o))
	}
	return &goServer{srv, dir, o, make(chan struct{})}, nil
}

// Show does nothing: it is seen.
func (g *goServer) Show() error { return nil }

// Statx is statx(2) of the mount's root.
func (g *goServer) Statx(flags int, st *unix.Statx_t) error {
	return unix.Statx(unix.AT_FDCWD, g.dir, flags|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, st)
}

// Serve answers requests until the mount is gone.
func (g *goServer) Serve() {
	defer close(g.ended)
	g.Server.Serve()
}

// Unmount unmounts, and waits until Serve returns. EBUSY while files are open.
func (g *goServer) Unmount() error {
	if err := fusewire.Unmount(g.dir, g.o); err != nil {
		return err
	}
	<-g.ended
	return nil
}

// Serve answers requests until the mount is gone, and gives everything back.
// Others may know that it is gone before that; see claims.
func (s *Server) Serve() error {
	told := make(chan struct{})
	go func() {
		defer close(told)
		if ours, ok := s.fuse.(*fusewire.Server); ok && s.o.work != nil {
			<-ours.Gone()
			s.o.work.claims.unmounted()
		}
	}()
	s.fuse.Serve()
	<-told
	if w := s.o.work; w != nil {
		w.claims.unmounted()
	}
	return errors.Join(s.o.close(), s.logw.Close())
}

// Unmount unmounts; Serve then returns. EBUSY while files are open.
func (s *Server) Unmount() error { return s.fuse.Unmount() }

func (s *Server) options() *fuse.MountOptions {
	c := &s.o.c
	o := &fuse.MountOptions{
		Name: Subtype, FsName: c.FsName, Debug: c.Debug, Logger: log.New(s.logw, "", 0),
		AllowOther: c.AllowOther || c.AllowRoot || os.Geteuid() == 0, Options: append([]string{"default_permissions"}, c.MountData...),
		DirectMountStrict: os.Geteuid() == 0, DirectMountFlags: c.mountFlags(),
		MaxWrite: c.MaxWrite, MaxBackground: c.threads(), SingleThreaded: c.SingleThread, DisableSplice: true,
		EnableAcl: !c.NoACL && !c.NoXattrs, EnableSymlinkCaching: true, ExplicitDataCacheControl: true,
		ExtraCapabilities: fuse.CAP_DONT_MASK | fuse.CAP_ASYNC_DIO | fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_SETXATTR_EXT,
		PanicHandler:      func(p any) fuse.Status { return fuse.ToStatus(s.o.panicked(p)) },
	}
	if c.Writeback {
		o.ExtraCapabilities |= fuse.CAP_WRITEBACK_CACHE
	}
	if os.Geteuid() != 0 {
		o.Options = append(o.Options, c.userOptions()...)
	}
	return o
}

// panicked is for whoever recovers from p: the overlay changes nothing any more.
func (o *Overlay) panicked(p any) error {
	o.log.Errorf("a request panicked: %v\n%s", p, debug.Stack())
	o.degrade("an internal error: %v", p)
	return syscall.EIO
}

func (c *MountConfig) threads() int {
	if c.MaxThreads > 0 {
		return c.MaxThreads
	}
	return 64
}

// mountFlags are mount(2)'s; MS_MGC_VAL is ignored by it, and makes go-fuse
// take none for none.
func (c *MountConfig) mountFlags() uintptr {
	flags := uintptr(syscall.MS_MGC_VAL)
	for _, f := range []struct {
		on  bool
		bit uintptr
	}{
		{c.NoSuid, unix.MS_NOSUID}, {c.NoDev, unix.MS_NODEV}, {c.NoExec, unix.MS_NOEXEC},
		{c.NoAtime, unix.MS_NOATIME}, {c.ReadOnly || c.Upper == "", unix.MS_RDONLY},
	} {
		if f.on {
			flags |= f.bit
		}
	}
	return flags
}

// userOptions are the same for fusermount3.
func (c *MountConfig) userOptions() []string {
	var out []string
	for _, f := range []struct {
		on   bool
		name string
	}{{c.NoExec, "noexec"}, {c.NoAtime, "noatime"}, {c.ReadOnly || c.Upper == "", "ro"}} {
		if f.on {
			out = append(out, f.name)
		}
	}
	return out
}

// explainMount turns a failed mount into a sentence.
func explainMount(dir string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return errno.New(errno.ErrUnknown, "mount on %s: %w: the mount point or /dev/fuse does not exist (make the directory; run `modprobe fuse`, or start the container with `--device /dev/fuse`)", dir, err)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return errno.New(errno.ErrNotSupported, "mount on %s: %w: the kernel has no FUSE: run `modprobe fuse`", dir, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return errno.New(errno.ErrForbidden, "mount on %s: %w: mounting needs CAP_SYS_ADMIN and read and write access to /dev/fuse (start the container with `--device /dev/fuse --cap-add SYS_ADMIN`, or install fuse3 and run as an ordinary user)", dir, err)
	}
	return fmt.Errorf("mount on %s: %w", dir, err)
}
