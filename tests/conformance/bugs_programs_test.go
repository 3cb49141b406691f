package conformance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const moby = "https://github.com/moby/moby/"

// programBugCases are bugCases, too: those that programs came upon.
func programBugCases() []c {
	return []c{
		{name: "bug-needless-whiteouts", url: fuseOverlayfs + "issues/327", overlay: true, lower: func(e *env) {
			e.put(e.l("test"), "x")
			e.put(e.l("pkg/f"), "x")
		}, run: func(e *env) {
			// Nor where a lower file was before: https://github.com/moby/moby/issues/9572.
			e.mkdir(e.p("dir"))
			e.ok(unix.Rename(e.p("test"), e.p("dir/test")))
			e.ok(os.Remove(e.p("dir/test")))
			e.list(e.p("dir"))
			e.put(e.p("a"), "a")
			e.ok(unix.Rename(e.p("a"), e.p("dir/b")))
			e.put(e.p("pkg/new"), "a")
			e.ok(unix.Rename(e.p("pkg/new"), e.p("pkg/f")))
			e.ok(exec.Command("sed", "-i", "s/a/b/", e.p("dir/b")).Run())
			e.want(e.p("dir/b"), "b")
			e.unmount()
			e.inUpper("dir", "dir/b", "pkg", "pkg/f", "whiteout of test")
		}},
		{name: "bug-chmod-copies-what-is-inside", url: "https://github.com/rpodgorny/unionfs-fuse/issues/25", overlay: true, lower: func(e *env) {
			for i := range 20 {
				e.put(e.l(fmt.Sprintf("d/e%d/f", i)), "x")
			}
		}, run: func(e *env) {
			e.ok(unix.Chmod(e.p("d"), 0o700))
			e.utimens(e.p("d"), 1500000000, 0, 1500000000, 0)
			e.unmount()
			e.inUpper("d")
		}},
		{name: "bug-removed-directory-is-not-empty", url: moby + "issues/13108", lower: func(e *env) { e.mkdir(e.l("empty")) }, run: func(e *env) {
			for range 2 {
				e.ok(unix.Rmdir(e.p("empty")))
				e.ok(os.Mkdir(e.p("empty"), 0o755))
				e.put(e.p("empty/a"), "a")
				e.is(unix.Rmdir(e.p("empty")), unix.ENOTEMPTY)
				e.want(e.p("empty/a"), "a")
				e.remount()
				e.is(unix.Rmdir(e.p("empty")), unix.ENOTEMPTY)
				e.ok(os.Remove(e.p("empty/a")))
			}
		}},
		{name: "bug-mkdir-0555", url: fuseOverlayfs + "issues/414", run: func(e *env) {
			e.umask(0, func() {
				for _, mode := range []uint32{0o555, 0o111, 0, 0o777, 0o1777} {
					e.ok(unix.Mkdir(e.p("d"), mode))
					e.mode(e.p("d"), mode)
					e.ok(unix.Rmdir(e.p("d"))) // a user's, too: fuse-overlayfs/issues/135
					fd := e.open(e.p("f"), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, mode&0o777)
					e.write(fd, "x")
					e.close(fd)
					e.mode(e.p("f"), mode&0o777)
					e.ok(os.Remove(e.p("f")))
				}
			})
			e.list(e.root)
		}},
		{name: "bug-directory-modes-widened", url: fuseOverlayfs + "issues/470", lower: func(e *env) {
			for _, mode := range widened {
				d := e.l(fmt.Sprintf("%o", mode))
				e.put(d+"/in/f", "x")
				e.ok(unix.Chmod(d+"/in", mode))
				e.ok(unix.Chmod(d, mode))
			}
		}, run: func(e *env) {
			check := func() {
				e.Helper()
				for _, mode := range widened {
					e.mode(e.p(fmt.Sprintf("%o", mode)), mode)
					e.mode(e.p(fmt.Sprintf("%o/in", mode)), mode)
				}
			}
			for _, mode := range widened {
				e.put(e.p(fmt.Sprintf("%o/in/new", mode)), "x")
				e.ok(os.Remove(e.p(fmt.Sprintf("%o/in/f", mode))))
			}
			check()
			e.remount()
			check()
		}},
		{name: "bug-sed-in-place", url: fuseOverlayfs + "issues/348", lower: func(e *env) {
			e.put(e.l("f"), "abcde")
			e.ok(unix.Chmod(e.l("f"), 0o640))
		}, run: func(e *env) {
			for range 2 {
				out, err := exec.Command("sed", "-i", "s/a/b/; s/bb/ab/", e.p("f")).CombinedOutput()
				if err != nil || len(out) > 0 {
					e.Errorf("%v: %s", err, out)
				}
			}
			e.want(e.p("f"), "abcde")
			e.mode(e.p("f"), 0o640)
			e.list(e.root, "f")
			e.ok(unix.Chmod(e.p("f"), 0)) // fuse-overlayfs/issues/349
			e.ok(unix.Chmod(e.p("f"), 0o600))
			e.want(e.p("f"), "abcde")
		}},
		{name: "bug-read-only-files", url: fuseOverlayfs + "issues/377", lower: func(e *env) {
			for _, n := range []string{"removed", "moved", "changed", "replaced"} {
				e.put(e.l("d/"+n), n)
				e.ok(unix.Chmod(e.l("d/"+n), 0o444))
			}
		}, run: func(e *env) {
			e.ok(os.Remove(e.p("d/removed")))
			e.ok(unix.Rename(e.p("d/moved"), e.p("d/there")))
			e.ok(unix.Chmod(e.p("d/changed"), 0o644))
			e.put(e.p("d/changed"), "new")
			e.put(e.p("d/x"), "new")
			e.ok(unix.Rename(e.p("d/x"), e.p("d/replaced")))
			e.remount()
			e.list(e.p("d"), "there", "changed", "replaced")
			e.want(e.p("d/there"), "moved")
			e.want(e.p("d/changed"), "new")
			e.mode(e.p("d/there"), 0o444)
		}},
		{name: "bug-setuid-lost-at-close", url: fuseOverlayfs + "issues/127", run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600)
			e.write(fd, "1")
			e.ok(unix.Fchown(fd, os.Getuid(), os.Getgid()))
			e.ok(unix.Fchmod(fd, 0o4755))
			e.close(fd)
			e.mode(e.p("f"), 0o4755)
			e.remount()
			e.mode(e.p("f"), 0o4755)
		}},
		{name: "bug-root-changes-when-listed", url: "https://github.com/containers/podman/issues/16897", lower: func(e *env) {
			e.put(e.l("a/x"), "x")
			e.put(e.l("b/x"), "x")
			e.put(e.l("a/f"), "text")
			e.utimens(e.l(""), 1500000000, 0, 1500000001, 0)
		}, run: func(e *env) {
			first := e.stat(e.root)
			e.put(e.p("a/new"), "x")
			before := e.stat(e.root)
			e.list(e.root, "a", "b")
			e.dirents(e.root, 4096)
			if after := e.stat(e.root); after.Mtim != before.Mtim || after.Ctim != before.Ctim || after.Mtim != first.Mtim || after.Ino != first.Ino {
				e.Errorf("%+v, was %+v", after, before)
			}
			e.stat(e.p("a/f"))
			e.close(e.open(e.p("a/f"), unix.O_WRONLY|unix.O_APPEND, 0)) // which may copy it up
			before = e.stat(e.p("a/f"))
			e.want(e.p("a/f"), "text")
			if after := e.stat(e.p("a/f")); after.Ctim != before.Ctim || after.Mtim != before.Mtim {
				e.Errorf("%+v, was %+v", after, before)
			}
			e.put(e.p("b/new"), "x")
			out, err := exec.Command("sh", "-c", `tar -C "$1" -c . | cat >/dev/null; find "$1" -noleaf -type f >/dev/null; find "$1" -type f | sort -u | wc -l`, "sh", e.root).CombinedOutput()
			if err != nil || strings.TrimSpace(string(out)) != "5" {
				e.Errorf("%v: %s", err, out)
			}
		}},
		{name: "bug-flags-of-files", url: fuseOverlayfs + "issues/330", lower: func(e *env) { e.put(e.l("d/f"), "x") }, run: func(e *env) {
			for _, n := range []string{"d", "d/f", "."} {
				fd := e.open(e.p(n), unix.O_RDONLY, 0)
				_, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
				if err != nil && !errors.Is(err, unix.ENOTTY) && !errors.Is(err, unix.EOPNOTSUPP) {
					e.Errorf("%s: %v", n, err)
				}
			}
		}},
		{name: "bug-maps-name-another-file", url: moby + "issues/43512", lower: func(e *env) { e.put(e.l("low"), "text") }, run: func(e *env) {
			e.put(e.p("up"), "text")
			e.put(e.p("both"), "text")
			for _, n := range []string{"low", "up", "both"} {
				if n == "low" {
					e.mapped(n)
					e.ok(unix.Chmod(e.p(n), 0o600)) // a copy
				}
				e.mapped(n)
			}
		}},
		{name: "bug-rename-over-open-unlinked", url: "https://github.com/trapexit/mergerfs/pull/619", lower: func(e *env) { e.put(e.l("f"), "old") }, run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_RDONLY, 0)
			e.ok(os.Remove(e.p("f")))
			for i := range 3 {
				e.put(e.p("g"), fmt.Sprint(i))
				e.ok(unix.Rename(e.p("g"), e.p("f"))) // at first where the open file was
				e.want(e.p("f"), fmt.Sprint(i))
				if got := e.pread(fd, 9, 0); got != "old" {
					e.Errorf("%q", got)
				}
			}
			if st := e.fstat(fd); st.Nlink != 0 {
				e.Errorf("%d links", st.Nlink)
			}
			e.remount()
			e.list(e.root, "f")
			e.want(e.p("f"), "2")
		}},
		{name: "bug-numbers-of-a-lower-twin", url: fuseOverlayfs + "issues/391", overlay: true, run: func(e *env) {
			if e.w.layers < 3 {
				e.Skip("wants several layers")
			}
			e.unmount()
			e.put(e.dirs[1]+"/bin/busybox", "old")
			e.ok(os.Link(e.dirs[1]+"/bin/busybox", e.dirs[1]+"/bin/arch"))
			e.put(e.dirs[0]+"/bin/busybox", "new")
			e.ok(os.Symlink("busybox", e.dirs[0]+"/bin/arch"))
			e.mount()
			for n, d := range e.dirents(e.p("bin"), 4096) {
				if st := e.stat(e.p("bin/" + n)); n[0] != '.' && (st.Ino != d[0] || st.Nlink != 1) {
					e.Errorf("%s: number %d, listed as %d; %d links", n, st.Ino, d[0], st.Nlink)
				}
			}
		}},
		{name: "bug-changes-not-watched", url: moby + "issues/11705", lower: func(e *env) {
			e.put(e.l("d/log"), "1")
			e.put(e.l("d/gone"), "1")
		}, run: watchCase},
		{name: "bug-listing-under-signals", url: "https://github.com/libfuse/libfuse/issues/214", lower: func(e *env) {
			for i := range 150 {
				e.put(e.l(fmt.Sprintf("d/lower-%d", i)), "")
			}
		}, run: func(e *env) {
			for i := range 150 {
				e.put(e.p(fmt.Sprintf("d/upper-%d", i)), "")
			}
			e.underSignals(func() {
				for range 20 {
					if got := e.dirents(e.p("d"), 1024); len(got) != 302 {
						e.Errorf("%d entries", len(got))
					}
				}
			})
		}},
	}
}

var widened = []uint32{0o700, 0o711, 0o750, 0o1777, 0o2755}

// inUpper compares the paths in the upper, but for marks of opaque directories.
func (e *env) inUpper(want ...string) {
	e.Helper()
	var got []string
	e.ok(filepath.WalkDir(e.upper, func(p string, _ os.DirEntry, err error) error {
		if err != nil || p == e.upper || filepath.Base(p) == ".wh..wh..opq" {
			return err
		}
		name, hidden := strings.CutPrefix(filepath.Base(p), ".wh.")
		st := e.stat(p)
		hidden = hidden || st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
		for _, x := range listx(p) {
			hidden = hidden || strings.HasSuffix(x, ".overlay.whiteout")
		}
		name, err = filepath.Rel(e.upper, filepath.Join(filepath.Dir(p), name))
		if hidden {
			name = "whiteout of " + name
		}
		got = append(got, name)
		return err
	}))
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		e.Errorf("the upper has %q, want %q", got, want)
	}
}

// mapped wants /proc/self/maps to name the file that is mapped.
func (e *env) mapped(name string) {
	e.Helper()
	fd := e.open(e.p(name), unix.O_RDONLY, 0)
	b, err := unix.Mmap(fd, 0, 4, unix.PROT_READ, unix.MAP_SHARED)
	e.ok(err)
	maps, err := os.ReadFile("/proc/self/maps")
	e.ok(errors.Join(err, unix.Munmap(b)))
	st := e.fstat(fd)
	want := fmt.Sprintf(" %02x:%02x %d ", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for l := range strings.Lines(string(maps)) {
		if strings.HasSuffix(l, e.p(name)+"\n") {
			if !strings.Contains(l, want) {
				e.Errorf("%swant %s", l, want)
			}
			return
		}
	}
	e.Errorf("%s is not in %s", name, maps)
}

// watchCase: changes are seen by who watches, of lower files too, and each time.
func watchCase(e *env) {
	in, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	e.ok(err)
	e.fds = append(e.fds, in)
	log, err := unix.InotifyAddWatch(in, e.p("d/log"), unix.IN_MODIFY|unix.IN_ATTRIB)
	e.ok(err)
	dir, err := unix.InotifyAddWatch(in, e.p("d"), unix.IN_CREATE|unix.IN_DELETE|unix.IN_MOVED_TO)
	e.ok(err)
	seen := func(what string, wd int, mask uint32) {
		e.Helper()
		buf := make([]byte, 8192)
		n, err := unix.Read(in, buf)
		if err != nil {
			e.Errorf("%s: %v", what, err)
			return
		}
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			if int(binary.NativeEndian.Uint32(b)) == wd && binary.NativeEndian.Uint32(b[4:])&mask != 0 {
				return
			}
			b = b[unix.SizeofInotifyEvent+binary.NativeEndian.Uint32(b[12:]):]
		}
		e.Errorf("%s is not seen", what)
	}
	for range 2 { // the second time it is a copy: moby/issues/47061
		fd := e.open(e.p("d/log"), unix.O_WRONLY|unix.O_APPEND, 0)
		e.write(fd, "more")
		e.close(fd)
		seen("an appended line", log, unix.IN_MODIFY)
	}
	e.ok(unix.Chmod(e.p("d/log"), 0o600))
	seen("a mode", log, unix.IN_ATTRIB)
	e.put(e.p("d/new"), "x")
	seen("a new file", dir, unix.IN_CREATE)
	e.ok(unix.Rename(e.p("d/new"), e.p("d/newer")))
	seen("a rename", dir, unix.IN_MOVED_TO)
	e.ok(os.Remove(e.p("d/gone")))
	seen("a removal", dir, unix.IN_DELETE)
}

// underSignals runs f in a thread that gets one signal after the other, some hundreds.
func (e *env) underSignals(f func()) {
	e.Helper()
	tid, done := make(chan int), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(done)
		tid <- unix.Gettid()
		f()
	})
	all.Go(func() {
		id := <-tid
		for range 500 { // no more, or a busy machine does nothing else
			select {
			case <-done:
				return
			case <-time.After(50 * time.Microsecond):
			}
			if err := unix.Tgkill(os.Getpid(), id, unix.SIGURG); err != nil && !errors.Is(err, unix.ESRCH) {
				e.Errorf("signal: %v", err)
			}
		}
	})
	all.Wait()
}
