package fusefs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/plyfs/plyfs/internal/errno"
)

// notice asks the notifier to tell the kernel; done is closed afterwards.
type notice struct {
	gen  uint64
	done chan struct{}
}

// Invalidate makes the kernel let go of everything it believes until the
// store changes, and returns when the kernel has been told (or ctx ends). It
// does nothing for a generation that was told before. Call it before gen is
// shown to anyone. It may be called before Serve, after it, and from a node.
func (s *Server) Invalidate(ctx context.Context, gen uint64) error {
	if gen != 0 && gen <= s.told.Load() {
		return nil
	}
	n := notice{gen: gen, done: make(chan struct{})}
	select {
	case s.notices <- n:
	case <-s.stopped:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("tell the kernel of generation %d: %w", gen, ctx.Err())
	}
	select {
	case <-n.done:
		return nil
	case <-s.stopped:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("tell the kernel of generation %d: %w", gen, ctx.Err())
	}
}

// notifier runs until Serve ends and sends all notices, one after another.
func (s *Server) notifier() {
	for {
		select {
		case <-s.stopping:
			return
		case n := <-s.notices:
			s.tell(n.gen)
			close(n.done)
		}
	}
}

func (s *Server) tell(gen uint64) {
	if gen != 0 && gen <= s.told.Load() {
		return
	}
	s.epoch.Add(1)
	for _, id := range s.table.disarm() {
		if st := s.fuse.InodeNotify(id, -1, 0); !st.Ok() && st != fuse.ENOENT {
			s.log.WithField("node", id).Debugf("drop attributes in the kernel: %v", st)
		}
	}
	if s.epochs.Load() {
		if err := s.incEpoch(); err != nil && !errors.Is(err, syscall.ENODEV) && !errors.Is(err, syscall.EBADF) {
			s.log.Warnf("tell the kernel of generation %d: %v", gen, err)
		}
	}
	if gen > s.told.Load() {
		s.told.Store(gen)
	}
}

// notifyIncEpoch is FUSE_NOTIFY_INC_EPOCH of Linux's include/uapi/linux/fuse.h
// (protocol 7.44).
const notifyIncEpoch = 8

// incEpoch writes the notice: a struct fuse_out_header {len, error, unique}
// with nothing behind it.
func (s *Server) incEpoch() error {
	var msg [16]byte
	binary.NativeEndian.PutUint32(msg[0:], uint32(len(msg)))
	binary.NativeEndian.PutUint32(msg[4:], notifyIncEpoch)
	return s.writeDevice(msg[:])
}

func (s *Server) writeDevice(msg []byte) error {
	conn, err := s.dev.SyscallConn()
	if err != nil {
		return fmt.Errorf("notify the kernel: %w", err)
	}
	var werr error
	if err := conn.Control(func(fd uintptr) { _, werr = syscall.Write(int(fd), msg) }); err != nil {
		return fmt.Errorf("notify the kernel: %w", err)
	}
	return werr
}

// Outsider is a node whose changes are none of the store's (a window on a
// host directory): nothing is asked or told after them.
type Outsider interface{ OutsideStore() }

// changed is called by handlers after in may have changed the store, and
// before they answer: what the kernel remembers from before must be gone when
// the program sees its call succeed.
func (s *Server) changed(ctx context.Context, in *inode) {
	if s.opts.Generation == nil {
		return
	}
	if in != nil {
		if _, ok := in.node.(Outsider); ok {
			return
		}
	}
	if g := s.opts.Generation(); g > s.told.Load() {
		if err := s.Invalidate(context.WithoutCancel(ctx), g); err != nil {
			s.log.Debugf("%v (errno %d)", err, int(errno.Of(err)))
		}
	}
}
