package conformance

import (
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// acl is a POSIX ACL as an attribute (linux/posix_acl_xattr.h): entries of tag,
// permissions and ID.
func acl(entries ...[3]uint32) string {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, x := range entries {
		b = binary.LittleEndian.AppendUint16(b, uint16(x[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(x[1]))
		b = binary.LittleEndian.AppendUint32(b, x[2])
	}
	return string(b)
}

const (
	aclUserObj, aclUser, aclGroupObj, aclGroup, aclMask, aclOther = 1, 2, 4, 8, 0x10, 0x20

	noID        = 0xffffffff
	aclAccess   = "system.posix_acl_access"
	aclDefault  = "system.posix_acl_default"
	capability  = "security.capability"
	netBindText = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_bind_service=ep
)

func ownerCases() []c {
	file := func(e *env) { e.put(e.l("f"), "text") }
	suid := func(e *env) {
		e.put(e.l("f"), "text")
		e.ok(os.Chown(e.l("f"), 1000, 1000))
		e.ok(unix.Chmod(e.l("f"), 0o6777))
		e.ok(os.Chmod(e.dir, 0o755))
	}
	return []c{
		{name: "chmod", lower: file, run: func(e *env) {
			e.ok(unix.Chmod(e.p("f"), 0o4751))
			e.mode(e.p("f"), 0o4751)
			e.remount()
			e.mode(e.p("f"), 0o4751)
			e.want(e.p("f"), "text")
		}},
		{name: "chown", ids: true, lower: file, run: func(e *env) {
			e.ok(unix.Lchown(e.p("f"), 12, 34))
			e.remount()
			if st := e.stat(e.p("f")); st.Uid != 12 || st.Gid != 34 {
				e.Errorf("%d:%d", st.Uid, st.Gid)
			}
			e.ok(unix.Lchown(e.p("f"), -1, 56))
			if st := e.stat(e.p("f")); st.Uid != 12 || st.Gid != 56 {
				e.Errorf("%d:%d", st.Uid, st.Gid)
			}
		}},
		{name: "chown-symlink", ids: true, lower: func(e *env) { file(e); e.ok(os.Symlink("f", e.l("s"))) }, run: func(e *env) {
			e.ok(unix.Lchown(e.p("s"), 12, 34))
			if st := e.stat(e.p("s")); st.Uid != 12 || st.Gid != 34 {
				e.Errorf("%d:%d", st.Uid, st.Gid)
			}
			if st := e.stat(e.p("f")); st.Uid == 12 {
				e.Errorf("the target was changed")
			}
		}},
		{name: "setuid-goes-with-chown", lower: suid, ids: true, run: func(e *env) {
			e.as(1000, 1000, func() { e.is(unix.Lchown(e.p("f"), -1, 1000), nil) })
			e.mode(e.p("f"), 0o777)
		}},
		{name: "set-ids-go-with-chown-of-a-fifo", ids: true, lower: func(e *env) { e.ok(unix.Mkfifo(e.l("lower"), 0o644)) }, run: func(e *env) {
			e.ok(unix.Mkfifo(e.p("upper"), 0o644))
			e.mkdir(e.p("dir"))
			for _, name := range []string{"lower", "upper", "dir"} {
				e.ok(unix.Chmod(e.p(name), 0o6755))
				e.ok(unix.Lchown(e.p(name), 12, 34))
			}
			check := func() {
				e.mode(e.p("lower"), 0o755)
				e.mode(e.p("upper"), 0o755)
				e.mode(e.p("dir"), 0o6755) // chown(2): a directory keeps them
			}
			check()
			e.remount()
			check()
		}},
		{name: "setuid-stays-with-roots-write", lower: suid, root: true, run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_WRONLY, 0)
			e.write(fd, "x")
			e.close(fd)
			e.mode(e.p("f"), 0o6777)
		}},
		{name: "setuid-goes-with-write", lower: suid, ids: true, run: func(e *env) {
			e.as(1001, 1001, func() {
				fd := e.open(e.p("f"), unix.O_WRONLY, 0)
				e.write(fd, "x")
			})
			e.mode(e.p("f"), 0o777)
			e.remount()
			e.mode(e.p("f"), 0o777)
		}},
		{name: "setuid-goes-with-truncate", lower: suid, ids: true, run: func(e *env) {
			e.as(1001, 1001, func() { e.is(unix.Truncate(e.p("f"), 1), nil) })
			e.mode(e.p("f"), 0o777)
		}},
		{name: "setuid-goes-with-fallocate", lower: suid, ids: true, run: func(e *env) {
			e.as(1001, 1001, func() { e.fallocated(e.open(e.p("f"), unix.O_WRONLY, 0), 0, 0, 10) })
			e.mode(e.p("f"), 0o777)
			e.remount()
			e.mode(e.p("f"), 0o777)
		}},
		{name: "setuid-goes-with-copied-range", lower: suid, ids: true, run: func(e *env) {
			e.put(e.p("from"), "some text")
			e.as(1001, 1001, func() {
				_, err := unix.CopyFileRange(e.open(e.p("from"), unix.O_RDONLY, 0), nil, e.open(e.p("f"), unix.O_WRONLY, 0), nil, 4, 0)
				e.is(err, nil)
			})
			e.mode(e.p("f"), 0o777)
			e.remount()
			e.mode(e.p("f"), 0o777)
		}},
		{name: "setuid-set-under-a-writer", ids: true, run: func(e *env) {
			e.put(e.p("f"), "text")
			e.ok(unix.Chmod(e.p("f"), 0o666))
			fd := -1
			e.as(1001, 1001, func() {
				fd = e.open(e.p("f"), unix.O_WRONLY, 0)
				e.write(fd, "x")
			})
			e.ok(unix.Chmod(e.p("f"), 0o6777))
			e.as(1001, 1001, func() { e.write(fd, "y") })
			e.mode(e.p("f"), 0o777)
		}},
		{name: "setgid-directory", ids: true, lower: func(e *env) {
			e.mkdir(e.l("d"))
			e.ok(os.Chown(e.l("d"), 0, 50))
			e.ok(unix.Chmod(e.l("d"), 0o2775))
		}, run: func(e *env) {
			e.put(e.p("d/f"), "x")
			e.ok(os.Mkdir(e.p("d/sub"), 0o755))
			e.ok(unix.Mkfifo(e.p("d/p"), 0o644))
			e.ok(os.Symlink("x", e.p("d/s")))
			for n, mode := range map[string]uint32{"f": 0o644, "sub": 0o2755, "p": 0o644, "s": 0o777} {
				if st := e.stat(e.p("d/" + n)); st.Gid != 50 || st.Mode&0o7777 != mode {
					e.Errorf("%s: group %d, mode %o", n, st.Gid, st.Mode)
				}
			}
			e.remount()
			e.mode(e.p("d/sub"), 0o2755)
		}},
		{name: "sticky-directory", ids: true, lower: func(e *env) {
			e.put(e.l("d/f"), "x")
			e.ok(unix.Chmod(e.l("d"), 0o1777))
			e.put(e.l("d/own"), "x")
			e.ok(os.Chown(e.l("d/own"), 1000, 1000))
		}, run: func(e *env) {
			e.as(1000, 1000, func() {
				e.is(os.Remove(e.p("d/f")), unix.EPERM)
				e.is(unix.Rename(e.p("d/f"), e.p("d/g")), unix.EPERM)
				e.is(os.Remove(e.p("d/own")), nil)
			})
			e.list(e.p("d"), "f")
		}},
		{name: "permissions-of-others", ids: true, lower: func(e *env) {
			e.put(e.l("secret"), "x")
			e.ok(os.Chmod(e.l("secret"), 0o600))
			e.put(e.l("readable"), "x")
			e.put(e.l("d/f"), "x")
			e.ok(os.Chmod(e.l("d"), 0o700))
		}, run: func(e *env) {
			e.as(1000, 1000, func() {
				e.openErr(e.p("secret"), unix.O_RDONLY, unix.EACCES)
				e.openErr(e.p("readable"), unix.O_RDWR, unix.EACCES)
				e.openErr(e.p("readable"), unix.O_RDONLY, nil)
				e.openErr(e.p("d/f"), unix.O_RDONLY, unix.EACCES)
				e.is(unix.Chmod(e.p("readable"), 0o777), unix.EPERM)
				e.openErr(e.p("new"), unix.O_RDWR|unix.O_CREAT, unix.EACCES)
				e.is(os.Remove(e.p("readable")), unix.EACCES)
			})
		}},
		{name: "owner-of-new-files", ids: true, lower: func(e *env) { e.mkdir(e.l("d")); e.ok(os.Chmod(e.l("d"), 0o777)) }, run: func(e *env) {
			e.as(1000, 1001, func() {
				e.is(os.Mkdir(e.p("d/sub"), 0o700), nil)
				e.is(unix.Mkfifo(e.p("d/p"), 0o600), nil)
				e.is(os.Symlink("x", e.p("d/s")), nil)
				fd := e.open(e.p("d/f"), unix.O_RDWR|unix.O_CREAT, 0o400) // not writable by its mode
				e.write(fd, "x")
				fd = e.open(e.p("d"), unix.O_TMPFILE|unix.O_RDWR, 0o600)
				if st := e.fstat(fd); st.Uid != 1000 || st.Gid != 1001 {
					e.Errorf("unnamed: %d:%d", st.Uid, st.Gid)
				}
			})
			for _, n := range []string{"sub", "p", "s", "f"} {
				if st := e.stat(e.p("d/" + n)); st.Uid != 1000 || st.Gid != 1001 {
					e.Errorf("%s: %d:%d", n, st.Uid, st.Gid)
				}
			}
		}},
		{name: "umask", run: func(e *env) {
			e.umask(0o027, func() {
				fd := e.open(e.p("f"), unix.O_RDWR|unix.O_CREAT, 0o666)
				_ = fd
				e.is(os.Mkdir(e.p("d"), 0o777), nil)
				e.is(unix.Mkfifo(e.p("p"), 0o666), nil)
			})
			e.mode(e.p("f"), 0o640)
			e.mode(e.p("d"), 0o750)
			e.mode(e.p("p"), 0o640)
		}},
		{name: "acl-copied-up", lower: func(e *env) {
			file(e)
			e.setx(e.l("f"), aclAccess, acl([3]uint32{aclUserObj, 6, noID}, [3]uint32{aclUser, 6, 0}, [3]uint32{aclGroupObj, 4, noID}, [3]uint32{aclMask, 6, noID}, [3]uint32{aclOther, 0, noID}))
		}, run: func(e *env) {
			before, err := getx(e.p("f"), aclAccess)
			e.ok(err)
			fd := e.open(e.p("f"), unix.O_RDWR, 0)
			e.write(fd, "x")
			e.close(fd)
			e.wantx(e.p("f"), aclAccess, before)
			e.mode(e.p("f"), 0o660)
			e.remount()
			e.wantx(e.p("f"), aclAccess, before)
		}},
		{name: "acl-mask-follows-chmod", run: func(e *env) {
			e.put(e.p("f"), "x")
			e.setx(e.p("f"), aclAccess, acl([3]uint32{aclUserObj, 6, noID}, [3]uint32{aclUser, 7, 0}, [3]uint32{aclGroupObj, 7, noID}, [3]uint32{aclMask, 7, noID}, [3]uint32{aclOther, 0, noID}))
			e.mode(e.p("f"), 0o670)
			e.ok(unix.Chmod(e.p("f"), 0o640))
			e.wantx(e.p("f"), aclAccess, acl([3]uint32{aclUserObj, 6, noID}, [3]uint32{aclUser, 7, 0}, [3]uint32{aclGroupObj, 7, noID}, [3]uint32{aclMask, 4, noID}, [3]uint32{aclOther, 0, noID}))
		}},
		{name: "acl-default-with-umask", lower: func(e *env) {
			e.mkdir(e.l("d"))
			e.setx(e.l("d"), aclDefault, acl([3]uint32{aclUserObj, 7, noID}, [3]uint32{aclUser, 7, 0}, [3]uint32{aclGroupObj, 5, noID}, [3]uint32{aclMask, 7, noID}, [3]uint32{aclOther, 5, noID}))
		}, run: func(e *env) {
			e.umask(0o077, func() {
				_ = e.open(e.p("d/f"), unix.O_RDWR|unix.O_CREAT, 0o666)
				e.is(os.Mkdir(e.p("d/sub"), 0o777), nil)
				e.is(unix.Mkfifo(e.p("d/p"), 0o666), nil)
			})
			e.mode(e.p("d/f"), 0o664)
			e.mode(e.p("d/sub"), 0o775)
			e.mode(e.p("d/p"), 0o664)
			e.wantx(e.p("d/f"), aclAccess, acl([3]uint32{aclUserObj, 6, noID}, [3]uint32{aclUser, 7, 0}, [3]uint32{aclGroupObj, 5, noID}, [3]uint32{aclMask, 6, noID}, [3]uint32{aclOther, 4, noID}))
			d, err := getx(e.p("d"), aclDefault)
			e.ok(err)
			e.wantx(e.p("d/sub"), aclDefault, d)
			e.remount()
			e.mode(e.p("d/f"), 0o664)
			e.mode(e.p("d/sub"), 0o775)
		}},
		{name: "acl-grants", ids: true, run: func(e *env) {
			e.put(e.p("f"), "x")
			e.ok(unix.Chmod(e.p("f"), 0o600))
			e.as(1000, 1000, func() { e.openErr(e.p("f"), unix.O_RDONLY, unix.EACCES) })
			e.setx(e.p("f"), aclAccess, acl([3]uint32{aclUserObj, 6, noID}, [3]uint32{aclUser, 4, 1000}, [3]uint32{aclGroupObj, 0, noID}, [3]uint32{aclMask, 4, noID}, [3]uint32{aclOther, 0, noID}))
			e.as(1000, 1000, func() {
				e.openErr(e.p("f"), unix.O_RDONLY, nil)
				e.openErr(e.p("f"), unix.O_RDWR, unix.EACCES)
			})
			e.remount()
			e.as(1000, 1000, func() { e.openErr(e.p("f"), unix.O_RDONLY, nil) })
			e.ok(unix.Lremovexattr(e.p("f"), aclAccess))
			e.as(1000, 1000, func() { e.openErr(e.p("f"), unix.O_RDONLY, unix.EACCES) })
		}},
		{name: "acl-setgid-goes", ids: true, run: func(e *env) {
			e.ok(os.Chmod(e.root, 0o777))
			e.as(1000, 1000, func() {
				fd := e.open(e.p("f"), unix.O_RDWR|unix.O_CREAT, 0o600)
				e.is(unix.Fchown(fd, -1, 1000), nil)
			})
			e.ok(unix.Lchown(e.p("f"), 1000, 77))
			e.as(1000, 1000, func() { e.is(unix.Chmod(e.p("f"), 0o2755), nil) })
			e.mode(e.p("f"), 0o755) // not of that group
		}},
		{name: "capability-kept-by-copy-up", root: true, lower: func(e *env) { file(e); e.setx(e.l("f"), capability, netBindText) }, run: func(e *env) {
			e.ok(unix.Chmod(e.p("f"), 0o755))
			e.wantx(e.p("f"), capability, netBindText)
			e.remount()
			e.wantx(e.p("f"), capability, netBindText)
		}},
		{name: "capability-goes-with-write", root: true, lower: func(e *env) { file(e); e.setx(e.l("f"), capability, netBindText) }, run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_WRONLY, 0)
			e.write(fd, "x")
			e.close(fd)
			_, err := getx(e.p("f"), capability)
			e.is(err, unix.ENODATA)
		}},
		{name: "capability-goes-with-chown", root: true, lower: func(e *env) { file(e); e.setx(e.l("f"), capability, netBindText) }, run: func(e *env) {
			e.ok(unix.Lchown(e.p("f"), 1, 1))
			_, err := getx(e.p("f"), capability)
			e.is(err, unix.ENODATA)
		}},
		{name: "capability-goes-with-truncate", root: true, lower: func(e *env) { file(e); e.setx(e.l("f"), capability, netBindText) }, run: func(e *env) {
			e.ok(unix.Truncate(e.p("f"), 2))
			_, err := getx(e.p("f"), capability)
			e.is(err, unix.ENODATA)
		}},
		{name: "copy-up-of-0-permissions", ids: true, lower: func(e *env) {
			file(e)
			e.ok(os.Chown(e.l("f"), 1000, 1000))
			e.ok(unix.Chmod(e.l("f"), 0))
		}, run: func(e *env) {
			e.as(1000, 1000, func() {
				e.is(unix.Chmod(e.p("f"), 0o600), nil)
				fd, err := unix.Open(e.p("f"), unix.O_RDWR|unix.O_CLOEXEC, 0)
				e.is(err, nil)
				if err == nil {
					e.write(fd, "T")
					e.ok(unix.Close(fd))
				}
			})
			e.want(e.p("f"), "Text")
			if st := e.stat(e.p("f")); st.Uid != 1000 {
				e.Errorf("owner %d", st.Uid)
			}
		}},
		{name: "copy-up-of-own-0-permissions", lower: func(e *env) {
			for _, n := range []string{"f", "g", "h"} {
				e.put(e.l(n), "text")
				e.ok(unix.Chmod(e.l(n), 0))
			}
		}, run: func(e *env) {
			e.ok(unix.Chmod(e.p("f"), 0o600))
			e.want(e.p("f"), "text")
			e.put(e.p("f"), "new")
			e.ok(unix.Rename(e.p("g"), e.p("moved")))
			e.ok(os.Link(e.p("h"), e.p("linked")))
			e.mode(e.p("moved"), 0)
			e.remount()
			e.want(e.p("f"), "new")
			e.mode(e.p("linked"), 0)
			for _, n := range []string{"moved", "linked"} {
				e.ok(unix.Chmod(e.p(n), 0o400))
				e.want(e.p(n), "text")
			}
			e.list(e.root, "f", "h", "linked", "moved")
		}},
		{name: "own-0-permissions", run: func(e *env) {
			e.put(e.p("d/f"), "text")
			e.ok(unix.Chmod(e.p("d/f"), 0))
			e.ok(unix.Chmod(e.p("d"), 0))
			e.remount()
			e.mode(e.p("d"), 0)
			e.ok(unix.Chmod(e.p("d"), 0o700))
			e.ok(unix.Chmod(e.p("d/f"), 0o600))
			e.want(e.p("d/f"), "text")
			e.ok(unix.Chmod(e.p("d/f"), 0))
			e.ok(unix.Rename(e.p("d/f"), e.p("d/g")))
			e.ok(os.RemoveAll(e.p("d")))
			e.list(e.root)
		}},
		{name: "device-nodes", root: true, run: func(e *env) {
			e.ok(unix.Mknod(e.p("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
			e.ok(unix.Mknod(e.p("loop"), unix.S_IFBLK|0o660, int(unix.Mkdev(7, 0))))
			e.remount()
			if st := e.stat(e.p("null")); st.Rdev != unix.Mkdev(1, 3) || st.Mode&unix.S_IFMT != unix.S_IFCHR {
				e.Errorf("%+v", st)
			}
			fd := e.open(e.p("null"), unix.O_RDWR, 0)
			e.write(fd, "gone")
			if got := e.pread(fd, 9, 0); got != "" {
				e.Errorf("%q", got)
			}
		}},
		{name: "lower-device-is-no-whiteout", root: true, lower: func(e *env) {
			e.ok(unix.Mknod(e.l("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		}, run: func(e *env) {
			e.ok(unix.Lchown(e.p("null"), 5, 6))
			e.remount()
			if st := e.stat(e.p("null")); st.Rdev != unix.Mkdev(1, 3) || st.Uid != 5 {
				e.Errorf("%+v", st)
			}
		}},
		{name: "access", ids: true, lower: func(e *env) { file(e); e.ok(unix.Chmod(e.l("f"), 0o750)) }, run: func(e *env) {
			e.as(1000, 1000, func() {
				// The real IDs are root's: faccessat with AT_EACCESS asks for these.
				err := unix.Faccessat(unix.AT_FDCWD, e.p("f"), unix.R_OK, unix.AT_EACCESS)
				if err != nil && !errors.Is(err, unix.EACCES) {
					e.Error(err)
				}
			})
			e.ok(unix.Access(e.p("f"), unix.X_OK))
			e.ok(unix.Chmod(e.p("f"), 0o640))
			e.is(unix.Access(e.p("f"), unix.X_OK), unix.EACCES)
		}},
	}
}
