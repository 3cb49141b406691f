package conformance

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func rename2(from, to string, flags uint) error {
	return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, flags)
}

func renameCases() []c {
	two := func(e *env) {
		e.put(e.l("a"), "A")
		e.put(e.l("b"), "B")
	}
	trees := func(e *env) {
		e.put(e.l("d/x/file"), "X")
		e.put(e.l("d/y"), "Y")
		e.put(e.l("e/z"), "Z")
	}
	return []c{
		{name: "rename-file", lower: two, run: func(e *env) {
			ino := e.stat(e.p("a")).Ino
			e.ok(unix.Rename(e.p("a"), e.p("c")))
			e.gone(e.p("a"))
			e.want(e.p("c"), "A")
			if got := e.stat(e.p("c")).Ino; got != ino {
				e.Errorf("the inode number went from %d to %d", ino, got)
			}
			e.remount()
			e.list(e.root, "b", "c")
			e.want(e.p("c"), "A")
		}},
		{name: "rename-replaces", lower: two, run: func(e *env) {
			e.ok(unix.Rename(e.p("a"), e.p("b")))
			e.want(e.p("b"), "A")
			e.put(e.p("new"), "N")
			e.ok(unix.Rename(e.p("new"), e.p("b")))
			e.remount()
			e.list(e.root, "b")
			e.want(e.p("b"), "N")
		}},
		{name: "rename-noreplace", lower: two, run: func(e *env) {
			e.is(rename2(e.p("a"), e.p("b"), unix.RENAME_NOREPLACE), unix.EEXIST)
			e.want(e.p("b"), "B")
			e.ok(rename2(e.p("a"), e.p("c"), unix.RENAME_NOREPLACE))
			e.want(e.p("c"), "A")
			e.ok(os.Remove(e.p("b")))
			e.ok(rename2(e.p("c"), e.p("b"), unix.RENAME_NOREPLACE)) // over a whiteout
			e.remount()
			e.list(e.root, "b")
			e.want(e.p("b"), "A")
		}},
		{name: "rename-exchange-files", lower: two, run: func(e *env) {
			e.ok(rename2(e.p("a"), e.p("b"), unix.RENAME_EXCHANGE))
			e.want(e.p("a"), "B")
			e.want(e.p("b"), "A")
			e.put(e.p("n"), "N")
			e.ok(rename2(e.p("n"), e.p("a"), unix.RENAME_EXCHANGE))
			e.remount()
			e.want(e.p("a"), "N")
			e.want(e.p("n"), "B")
			e.is(rename2(e.p("n"), e.p("none"), unix.RENAME_EXCHANGE), unix.ENOENT)
		}},
		{name: "rename-exchange-new-directories", run: func(e *env) {
			e.put(e.p("d/x"), "X")
			e.put(e.p("e/y"), "Y")
			e.put(e.p("f"), "F")
			e.ok(rename2(e.p("d"), e.p("e"), unix.RENAME_EXCHANGE))
			e.want(e.p("d/y"), "Y")
			e.ok(rename2(e.p("d"), e.p("f"), unix.RENAME_EXCHANGE))
			e.remount()
			e.want(e.p("f/y"), "Y")
			e.want(e.p("d"), "F")
			e.want(e.p("e/x"), "X")
		}},
		{name: "rename-exchange-merged-directories", lower: trees, run: func(e *env) {
			e.ok(rename2(e.p("d"), e.p("e"), unix.RENAME_EXCHANGE))
			e.list(e.p("d"), "z")
			e.list(e.p("e"), "x", "y")
			e.remount()
			e.list(e.p("d"), "z")
			e.want(e.p("e/x/file"), "X")
		}},
		{name: "rename-lower-directory", lower: trees, run: func(e *env) {
			e.ok(unix.Rename(e.p("d"), e.p("n")))
			e.gone(e.p("d"))
			e.want(e.p("n/x/file"), "X")
			e.remount()
			e.list(e.root, "e", "n")
			e.list(e.p("n"), "x", "y")
			e.want(e.p("n/x/file"), "X")
			e.mkdir(e.p("d"))
			e.list(e.p("d"))
		}},
		{name: "rename-merged-directory", lower: trees, run: func(e *env) {
			e.put(e.p("d/new"), "N")
			e.ok(os.Remove(e.p("d/y")))
			e.ok(unix.Rename(e.p("d"), e.p("e/d")))
			e.list(e.p("e"), "d", "z")
			e.list(e.p("e/d"), "new", "x")
			e.remount()
			e.list(e.p("e/d"), "new", "x")
			e.want(e.p("e/d/x/file"), "X")
			e.list(e.root, "e")
		}},
		{name: "rename-new-directory-over-whiteout", lower: trees, run: func(e *env) {
			e.ok(os.RemoveAll(e.p("d")))
			e.put(e.p("n/own"), "O")
			e.ok(unix.Rename(e.p("n"), e.p("d")))
			e.list(e.p("d"), "own")
			e.remount()
			e.list(e.p("d"), "own")
		}},
		{name: "rename-directory-over-emptied", lower: trees, run: func(e *env) {
			e.put(e.p("n/own"), "O")
			e.is(unix.Rename(e.p("n"), e.p("d")), unix.ENOTEMPTY)
			e.ok(os.RemoveAll(e.p("e/z")))
			e.ok(unix.Rename(e.p("n"), e.p("e")))
			e.list(e.p("e"), "own")
			e.remount()
			e.list(e.p("e"), "own")
			e.list(e.root, "d", "e")
		}},
		{name: "rename-types", lower: trees, run: func(e *env) {
			e.is(unix.Rename(e.p("d"), e.p("e/z")), unix.ENOTDIR)
			e.is(unix.Rename(e.p("e/z"), e.p("d")), unix.EISDIR)
			e.mkdir(e.p("n"))
			e.is(unix.Rename(e.p("n"), e.p("n/in")), unix.EINVAL)
			e.is(unix.Rename(e.p("none"), e.p("x")), unix.ENOENT)
			e.is(unix.Rename(e.p("e/z"), e.p("none/x")), unix.ENOENT)
			e.is(rename2(e.p("n"), e.p("d/x"), unix.RENAME_EXCHANGE|unix.RENAME_NOREPLACE), unix.EINVAL)
		}},
		{name: "rename-to-its-own-link", run: func(e *env) {
			e.put(e.p("a"), "A")
			e.ok(os.Link(e.p("a"), e.p("b")))
			e.ok(unix.Rename(e.p("a"), e.p("b")))
			e.list(e.root, "a", "b")
		}},
		{name: "rename-open-file", lower: two, run: func(e *env) {
			fd := e.open(e.p("a"), unix.O_RDWR, 0)
			e.ok(unix.Rename(e.p("a"), e.p("c")))
			e.put(e.p("a"), "other")
			e.pwrite(fd, "Z", 0)
			e.want(e.p("c"), "Z")
			e.want(e.p("a"), "other")
		}},
		{name: "rename-over-open-file", lower: two, run: func(e *env) {
			fd := e.open(e.p("b"), unix.O_RDONLY, 0)
			e.ok(unix.Rename(e.p("a"), e.p("b")))
			if got := e.pread(fd, 9, 0); got != "B" {
				e.Errorf("the replaced file reads %q", got)
			}
			if st := e.fstat(fd); st.Nlink != 0 {
				e.Errorf("the replaced file has %d links", st.Nlink)
			}
		}},
		{name: "rename-symlink", lower: func(e *env) { e.ok(os.Symlink("to", e.l("s"))) }, run: func(e *env) {
			e.ok(unix.Rename(e.p("s"), e.p("t")))
			e.remount()
			if to, err := os.Readlink(e.p("t")); err != nil || to != "to" {
				e.Errorf("%q, %v", to, err)
			}
			e.list(e.root, "t")
		}},
		{name: "rename-longest-name", run: func(e *env) {
			long := strings.Repeat("x", 255)
			e.put(e.p("a"), "A")
			e.ok(unix.Rename(e.p("a"), e.p(long)))
			e.remount()
			e.want(e.p(long), "A")
			e.is(unix.Rename(e.p(long), e.p(long+"y")), unix.ENAMETOOLONG)
		}},
		{name: "rename-back-and-forth", lower: trees, run: func(e *env) {
			for range 3 {
				e.ok(unix.Rename(e.p("e/z"), e.p("e/other")))
				e.ok(unix.Rename(e.p("e/other"), e.p("e/z")))
			}
			e.list(e.p("e"), "z")
			e.remount()
			e.list(e.p("e"), "z")
			e.want(e.p("e/z"), "Z")
		}},
		{name: "rename-dotdot-follows", run: func(e *env) {
			e.put(e.p("a/b/f"), "F")
			e.mkdir(e.p("c"))
			fd := e.open(e.p("a/b"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
			e.ok(unix.Rename(e.p("a/b"), e.p("c/b")))
			var st unix.Stat_t
			e.ok(unix.Fstatat(fd, "..", &st, 0))
			if want := e.stat(e.p("c")); st.Ino != want.Ino {
				e.Errorf("'..' is %d, want %d", st.Ino, want.Ino)
			}
		}},
	}
}
