package conformance

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

const fuseOverlayfs = "https://github.com/containers/fuse-overlayfs/"

// opaqueFile marks a directory of a layer as the bottom of its union, in the form
// that images have.
func (e *env) opaqueFile(dir string) {
	e.Helper()
	e.put(dir+"/.wh..wh..opq", "")
}

// bugCases are mistakes of this field that were reported in public, as what
// the reporter did and expected.
func bugCases() []c {
	return []c{
		{name: "bug-remove-lower-file", url: fuseOverlayfs + "issues/17", lower: func(e *env) { e.put(e.l("f"), "x") }, run: func(e *env) {
			e.ok(os.Remove(e.p("f")))
			e.list(e.root)
		}},
		{name: "bug-dangling-symlink-vanishes", url: fuseOverlayfs + "issues/23", run: func(e *env) {
			e.mkdir(e.p("d"))
			e.ok(os.Symlink("non_existent", e.p("d/link")))
			e.list(e.p("d"), "link")
			e.remount()
			e.list(e.p("d"), "link")
			e.is(unix.Rmdir(e.p("d")), unix.ENOTEMPTY)
			e.ok(os.RemoveAll(e.p("d")))
			e.gone(e.p("d"))
		}},
		{name: "bug-rm-r-exdev", url: fuseOverlayfs + "issues/33", lower: func(e *env) { e.put(e.l("aaa/x"), "x") }, run: func(e *env) {
			e.put(e.p("bbb/y"), "y")
			e.ok(exec.Command("rm", "-rf", e.p("aaa"), e.p("bbb")).Run())
			e.list(e.root)
		}},
		{name: "bug-rename-over-whiteout", url: fuseOverlayfs + "issues/69", lower: func(e *env) { e.put(e.l("s/compiled"), "old") }, run: func(e *env) {
			e.ok(os.Remove(e.p("s/compiled")))
			e.put(e.p("s/tmp"), "new")
			e.ok(unix.Rename(e.p("s/tmp"), e.p("s/compiled")))
			e.want(e.p("s/compiled"), "new")
			e.remount()
			e.list(e.p("s"), "compiled")
			e.want(e.p("s/compiled"), "new")
		}},
		{name: "bug-rm-with-whiteouts-inside", url: fuseOverlayfs + "issues/93", lower: func(e *env) {
			for i := range 30 {
				e.put(e.l(fmt.Sprintf("zone/%d/f", i%3)+fmt.Sprint(i)), "x")
			}
		}, run: func(e *env) {
			for i := range 10 {
				e.ok(os.Remove(e.p(fmt.Sprintf("zone/%d/f", i%3) + fmt.Sprint(i))))
			}
			e.remount()
			e.ok(exec.Command("rm", "-rf", e.p("zone")).Run())
			e.gone(e.p("zone"))
		}},
		{name: "bug-removed-in-a-middle-layer", url: fuseOverlayfs + "issues/136", overlay: true, run: func(e *env) {
			if e.w.layers < 3 {
				e.Skip("wants several layers")
			}
			e.unmount()
			e.put(e.dirs[2]+"/dir1/dir2/foo", "foo")
			e.whiteout(e.dirs[1], "dir1")
			e.mkdir(e.dirs[0] + "/dir1/dir2")
			e.mount()
			e.list(e.p("dir1/dir2"))
			e.gone(e.p("dir1/dir2/foo"))
		}},
		{name: "bug-opaque-hides-all-below", url: fuseOverlayfs + "issues/138", overlay: true, lower: func(e *env) { e.put(e.l("dir1/dir2/foo"), "foo") }, run: func(e *env) {
			e.ok(exec.Command("rm", "-r", e.p("dir1")).Run())
			e.mkdir(e.p("dir1"))
			e.remount()
			e.list(e.p("dir1"))
			e.mkdir(e.p("dir1/dir2"))
			e.list(e.p("dir1/dir2"))
			e.remount()
			e.gone(e.p("dir1/dir2/foo"))
			e.list(e.p("dir1/dir2"))
		}},
		{name: "bug-whiteout-hides-elsewhere", url: fuseOverlayfs + "issues/151", overlay: true, lower: func(e *env) {
			e.put(e.l("test"), "hidden")
			e.put(e.l("root/other"), "x")
		}, run: func(e *env) {
			e.ok(os.Remove(e.p("test")))
			e.put(e.p("root/test"), "shown")
			e.remount()
			e.gone(e.p("test"))
			e.want(e.p("root/test"), "shown")
		}},
		{name: "bug-removed-again-comes-back", url: fuseOverlayfs + "issues/160", lower: func(e *env) { e.put(e.l("d/f"), "original") }, run: func(e *env) {
			for i := range 4 {
				e.ok(os.Remove(e.p("d/f")))
				e.gone(e.p("d/f"))
				e.put(e.p("d/f"), fmt.Sprint(i))
			}
			e.ok(os.Remove(e.p("d/f")))
			e.remount()
			e.gone(e.p("d/f"))
			e.ok(os.Remove(e.p("d")))
		}},
		{name: "bug-truncate-of-deleted", url: fuseOverlayfs + "issues/175", run: func(e *env) {
			fd := e.open(e.p("tmp"), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
			e.ok(os.Remove(e.p("tmp")))
			to, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			if err != nil || !strings.HasSuffix(to, " (deleted)") {
				e.Errorf("%q, %v", to, err)
			}
			e.write(fd, "text")
			e.ok(unix.Ftruncate(fd, 2))
			if got := e.pread(fd, 9, 0); got != "te" {
				e.Errorf("%q", got)
			}
			e.list(e.root)
		}},
		{name: "bug-third-link", url: fuseOverlayfs + "issues/192", run: func(e *env) {
			e.put(e.p("test"), "")
			e.ok(os.Link(e.p("test"), e.p("test2")))
			for _, n := range []string{"test", "test2"} {
				if st := e.stat(e.p(n)); st.Nlink != 2 {
					e.Errorf("%s: %d links", n, st.Nlink)
				}
			}
		}},
		{name: "bug-nlink-depends-on-what-was-seen", url: fuseOverlayfs + "issues/435", lower: func(e *env) {
			e.put(e.l("DEFAULT/bind.txt"), "x")
			e.mkdir(e.l("back-ends"))
			e.ok(os.Link(e.l("DEFAULT/bind.txt"), e.l("back-ends/bind.config")))
		}, run: func(e *env) {
			a := e.stat(e.p("DEFAULT/bind.txt"))
			b := e.stat(e.p("back-ends/bind.config"))
			again := e.stat(e.p("DEFAULT/bind.txt"))
			if a.Nlink != 2 || b.Nlink != 2 || again.Nlink != 2 || a.Ino != b.Ino {
				e.Errorf("%d %d %d links, inodes %d %d", a.Nlink, b.Nlink, again.Nlink, a.Ino, b.Ino)
			}
		}},
		{name: "bug-mtime-of-symlink", url: fuseOverlayfs + "pull/205", lower: func(e *env) { e.put(e.l("f"), "x") }, run: func(e *env) {
			e.ok(os.Symlink("f", e.p("s")))
			before := e.stat(e.p("f")).Mtim
			e.utimens(e.p("s"), 100, 0, 200, 0)
			e.times(e.p("s"), 100, 0, 200, 0)
			if after := e.stat(e.p("f")).Mtim; after != before {
				e.Errorf("the target's: %v, was %v", after, before)
			}
		}},
		{name: "bug-long-names-in-listing", url: fuseOverlayfs + "issues/236", lower: func(e *env) {
			e.put(e.l("d/"+strings.Repeat("n", 255)), "x")
			e.put(e.l("d/"+strings.Repeat("m", 252)), "x")
		}, run: func(e *env) {
			e.list(e.p("d"), strings.Repeat("n", 255), strings.Repeat("m", 252))
			e.want(e.p("d/"+strings.Repeat("n", 255)), "x")
		}},
		{name: "bug-mkdir-255", url: fuseOverlayfs + "issues/351", run: func(e *env) {
			e.ok(os.Mkdir(e.p(strings.Repeat("1", 255)), 0o755))
			e.list(e.root, strings.Repeat("1", 255))
			e.ok(os.Remove(e.p(strings.Repeat("1", 255))))
		}},
		{name: "bug-mv-to-the-name-of-a-removed-directory", url: fuseOverlayfs + "issues/271", lower: func(e *env) {
			e.put(e.l("a/b/c"), "c")
			e.put(e.l("a/b/d"), "d")
		}, run: func(e *env) {
			out, err := exec.Command("sh", "-ec", `cd "$1"; cp -r a bak; rm -rf a; mv bak/b/c bak/b/c2; mv bak a`, "sh", e.root).CombinedOutput()
			if err != nil {
				e.Errorf("%v: %s", err, out)
			}
			e.list(e.p("a/b"), "c2", "d")
			e.remount()
			e.list(e.p("a/b"), "c2", "d")
			e.list(e.root, "a")
		}},
		{name: "bug-symlink-leaves-whiteout", url: fuseOverlayfs + "issues/279", lower: func(e *env) { e.put(e.l("a.txt"), "a") }, run: func(e *env) {
			e.ok(unix.Rename(e.p("a.txt"), e.p("a2.txt")))
			e.put(e.p("a3.txt"), "3")
			e.ok(os.Symlink("a3.txt", e.p("a.txt")))
			e.remount()
			e.list(e.root, "a.txt", "a2.txt", "a3.txt")
			e.want(e.p("a.txt"), "3")
		}},
		{name: "bug-utime-omit-is-2004", url: fuseOverlayfs + "pull/288", lower: func(e *env) {
			e.put(e.l("f"), "x")
			e.utimens(e.l("f"), 1500000000, 0, 1500000001, 0)
		}, run: func(e *env) {
			e.utimens(e.p("f"), 0, omit, 1600000000, 0)
			e.times(e.p("f"), 1500000000, 0, 1600000000, 0)
		}},
		{name: "bug-kernel-lists-ghosts", url: fuseOverlayfs + "issues/306", overlay: true, root: true, lower: func(e *env) { e.mkdir(e.l("a/b")) }, run: func(e *env) {
			e.ok(os.RemoveAll(e.p("a")))
			e.mkdir(e.p("a/b"))
			e.ok(unix.Rename(e.p("a/b"), e.p("b")))
			e.list(e.p("a"))
			e.unmount()
			end := kernelMount(e)
			e.list(e.p("a"))
			e.list(e.root, "a", "b")
			end()
		}},
		{name: "bug-deleted-content-is-visible", url: fuseOverlayfs + "issues/324", lower: func(e *env) { e.mkdir(e.l("v/A")) }, run: func(e *env) {
			out, err := exec.Command("sh", "-ec", `rm -rf "$1/v/"; mkdir -p "$1/v/"; ls -A "$1/v"`, "sh", e.root).CombinedOutput()
			if err != nil || len(out) > 0 {
				e.Errorf("%v: %s", err, out)
			}
			e.gone(e.p("v/A"))
		}},
		{name: "bug-bind-mounted-twin", url: fuseOverlayfs + "issues/359", root: true, overlay: true, lower: func(e *env) {
			e.put(e.l("a/b/f"), "x")
			e.mkdir(e.l("b"))
			e.ok(unix.Mount(e.l("a/b"), e.l("b"), "", unix.MS_BIND, ""))
			e.Cleanup(func() {
				// A server that is about to end, or a child of other tests, may have it open for a moment.
				if err := unix.Unmount(e.l("b"), unix.MNT_DETACH); err != nil {
					e.Error(err)
				}
			})
		}, run: func(e *env) { e.list(e.root, "a", "b") }},
		{name: "bug-default-acl-not-inherited", url: fuseOverlayfs + "issues/363", run: func(e *env) {
			e.mkdir(e.p("acl"))
			d := acl([3]uint32{aclUserObj, 7, noID}, [3]uint32{aclUser, 7, 0}, [3]uint32{aclGroupObj, 5, noID}, [3]uint32{aclMask, 7, noID}, [3]uint32{aclOther, 5, noID})
			e.setx(e.p("acl"), aclDefault, d)
			e.ok(os.Mkdir(e.p("acl/sub"), 0o755))
			e.wantx(e.p("acl/sub"), aclDefault, d)
		}},
		{name: "bug-setfacl-not-supported", url: fuseOverlayfs + "issues/304", run: func(e *env) {
			e.put(e.p("f"), "x")
			out, err := exec.Command("setfacl", "-m", fmt.Sprintf("u:%d:r", os.Getuid()), e.p("f")).CombinedOutput()
			if err != nil {
				e.Errorf("%v: %s", err, out)
			}
		}},
		{name: "bug-chown-r-changes-mtime", url: fuseOverlayfs + "issues/400", lower: func(e *env) {
			e.put(e.l("d/f"), "x")
			e.utimens(e.l("d"), 1500000000, 0, 1500000000, 0)
		}, run: func(e *env) {
			e.ok(exec.Command("chown", "-R", fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid()), e.p("d")).Run())
			e.ok(exec.Command("chmod", "-R", "g+w", e.p("d")).Run())
			if st := e.stat(e.p("d")); st.Mtim.Sec != 1500000000 {
				e.Errorf("mtime %v", st.Mtim)
			}
		}},
		{name: "bug-opaque-file-and-what-is-deeper", url: fuseOverlayfs + "issues/425", overlay: true, run: func(e *env) {
			if e.w.layers < 3 || strings.HasPrefix(e.w.name, "kernel") {
				e.Skip("wants several layers, and a reader of .wh. files")
			}
			e.unmount()
			e.put(e.dirs[1]+"/site/tools/__pycache__/config.pyc", "old")
			e.put(e.dirs[0]+"/site/tools/__pycache__/depends.pyc", "new")
			e.opaqueFile(e.dirs[0] + "/site/tools")
			e.mount()
			e.list(e.p("site"), "tools")
			e.list(e.p("site/tools"), "__pycache__")
			e.list(e.p("site/tools/__pycache__"), "depends.pyc")
		}},
		{name: "bug-nested-directories-made-again", url: fuseOverlayfs + "issues/478", lower: func(e *env) {
			e.put(e.l("parent/tree/a/b/info"), "lower")
			e.put(e.l("parent/tree/a/b/page"), "lower")
		}, run: func(e *env) {
			for range 3 {
				e.ok(os.RemoveAll(e.p("parent/tree")))
				e.mkdir(e.p("parent/tree/a/b"))
				e.list(e.p("parent/tree/a/b"))
				e.put(e.p("parent/tree/a/b/new"), "n")
				e.ok(os.Remove(e.p("parent/tree/a/b/new")))
				e.ok(unix.Rmdir(e.p("parent/tree/a/b")))
				e.ok(unix.Rmdir(e.p("parent/tree/a")))
				e.ok(unix.Rmdir(e.p("parent/tree")))
			}
			e.remount()
			e.list(e.p("parent"))
		}},
		{name: "bug-dpkg-backup-exists", url: fuseOverlayfs + "pull/476", lower: func(e *env) {
			e.put(e.l("dpkg/status"), "1")
			e.put(e.l("dpkg/status-old"), "0")
		}, run: func(e *env) {
			for i := range 3 {
				e.ok(os.Remove(e.p("dpkg/status-old")))
				e.ok(os.Link(e.p("dpkg/status"), e.p("dpkg/status-old")))
				e.put(e.p("dpkg/status-new"), fmt.Sprint(i+2))
				e.ok(unix.Rename(e.p("dpkg/status-new"), e.p("dpkg/status")))
			}
			e.want(e.p("dpkg/status"), "4")
			e.want(e.p("dpkg/status-old"), "3")
			e.remount()
			e.list(e.p("dpkg"), "status", "status-old")
			e.want(e.p("dpkg/status-old"), "3")
		}},
		{name: "bug-rename-of-lower-directories", url: "https://github.com/moby/moby/issues/25409", lower: func(e *env) { e.put(e.l("foo/x"), "x") }, run: func(e *env) {
			e.ok(unix.Rename(e.p("foo"), e.p("foo2")))
			e.want(e.p("foo2/x"), "x")
		}},
		{name: "bug-old-file-in-new-directory", url: "https://github.com/binpash/try/issues/163", lower: func(e *env) { e.put(e.l("d/oldfile"), "") }, run: func(e *env) {
			e.ok(exec.Command("sh", "-ec", `cd "$1"; rm -r d; mkdir d; touch d/newfile`, "sh", e.root).Run())
			e.list(e.p("d"), "newfile")
			e.remount()
			e.list(e.p("d"), "newfile")
		}},
		{name: "bug-setgid-lost-by-copy-up", url: "https://github.com/google/gvisor/issues/12523", ids: true, lower: func(e *env) {
			e.mkdir(e.l("opt"))
			e.ok(os.Chown(e.l("opt"), 0, 1001))
			e.ok(unix.Chmod(e.l("opt"), 0o2775))
		}, run: func(e *env) {
			e.ok(os.Mkdir(e.p("opt/dir"), 0o755))
			e.mode(e.p("opt"), 0o2775)
			if st := e.stat(e.p("opt/dir")); st.Gid != 1001 || st.Mode&unix.S_ISGID == 0 {
				e.Errorf("group %d, mode %o", st.Gid, st.Mode)
			}
		}},
		{name: "bug-rm-never-ends", url: "https://github.com/moby/moby/issues/24603", lower: func(e *env) {
			for i := range 200 {
				e.put(e.l(fmt.Sprintf("d/%d/f", i)), "")
			}
		}, run: func(e *env) {
			out, err := exec.Command("timeout", "60", "rm", "-r", e.p("d")).CombinedOutput()
			if err != nil {
				e.Errorf("%v: %s", err, out)
			}
			e.list(e.root)
		}},
		{name: "bug-nanoseconds-lost-by-copy-up", url: "https://github.com/rpodgorny/unionfs-fuse/issues/99", lower: func(e *env) {
			e.put(e.l("foo"), "x")
			e.utimens(e.l("foo"), 1500000000, 123456789, 1500000001, 987654321)
		}, run: func(e *env) {
			fd := e.open(e.p("foo"), unix.O_WRONLY|unix.O_APPEND, 0)
			e.close(fd)
			e.times(e.p("foo"), 1500000000, 123456789, 1500000001, 987654321)
		}},
		{name: "bug-wh-names", url: "https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts", overlay: true, lower: func(e *env) {
			e.put(e.l("x"), "x")
		}, run: func(e *env) {
			// Either it is a file of that name, or none may be made; x stays.
			err := os.WriteFile(e.p(".wh.x"), nil, 0o644)
			if err == nil && strings.HasPrefix(e.w.name, "fuse-overlay-") {
				e.Error("a file of a whiteout's name was made")
			}
			e.want(e.p("x"), "x")
			e.remount()
			e.want(e.p("x"), "x")
		}},
		{name: "wh-names-are-not-made", overlay: true, lower: func(e *env) {
			e.put(e.l("x"), "x")
			e.put(e.l("d/y"), "y")
		}, run: func(e *env) {
			if !e.knowsFileMarks() {
				e.Skip("they are names like any other here")
			}
			e.put(e.p("f"), "f")
			fd := e.open(e.root, unix.O_TMPFILE|unix.O_RDWR, 0o600)
			for _, n := range []string{".wh.x", ".wh.new", "d/.wh.y", "d/.wh..wh..opq", ".wh."} {
				to := e.p(n)
				for what, err := range map[string]error{
					"create":   os.WriteFile(to, nil, 0o644),
					"mkdir":    unix.Mkdir(to, 0o755),
					"mkfifo":   unix.Mkfifo(to, 0o644),
					"symlink":  os.Symlink("x", to),
					"link":     os.Link(e.p("f"), to),
					"linkat":   unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW),
					"rename":   unix.Rename(e.p("f"), to),
					"rename d": unix.Rename(e.p("d"), to),
				} {
					if !errors.Is(err, unix.EINVAL) {
						e.Errorf("%s of %s: %v", what, n, err)
					}
				}
				e.gone(to)
			}
			e.remount()
			e.list(e.root, "d", "f", "x")
			e.list(e.p("d"), "y")
		}},
		{name: "wh-files-are-not-seen", overlay: true, lower: func(e *env) {
			e.put(e.l("x"), "x")
			e.put(e.l("d/y"), "y")
		}, run: func(e *env) {
			if !e.knowsFileMarks() {
				e.Skip("they are files like any other here")
			}
			e.unmount()
			e.put(e.upper+"/.wh.x", "")
			e.put(e.upper+"/d/.wh..wh..opq", "")
			e.put(e.upper+"/.wh.none", "")
			e.mount()
			check := func() {
				e.Helper()
				for _, n := range []string{".wh.x", ".wh.none", ".wh.d", "d/.wh..wh..opq", "d/.wh.y", "d/y"} {
					e.gone(e.p(n))
					e.openErr(e.p(n), unix.O_RDWR, unix.ENOENT)
				}
				e.list(e.p("d"))
			}
			check()
			e.gone(e.p("x"))
			e.list(e.root, "d")
			e.put(e.p("x"), "again")
			e.remount()
			check()
			e.want(e.p("x"), "again")
			e.ok(os.Remove(e.p("x")))
			e.ok(os.Remove(e.p("d")))
			e.remount()
			e.list(e.root)
		}},
	}
}

// knowsFileMarks tells whether `.wh.` files are marks in this world, and ours
// is at work.
func (e *env) knowsFileMarks() bool {
	return !strings.HasPrefix(e.w.name, "kernel") && !strings.HasPrefix(e.w.name, peerName+"-")
}

// whiteout puts a mark into a layer that hides name: the kernel's where that
// may be made.
func (e *env) whiteout(layer, name string) {
	e.Helper()
	if err := unix.Mknod(layer+"/"+name, unix.S_IFCHR, 0); err != nil {
		e.put(layer+"/.wh."+name, "")
	}
}
