package conformance

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func linkCases() []c {
	pair := func(e *env) {
		e.put(e.l("a"), "old")
		e.mkdir(e.l("d"))
		e.ok(os.Link(e.l("a"), e.l("d/b")))
	}
	same := func(e *env, nlink int, names ...string) {
		e.Helper()
		first := e.stat(e.p(names[0]))
		for _, n := range names {
			st := e.stat(e.p(n))
			if st.Ino != first.Ino || int(st.Nlink) != nlink {
				e.Errorf("%s: inode %d with %d links, want %d with %d", n, st.Ino, st.Nlink, first.Ino, nlink)
			}
		}
	}
	return []c{
		{name: "link-pair-written", lower: pair, run: func(e *env) {
			same(e, 2, "a", "d/b")
			fd := e.open(e.p("a"), unix.O_RDWR, 0)
			e.pwrite(fd, "new", 0)
			e.want(e.p("d/b"), "new")
			same(e, 2, "a", "d/b")
			e.remount()
			e.want(e.p("d/b"), "new")
			e.want(e.p("a"), "new")
			same(e, 2, "a", "d/b")
		}},
		{name: "link-pair-by-the-other-name-after-remount", lower: pair, run: func(e *env) {
			e.put(e.p("a"), "one")
			e.remount()
			e.put(e.p("d/b"), "two")
			e.want(e.p("a"), "two")
			e.remount()
			e.want(e.p("a"), "two")
			same(e, 2, "a", "d/b")
		}},
		{name: "link-pair-chmod", lower: pair, run: func(e *env) {
			e.ok(os.Chmod(e.p("d/b"), 0o600))
			e.mode(e.p("a"), 0o600)
			e.remount()
			e.mode(e.p("a"), 0o600)
		}},
		{name: "link-pair-removed", lower: pair, run: func(e *env) {
			fd := e.open(e.p("d/b"), unix.O_RDONLY, 0)
			e.ok(os.Remove(e.p("a")))
			same(e, 1, "d/b")
			e.ok(os.Remove(e.p("d/b")))
			if st := e.fstat(fd); st.Nlink != 0 {
				e.Errorf("%d links", st.Nlink)
			}
			if got := e.pread(fd, 9, 0); got != "old" {
				e.Errorf("read %q", got)
			}
		}},
		{name: "link-pair-removed-nlink-after-remount", lower: pair, run: func(e *env) {
			e.put(e.p("a"), "new")
			e.ok(os.Remove(e.p("a")))
			e.remount()
			same(e, 1, "d/b")
			e.want(e.p("d/b"), "new")
		}},
		{name: "link-of-lower", lower: func(e *env) { e.put(e.l("a"), "old") }, run: func(e *env) {
			e.ok(os.Link(e.p("a"), e.p("b")))
			same(e, 2, "a", "b")
			e.put(e.p("b"), "new")
			e.want(e.p("a"), "new")
			e.remount()
			e.want(e.p("a"), "new")
			same(e, 2, "a", "b")
			e.ok(os.Remove(e.p("a")))
			same(e, 1, "b")
			e.list(e.root, "b")
		}},
		{name: "link-over-whiteout", lower: pair, run: func(e *env) {
			e.ok(os.Remove(e.p("d/b")))
			e.put(e.p("n"), "N")
			e.ok(os.Link(e.p("n"), e.p("d/b")))
			e.remount()
			e.want(e.p("d/b"), "N")
			same(e, 2, "n", "d/b")
		}},
		{name: "link-errors", lower: pair, run: func(e *env) {
			e.is(os.Link(e.p("a"), e.p("d/b")), unix.EEXIST)
			e.is(os.Link(e.p("d"), e.p("e")), unix.EPERM)
			e.is(os.Link(e.p("none"), e.p("e")), unix.ENOENT)
		}},
		{name: "link-of-symlink", lower: func(e *env) { e.ok(os.Symlink("to", e.l("s"))) }, run: func(e *env) {
			e.ok(os.Link(e.p("s"), e.p("t")))
			if to, err := os.Readlink(e.p("t")); err != nil || to != "to" {
				e.Errorf("%q, %v", to, err)
			}
			same(e, 2, "s", "t")
		}},
		{name: "link-many", run: func(e *env) {
			e.put(e.p("a"), "A")
			for i := range 100 {
				e.ok(os.Link(e.p("a"), e.p(fmt.Sprint("n", i))))
			}
			same(e, 101, "a", "n50", "n99")
			for i := range 100 {
				e.ok(os.Remove(e.p(fmt.Sprint("n", i))))
			}
			same(e, 1, "a")
		}},
		{name: "symlink-long", run: func(e *env) {
			to := ""
			for len(to) < 4000 {
				to += "0123456789/"
			}
			e.ok(os.Symlink(to, e.p("s")))
			e.remount()
			if got, err := os.Readlink(e.p("s")); err != nil || got != to {
				e.Errorf("%d bytes, %v", len(got), err)
			}
			if st := e.stat(e.p("s")); int(st.Size) != len(to) {
				e.Errorf("size %d, want %d", st.Size, len(to))
			}
		}},
		{name: "symlink-loop", run: func(e *env) {
			e.ok(os.Symlink("b", e.p("a")))
			e.ok(os.Symlink("a", e.p("b")))
			e.openErr(e.p("a"), unix.O_RDONLY, unix.ELOOP)
			e.openErr(e.p("a"), unix.O_RDONLY|unix.O_NOFOLLOW, unix.ELOOP)
		}},
		{name: "unnamed-file-linked", run: func(e *env) {
			fd := e.open(e.root, unix.O_TMPFILE|unix.O_RDWR, 0o640)
			e.write(fd, "text")
			if st := e.fstat(fd); st.Nlink != 0 {
				e.Errorf("%d links", st.Nlink)
			}
			e.list(e.root)
			e.ok(unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, e.p("f"), unix.AT_SYMLINK_FOLLOW))
			e.want(e.p("f"), "text")
			e.mode(e.p("f"), 0o640)
			same(e, 1, "f")
			e.write(fd, "more")
			e.want(e.p("f"), "textmore")
		}},
		{name: "unnamed-file-in-lower-directory", lower: func(e *env) { e.put(e.l("d/x"), "X") }, run: func(e *env) {
			fd := e.open(e.p("d"), unix.O_TMPFILE|unix.O_WRONLY, 0o600)
			e.write(fd, "text")
			e.list(e.p("d"), "x")
			e.ok(unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, e.p("d/f"), unix.AT_SYMLINK_FOLLOW))
			e.list(e.p("d"), "f", "x")
		}},
		{name: "unnamed-file-that-stays-unnamed", run: func(e *env) {
			fd := e.open(e.root, unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL, 0o600)
			e.write(fd, "text")
			e.is(unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, e.p("f"), unix.AT_SYMLINK_FOLLOW), unix.ENOENT)
		}},
	}
}
