package fusefs

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/fusewire"
	"github.com/plyfs/plyfs/internal/vnode"
)

// Options say how a tree is served. The zero value serves it to everyone,
// leaving permission checks to the kernel (mount with default_permissions).
type Options struct {
	// Log takes errors of nodes (debug level) and of the server. Nil: nothing.
	Log *logrus.Entry
	// Generation returns the store's newest generation, cheaply and without a
	// lock that a node may hold. A handler that may have changed the store
	// asks, and calls Invalidate before it answers when it has moved. Nil:
	// who changes what ValidStore nodes show calls Invalidate.
	Generation func() uint64
	// NoEpoch answers ValidStore with zero validity even where the kernel
	// knows epochs.
	NoEpoch bool
	// Check, when set, makes the server decide who may do what; mount without
	// default_permissions then.
	Check *Check
	// Out and In translate the owners of nodes to those of the mounter's user
	// namespace and back. Nil: the same.
	Out, In func(uid, gid uint32) (uint32, uint32)
	// MaxWrite is the largest read or write request in bytes; 0: 128 KiB.
	MaxWrite int
	// Trace logs every request.
	Trace bool
	// GoFuse has go-fuse read the requests, also where internal/fusewire could.
	GoFuse bool
}

func (o *Options) maxWrite() int {
	if o.MaxWrite > 0 {
		return o.MaxWrite
	}
	return 128 << 10
}

// Server serves one tree over one FUSE connection.
type Server struct {
	opts  Options
	log   *logrus.Entry
	table *table
	files handles
	shelf shelf

	passing passing

	seed maphash.Seed // of digests and tags

	counts [numOps]counter

	fuse transport // set by Start before the first request
	dev  *os.File  // the device, for notices go-fuse has no method for

	epoch  atomic.Uint64 // how many times the kernel was told; read at the beginning of a request
	told   atomic.Uint64 // newest generation the kernel knows of
	epochs atomic.Bool   // the kernel knows FUSE_NOTIFY_INC_EPOCH
	copies atomic.Bool   // the kernel may copy lists

	noOpenDir bool // the kernel can open directories by itself; set by Start before the first request

	notices  chan notice
	stopping chan struct{}
	stopped  chan struct{}
	serving  atomic.Bool
	done     sync.WaitGroup
}

// New returns a server for root. Nothing is mounted and nothing is running
// until Serve.
func New(root vnode.Node, o Options) *Server {
	l := o.Log
	if l == nil {
		silent := logrus.New()
		silent.SetOutput(io.Discard)
		l = logrus.NewEntry(silent)
	}
	return &Server{
		opts: o, log: l, table: newTable(root), files: handles{m: map[uint64]*handle{}}, seed: maphash.MakeSeed(),
		notices: make(chan notice), stopping: make(chan struct{}), stopped: make(chan struct{}),
	}
}

// Start takes over dev, the descriptor of a mounted FUSE connection, answers
// the kernel's first request and serves the rest in the background until the
// mount is gone: then Wait returns. A Server is started once. With an error dev
// is closed, and the mount, if it is there, answers ENOTCONN.
func (s *Server) Start(dev *os.File) (err error) {
	if !s.serving.CompareAndSwap(false, true) {
		return errno.New(errno.ErrInUse, "this tree is already being served")
	}
	defer func() {
		if err != nil {
			close(s.stopped)
		}
	}()
	s.dev = dev
	fd, err := dupFD(dev)
	if err != nil {
		return errors.Join(fmt.Errorf("serve: %w", err), dev.Close())
	}
	logw := s.log.WriterLevel(logrus.WarnLevel)
	r := &raw{RawFileSystem: fuse.NewDefaultRawFileSystem(), s: s}
	srv, err := s.attach(counted{r, &s.counts}, fd, s.mountOptions(log.New(logw, "", 0)))
	if err != nil {
		return errors.Join(fmt.Errorf("serve: greet the kernel: %w", err), dev.Close(), logw.Close())
	}
	s.fuse = srv
	s.noOpenDir = srv.KernelSettings().Flags64()&fuse.CAP_NO_OPENDIR_SUPPORT != 0
	s.copies.Store(s.noOpenDir)
	s.passing.begin(srv)
	s.epochs.Store(!s.opts.NoEpoch && srv.KernelSettings().SupportsVersion(7, 44) && s.incEpoch() == nil)
	s.done.Add(2)
	go func() {
		defer s.done.Done()
		s.notifier()
	}()
	go func() {
		defer s.done.Done()
		srv.Serve()
		s.finish()
		if err := errors.Join(dev.Close(), logw.Close()); err != nil {
			s.log.Warnf("close the FUSE device: %v", err)
		}
		close(s.stopping)
	}()
	go func() {
		s.done.Wait()
		close(s.stopped)
	}()
	return nil
}

// transport reads requests and answers them: internal/fusewire where one program that
// asks one thing after the other can be answered on its processor, and that can be
// ended at any time, else go-fuse.
type transport interface {
	backer
	Serve()
	KernelSettings() *fuse.InitIn
	InodeNotify(node uint64, off, length int64) fuse.Status
}

func (s *Server) attach(fs fuse.RawFileSystem, fd int, o *fuse.MountOptions) (transport, error) {
	if !s.opts.GoFuse && !o.Debug && fusewire.Able(o) && fusewire.Lifts() {
		return fusewire.Attach(fs, fd, o)
	}
	return fuse.NewServer(fs, fmt.Sprintf("/dev/fd/%d", fd), o)
}

func (s *Server) mountOptions(l *log.Logger) *fuse.MountOptions {
	o := &fuse.MountOptions{
		Name: Subtype, FsName: Subtype, Logger: l, Debug: s.opts.Trace,
		MaxWrite: s.opts.maxWrite(), MaxBackground: 64, DisableSplice: true,
		ExtraCapabilities: fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_DONT_MASK,
		PanicHandler: func(p any) fuse.Status {
			s.log.Errorf("a node panicked: %v\n%s", p, debug.Stack())
			return fuse.EIO
		},
	}
	return o
}

// Wait returns when the mount is gone, every handle is released and every
// node forgotten.
func (s *Server) Wait() { <-s.stopped }

// Done is closed when Wait would return.
func (s *Server) Done() <-chan struct{} { return s.stopped }

// Serve is Start and Wait.
func (s *Server) Serve(dev *os.File) error {
	if err := s.Start(dev); err != nil {
		return err
	}
	s.Wait()
	return nil
}

// Abandon ends the service of a mount that programs still use, once it is
// unmounted lazily: what they have open is released, and whatever they ask from
// now on is refused (ESTALE, EBADF). The connection ends with the process, or
// with the last of them.
func (s *Server) Abandon() {
	s.table.clear() // nothing can be opened any more
	s.finish()
}

// finish releases what an unmount with open files left behind.
func (s *Server) finish() {
	for _, h := range s.files.drain() {
		s.release(context.Background(), h)
	}
	s.table.clear()
}

// Stats counts what the kernel holds.
type Stats struct {
	Inodes, Handles int
	Passed          int  // files that the kernel reads by itself
	Epochs          bool // the kernel knows FUSE_NOTIFY_INC_EPOCH and it is used
	Minor           uint32
}

// Stats returns the numbers now.
func (s *Server) Stats() Stats {
	st := Stats{Inodes: s.table.len(), Handles: s.files.len(), Passed: s.passing.count(), Epochs: s.epochs.Load()}
	if s.fuse != nil {
		st.Minor = s.fuse.KernelSettings().Minor
	}
	return st
}

func dupFD(f *os.File) (int, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("duplicate the device: %w", err)
	}
	fd, derr := -1, error(nil)
	if err := conn.Control(func(n uintptr) { fd, derr = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return -1, fmt.Errorf("duplicate the device: %w", err)
	}
	if derr != nil {
		return -1, fmt.Errorf("duplicate the device: %w", derr)
	}
	return fd, nil
}

// raw answers the kernel's requests. The default it embeds would answer
// ENOSYS; every request that has an answer is written out in ops*.go.
type raw struct {
	fuse.RawFileSystem
	s *Server
}

func (r *raw) String() string { return Subtype }

// request returns the context of a request: it carries the caller and ends
// when the caller is interrupted or the mount is gone.
func (r *raw) request(cancel <-chan struct{}, h *fuse.InHeader) context.Context {
	return vnode.WithCaller(&fuse.Context{Caller: h.Caller, Cancel: cancel}, r.caller(h))
}

// patient is request for one that ends only with a caller that is to end; the
// function returned is called when it is answered.
func (r *raw) patient(cancel <-chan struct{}, h *fuse.InHeader) (context.Context, func()) {
	w := &waiting{Context: &fuse.Context{Caller: h.Caller, Cancel: cancel}, pid: h.Pid}
	return vnode.WithCaller(w, r.caller(h)), w.answered
}

func (r *raw) caller(h *fuse.InHeader) vnode.Caller {
	c := vnode.Caller{UID: h.Uid, GID: h.Gid, PID: h.Pid}
	if r.s.opts.In != nil {
		c.UID, c.GID = r.s.opts.In(c.UID, c.GID)
	}
	return c
}

// status turns a node's error into an answer.
func (r *raw) status(op string, err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	no := errno.Of(err)
	r.s.log.WithField("op", op).Debugf("%v (%s)", err, unix.ErrnoName(no))
	return fuse.Status(no)
}

// inode returns the inode of a request, or nil with the answer ESTALE.
func (r *raw) inode(id uint64) (*inode, fuse.Status) {
	if in := r.s.table.get(id); in != nil {
		return in, fuse.OK
	}
	return nil, fuse.Status(syscall.ESTALE)
}
