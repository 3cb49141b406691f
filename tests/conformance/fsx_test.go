package conformance

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// fsx works at random on one file and compares it with what it should hold,
// like the program of that name (fsx.c of xfstests).
type fsx struct {
	e     *env
	rnd   *rand.Rand
	path  string
	fds   []int
	model []byte
	log   []string
}

const fsxMost = 1 << 20

// run works until end and returns how many steps that were, or what was wrong.
func (f *fsx) run(end time.Time) (steps int, err error) {
	defer func() {
		for _, fd := range f.fds {
			if cerr := unix.Close(fd); err == nil {
				err = cerr
			}
		}
		if err != nil {
			err = fmt.Errorf("%s after %d steps: %w; the last: %v", f.path, steps, err, f.log[max(0, len(f.log)-12):])
		}
	}()
	for range 2 {
		if err := f.reopen(0); err != nil {
			return 0, err
		}
	}
	for ; time.Now().Before(end); steps++ {
		if err := f.step(); err != nil {
			return steps, err
		}
	}
	return steps, f.compare(0, len(f.model))
}

func (f *fsx) say(format string, args ...any) { f.log = append(f.log, fmt.Sprintf(format, args...)) }

func (f *fsx) fd() int { return f.fds[f.rnd.IntN(len(f.fds))] }

// reopen closes one descriptor, if there are two, and opens another.
func (f *fsx) reopen(flags int) error {
	if len(f.fds) == 2 {
		if err := unix.Close(f.fds[0]); err != nil {
			return err
		}
		f.fds = f.fds[1:]
	}
	fd, err := unix.Open(f.path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|flags, 0o644)
	if err == nil {
		f.fds = append(f.fds, fd)
	}
	return err
}

func (f *fsx) place(most int) (off, n int) {
	off = f.rnd.IntN(most)
	return off, 1 + f.rnd.IntN(min(most-off, 100000))
}

func (f *fsx) step() error {
	switch what := f.rnd.IntN(20); {
	case what < 6:
		off, n := f.place(fsxMost)
		return f.write(off, n)
	case what < 11 && len(f.model) > 0:
		off, n := f.place(len(f.model))
		f.say("read %d+%d", off, n)
		return f.compare(off, n)
	case what == 11:
		n := f.rnd.IntN(fsxMost)
		f.say("truncate %d", n)
		f.resize(n)
		f.model = f.model[:n]
		return unix.Ftruncate(f.fd(), int64(n))
	case what == 12 && len(f.model) > 0:
		off, n := f.place(len(f.model))
		f.say("punch %d+%d", off, n)
		clear(f.model[off:min(off+n, len(f.model))])
		return unix.Fallocate(f.fd(), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(n))
	case what == 13:
		off, n := f.place(fsxMost)
		f.say("allocate %d+%d", off, n)
		f.resize(off + n)
		return unix.Fallocate(f.fd(), 0, int64(off), int64(n))
	case what < 16 && len(f.model) > 0:
		return f.mapped()
	case what == 16:
		f.say("reopen")
		return f.reopen(0)
	case what == 17:
		f.say("fsync")
		return unix.Fsync(f.fd())
	case what == 18 && len(f.model) > 0:
		return f.copyRange()
	case what == 19:
		f.say("rename")
		next := f.path + "'"
		if f.path[len(f.path)-1] == '\'' {
			next = f.path[:len(f.path)-1]
		}
		err := unix.Rename(f.path, next)
		f.path = next
		return err
	}
	return nil
}

func (f *fsx) resize(n int) {
	if n > len(f.model) {
		f.model = append(f.model, make([]byte, n-len(f.model))...)
	}
}

func (f *fsx) noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(f.rnd.Uint32())
	}
	return b
}

func (f *fsx) write(off, n int) error {
	f.say("write %d+%d", off, n)
	b := f.noise(n)
	f.resize(off + n)
	copy(f.model[off:], b)
	k, err := unix.Pwrite(f.fd(), b, int64(off))
	if err == nil && k != n {
		return fmt.Errorf("a write of %d bytes wrote %d", n, k)
	}
	return err
}

func (f *fsx) compare(off, n int) error {
	n = min(n, len(f.model)-off)
	fd := f.fd()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Size != int64(len(f.model)) {
		return fmt.Errorf("size %d, want %d", st.Size, len(f.model))
	}
	b := make([]byte, n)
	k, err := unix.Pread(fd, b, int64(off))
	if err != nil {
		return err
	}
	return f.same(b[:k], off, n)
}

func (f *fsx) same(b []byte, off, n int) error {
	want := f.model[off : off+n]
	if bytes.Equal(b, want) {
		return nil
	}
	at := 0
	for at < len(b) && b[at] == want[at] {
		at++
	}
	return fmt.Errorf("read %d bytes of %d at %d: the byte at %d is wrong", len(b), n, off, off+at)
}

// mapped reads and writes through a shared mapping.
func (f *fsx) mapped() error {
	off, n := f.place(len(f.model))
	n = min(n, len(f.model)-off)
	f.say("map %d+%d", off, n)
	page := off &^ 4095
	m, err := unix.Mmap(f.fd(), int64(page), off-page+n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	err = f.same(m[off-page:], off, n)
	if err == nil {
		b := f.noise(min(n, 5000))
		copy(m[off-page:], b)
		copy(f.model[off:], b)
	}
	if uerr := unix.Munmap(m); err == nil {
		err = uerr
	}
	return err
}

// copyRange copies within the file, where the two parts do not meet.
func (f *fsx) copyRange() error {
	from, n := f.place(len(f.model))
	n = min(n, len(f.model)-from)
	to := f.rnd.IntN(fsxMost - n)
	if to < from+n && from < to+n {
		return nil
	}
	f.say("copy %d+%d to %d", from, n, to)
	f.resize(to + n)
	copy(f.model[to:to+n], f.model[from:from+n])
	in, out := int64(from), int64(to)
	for n > 0 {
		k, err := unix.CopyFileRange(f.fds[0], &in, f.fds[len(f.fds)-1], &out, n, 0)
		if err != nil {
			return err
		}
		if k == 0 {
			return fmt.Errorf("a copy ended with %d bytes to go", n)
		}
		n -= k
	}
	return nil
}

// lowerFile puts the file that fsx begins with into the lower layer, or not.
func (f *fsx) lowerFile(path string, n int) error {
	f.model = f.noise(n)
	return os.WriteFile(path, f.model, 0o644)
}
