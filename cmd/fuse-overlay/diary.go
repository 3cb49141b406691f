package main

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/safefs"
)

const (
	// diaryName is the file in the work directory that says what happened to a
	// mount in the background; oldDiary is what it was before it was full.
	diaryName = "fuse-overlay.log"
	oldDiary  = diaryName + ".old"
	// mostDiary bounds each of the two, in bytes.
	mostDiary = 64 << 10
)

// diary takes messages: to standard error and, once that is gone, to a file in
// the work directory. Many may write.
type diary struct {
	mu     sync.Mutex
	stderr *os.File
	dir    *safefs.Dir // nil: without a work directory; guarded by mu
	gone   bool        // guarded by mu
}

// keep remembers the work directory, which the mount may cover later. One that
// cannot be opened is what mounting complains of.
func (d *diary) keep(work string) {
	if dir, err := safefs.OpenRoot(work); err == nil {
		d.dir = dir
	}
}

// leave says that nobody reads standard error any more.
func (d *diary) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gone = true
}

// left tells whether leave was called.
func (d *diary) left() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.gone
}

// close lets the work directory go.
func (d *diary) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dir == nil {
		return nil
	}
	err := d.dir.Close()
	d.dir = nil
	return err
}

// Write implements io.Writer; p is one message.
func (d *diary) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !d.gone:
		return d.stderr.Write(p)
	case d.dir == nil:
		return len(p), nil
	}
	line := append([]byte(time.Now().UTC().Format(time.RFC3339)+" "), p...)
	if err := d.append(line[:min(len(line), mostDiary)]); err != nil {
		return 0, fmt.Errorf("write to %s in the work directory: %w", diaryName, err)
	}
	return len(p), nil
}

func (d *diary) append(line []byte) error {
	f, size, err := d.open()
	if err != nil {
		return err
	}
	if size > 0 && size+int64(len(line)) > mostDiary {
		if err := errors.Join(f.Close(), d.dir.Rename(diaryName, d.dir, oldDiary, 0)); err != nil {
			return err
		}
		if f, _, err = d.open(); err != nil {
			return err
		}
	}
	_, err = f.Write(line)
	return errors.Join(err, f.Close())
}

func (d *diary) open() (*os.File, int64, error) {
	f, err := d.dir.Open(diaryName, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("it is no regular file: %w", syscall.EINVAL)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, st.Size(), nil
}
