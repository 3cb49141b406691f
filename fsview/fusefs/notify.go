package fusefs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

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
// does nothing for a generation that was told before; 0 is always told. Call it
// before gen is shown to anyone. Before Start and after the end there is
// nothing to tell.
func (s *Server) Invalidate(ctx context.Context, gen uint64) error {
	if !s.serving.Load() || gen != 0 && gen <= s.told.Load() {
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

// again is how soon a notice for an inode is repeated that the kernel did not
// have yet.
const again = 5 * time.Millisecond

// notifier runs until Serve ends and sends all notices, one after another.
//
// An inode that the kernel does not know may be about to come into being, by
// an answer that is on its way and says what was true before. Its name is
// stale by the epoch, but a descriptor of it is not; so its notice is repeated
// until the kernel has the inode or has given it back.
func (s *Server) notifier() {
	late := map[uint64]struct{}{}
	var tick <-chan time.Time
	for {
		select {
		case <-s.stopping:
			return
		case n := <-s.notices:
			for _, id := range s.tell(n.gen) {
				late[id] = struct{}{}
			}
			close(n.done)
		case <-tick:
			for id := range late {
				if s.table.get(id) == nil || s.fuse.InodeNotify(id, -1, 0) != fuse.ENOENT {
					delete(late, id)
				}
			}
		}
		tick = nil
		if len(late) > 0 {
			tick = time.After(again)
		}
	}
}

// tell sends the notices for gen and returns the node IDs that the kernel did
// not know.
func (s *Server) tell(gen uint64) (late []uint64) {
	if gen != 0 && gen <= s.told.Load() {
		return nil
	}
	s.epoch.Add(1)
	copies, others := s.table.disarm()
	late, ok := s.dropCopies(copies)
	if !ok {
		others = append(others, copies...)
	}
	for _, id := range others {
		late = s.drop(late, id, -1)
	}
	if s.epochs.Load() {
		if err := s.incEpoch(); err != nil && !ended(err) {
			s.log.Warnf("tell the kernel of generation %d: %v", gen, err)
		}
	}
	if gen > s.told.Load() {
		s.told.Store(gen)
	}
	return late
}

// drop has the kernel drop an inode's attributes, and pages from off on if it is not
// negative. An inode that the kernel does not know is added to late.
func (s *Server) drop(late []uint64, id uint64, off int64) []uint64 {
	switch st := s.fuse.InodeNotify(id, off, 0); st {
	case fuse.OK:
	case fuse.ENOENT:
		late = append(late, id)
	default:
		s.log.WithField("node", id).Debugf("drop what the kernel has of an inode: %v", st)
	}
	return late
}

// patience is how long an announcement waits for one copy of a list to be dropped.
const patience = 2 * time.Second

// dropCopies has the kernel drop its copies of lists, and returns the node IDs that
// it did not know. That takes the lock of each copy's page, which a program has
// while it reads the copy: into memory that it may have made so that this never
// ends. Then the announcement goes on without, ok is false, and no copy is allowed
// any more.
func (s *Server) dropCopies(ids []uint64) (late []uint64, ok bool) {
	if len(ids) == 0 {
		return nil, true
	}
	var dropped atomic.Int64
	done := make(chan []uint64, 1)
	go func() {
		var unknown []uint64
		for _, id := range ids {
			unknown = s.drop(unknown, id, 0)
			dropped.Add(1)
		}
		done <- unknown
	}()
	tick := time.NewTicker(patience)
	defer tick.Stop()
	for before := int64(0); ; {
		select {
		case late := <-done:
			return late, true
		case <-tick.C:
		}
		now := dropped.Load()
		if now == before {
			s.copies.Store(false)
			s.log.Warn("a program that reads a directory keeps the kernel from letting go of its list: no more lists are kept")
			return nil, false
		}
		before = now
	}
}

// ended tells whether a notice failed because the mount is gone.
func ended(err error) bool {
	return errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.EPERM) || errors.Is(err, os.ErrClosed)
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
