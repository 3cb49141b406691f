package conformance

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func otherCases() []c {
	return []c{
		{name: "longest-names", lower: func(e *env) { e.put(e.l(strings.Repeat("l", 255)), "L") }, run: func(e *env) {
			lower, upper := strings.Repeat("l", 255), strings.Repeat("ü", 127)+"x"
			e.put(e.p(upper), "U")
			e.list(e.root, lower, upper)
			e.openErr(e.p(upper+"y"), unix.O_RDWR|unix.O_CREAT, unix.ENAMETOOLONG)
			e.openErr(e.p(upper+"y"), unix.O_RDONLY, unix.ENAMETOOLONG)
			e.ok(os.Remove(e.p(lower)))
			e.gone(e.p(lower))
			e.remount()
			e.list(e.root, upper)
			e.mkdir(e.p(lower))
			e.remount()
			e.list(e.p(lower))
			e.list(e.root, lower, upper)
		}},
		{name: "names-of-any-bytes", run: func(e *env) {
			var want []string
			for b := 1; b < 256; b++ {
				if b == '/' {
					continue
				}
				n := "n" + string([]byte{byte(b)}) + "\xff"
				e.put(e.p(n), n)
				want = append(want, n)
			}
			for _, n := range []string{"-rf", "...", " ", "\n", "\\x41", "%2F", "#1", "work", "index"} {
				e.put(e.p(n), n)
				want = append(want, n)
			}
			e.list(e.root, want...)
			e.remount()
			e.list(e.root, want...)
			e.want(e.p("n\\\xff"), "n\\\xff")
		}},
		{name: "sockets", run: func(e *env) {
			d := e.open(e.root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
			l, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/s", d))
			e.ok(err)
			go func() {
				c, err := l.Accept()
				if err == nil {
					_, _ = io.WriteString(c, "hello")
					_ = c.Close()
				}
			}()
			c, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/s", d))
			e.ok(err)
			b, err := io.ReadAll(c)
			if err != nil || string(b) != "hello" {
				e.Errorf("%q, %v", b, err)
			}
			e.ok(c.Close())
			if st := e.stat(e.p("s")); st.Mode&unix.S_IFMT != unix.S_IFSOCK {
				e.Errorf("mode %o", st.Mode)
			}
			e.ok(l.Close())
			e.gone(e.p("s"))
		}},
		{name: "fifos", lower: func(e *env) { e.ok(unix.Mkfifo(e.l("lower"), 0o644)) }, run: func(e *env) {
			e.ok(unix.Mkfifo(e.p("upper"), 0o644))
			for _, n := range []string{"lower", "upper"} {
				r := e.open(e.p(n), unix.O_RDONLY|unix.O_NONBLOCK, 0)
				w := e.open(e.p(n), unix.O_WRONLY, 0)
				e.write(w, "through")
				b := make([]byte, 20)
				if k, err := unix.Read(r, b); err != nil || string(b[:k]) != "through" {
					e.Errorf("%s: %q, %v", n, b[:max(k, 0)], err)
				}
			}
			e.ok(unix.Chmod(e.p("lower"), 0o600))
			e.remount()
			if st := e.stat(e.p("lower")); st.Mode != unix.S_IFIFO|0o600 {
				e.Errorf("mode %o", st.Mode)
			}
		}},
		{name: "programs-run", lower: func(e *env) {
			e.put(e.l("script"), "#!/bin/sh\nexit 7\n")
			e.ok(os.Chmod(e.l("script"), 0o755))
		}, run: func(e *env) {
			err := execSettled(e.p("script"))
			if x := (*exec.ExitError)(nil); !errors.As(err, &x) || x.ExitCode() != 7 {
				e.Errorf("%v", err)
			}
			e.ok(os.Chmod(e.p("script"), 0o644))
			e.is(execErr(e.p("script")), unix.EACCES)
		}},
		{name: "busy-unmount", overlay: true, lower: func(e *env) { e.put(e.l("f"), "text") }, run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_RDWR, 0)
			if os.Geteuid() == 0 {
				e.is(unix.Unmount(e.root, 0), unix.EBUSY)
				e.pwrite(fd, "T", 0)
				e.ok(unix.Unmount(e.root, unix.MNT_DETACH))
			} else {
				e.ok(exec.Command("fusermount3", "-u", "-z", e.root).Run())
			}
			e.pwrite(fd, "E", 1)
			if got := e.pread(fd, 9, 1); got != "Ext" {
				e.Errorf("%q", got)
			}
			e.close(fd)
			time.Sleep(50 * time.Millisecond) // the last user's server ends by itself
			e.mount()
			if b, err := os.ReadFile(e.p("f")); err != nil || string(b[1:]) != "Ext" {
				e.Errorf("%q, %v", b, err)
			}
		}},
		{name: "leftovers-in-work", overlay: true, lower: func(e *env) {
			e.put(e.l("f"), "text")
			e.put(e.work+"/work/#5", "half a copy")
			e.put(e.work+"/work/#dir/x", "half a tree")
		}, run: func(e *env) {
			e.put(e.p("f"), "new")
			e.ok(os.Remove(e.p("f")))
			e.list(e.root)
			for _, name := range []string{"#5", "#dir"} {
				e.gone(e.work + "/work/" + name)
			}
		}},
		{name: "one-over-the-other", overlay: true, run: func(e *env) {
			if e.w.layers < 3 {
				e.Skip("wants several layers")
			}
			// Prepared by hand, since layers are read at the mount.
			e.unmount()
			top, mid, bottom := e.dirs[0], e.dirs[1], e.dirs[2]
			e.put(bottom+"/a", "bottom")
			e.put(bottom+"/d/low", "low")
			e.put(bottom+"/t/x", "x")
			e.put(mid+"/a", "mid")
			e.put(mid+"/d/mid", "mid")
			e.put(top+"/d/top", "top")
			e.put(mid+"/t", "a file hides it")
			e.put(top+"/t/y", "y")
			e.mount()
			e.want(e.p("a"), "mid")
			e.list(e.p("d"), "low", "mid", "top")
			e.list(e.p("t"), "y")
			e.put(e.p("d/low"), "new")
			e.ok(os.Remove(e.p("d/mid")))
			e.remount()
			e.list(e.p("d"), "low", "top")
			e.want(bottom+"/d/low", "low")
			e.want(mid+"/d/mid", "mid")
		}},
		{name: "ioctl-of-unknown", run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_RDWR|unix.O_CREAT, 0o644)
			_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
			e.is(err, unix.ENOTTY)
		}},
		{name: "tree-persists", lower: func(e *env) {
			for i := range 5 {
				e.put(e.l(fmt.Sprintf("a%d/b/f", i)), fmt.Sprint(i))
			}
		}, run: func(e *env) {
			e.put(e.p("a0/b/f"), "changed")
			e.ok(os.Remove(e.p("a1/b/f")))
			e.ok(os.RemoveAll(e.p("a2")))
			e.put(e.p("a3/b/g"), "added")
			e.ok(unix.Rename(e.p("a4/b/f"), e.p("a4/moved")))
			e.ok(os.Symlink("../x", e.p("a4/s")))
			show := func() string {
				out, err := exec.Command("sh", "-c", `cd "$1" && find . -printf '%p %y %m %U:%G %T@ %l %i\n' | sort; find . -type f | sort | xargs cat`, "sh", e.root).Output()
				e.ok(err)
				return string(out)
			}
			before := show()
			e.remount()
			if after := show(); e.w.layers > 0 && after != before {
				e.Errorf("before:\n%s\nafter a remount:\n%s", before, after)
			}
		}},
	}
}
