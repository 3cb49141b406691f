package conformance

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// execErr runs a program and returns why it could not be.
func execErr(path string) error {
	err := exec.Command(path).Run()
	var no unix.Errno
	if errors.As(err, &no) {
		return no
	}
	return err
}

// execSettled is execErr for a program that nobody has open for writing any
// more, but perhaps a child that a parallel test is just starting.
func execSettled(path string) error {
	for range 200 {
		if err := execErr(path); !errors.Is(err, unix.ETXTBSY) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	return execErr(path)
}

const mib = 1 << 20

func sparse(e *env, path string, size int64, at ...int64) {
	e.Helper()
	f, err := os.Create(path)
	e.ok(err)
	e.ok(f.Truncate(size))
	for _, off := range at {
		_, err := f.WriteAt([]byte("data"), off)
		e.ok(err)
	}
	e.ok(f.Close())
}

func (e *env) fallocated(fd int, mode uint32, off, n int64) {
	e.Helper()
	err := unix.Fallocate(fd, mode, off, n)
	if errors.Is(err, unix.EOPNOTSUPP) && e.w.layers == 0 {
		e.Skip("the disk has no fallocate of this mode")
	}
	e.ok(err)
}

func dataCases() []c {
	return []c{
		{name: "fallocate", lower: func(e *env) { e.put(e.l("f"), "text") }, run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_RDWR, 0)
			e.fallocated(fd, 0, 0, mib)
			if st := e.fstat(fd); st.Size != mib || st.Blocks < mib/512 {
				e.Errorf("size %d, blocks %d", st.Size, st.Blocks)
			}
			if got := e.pread(fd, 6, 0); got != "text\x00\x00" {
				e.Errorf("%q", got)
			}
		}},
		{name: "fallocate-keep-size", lower: func(e *env) { e.put(e.l("f"), "text") }, run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_RDWR, 0)
			e.fallocated(fd, unix.FALLOC_FL_KEEP_SIZE, 0, mib)
			if st := e.fstat(fd); st.Size != 4 || st.Blocks < mib/512 {
				e.Errorf("size %d, blocks %d", st.Size, st.Blocks)
			}
		}},
		{name: "fallocate-punch", lower: func(e *env) { e.put(e.l("f"), strings.Repeat("x", mib)) }, run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_RDWR, 0)
			e.fallocated(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 4096, mib-8192)
			if st := e.fstat(fd); st.Size != mib || st.Blocks > 64 {
				e.Errorf("size %d, blocks %d", st.Size, st.Blocks)
			}
			if got := e.pread(fd, 2, 4095); got != "x\x00" {
				e.Errorf("%q", got)
			}
		}},
		{name: "fallocate-zero", lower: func(e *env) { e.put(e.l("f"), strings.Repeat("x", 65536)) }, run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_RDWR, 0)
			e.fallocated(fd, unix.FALLOC_FL_ZERO_RANGE, 100, 10)
			if got := e.pread(fd, 12, 99); got != "x"+strings.Repeat("\x00", 10)+"x" {
				e.Errorf("%q", got)
			}
		}},
		{name: "seek-in-lower", lower: func(e *env) { sparse(e, e.l("f"), 8*mib, 0, 4*mib) }, run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_RDONLY, 0)
			for _, s := range []struct {
				from   int64
				whence int
				most   int64
				least  int64
			}{{0, unix.SEEK_HOLE, mib, 4}, {mib, unix.SEEK_DATA, 4 * mib, 3 * mib}, {4 * mib, unix.SEEK_HOLE, 5 * mib, 4*mib + 4}} {
				if got, err := unix.Seek(fd, s.from, s.whence); err != nil || got > s.most || got < s.least {
					e.Errorf("%+v: %d, %v", s, got, err)
				}
			}
			_, err := unix.Seek(fd, 5*mib, unix.SEEK_DATA)
			e.is(err, unix.ENXIO)
			_, err = unix.Seek(fd, 9*mib, unix.SEEK_HOLE)
			e.is(err, unix.ENXIO)
		}},
		{name: "seek-unwritten-data", run: func(e *env) {
			w := e.open(e.p("f"), unix.O_RDWR|unix.O_CREAT, 0o644)
			e.ok(unix.Ftruncate(w, 4*mib))
			e.pwrite(w, "data", 2*mib)
			r := e.open(e.p("f"), unix.O_RDONLY, 0)
			if got, err := unix.Seek(r, 0, unix.SEEK_DATA); err != nil || got > 2*mib {
				e.Errorf("data at %d, %v", got, err)
			}
			if got, err := unix.Seek(r, 2*mib, unix.SEEK_HOLE); err != nil || got < 2*mib+4 {
				e.Errorf("hole at %d, %v", got, err)
			}
		}},
		{name: "sparse-copy-up", lower: func(e *env) { sparse(e, e.l("f"), 64*mib, 0, 32*mib) }, run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_RDWR, 0)
			e.pwrite(fd, "D", 0)
			if st := e.fstat(fd); st.Size != 64*mib || st.Blocks > 8192 {
				e.Errorf("size %d, blocks %d", st.Size, st.Blocks)
			}
			if got := e.pread(fd, 5, 32*mib); got != "data\x00" {
				e.Errorf("%q", got)
			}
			if got := e.pread(fd, 4, 0); got != "Data" {
				e.Errorf("%q", got)
			}
		}},
		{name: "over-4-gib", long: true, lower: func(e *env) { sparse(e, e.l("f"), 6<<30, 5<<30) }, run: func(e *env) {
			if st := e.stat(e.p("f")); st.Size != 6<<30 {
				e.Errorf("size %d", st.Size)
			}
			fd := e.open(e.p("f"), unix.O_RDWR, 0)
			if got := e.pread(fd, 4, 5<<30); got != "data" {
				e.Errorf("%q", got)
			}
			e.pwrite(fd, "high", 7<<30)
			if st := e.fstat(fd); st.Size != 7<<30+4 || st.Blocks > 8192 {
				e.Errorf("size %d, blocks %d", st.Size, st.Blocks)
			}
			if got := e.pread(fd, 4, 5<<30) + e.pread(fd, 9, 7<<30); got != "datahigh" {
				e.Errorf("%q", got)
			}
		}},
		{name: "copy-range", lower: func(e *env) { e.put(e.l("f"), strings.Repeat("0123456789", 30000)) }, run: func(e *env) {
			in, out := e.open(e.p("f"), unix.O_RDONLY, 0), e.open(e.p("g"), unix.O_RDWR|unix.O_CREAT, 0o644)
			from, to, total := int64(5), int64(100), 0
			for total < 200000 {
				n, err := unix.CopyFileRange(in, &from, out, &to, 200000-total, 0)
				e.ok(err)
				if n == 0 {
					break
				}
				total += n
			}
			want := strings.Repeat("\x00", 100) + strings.Repeat("0123456789", 30000)[5:200005]
			e.want(e.p("g"), want)
		}},
		{name: "big-writes", run: func(e *env) {
			b := make([]byte, 8*mib+17)
			for i := range b {
				b[i] = byte(i * 7 >> 3)
			}
			e.ok(os.WriteFile(e.p("f"), b, 0o644))
			e.remount()
			e.want(e.p("f"), string(b))
		}},
		{name: "overlapping-writes", run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_RDWR|unix.O_CREAT, 0o644)
			e.pwrite(fd, strings.Repeat("a", 10000), 0)
			e.pwrite(fd, strings.Repeat("b", 10000), 5000)
			e.pwrite(fd, "c", 4999)
			e.want(e.p("f"), strings.Repeat("a", 4999)+"c"+strings.Repeat("b", 10000))
		}},
		{name: "blocks-and-size", lower: func(e *env) { e.put(e.l("f"), strings.Repeat("x", 100000)) }, run: func(e *env) {
			st := e.stat(e.p("f"))
			if st.Size != 100000 || st.Blocks < 100000/512 || st.Blocks > 2*100000/512 {
				e.Errorf("size %d, blocks %d", st.Size, st.Blocks)
			}
		}},
		{name: "statfs", run: func(e *env) {
			var st, disk unix.Statfs_t
			e.ok(unix.Statfs(e.root, &st))
			e.ok(unix.Statfs(e.dir, &disk))
			if st.Namelen != 255 || st.Blocks != disk.Blocks || st.Bavail == 0 || st.Files != disk.Files {
				e.Errorf("%+v\nof the disk: %+v", st, disk)
			}
		}},
	}
}
