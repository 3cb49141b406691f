package lockfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// sideLimit bounds a side record, in bytes: it is another process's file.
const sideLimit = 4096

// Holder says who holds a lock, as far as it can be known.
type Holder struct {
	// PID is the holding process, or 0 when the kernel does not know it and
	// no believable side record exists.
	PID int `json:"pid"`
	// Since and What come from the side record of a plyfs process; they are
	// zero for other programs.
	Since time.Time `json:"since"`
	What  string    `json:"what"`
	// Write tells a write lock from a read lock.
	Write bool `json:"-"`
}

// String words the holder for a message.
func (h Holder) String() string {
	switch {
	case h.PID == 0:
		return "a process that the kernel does not name"
	case h.What == "":
		return fmt.Sprintf("process %d", h.PID)
	}
	return fmt.Sprintf("process %d (%s, since %s)", h.PID, h.What, h.Since.Format(time.TimeOnly))
}

// Holder asks the kernel who is in the way of a write lock; false when nobody
// is. Nothing is locked or changed.
func (f *File) Holder() (_ Holder, held bool, err error) {
	fd, err := os.Open(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return Holder{}, false, nil
	}
	if err != nil {
		return Holder{}, false, fmt.Errorf("open lock file: %w", err)
	}
	defer func() { err = errors.Join(err, fd.Close()) }()
	pid, write, held, err := holderOf(fd)
	if err != nil {
		return Holder{}, false, fmt.Errorf("ask for the holder of %s: %w", f.path, err)
	}
	if !held {
		return Holder{}, false, nil
	}
	h := Holder{PID: pid, Write: write}
	if pid > 0 {
		return h, true, nil
	}
	if side, ok := f.readSide(); ok && h.Write {
		h.PID, h.Since, h.What = side.PID, side.Since, side.What
	}
	return h, true, nil
}

// Waiters tells who waits for the lock: pids are other programs that wait in
// the kernel, as the peers do, in no order; here counts this process's
// goroutines. Other processes of ours poll, and are not known.
func (f *File) Waiters() (pids []int, here int, err error) {
	here = int(f.waits.Load())
	fi, err := os.Stat(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, here, nil
	}
	if err != nil {
		return nil, here, fmt.Errorf("look at the lock file: %w", err)
	}
	pids, err = kernelWaiters(fi)
	return pids, here, err
}

func (f *File) sidePath() string {
	name := f.opts.SideName
	if name == "" {
		name = filepath.Base(f.path)
	}
	return filepath.Join(f.opts.SideDir, name+".holder")
}

// writeSide leaves the side record; it is advice, so a failure is not told.
func (f *File) writeSide(what string) {
	if f.opts.SideDir == "" {
		return
	}
	b, err := json.Marshal(Holder{PID: os.Getpid(), Since: time.Now().UTC(), What: what})
	if err != nil {
		return
	}
	_ = os.WriteFile(f.sidePath(), b, 0o600)
}

func (f *File) removeSide() {
	if f.opts.SideDir != "" {
		_ = os.Remove(f.sidePath())
	}
}

// readSide reads a side record whose process lives.
func (f *File) readSide() (Holder, bool) {
	if f.opts.SideDir == "" {
		return Holder{}, false
	}
	fd, err := os.Open(f.sidePath())
	if err != nil {
		return Holder{}, false
	}
	defer fd.Close() //nolint:errcheck // read only
	var h Holder
	if json.NewDecoder(io.LimitReader(fd, sideLimit)).Decode(&h) != nil || h.PID <= 0 {
		return Holder{}, false
	}
	return h, alive(h.PID)
}
