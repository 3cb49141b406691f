package fuseoverlay

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// passRig is a rig in passthrough mode.
func passRig(t *testing.T, layers ...string) *rig {
	t.Helper()
	r := newRig(t, layers...)
	r.config.Passthrough = PassthroughOnly
	return r
}

// in runs the test called child, a function of this file, in the mount.
func (r *rig) in(child string) {
	r.t.Helper()
	if res := fusetest.Child(r.t, "TestPassthroughChild", "PASS_DIR="+r.mount, "PASS_CHILD="+child); res.Status != 0 {
		r.t.Errorf("%s: %s\n%s", child, res.Out, res.Err)
	}
}

// passChild is what a program does in a mount, and sees.
type passChild struct {
	*testing.T
	dir string
}

// TestPassthroughChild drives mounts of the tests below.
func TestPassthroughChild(t *testing.T) {
	if !fusetest.IsChild() {
		t.Skip("runs as a child of other tests")
	}
	c := passChild{t, os.Getenv("PASS_DIR")}
	map[string]func(){
		"lower": c.lower, "renamed": c.renamed, "mapped": c.mapped, "many": c.many, "held": c.held, "stacked": c.stacked,
		"races": c.races,
	}[os.Getenv("PASS_CHILD")]()
}

func (c passChild) open(name string, flags int) *os.File {
	c.Helper()
	f, err := os.OpenFile(filepath.Join(c.dir, name), flags, 0o644)
	check(c, err)
	c.Cleanup(func() { _ = f.Close() })
	return f
}

func (c passChild) write(f *os.File, text string, off int64) {
	c.Helper()
	_, err := f.WriteAt([]byte(text), off)
	check(c, err)
}

func (c passChild) reads(f *os.File, want string) {
	c.Helper()
	b := make([]byte, len(want)+10)
	n, err := f.ReadAt(b, 0)
	if string(b[:n]) != want {
		c.Errorf("%s holds %q (%v), want %q", f.Name(), b[:n], err, want)
	}
}

func (c passChild) path(name string) string { return filepath.Join(c.dir, name) }

func (c passChild) size(name string, want int64) {
	c.Helper()
	st, err := os.Lstat(c.path(name))
	check(c, err)
	if st.Size() != want {
		c.Errorf("%s has %d bytes, want %d", name, st.Size(), want)
	}
}

// lower: a reader has a lower file open, and maps it, while others write.
func (c passChild) lower() {
	r := c.open("f", os.O_RDONLY)
	c.reads(r, "lower text")
	m, err := unix.Mmap(int(r.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	check(c, err)
	w := c.open("f", os.O_RDWR)
	c.write(w, "UPPER", 0)
	c.reads(r, "UPPER text")
	c.reads(w, "UPPER text")
	if string(m[:10]) != "UPPER text" {
		c.Errorf("mapped: %q", m[:10])
	}
	a := c.open("f", os.O_WRONLY|os.O_APPEND)
	_, err = a.WriteString("+")
	check(c, err)
	c.reads(r, "UPPER text+")
	check(c, os.Truncate(c.path("f"), 3))
	c.reads(r, "UPP")
	check(c, os.WriteFile(c.path("f"), []byte("again"), 0o600))
	c.reads(r, "again")
	c.reads(w, "again")
	check(c, unix.Munmap(m))
	for _, f := range []*os.File{r, w, a} {
		check(c, f.Close())
	}
	// Now that nobody has it open it is passed through.
	w = c.open("f", os.O_RDWR)
	c.write(w, "AGAIN", 0)
	c.reads(c.open("f", os.O_RDONLY), "AGAIN")
	// A reader that has a lower file open when it is removed, and made again.
	r = c.open("g", os.O_RDONLY)
	check(c, os.Remove(c.path("g")))
	check(c, os.WriteFile(c.path("g"), []byte("another"), 0o600))
	c.reads(r, "lower too")
	c.reads(c.open("g", os.O_RDONLY), "another")
}

// renamed: files that are passed through are renamed, linked, cut and removed.
func (c passChild) renamed() {
	w, r := c.open("f", os.O_RDWR|os.O_CREATE), c.open("f", os.O_RDONLY)
	c.write(w, "some text", 0)
	check(c, os.Rename(c.path("f"), c.path("g")))
	check(c, os.Link(c.path("g"), c.path("h")))
	c.write(w, "SOME", 0)
	c.reads(r, "SOME text")
	c.reads(c.open("h", os.O_RDONLY), "SOME text")
	check(c, os.Truncate(c.path("h"), 4))
	c.reads(r, "SOME")
	check(c, w.Truncate(6))
	c.size("g", 6)
	c.write(w, "end", 10000)
	c.size("h", 10003)
	check(c, os.Remove(c.path("g")))
	check(c, os.Remove(c.path("h")))
	c.write(w, "gone", 0)
	b := make([]byte, 4)
	_, err := r.ReadAt(b, 0)
	check(c, err)
	st, err := r.Stat()
	check(c, err)
	if string(b) != "gone" || st.Size() != 10003 {
		c.Errorf("%q, %d bytes", b, st.Size())
	}
	check(c, w.Sync())
	if k, err := unix.Seek(int(w.Fd()), 0, unix.SEEK_DATA); err != nil || k != 0 {
		c.Errorf("seek: %d, %v", k, err)
	}
	check(c, unix.Fallocate(int(w.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096))
	_, err = r.ReadAt(b, 0)
	check(c, err)
	if string(b) != "\x00\x00\x00\x00" {
		c.Errorf("a hole holds %q", b)
	}
	tmp := c.open(".", unix.O_TMPFILE|os.O_RDWR)
	c.write(tmp, "unnamed", 0)
	check(c, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", tmp.Fd()), unix.AT_FDCWD, c.path("named"), unix.AT_SYMLINK_FOLLOW))
	c.write(tmp, "NAMED", 2)
	c.reads(c.open("named", os.O_RDONLY), "unNAMED")
	in, out := c.open("named", os.O_RDONLY), c.open("copy", os.O_RDWR|os.O_CREATE)
	c.write(out, "............", 0)
	from, to := int64(2), int64(1)
	_, err = unix.CopyFileRange(int(in.Fd()), &from, int(out.Fd()), &to, 5, 0)
	check(c, err)
	c.reads(out, ".NAMED......")
}

// mapped: shared mappings of two descriptors, of reads and of writes agree.
func (c passChild) mapped() {
	f, g := c.open("m", os.O_RDWR|os.O_CREATE), c.open("m", os.O_RDWR)
	check(c, f.Truncate(3*4096))
	var maps [][]byte
	for _, x := range []*os.File{f, g} {
		m, err := unix.Mmap(int(x.Fd()), 0, 3*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		check(c, err)
		maps = append(maps, m)
	}
	copy(maps[0][4096:], "stored")
	b := make([]byte, 6)
	_, err := g.ReadAt(b, 4096)
	check(c, err)
	if string(b) != "stored" || string(maps[1][4096:4102]) != "stored" {
		c.Errorf("read %q, mapped %q", b, maps[1][4096:4102])
	}
	c.write(g, "written", 8192)
	if string(maps[0][8192:8199]) != "written" {
		c.Errorf("mapped %q", maps[0][8192:8199])
	}
	check(c, f.Close())
	check(c, g.Close())
	copy(maps[1], "last")
	got, err := os.ReadFile(c.path("m"))
	check(c, err)
	if len(got) != 3*4096 || !bytes.HasPrefix(got, []byte("last")) {
		c.Errorf("%d bytes, %q", len(got), got[:4])
	}
	for _, m := range maps {
		check(c, unix.Munmap(m))
	}
}

// many: files are opened, written, read and closed, some more than once.
func (c passChild) many() {
	for round := range 3 {
		var files []*os.File
		for i := range 150 {
			f := c.open(fmt.Sprint("many-", i), os.O_RDWR|os.O_CREATE)
			c.write(f, fmt.Sprint(round), 0)
			r := c.open(fmt.Sprint("many-", i), os.O_RDONLY)
			c.reads(r, fmt.Sprint(round))
			files = append(files, f, r)
		}
		for _, f := range files {
			check(c, f.Close())
		}
	}
}

// held: files stay open when the process ends.
func (c passChild) held() {
	for i := range 20 {
		c.write(c.open(fmt.Sprint("many-", i), os.O_RDWR), "held", 0)
		c.open(fmt.Sprint("held-", i), os.O_RDWR|os.O_CREATE)
		check(c, os.Remove(c.path(fmt.Sprint("held-", i))))
	}
	os.Exit(0)
}

// stacked: what is not passed through is read and written as without.
func (c passChild) stacked() {
	w, r := c.open("f", os.O_RDWR), c.open("f", os.O_RDONLY)
	c.write(w, "UPPER", 0)
	c.reads(r, "UPPER text")
}

func TestPassthroughLower(t *testing.T) {
	t.Parallel()
	r := passRig(t, "printf 'lower text' >f; printf 'lower too' >g")
	before := fusetest.Must(t, "cd $1; stat -c '%n %s %y %z' f g; cat f g", r.lowers[0])
	r.start()
	r.in("lower")
	r.stop()
	if now := fusetest.Must(t, "cd $1; stat -c '%n %s %y %z' f g; cat f g", r.lowers[0]); now != before {
		t.Errorf("the lower layer changed: %s, before: %s", now, before)
	}
}

func TestPassthroughNames(t *testing.T) {
	t.Parallel()
	passRig(t, "").start().in("renamed")
}

func TestPassthroughMapped(t *testing.T) {
	t.Parallel()
	passRig(t, "").start().in("mapped")
}

// What the kernel holds of backing files goes with the files that are open.
func TestPassthroughLetsGo(t *testing.T) {
	t.Parallel()
	r := passRig(t, "echo lower >low").start()
	for _, child := range []string{"many", "many", "held"} {
		r.in(child)
		// RELEASE comes after close has returned: a request behind it is waited for.
		if err := eventually(func() error {
			if k := r.server.o.pass.count(); k != 0 {
				return fmt.Errorf("%d backing files are left after %s", k, child)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	fusetest.Must(t, "exec 3<>$1/many-1 4<$1/low; umount -l $1", r.mount)
	if err := <-r.served; err != nil {
		t.Errorf("serve: %v", err)
	}
	r.served = nil
}

// Where it cannot be had the mount is as without, with a warning, or fails.
func TestPassthroughRefused(t *testing.T) {
	t.Parallel()
	stacked := func(r *rig) {
		fusetest.Must(r.t, `cd $1; mkdir s s/l s/u s/w s/m; mount -t overlay o -o lowerdir=s/l,upperdir=s/u,workdir=s/w s/m; mkdir s/m/u s/m/w`, r.dir)
		r.t.Cleanup(func() { fusetest.Must(r.t, "umount $1/s/m", r.dir) })
		r.config.Upper, r.config.Work = filepath.Join(r.dir, "s/m/u"), filepath.Join(r.dir, "s/m/w")
	}
	for name, c := range map[string]struct {
		change func(r *rig)
		why    string
	}{
		"stacked":   {stacked, "stacked filesystem"},
		"quota":     {func(r *rig) { r.config.MaxBytes = 1 << 30 }, "every write is counted"},
		"writeback": {func(r *rig) { r.config.Writeback = true }, "writeback is another mode"},
		"read-only": {func(r *rig) { r.config.ReadOnly = true }, "nothing is written"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := passRig(t, "printf 'lower text' >f")
			c.change(r)
			var out bytes.Buffer
			log := logrus.New()
			log.SetOutput(&out)
			r.config.Log = logrus.NewEntry(log)
			if _, err := Mount(r.config, r.mount); err == nil || !strings.Contains(err.Error(), c.why) {
				t.Fatalf("strictly: %v", err)
			}
			r.config.Passthrough = PassthroughTry
			r.start()
			if n := strings.Count(out.String(), c.why); n != 1 {
				t.Errorf("%d warnings: %s", n, out.String())
			}
			if !r.config.ReadOnly {
				r.in("stacked")
			}
		})
	}
}

// eventually waits until f returns nil, and returns its error when that takes
// too long.
func eventually(f func() error) error {
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := f()
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

// endedServer is one whose connection is gone, or does not do what it is asked to.
type endedServer struct {
	server
	no syscall.Errno
}

func (s endedServer) UnregisterBackingFd(int32) syscall.Errno { return s.no }

// TestPassthroughAfterTheEnd: a file that is closed when the connection is gone is no
// matter, of which nobody writes into a work directory that others may be removing.
func TestPassthroughAfterTheEnd(t *testing.T) {
	t.Parallel()
	for no, want := range map[syscall.Errno]int{0: 0, syscall.EBADF: 0, syscall.EPERM: 1} {
		said := 0
		n := newNode(unix.S_IFREG, 0)
		p := &passing{server: endedServer{no: no}, log: func(string, ...any) { said++ }, open: map[*node]*handles{n: {passed: 1, id: 5}}}
		if p.release(n, handlePassed); said != want || p.count() != 0 {
			t.Errorf("%v: %d lines are logged, %d files are open", no, said, p.count())
		}
	}
}
