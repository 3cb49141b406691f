package lockfile

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/plyfs/plyfs/internal/errno"
)

// Back-off of the polling: first and longest pause between two tries.
const (
	firstPause = 100 * time.Microsecond
	maxPause   = 20 * time.Millisecond
)

// Options say how a File behaves.
type Options struct {
	// Timeout bounds each wait for the lock; 0 means the context alone does.
	Timeout time.Duration
	// SideDir is an existing directory for side records, or "" for none.
	SideDir string
	// SideName is what the side record is called after; "" is the lock file's
	// name. All who share a SideDir and this lock file use the same.
	SideName string
	// ReadOnly never creates or writes the file; Lock is refused (EROFS) and
	// RLock of a missing file succeeds without locking anything.
	ReadOnly bool
}

// File is one lock file. It may be used from many goroutines.
type File struct {
	path  string
	opts  Options
	queue *semaphore.Weighted // goroutines wait here first, in order
	waits atomic.Int32        // goroutines that wait, in the queue or polling
	count atomic.Uint64       // tokens written

	mu    sync.Mutex
	reads *os.File // guarded by mu: kept for Token; nil until needed
}

// New returns the lock file at path; nothing is opened or created yet.
func New(path string, o Options) *File {
	return &File{path: path, opts: o, queue: semaphore.NewWeighted(math.MaxInt32)}
}

// Path returns the path given to New.
func (f *File) Path() string { return f.path }

// Held is a lock that is held. It belongs to the caller of Lock or RLock, who
// calls Unlock once.
type Held struct {
	f     *File
	fd    *os.File // nil for a missing file of a read-only store
	write bool
}

// Lock takes the lock for writing; what says what for ("create layer"). The
// file is created, mode 0644, when missing. ErrTimeout names the holder where
// it is known; a context that ends is returned as its own error.
func (f *File) Lock(ctx context.Context, what string) (*Held, error) {
	if f.opts.ReadOnly {
		return nil, errno.New(errno.ErrReadOnly, "%s: the store is opened read-only and cannot be locked for writing", f.path)
	}
	h, err := f.acquire(ctx, true)
	if err != nil {
		return nil, err
	}
	f.writeSide(what)
	return h, nil
}

// RLock takes the lock for reading, beside other readers.
func (f *File) RLock(ctx context.Context) (*Held, error) { return f.acquire(ctx, false) }

func (f *File) acquire(ctx context.Context, write bool) (*Held, error) {
	limited := ctx
	if f.opts.Timeout > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, f.opts.Timeout)
		defer cancel()
	}
	f.waits.Add(1)
	defer f.waits.Add(-1)
	weight := weightOf(write)
	if err := f.queue.Acquire(limited, weight); err != nil {
		return nil, f.waitError(ctx, err)
	}
	h := &Held{f: f, write: write}
	var err error
	if h.fd, err = f.poll(limited, write); err != nil {
		f.queue.Release(weight)
		return nil, f.waitError(ctx, err)
	}
	return h, nil
}

func weightOf(write bool) int64 {
	if write {
		return math.MaxInt32
	}
	return 1
}

// poll opens and locks the file, trying again until ctx ends.
func (f *File) poll(ctx context.Context, write bool) (*os.File, error) {
	pause := firstPause
	for {
		fd, got, err := f.try(write)
		if err != nil || got {
			return fd, err
		}
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-timer.C:
		}
		pause = min(2*pause, maxPause)
	}
}

// try is one attempt: got false without error means that it is locked.
func (f *File) try(write bool) (fd *os.File, got bool, err error) {
	fd, err = f.open()
	if err != nil {
		if f.opts.ReadOnly && errors.Is(err, os.ErrNotExist) {
			return nil, true, nil
		}
		return nil, false, fmt.Errorf("open lock file: %w", err)
	}
	got, err = TryLock(fd, write)
	if got {
		got, err = stillThere(fd, f.path)
	}
	if got && err == nil {
		return fd, true, nil
	}
	return nil, false, errors.Join(err, fd.Close())
}

func (f *File) open() (*os.File, error) {
	if f.opts.ReadOnly {
		return os.OpenFile(f.path, os.O_RDONLY, 0)
	}
	return os.OpenFile(f.path, os.O_RDWR|os.O_CREATE, 0o644)
}

// stillThere tells whether path names the open file.
func stillThere(fd *os.File, path string) (bool, error) {
	open, err := fd.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(open, named), nil
}

// waitError words the end of a wait. outer is the caller's own context.
func (f *File) waitError(outer context.Context, err error) error {
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(outer.Err(), context.Canceled) {
		return err
	}
	holder := "another process or task"
	if h, ok, herr := f.Holder(); herr == nil && ok {
		holder = h.String()
	}
	return errno.New(errno.ErrTimeout, "%s: waited too long for this lock, held by %s; try again, or end that process", f.path, holder)
}

// Unlock lets go of the lock.
func (h *Held) Unlock() error {
	if h.write {
		h.f.removeSide()
	}
	var err error
	if h.fd != nil {
		err = h.fd.Close()
	}
	h.f.queue.Release(weightOf(h.write))
	return err
}

// Close closes the descriptor that Token keeps. Locks that are held stay so.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reads == nil {
		return nil
	}
	err := f.reads.Close()
	f.reads = nil
	return err
}
