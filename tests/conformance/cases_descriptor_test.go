package conformance

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

func descriptorCases() []c {
	file := func(e *env) { e.put(e.l("f"), "lower text") }
	return []c{
		{name: "fstat-after-unlink", lower: file, run: func(e *env) {
			for _, name := range []string{"f", "new"} {
				if name == "new" {
					e.put(e.p(name), "lower text")
				}
				fd := e.open(e.p(name), unix.O_RDWR, 0)
				before := e.fstat(fd)
				e.ok(os.Remove(e.p(name)))
				st := e.fstat(fd)
				if st.Nlink != 0 || st.Size != 10 || st.Ino != before.Ino || st.Mode != before.Mode {
					e.Errorf("%s: %+v", name, st)
				}
			}
		}},
		{name: "work-after-unlink", lower: file, run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_RDWR, 0)
			e.ok(os.Remove(e.p("f")))
			e.put(e.p("f"), "another")
			e.pwrite(fd, "UPPER", 0)
			e.ok(unix.Fchmod(fd, 0o600))
			e.ok(unix.Ftruncate(fd, 7))
			e.ok(unix.Fsync(fd))
			if got := e.pread(fd, 20, 0); got != "UPPER t" {
				e.Errorf("%q", got)
			}
			if st := e.fstat(fd); st.Mode&0o777 != 0o600 || st.Size != 7 {
				e.Errorf("%+v", st)
			}
			e.want(e.p("f"), "another")
		}},
		{name: "xattrs-after-unlink", run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_RDWR|unix.O_CREAT, 0o644)
			e.ok(unix.Fsetxattr(fd, "user.a", []byte("1"), 0))
			e.ok(os.Remove(e.p("f")))
			e.ok(unix.Fsetxattr(fd, "user.b", []byte("2"), 0))
			b := make([]byte, 9)
			if n, err := unix.Fgetxattr(fd, "user.a", b); err != nil || string(b[:n]) != "1" {
				e.Errorf("%q, %v", b[:max(n, 0)], err)
			}
		}},
		{name: "reader-before-copy-up", lower: file, run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_RDONLY, 0)
			w := e.open(e.p("f"), unix.O_RDWR, 0)
			e.pwrite(w, "UPPER", 0)
			if got := e.pread(fd, 20, 0); got != "UPPER text" {
				e.Errorf("the reader sees %q", got)
			}
		}},
		{name: "lower-stays-as-it-was", overlay: true, lower: file, run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_RDONLY, 0)
			w := e.open(e.p("f"), unix.O_RDWR, 0)
			e.pwrite(w, "UPPER", 0)
			e.is(func() error { _, err := unix.Pwrite(fd, []byte("x"), 0); return err }(), unix.EBADF)
			e.ok(unix.Fchmod(fd, 0o600))
			e.ok(unix.Fsetxattr(fd, "user.x", []byte("1"), 0))
			e.want(e.l("f"), "lower text")
			e.mode(e.l("f"), 0o644)
			if x := listx(e.l("f")); len(x) > 0 {
				e.Errorf("the lower file has attributes %q", x)
			}
			e.mode(e.p("f"), 0o600)
		}},
		{name: "mmap-shared", lower: file, run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_RDWR, 0)
			m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			e.ok(err)
			copy(m, "MAPPED")
			if got := e.pread(fd, 6, 0); got != "MAPPED" {
				e.Errorf("read %q", got)
			}
			e.pwrite(fd, "by", 0)
			if string(m[:6]) != "byPPED" {
				e.Errorf("mapped %q", m[:6])
			}
			e.ok(unix.Msync(m, unix.MS_SYNC))
			e.ok(unix.Munmap(m))
			e.close(fd)
			e.remount()
			e.want(e.p("f"), "byPPEDtext")
		}},
		{name: "mmap-stored-after-close", lower: file, run: func(e *env) {
			for _, name := range []string{"f", "new"} {
				fd := e.open(e.p(name), unix.O_RDWR|unix.O_CREAT, 0o644)
				e.ok(unix.Ftruncate(fd, 10))
				m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
				e.ok(err)
				e.close(fd)
				e.ok(unix.UtimesNanoAt(unix.AT_FDCWD, e.p(name), []unix.Timespec{{Sec: 1e9}, {Sec: 1e9}}, 0))
				e.stat(e.p(name))
				copy(m, "MAPPED")
				e.ok(unix.Msync(m, unix.MS_SYNC))
				e.want(e.p(name), "MAPPED"+map[string]string{"f": "text", "new": "\x00\x00\x00\x00"}[name])
				if st := e.stat(e.p(name)); st.Mtim.Sec == 1e9 {
					e.Errorf("%s: the store left the time of modification", name)
				}
				e.ok(unix.Munmap(m))
			}
		}},
		{name: "mmap-private", lower: file, run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_RDONLY, 0)
			m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
			e.ok(err)
			copy(m, "MINE")
			e.ok(unix.Munmap(m))
			e.want(e.p("f"), "lower text")
		}},
		{name: "mmap-after-unlink", lower: file, run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_RDONLY, 0)
			m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
			e.ok(err)
			e.ok(os.Remove(e.p("f")))
			if string(m[:5]) != "lower" {
				e.Errorf("%q", m[:5])
			}
			e.ok(unix.Munmap(m))
		}},
		{name: "append", lower: file, run: func(e *env) {
			a := e.open(e.p("f"), unix.O_WRONLY|unix.O_APPEND, 0)
			b := e.open(e.p("f"), unix.O_WRONLY|unix.O_APPEND, 0)
			e.write(a, "1")
			e.write(b, "2")
			e.write(a, "3")
			e.want(e.p("f"), "lower text123")
		}},
		{name: "append-by-many", lower: file, run: func(e *env) {
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					fd, err := unix.Open(e.p("f"), unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0)
					if err != nil {
						e.Error(err)
						return
					}
					for range 50 {
						if _, err := unix.Write(fd, []byte("0123456789")); err != nil {
							e.Error(err)
						}
					}
					if err := unix.Close(fd); err != nil {
						e.Error(err)
					}
				})
			}
			all.Wait()
			if st := e.stat(e.p("f")); st.Size != 10+8*50*10 {
				e.Errorf("size %d, want %d", st.Size, 10+8*50*10)
			}
		}},
		{name: "truncate-on-open", lower: file, run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_WRONLY|unix.O_TRUNC, 0)
			if st := e.fstat(fd); st.Size != 0 {
				e.Errorf("size %d", st.Size)
			}
			e.write(fd, "x")
			e.want(e.p("f"), "x")
			e.close(fd)
			e.remount()
			e.want(e.p("f"), "x")
		}},
		{name: "truncate", lower: file, run: func(e *env) {
			e.ok(unix.Truncate(e.p("f"), 5))
			e.want(e.p("f"), "lower")
			e.ok(unix.Truncate(e.p("f"), 7))
			e.want(e.p("f"), "lower\x00\x00")
			e.is(unix.Truncate(e.p("none"), 5), unix.ENOENT)
			e.is(unix.Truncate(e.root, 5), unix.EISDIR)
		}},
		{name: "exclusive", lower: file, run: func(e *env) {
			e.openErr(e.p("f"), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, unix.EEXIST)
			e.ok(os.Remove(e.p("f")))
			fd := e.open(e.p("f"), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o600)
			e.write(fd, "N")
			e.want(e.p("f"), "N")
			e.ok(os.Symlink("dangling", e.p("s")))
			e.openErr(e.p("s"), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, unix.EEXIST)
		}},
		{name: "open-flags", lower: file, run: func(e *env) {
			e.openErr(e.p("f"), unix.O_RDONLY|unix.O_DIRECTORY, unix.ENOTDIR)
			e.openErr(e.root, unix.O_RDWR, unix.EISDIR)
			e.openErr(e.p("f/x"), unix.O_RDONLY, unix.ENOTDIR)
			e.openErr(e.p("none"), unix.O_RDWR, unix.ENOENT)
			fd := e.open(e.p("f"), unix.O_PATH, 0)
			if st := e.fstat(fd); st.Size != 10 {
				e.Errorf("%+v", st)
			}
			w := e.open(e.p("f"), unix.O_WRONLY, 0)
			_, err := unix.Pread(w, make([]byte, 1), 0)
			e.is(err, unix.EBADF)
		}},
		{name: "direct", lower: file, run: func(e *env) {
			fd, err := unix.Open(e.p("f"), unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
			e.ok(err)
			defer func() { e.ok(unix.Close(fd)) }()
			m, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
			e.ok(err)
			defer func() { e.ok(unix.Munmap(m)) }()
			for i := range m {
				m[i] = byte(i)
			}
			if n, err := unix.Pwrite(fd, m[:4096], 0); n != 4096 || err != nil {
				e.Fatalf("%d, %v", n, err)
			}
			if n, err := unix.Pread(fd, m[4096:], 0); n != 4096 || err != nil || string(m[:4096]) != string(m[4096:]) {
				e.Errorf("%d, %v", n, err)
			}
			other := e.open(e.p("f"), unix.O_RDONLY, 0)
			if got := e.pread(other, 8192, 0); got != string(m[:4096]) {
				e.Errorf("buffered: %d bytes", len(got))
			}
		}},
		{name: "create-mode-0-and-write", run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_CREAT|unix.O_RDWR, 0)
			e.write(fd, "x")
			if got := e.pread(fd, 1, 0); got != "x" {
				e.Errorf("%q", got)
			}
			e.mode(e.p("f"), 0)
		}},
		{name: "text-busy", run: func(e *env) {
			b, err := os.ReadFile("/bin/true")
			e.ok(err)
			e.ok(os.WriteFile(e.p("true"), b, 0o755))
			e.ok(execSettled(e.p("true")))
			fd := e.open(e.p("true"), unix.O_WRONLY, 0)
			e.is(execErr(e.p("true")), unix.ETXTBSY)
			e.close(fd)
			e.ok(execSettled(e.p("true")))
		}},
		{name: "flock", lower: file, run: func(e *env) {
			a, b := e.open(e.p("f"), unix.O_RDONLY, 0), e.open(e.p("f"), unix.O_RDWR, 0)
			e.ok(unix.Flock(a, unix.LOCK_EX))
			e.is(unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
			e.pwrite(b, "x", 0) // a copy-up in between does not lose it
			e.is(unix.Flock(b, unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
			e.ok(unix.Flock(a, unix.LOCK_UN))
			e.ok(unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB))
		}},
		{name: "posix-locks", lower: file, run: func(e *env) {
			a, b := e.open(e.p("f"), unix.O_RDWR, 0), e.open(e.p("f"), unix.O_RDWR, 0)
			l := unix.Flock_t{Type: unix.F_WRLCK, Start: 2, Len: 3}
			e.ok(unix.FcntlFlock(uintptr(a), unix.F_OFD_SETLK, &l))
			o := unix.Flock_t{Type: unix.F_WRLCK, Start: 4, Len: 1}
			e.is(unix.FcntlFlock(uintptr(b), unix.F_OFD_SETLK, &o), unix.EAGAIN)
			e.is(unix.FcntlFlock(uintptr(b), unix.F_SETLK, &o), unix.EAGAIN)
			o.Start = 5
			e.ok(unix.FcntlFlock(uintptr(b), unix.F_OFD_SETLK, &o))
			o = unix.Flock_t{Type: unix.F_RDLCK, Start: 0, Len: 0}
			e.ok(unix.FcntlFlock(uintptr(b), unix.F_OFD_GETLK, &o))
			if o.Type != unix.F_WRLCK || o.Start != 2 || o.Len != 3 {
				e.Errorf("%+v", o)
			}
		}},
		{name: "removed-directory", lower: func(e *env) { e.mkdir(e.l("d")) }, run: func(e *env) {
			fd := e.open(e.p("d"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
			e.ok(os.Remove(e.p("d")))
			e.fstat(fd)
			_, err := unix.Openat(fd, "f", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
			e.is(err, unix.ENOENT)
			e.is(unix.Mkdirat(fd, "g", 0o700), unix.ENOENT)
			e.mkdir(e.p("d"))
			e.list(e.p("d"))
		}},
		{name: "fsync", lower: file, run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_RDWR, 0)
			e.pwrite(fd, "x", 0)
			e.ok(unix.Fsync(fd))
			e.ok(unix.Fdatasync(fd))
			d := e.open(e.root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
			e.ok(unix.Fsync(d))
			e.ok(unix.Syncfs(d))
		}},
		{name: "synced-mount-is-in-the-upper", overlay: true, lower: file, run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_RDWR, 0)
			e.pwrite(fd, "UPPER", 0)
			m := e.open(e.p("mapped"), unix.O_RDWR|unix.O_CREAT, 0o644)
			e.ok(unix.Ftruncate(m, 6))
			b, err := unix.Mmap(m, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			e.ok(err)
			copy(b, "MAPPED")
			e.ok(unix.Syncfs(e.open(e.root, unix.O_RDONLY|unix.O_DIRECTORY, 0)))
			e.want(e.upper+"/f", "UPPER text")
			// For what FUSE servers are to write, Linux 6.18 does not wait.
			for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
				if b, err := os.ReadFile(e.upper + "/mapped"); err != nil || string(b) == "MAPPED" {
					break
				}
			}
			e.want(e.upper+"/mapped", "MAPPED")
			e.ok(unix.Munmap(b))
		}},
		{name: "synced-data-is-in-the-upper", overlay: true, lower: file, run: func(e *env) {
			fd := e.open(e.p("f"), unix.O_RDWR, 0)
			e.pwrite(fd, "UPPER", 0)
			e.ok(unix.Fsync(fd))
			e.want(e.upper+"/f", "UPPER text")
		}},
	}
}
