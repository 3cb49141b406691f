package conformance

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const omit, now = (1 << 30) - 2, (1 << 30) - 1

func (e *env) utimens(path string, at, an, mt, mn int64) {
	e.Helper()
	e.ok(unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{Sec: at, Nsec: an}, {Sec: mt, Nsec: mn}}, unix.AT_SYMLINK_NOFOLLOW))
}

func (e *env) times(path string, at, an, mt, mn int64) {
	e.Helper()
	st := e.stat(path)
	if st.Atim.Sec != at || st.Atim.Nsec != an || st.Mtim.Sec != mt || st.Mtim.Nsec != mn {
		e.Errorf("%s: atime %v, mtime %v, want %d.%d %d.%d", path, st.Atim, st.Mtim, at, an, mt, mn)
	}
}

func timeCases() []c {
	old := func(e *env) {
		e.put(e.l("d/f"), "text")
		e.ok(os.Symlink("f", e.l("d/s")))
		for _, n := range []string{"d/f", "d/s", "d"} {
			e.utimens(e.l(n), 1000, 5, 2000, 123456789)
		}
	}
	return []c{
		{name: "times-set", lower: old, run: func(e *env) {
			for _, n := range []string{"d/f", "d/s", "d"} {
				e.utimens(e.p(n), 1234567890, 1, 1234567891, 999999999)
				e.times(e.p(n), 1234567890, 1, 1234567891, 999999999)
			}
			e.remount()
			for _, n := range []string{"d/f", "d/s", "d"} {
				st := e.stat(e.p(n))
				if st.Mtim.Sec != 1234567891 || st.Mtim.Nsec != 999999999 {
					e.Errorf("%s: %v", n, st.Mtim)
				}
			}
		}},
		{name: "times-omitted", lower: old, run: func(e *env) {
			e.utimens(e.p("d/f"), 0, omit, 77, 7)
			e.times(e.p("d/f"), 1000, 5, 77, 7)
			e.utimens(e.p("d/f"), 88, 8, 0, omit)
			e.times(e.p("d/f"), 88, 8, 77, 7)
			e.utimens(e.p("d/f"), 0, omit, 0, now)
			if st := e.stat(e.p("d/f")); st.Atim.Sec != 88 || st.Mtim.Sec < 1700000000 {
				e.Errorf("%v %v", st.Atim, st.Mtim)
			}
		}},
		{name: "truncate-to-same-size", lower: old, run: func(e *env) {
			e.ok(unix.Truncate(e.p("d/f"), 4))
			if st := e.stat(e.p("d/f")); st.Mtim.Sec < 1700000000 {
				e.Errorf("truncate(2) kept the time of a lower file: %v", st.Mtim)
			}
			e.put(e.p("empty"), "")
			e.utimens(e.p("empty"), 1, 0, 2, 0)
			e.ok(unix.Truncate(e.p("empty"), 0))
			if st := e.stat(e.p("empty")); st.Mtim.Sec < 1700000000 {
				e.Errorf("truncate(2) kept the time of an upper file: %v", st.Mtim)
			}
		}},
		{name: "times-before-1970", lower: old, run: func(e *env) {
			e.utimens(e.p("d/f"), -100, 0, -200, 5)
			e.remount()
			e.times(e.p("d/f"), -100, 0, -200, 5)
		}},
		{name: "times-kept-by-copy-up", lower: old, run: func(e *env) {
			e.ok(unix.Chmod(e.p("d/f"), 0o600))
			e.ok(unix.Chmod(e.p("d"), 0o700))
			e.remount()
			e.times(e.p("d/f"), 1000, 5, 2000, 123456789)
			if st := e.stat(e.p("d")); st.Mtim.Sec != 2000 || st.Mtim.Nsec != 123456789 {
				e.Errorf("the directory's: %v", st.Mtim)
			}
		}},
		{name: "times-of-parent-on-copy-up", lower: old, run: func(e *env) {
			e.ok(unix.Chmod(e.p("d/f"), 0o600))
			if st := e.stat(e.p("d")); st.Mtim.Sec != 2000 || st.Mtim.Nsec != 123456789 {
				e.Errorf("chmod of a child changed the directory's: %v", st.Mtim)
			}
		}},
		{name: "times-of-parent-on-changes", lower: old, run: func(e *env) {
			for _, f := range []func(){
				func() { e.put(e.p("d/new"), "N") },
				func() { e.ok(unix.Rename(e.p("d/new"), e.p("d/n"))) },
				func() { e.ok(os.Remove(e.p("d/n"))) },
				func() { e.ok(os.Remove(e.p("d/f"))) },
				func() { e.ok(os.Mkdir(e.p("d/f"), 0o755)) },
				func() { e.ok(os.Remove(e.p("d/f"))) },
			} {
				e.utimens(e.p("d"), 1000, 0, 2000, 0)
				f()
				if st := e.stat(e.p("d")); st.Mtim.Sec < 1700000000 {
					e.Errorf("the directory's mtime is still %v", st.Mtim)
				}
			}
		}},
		{name: "times-change-with-data", lower: old, run: func(e *env) {
			fd := e.open(e.p("d/f"), unix.O_RDWR, 0)
			if st := e.fstat(fd); st.Mtim.Sec != 2000 {
				e.Errorf("open for writing changed mtime: %v", st.Mtim)
			}
			e.pwrite(fd, "x", 0)
			if st := e.fstat(fd); st.Mtim.Sec < 1700000000 {
				e.Errorf("write left mtime: %v", st.Mtim)
			}
			e.utimens(e.p("d/f"), 1000, 0, 2000, 0)
			e.ok(unix.Ftruncate(fd, 0))
			if st := e.fstat(fd); st.Mtim.Sec < 1700000000 {
				e.Errorf("truncate left mtime: %v", st.Mtim)
			}
		}},
		{name: "times-set-while-open", run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_RDWR|unix.O_CREAT, 0o644)
			e.write(fd, "x")
			e.utimens(e.p("f"), 1000, 0, 2000, 7)
			e.close(fd)
			e.times(e.p("f"), 1000, 0, 2000, 7)
			e.remount()
			e.times(e.p("f"), 1000, 0, 2000, 7)
		}},
		{name: "birth-time", lower: func(e *env) { e.put(e.l("f"), "text") }, run: func(e *env) {
			born := func(path string) (int64, bool) {
				var st unix.Statx_t
				e.ok(unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BTIME, &st))
				return st.Btime.Sec*1e9 + int64(st.Btime.Nsec), st.Mask&unix.STATX_BTIME != 0
			}
			want, has := born(e.l("f"))
			if got, ok := born(e.p("f")); ok != has || got != want {
				e.Errorf("a lower file: %d, %v, the layer's %d, %v", got, ok, want, has)
			}
			e.put(e.p("new"), "x")
			first, ok := born(e.p("new"))
			if e.w.layers > 0 {
				want, has = born(e.upper + "/new")
			} else {
				want, has = first, ok
			}
			if ok != has || first != want {
				e.Errorf("a new file: %d, %v, the upper's %d, %v", first, ok, want, has)
			}
			time.Sleep(20 * time.Millisecond) // over a tick of the kernel's clock
			e.put(e.p("new"), "more")
			e.utimens(e.p("new"), 1000, 0, 2000, 0)
			e.remount()
			if again, ok := born(e.p("new")); ok != has || again != first {
				e.Errorf("it was born at %d and, after a remount, at %d", first, again)
			}
		}},
		{name: "ctime-changes", lower: old, run: func(e *env) {
			before := e.stat(e.p("d/f")).Ctim
			time.Sleep(20 * time.Millisecond) // over a tick of the kernel's clock
			e.ok(unix.Chmod(e.p("d/f"), 0o600))
			if after := e.stat(e.p("d/f")).Ctim; after.Nano() <= before.Nano() {
				e.Errorf("ctime %v, then %v", before, after)
			}
		}},
		{name: "ctime-of-a-directory-under-copy-ups", lower: func(e *env) {
			for i := range 100 {
				e.put(e.l(fmt.Sprintf("d/%d", i)), "x")
			}
		}, run: func(e *env) {
			var all sync.WaitGroup
			defer all.Wait()
			all.Go(func() {
				for i := range 100 {
					if err := unix.Chmod(e.p(fmt.Sprintf("d/%d", i)), 0o600); err != nil {
						e.Error(err)
					}
				}
			})
			// Those are none of the directory's changes; these are.
			for i, change := range []func() error{
				func() error { return unix.Chmod(e.p("d"), 0o700) },
				func() error { return unix.Setxattr(e.p("d"), "user.a", []byte("b"), 0) },
				func() error { return unix.Removexattr(e.p("d"), "user.a") },
				func() error { return unix.Utimes(e.p("d"), make([]unix.Timeval, 2)) },
				func() error { return os.Link(e.p("d/0"), e.p("d/link")) },
				func() error { return os.Remove(e.p("d/link")) },
			} {
				before := e.stat(e.p("d")).Ctim
				time.Sleep(15 * time.Millisecond)
				if err := change(); err != nil {
					e.Errorf("change %d: %v", i, err)
				}
				if after := e.stat(e.p("d")).Ctim; after.Nano() <= before.Nano() {
					e.Errorf("after change %d ctime is %v, before it %v", i, after, before)
				}
			}
		}},
	}
}
