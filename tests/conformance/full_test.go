package conformance

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFullUpper: where the upper has no room, for another file or for data, what
// cannot be done is not done by half.
//
// https://github.com/rpodgorny/unionfs-fuse/issues/27
// https://github.com/google/gvisor/issues/14726
func TestFullUpper(t *testing.T) {
	need(t)
	for _, w := range rootWorlds(t) {
		if w.layers != 1 || strings.HasPrefix(w.name, peerName) {
			continue
		}
		w.upper = func(e *env) string {
			dir := e.dir + "/small"
			e.ok(os.Mkdir(dir, 0o755))
			e.ok(unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,nr_inodes=150,mode=755"))
			e.Cleanup(func() { unmount(e.T, dir) })
			return dir
		}
		for _, files := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/files-%v", w.name, files), func(t *testing.T) {
				t.Parallel()
				runCase(t, w, c{lower: fullLower, run: func(e *env) { fullCase(e, files) }})
			})
		}
	}
}

func fullLower(e *env) {
	for i := range fullWork {
		d := e.l(fmt.Sprintf("d%d", i))
		e.put(d+"/f", strings.Repeat("lower", 1000))
		e.put(d+"/sub/g", "g")
		e.ok(os.Link(d+"/f", d+"/link"))
		e.ok(os.Symlink("f", d+"/s"))
		e.put(d+"/other", "o")
	}
}

// fullWork is how many directories fullCase works in.
const fullWork = 15

// fullCase fills the upper, with files or with data, and tries what changes a
// tree, each once while there is no room and once when there is a little.
func fullCase(e *env, files bool) {
	e.mkdir(e.p("fill"))
	fill := func() {
		for i := 0; ; i++ {
			f, err := os.OpenFile(e.p(fmt.Sprintf("fill/%d", i)), os.O_WRONLY|os.O_CREATE, 0o644)
			if err == nil {
				if !files {
					_, err = f.Write(make([]byte, 4096))
					for err == nil {
						_, err = f.Write(make([]byte, 4096))
					}
				}
				err = errors.Join(err, f.Close())
			}
			if err != nil {
				if !errors.Is(err, unix.ENOSPC) {
					e.Fatalf("fill: %v", err)
				}
				return
			}
		}
	}
	refused := 0
	for i, op := range fullOps {
		for round, room := range []int{0, 1, 2} {
			d := e.p(fmt.Sprintf("d%d", i))
			fill()
			for k := range room {
				_ = os.Remove(e.p(fmt.Sprintf("fill/%d", k)))
			}
			before := e.tree(d)
			err := op.do(d)
			after := e.tree(d)
			switch {
			case err == nil:
			case !errors.Is(err, unix.ENOSPC):
				e.Errorf("%s, round %d: %v", op.name, round, err)
			case before != after:
				e.Errorf("%s failed (%v), and left\n%swhere there was\n%s", op.name, err, after, before)
			}
			if err == nil {
				break
			}
			refused++
		}
	}
	if refused == 0 {
		e.Error("nothing was refused")
	}
	e.ok(os.RemoveAll(e.p("fill"))) // a mount needs some
	before := e.tree(e.root)
	e.remount()
	if after := e.tree(e.root); after != before {
		e.Errorf("after a remount\n%swhere there was\n%s", after, before)
	}
	for i := range fullOps {
		e.ok(os.RemoveAll(e.p(fmt.Sprintf("d%d", i)))) // which needs whiteouts
	}
}

var fullOps = []struct {
	name string
	do   func(d string) error
}{
	{"unlink", func(d string) error { return os.Remove(d + "/f") }},
	{"unlink of a twin", func(d string) error { return os.Remove(d + "/link") }},
	{"rename", func(d string) error { return unix.Rename(d+"/f", d+"/new") }},
	{"rename over", func(d string) error { return unix.Rename(d+"/f", d+"/other") }},
	{"rename of a directory", func(d string) error {
		if err := unix.Rename(d+"/sub", d+"/sub2"); !errors.Is(err, unix.EXDEV) {
			return err
		}
		return nil // the kernel's
	}},
	{"chmod", func(d string) error { return unix.Chmod(d+"/f", 0o600) }},
	{"chmod of a directory", func(d string) error { return unix.Chmod(d+"/sub", 0o700) }},
	{"truncate", func(d string) error { return unix.Truncate(d+"/f", 7) }},
	{"link", func(d string) error { return os.Link(d+"/f", d+"/third") }},
	{"symlink", func(d string) error { return os.Symlink("x", d+"/sub/new") }},
	{"mkdir", func(d string) error { return os.Mkdir(d+"/sub/new", 0o755) }},
	{"mknod", func(d string) error { return unix.Mknod(d+"/sub/new", unix.S_IFIFO|0o600, 0) }},
	{"xattr", func(d string) error { return unix.Setxattr(d+"/f", "user.a", []byte("b"), 0) }},
	{"chown of a symlink", func(d string) error { return os.Lchown(d+"/s", 5, 5) }},
	{"times", func(d string) error { return unix.Utimes(d+"/f", make([]unix.Timeval, 2)) }},
}

// tree describes what is below dir.
func (e *env) tree(dir string) string {
	e.Helper()
	var b strings.Builder
	e.ok(filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st := e.stat(p)
		fmt.Fprintf(&b, "%s %o %d:%d", p[len(dir):], st.Mode, st.Uid, st.Gid)
		if !d.IsDir() {
			fmt.Fprintf(&b, " %d links, %d bytes of %v", st.Nlink, st.Size, st.Mtim)
		}
		if d.Type().IsRegular() {
			var text []byte
			text, err = os.ReadFile(p)
			fmt.Fprintf(&b, " %x", crc32.ChecksumIEEE(text))
		}
		b.WriteByte('\n')
		return err
	}))
	return b.String()
}
