package conformance

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func xattrCases() []c {
	file := func(e *env) {
		e.put(e.l("f"), "text")
		e.setx(e.l("f"), "user.one", "1")
		e.put(e.l("d/x"), "X")
		e.setx(e.l("d"), "user.dir", "D")
	}
	return []c{
		{name: "xattr-copied-up", lower: file, run: func(e *env) {
			e.put(e.p("f"), "new")
			e.put(e.p("d/n"), "new")
			e.remount()
			e.wantx(e.p("f"), "user.one", "1")
			e.wantx(e.p("d"), "user.dir", "D")
			if got := listx(e.p("f")); strings.Join(got, " ") != "user.one" {
				e.Errorf("%q", got)
			}
			if got := listx(e.p("d")); strings.Join(got, " ") != "user.dir" {
				e.Errorf("%q", got)
			}
		}},
		{name: "xattr-set", lower: file, run: func(e *env) {
			e.setx(e.p("f"), "user.two", "2")
			e.is(unix.Lsetxattr(e.p("f"), "user.two", nil, unix.XATTR_CREATE), unix.EEXIST)
			e.is(unix.Lsetxattr(e.p("f"), "user.no", nil, unix.XATTR_REPLACE), unix.ENODATA)
			e.setx(e.p("f"), "user.empty", "")
			e.ok(unix.Lremovexattr(e.p("f"), "user.one"))
			e.is(unix.Lremovexattr(e.p("f"), "user.one"), unix.ENODATA)
			e.remount()
			if got := listx(e.p("f")); strings.Join(got, " ") != "user.empty user.two" {
				e.Errorf("%q", got)
			}
			e.wantx(e.p("f"), "user.empty", "")
			e.want(e.p("f"), "text")
		}},
		{name: "xattr-sizes", lower: file, run: func(e *env) {
			long := strings.Repeat("v", 3000)
			e.setx(e.p("f"), "user.long", long)
			n, err := unix.Lgetxattr(e.p("f"), "user.long", nil)
			if err != nil || n != 3000 {
				e.Errorf("%d, %v", n, err)
			}
			_, err = unix.Lgetxattr(e.p("f"), "user.long", make([]byte, 10))
			e.is(err, unix.ERANGE)
			_, err = unix.Llistxattr(e.p("f"), make([]byte, 3))
			e.is(err, unix.ERANGE)
			n, err = unix.Llistxattr(e.p("f"), nil)
			if err != nil || n < len("user.one\x00user.long\x00") {
				e.Errorf("%d, %v", n, err)
			}
			e.wantx(e.p("f"), "user.long", long)
			_, err = getx(e.p("f"), "user.none")
			e.is(err, unix.ENODATA)
		}},
		{name: "xattr-of-directories", lower: file, run: func(e *env) {
			e.setx(e.p("d"), "user.more", "M")
			e.setx(e.root, "user.root", "R")
			e.remount()
			e.wantx(e.p("d"), "user.dir", "D")
			e.wantx(e.p("d"), "user.more", "M")
			e.wantx(e.root, "user.root", "R")
			e.list(e.p("d"), "x")
		}},
		{name: "xattr-of-symlinks", root: true, lower: func(e *env) { file(e); e.ok(os.Symlink("f", e.l("s"))) }, run: func(e *env) {
			e.setx(e.p("s"), "trusted.link", "L")
			e.remount()
			e.wantx(e.p("s"), "trusted.link", "L")
			_, err := getx(e.p("f"), "trusted.link")
			e.is(err, unix.ENODATA)
			e.is(unix.Lsetxattr(e.p("s"), "user.x", []byte("1"), 0), unix.EPERM)
		}},
		{name: "xattr-of-symlink-out-of-the-layers", root: true, lower: func(e *env) {
			e.put(e.dir+"/outside", "O")
			e.ok(os.Symlink(e.dir+"/outside", e.l("s")))
		}, run: func(e *env) {
			for _, name := range []string{"trusted.link", "security.link"} {
				e.setx(e.p("s"), name, "L")
				e.wantx(e.p("s"), name, "L")
			}
			e.ok(unix.Lremovexattr(e.p("s"), "security.link"))
			if got := listx(e.dir + "/outside"); len(got) > 0 {
				e.Errorf("what it points to has %q", got)
			}
		}},
		{name: "xattr-trusted", root: true, lower: func(e *env) { file(e); e.setx(e.l("f"), "trusted.t", "T") }, run: func(e *env) {
			e.wantx(e.p("f"), "trusted.t", "T")
			e.setx(e.p("f"), "trusted.u", "U")
			e.remount()
			e.wantx(e.p("f"), "trusted.t", "T")
			e.wantx(e.p("f"), "trusted.u", "U")
		}},
		{name: "xattr-that-looks-like-a-mark", root: true, lower: file, run: func(e *env) {
			e.setx(e.p("d"), "trusted.overlay.opaque", "y")
			e.setx(e.p("f"), "trusted.overlay.redirect", "/elsewhere")
			e.wantx(e.p("d"), "trusted.overlay.opaque", "y")
			e.list(e.p("d"), "x")
			e.remount()
			e.list(e.p("d"), "x")
			e.wantx(e.p("d"), "trusted.overlay.opaque", "y")
			e.wantx(e.p("f"), "trusted.overlay.redirect", "/elsewhere")
			if got := listx(e.p("f")); strings.Join(got, " ") != "trusted.overlay.redirect user.one" {
				e.Errorf("%q", got)
			}
		}},
		{name: "xattr-security", root: true, run: func(e *env) {
			e.put(e.p("f"), "x")
			e.setx(e.p("f"), "security.mine", "S")
			e.remount()
			e.wantx(e.p("f"), "security.mine", "S")
		}},
		{name: "xattr-unknown-namespace", lower: file, run: func(e *env) {
			e.is(unix.Lsetxattr(e.p("f"), "nothing.known", []byte("x"), 0), unix.EOPNOTSUPP)
		}},
		{name: "xattr-of-fifo", lower: func(e *env) { e.ok(unix.Mkfifo(e.l("p"), 0o644)) }, run: func(e *env) {
			e.is(unix.Lsetxattr(e.p("p"), "user.x", []byte("1"), 0), unix.EPERM)
		}},
	}
}
