package conformance

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// bigDir is a number of entries that takes several requests to list.
const bigDir = 600

func dirCases() []c {
	tree := func(e *env) {
		e.put(e.l("d/x/deep/file"), "F")
		e.put(e.l("d/y"), "Y")
		e.put(e.l("top"), "T")
	}
	return []c{
		{name: "remove-and-make-again", lower: tree, run: func(e *env) {
			e.ok(os.RemoveAll(e.p("d")))
			e.ok(os.Mkdir(e.p("d"), 0o755))
			e.list(e.p("d"))
			e.remount()
			e.list(e.p("d"))
			e.gone(e.p("d/y"))
			e.ok(os.Mkdir(e.p("d/x"), 0o755))
			e.list(e.p("d/x"))
			e.remount()
			e.list(e.p("d/x"))
		}},
		{name: "made-again-beside-a-whiteout", lower: func(e *env) {
			for _, at := range []string{"", "a/"} {
				e.put(e.l(at+"d/x/f"), "F")
				e.put(e.l(at+"d/y"), "Y")
				e.put(e.l(at+"beside"), "B")
			}
		}, run: func(e *env) {
			check := func() {
				e.Helper()
				for _, at := range []string{"", "a/"} {
					e.list(e.p(at + "d"))
					for _, n := range []string{"beside", "d/x", "d/x/f", "d/y"} {
						e.gone(e.p(at + n))
					}
				}
				e.list(e.root, "a", "d")
				e.list(e.p("a"), "d")
			}
			for _, at := range []string{"", "a/"} {
				e.ok(os.Remove(e.p(at + "beside")))
				e.ok(os.RemoveAll(e.p(at + "d")))
				e.ok(os.Mkdir(e.p(at+"d"), 0o755))
			}
			check()
			e.remount()
			check()
			for _, at := range []string{"", "a/"} {
				e.ok(os.Mkdir(e.p(at+"d/x"), 0o755))
				e.list(e.p(at + "d/x"))
				e.ok(os.Remove(e.p(at + "d/x")))
			}
			e.remount()
			check()
		}},
		{name: "remove-and-make-a-file", lower: tree, run: func(e *env) {
			e.ok(os.RemoveAll(e.p("d")))
			e.put(e.p("d"), "file")
			e.ok(os.Remove(e.p("top")))
			e.put(e.p("top/in"), "I")
			e.remount()
			e.want(e.p("d"), "file")
			e.list(e.p("top"), "in")
		}},
		{name: "remove-file", lower: tree, run: func(e *env) {
			e.ok(os.Remove(e.p("d/y")))
			e.gone(e.p("d/y"))
			e.list(e.p("d"), "x")
			e.is(os.Remove(e.p("d/y")), unix.ENOENT)
			e.remount()
			e.gone(e.p("d/y"))
			e.list(e.p("d"), "x")
			e.put(e.p("d/y"), "again")
			e.remount()
			e.want(e.p("d/y"), "again")
		}},
		{name: "remove-errors", lower: tree, run: func(e *env) {
			e.is(unix.Rmdir(e.p("d")), unix.ENOTEMPTY)
			e.is(unix.Rmdir(e.p("top")), unix.ENOTDIR)
			e.is(unix.Unlink(e.p("d")), unix.EISDIR)
			e.is(unix.Unlink(e.p("none")), unix.ENOENT)
			e.is(unix.Mkdir(e.p("d"), 0o755), unix.EEXIST)
			e.is(unix.Mkdir(e.p("top/x"), 0o755), unix.ENOTDIR)
			e.is(unix.Mkdir(e.p("none/x"), 0o755), unix.ENOENT)
		}},
		{name: "remove-everything", lower: tree, run: func(e *env) {
			e.ok(os.RemoveAll(e.p("d")))
			e.ok(os.Remove(e.p("top")))
			e.list(e.root)
			e.remount()
			e.list(e.root)
		}},
		{name: "make-remove-many-times", lower: tree, run: func(e *env) {
			for i := range 5 {
				e.ok(os.RemoveAll(e.p("d")))
				e.mkdir(e.p("d/x"))
				e.put(e.p("d/x/n"), fmt.Sprint(i))
			}
			e.remount()
			e.list(e.p("d"), "x")
			e.list(e.p("d/x"), "n")
		}},
		{name: "inode-numbers-in-listings", lower: tree, run: func(e *env) {
			e.ok(unix.Chmod(e.p("d/y"), 0o600))
			e.put(e.p("d/new"), "N")
			for _, dir := range []string{e.root, e.p("d")} {
				for name, x := range e.dirents(dir, 4096) {
					if name == ".." || name == "." {
						continue
					}
					st := e.stat(dir + "/" + name)
					if st.Ino != x[0] || uint64(st.Mode>>12) != x[1] {
						e.Errorf("%s: d_ino %d, st_ino %d, d_type %d, mode %o", name, x[0], st.Ino, x[1], st.Mode)
					}
				}
			}
		}},
		{name: "inode-numbers-over-copy-up", lower: tree, run: func(e *env) {
			names := []string{"d", "d/y", "d/x/deep/file"}
			before := map[string]uint64{}
			for _, n := range names {
				before[n] = e.stat(e.p(n)).Ino
			}
			check := func(when string) {
				for _, n := range names {
					if got := e.stat(e.p(n)).Ino; got != before[n] {
						e.Errorf("%s %s: %d, was %d", n, when, got, before[n])
					}
				}
			}
			for _, n := range names {
				e.ok(unix.Chmod(e.p(n), 0o700))
			}
			check("after the copy-up")
			e.remount()
			check("after a remount")
		}},
		{name: "inode-numbers-are-unique", lower: tree, run: func(e *env) {
			seen := map[uint64]string{}
			for i := range 50 {
				e.put(e.p(fmt.Sprint("d/n", i)), "x")
			}
			for _, dir := range []string{"", "d", "d/x", "d/x/deep"} {
				for name := range e.dirents(e.p(dir), 4096) {
					if name == "." || name == ".." {
						continue
					}
					p := dir + "/" + name
					st := e.stat(e.p(p))
					if other := seen[st.Ino]; other != "" {
						e.Errorf("%s and %s are both %d", p, other, st.Ino)
					}
					seen[st.Ino] = p
				}
			}
		}},
		{name: "dots", lower: tree, run: func(e *env) {
			d := e.dirents(e.p("d/x"), 4096)
			if self := e.stat(e.p("d/x")).Ino; d["."][0] != self {
				e.Errorf("'.' is %d, want %d", d["."][0], self)
			}
			if up := e.stat(e.p("d")).Ino; e.stat(e.p("d/x/..")).Ino != up {
				e.Errorf("look-up of '..'")
			}
			if len(d) != 3 {
				e.Errorf("%v", d)
			}
		}},
		{name: "one-device", lower: tree, run: func(e *env) {
			e.put(e.p("new"), "N")
			dev := e.stat(e.root).Dev
			for _, n := range []string{"d", "new"} {
				if st := e.stat(e.p(n)); st.Dev != dev {
					e.Errorf("%s is on device %x, the root on %x", n, st.Dev, dev)
				}
			}
		}},
		{name: "big-directory", lower: func(e *env) {
			e.mkdir(e.l("d"))
			for i := range bigDir {
				e.put(e.l(fmt.Sprintf("d/lower-%05d", i)), "")
			}
		}, run: func(e *env) {
			for i := range bigDir {
				e.put(e.p(fmt.Sprintf("d/upper-%05d", i)), "")
			}
			for i := 0; i < bigDir; i += 3 {
				e.ok(os.Remove(e.p(fmt.Sprintf("d/lower-%05d", i))))
			}
			for _, size := range []int{300, 32768, 1 << 20} {
				if got := len(e.dirents(e.p("d"), size)); got != 2+bigDir+bigDir*2/3 {
					e.Errorf("%d entries with a buffer of %d", got, size)
				}
			}
			e.remount()
			if got := len(e.dirents(e.p("d"), 32768)); got != 2+bigDir+bigDir*2/3 {
				e.Errorf("%d entries after a remount", got)
			}
		}},
		{name: "seek-in-directory", lower: func(e *env) {
			for i := range 100 {
				e.put(e.l(fmt.Sprint("d/", i)), "")
			}
		}, run: func(e *env) {
			fd := e.open(e.p("d"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
			buf := make([]byte, 1000)
			n, err := unix.Getdents(fd, buf)
			e.ok(err)
			pos, err := unix.Seek(fd, 0, unix.SEEK_CUR)
			e.ok(err)
			first := string(buf[:n])
			n, err = unix.Getdents(fd, buf)
			e.ok(err)
			second := string(buf[:n])
			_, err = unix.Seek(fd, pos, unix.SEEK_SET)
			e.ok(err)
			n, err = unix.Getdents(fd, buf)
			e.ok(err)
			if string(buf[:n]) != second {
				e.Error("another second part after seeking back")
			}
			_, err = unix.Seek(fd, 0, unix.SEEK_SET)
			e.ok(err)
			n, err = unix.Getdents(fd, buf)
			e.ok(err)
			if string(buf[:n]) != first {
				e.Error("another first part after rewinding")
			}
		}},
		{name: "listing-while-removing", lower: func(e *env) {
			for i := range 300 {
				e.put(e.l(fmt.Sprint("d/", i)), "")
			}
		}, run: func(e *env) {
			fd := e.open(e.p("d"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
			removed := map[string]bool{}
			buf := make([]byte, 500)
			for {
				n, err := unix.Getdents(fd, buf)
				e.ok(err)
				if n == 0 {
					break
				}
				for b := buf[:n]; len(b) > 0; {
					rec := int(b[16]) | int(b[17])<<8
					name := strings.TrimRight(string(b[19:rec]), "\x00")
					name, _, _ = strings.Cut(name, "\x00")
					b = b[rec:]
					if name != "." && name != ".." && !removed[name] {
						e.ok(os.Remove(e.p("d/" + name)))
						removed[name] = true
					}
				}
			}
			if len(removed) != 300 {
				e.Errorf("%d of 300 were listed", len(removed))
			}
			e.ok(unix.Rmdir(e.p("d")))
		}},
		{name: "listing-while-changing", lower: func(e *env) {
			for i := range 300 {
				e.put(e.l(fmt.Sprint("d/", i)), "")
			}
		}, run: func(e *env) {
			fd := e.open(e.p("d"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
			buf := make([]byte, 1000)
			seen := map[string]int{}
			for round := 0; ; round++ {
				n, err := unix.Getdents(fd, buf)
				e.ok(err)
				if n == 0 {
					break
				}
				for b := buf[:n]; len(b) > 0; b = b[int(b[16])|int(b[17])<<8:] {
					name, _, _ := strings.Cut(string(b[19:]), "\x00")
					seen[name]++
				}
				if round < 20 { // what is not touched is listed once, whatever happens beside it
					e.put(e.p(fmt.Sprint("d/new", round)), "")
					e.ok(os.Remove(e.p(fmt.Sprint("d/", round))))
					e.ok(unix.Rename(e.p(fmt.Sprint("d/", 100+round)), e.p(fmt.Sprint("d/moved", round))))
					e.ok(os.Chmod(e.p(fmt.Sprint("d/", 200+round)), 0o600))
				}
			}
			for i := range 300 {
				if n := seen[fmt.Sprint(i)]; n > 1 || n == 0 && (i >= 20 && i < 100 || i >= 120) {
					e.Errorf("%d is listed %d times", i, n)
				}
			}
			if got := len(e.dirents(e.p("d"), 32768)); got != 302 {
				e.Errorf("%d entries at the end", got)
			}
		}},
		{name: "rewind-shows-changes", lower: tree, run: func(e *env) {
			f, err := os.Open(e.p("d"))
			e.ok(err)
			defer func() { e.ok(f.Close()) }()
			_, err = f.Readdirnames(-1)
			e.ok(err)
			e.put(e.p("d/new"), "N")
			e.ok(os.Remove(e.p("d/y")))
			_, err = f.Seek(0, 0)
			e.ok(err)
			names, err := f.Readdirnames(-1)
			e.ok(err)
			if got := strings.Join(names, " "); len(names) != 2 || !strings.Contains(got, "new") || !strings.Contains(got, "x") {
				e.Errorf("%q", got)
			}
		}},
		{name: "created-by-many", lower: tree, run: func(e *env) {
			var all sync.WaitGroup
			for i := range 8 {
				all.Go(func() {
					for k := range 40 {
						p := e.p(fmt.Sprintf("d/%d-%d", i, k))
						if err := os.WriteFile(p, []byte("x"), 0o644); err != nil {
							e.Error(err)
						}
						if k%4 == 0 {
							if err := os.Remove(p); err != nil {
								e.Error(err)
							}
						}
					}
				})
			}
			all.Wait()
			if got := len(e.dirents(e.p("d"), 32768)); got != 4+8*30 {
				e.Errorf("%d entries", got)
			}
		}},
		{name: "made-by-one-of-many", lower: tree, run: func(e *env) {
			for range 20 {
				var all sync.WaitGroup
				var mu sync.Mutex
				made := 0
				for range 8 {
					all.Go(func() {
						if os.Mkdir(e.p("one"), 0o755) == nil {
							mu.Lock()
							made++
							mu.Unlock()
						}
					})
				}
				all.Wait()
				if made != 1 {
					e.Fatalf("%d made it", made)
				}
				e.ok(os.Remove(e.p("one")))
			}
		}},
		{name: "copied-up-by-many", lower: func(e *env) { e.put(e.l("a/b/c/f"), strings.Repeat("x", 100000)) }, run: func(e *env) {
			var all sync.WaitGroup
			for i := range 8 {
				all.Go(func() {
					fd, err := unix.Open(e.p("a/b/c/f"), unix.O_RDWR|unix.O_CLOEXEC, 0)
					if err != nil {
						e.Error(err)
						return
					}
					if _, err := unix.Pwrite(fd, []byte{byte('0' + i)}, int64(i)); err != nil {
						e.Error(err)
					}
					if err := unix.Close(fd); err != nil {
						e.Error(err)
					}
				})
			}
			all.Wait()
			e.want(e.p("a/b/c/f"), "01234567"+strings.Repeat("x", 99992))
		}},
		{name: "negative-entry", run: func(e *env) {
			e.gone(e.p("f"))
			e.gone(e.p("f"))
			e.put(e.p("f"), "F")
			e.want(e.p("f"), "F")
			e.gone(e.p("g"))
			e.ok(unix.Rename(e.p("f"), e.p("g")))
			e.want(e.p("g"), "F")
			e.gone(e.p("h"))
			e.ok(os.Link(e.p("g"), e.p("h")))
			e.want(e.p("h"), "F")
			e.gone(e.p("i"))
			e.ok(os.Symlink("g", e.p("i")))
			e.want(e.p("i"), "F")
		}},
		{name: "deep", run: func(e *env) {
			p := "d"
			for range 60 {
				p += "/0123456789"
			}
			e.mkdir(e.p(p))
			e.put(e.p(p+"/f"), "F")
			e.remount()
			e.want(e.p(p+"/f"), "F")
			e.ok(os.RemoveAll(e.p("d")))
			e.list(e.root)
		}},
		{name: "directory-attributes", lower: tree, ids: true, run: func(e *env) {
			e.ok(unix.Chmod(e.p("d"), 0o1750))
			e.ok(unix.Lchown(e.p("d"), 3, 4))
			e.remount()
			e.mode(e.p("d"), 0o1750)
			if st := e.stat(e.p("d")); st.Uid != 3 || st.Gid != 4 {
				e.Errorf("%d:%d", st.Uid, st.Gid)
			}
			e.list(e.p("d"), "x", "y")
		}},
		{name: "root-attributes", lower: tree, run: func(e *env) {
			e.ok(unix.Chmod(e.root, 0o751))
			e.remount()
			if e.w.layers > 0 {
				e.mode(e.upper, 0o751)
			}
			e.mode(e.root, 0o751)
		}},
	}
}
