package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// env is a case at work.
type env struct {
	*testing.T
	w     world
	dir   string // holds all that follows
	root  string // the tree
	lower string // the layer that the case's lower prepares; the tree itself in a plain directory
	upper string // empty in a plain directory
	work  string
	dirs  []string // all lower layers, top first
	end   func()
	fds   []int  // open descriptors
	below string // the lower layers as they were at the mount
	ready bool   // prepared was called
}

// c is one case.
type c struct {
	name string
	// url is the public report of the bug that it is about.
	url string
	// ids: it needs IDs other than 0; root: the machine's root; overlay: layers.
	// long: it costs much where it fails.
	ids, root, overlay, long bool
	lower                    func(e *env)
	run                      func(e *env)
}

func newEnv(t *testing.T, w world) *env {
	t.Helper()
	e := &env{T: t, w: w, dir: t.TempDir(), end: func() {}}
	for d := e.dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		e.ok(os.Chmod(d, 0o755)) // other users get to the tree
	}
	e.root = filepath.Join(e.dir, "m")
	e.ok(os.Mkdir(e.root, 0o755))
	if w.layers == 0 {
		e.lower = e.root
		return e
	}
	below := e.dir
	if w.lowers != nil {
		below = w.lowers(e)
	}
	for i := range w.layers {
		d := filepath.Join(below, fmt.Sprint("l", i))
		e.ok(os.Mkdir(d, 0o755))
		e.dirs = append(e.dirs, d)
	}
	e.lower = e.dirs[w.layers/2]
	upper := e.dir
	if w.upper != nil {
		upper = w.upper(e)
	}
	e.upper, e.work = filepath.Join(upper, "u"), filepath.Join(upper, "w")
	e.ok(os.Mkdir(e.upper, 0o755))
	e.ok(os.Mkdir(e.work, 0o755))
	return e
}

// mount makes the tree; remount makes it anew from what is on disk.
func (e *env) mount() {
	e.Helper()
	if e.w.mount != nil {
		if e.w.prepared != nil && !e.ready {
			e.w.prepared(e)
		}
		e.ready = true
		e.below = e.layersNow()
		e.end = e.w.mount(e)
	}
}

// unmount closes what open opened.
func (e *env) unmount() {
	e.Helper()
	e.closeAll()
	e.end()
	e.end = func() {}
	if e.below != "" {
		if now := e.layersNow(); now != e.below {
			e.Errorf("a lower layer was changed:\nbefore %s\nafter  %s", e.below, now)
		}
		e.below = ""
	}
}

// layersNow describes the lower layers: names, attributes, and sizes for the
// content, since nobody changes that without the time of modification.
func (e *env) layersNow() string {
	e.Helper()
	var b strings.Builder
	for _, dir := range e.dirs {
		e.ok(filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			st := e.stat(p)
			fmt.Fprintf(&b, "%s %o %d:%d %d links %d mtime %v ctime %v %q\n", p[len(e.dir):], st.Mode, st.Uid, st.Gid, st.Size, st.Nlink, st.Mtim, st.Ctim, listx(p))
			return nil
		}))
	}
	return b.String()
}

func (e *env) remount() {
	e.Helper()
	e.unmount()
	e.mount()
}

func (e *env) ok(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

// is wants err to be want.
func (e *env) is(err, want error) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Errorf("got %v, want %v", err, want)
	}
}

// p is a path in the tree, l one in the lower layer.
func (e *env) p(name string) string { return e.root + "/" + name }
func (e *env) l(name string) string { return e.lower + "/" + name }

// put writes a file, making the directories above it.
func (e *env) put(path, text string) {
	e.Helper()
	e.ok(os.MkdirAll(filepath.Dir(path), 0o755))
	e.ok(os.WriteFile(path, []byte(text), 0o644))
}

func (e *env) mkdir(path string) {
	e.Helper()
	e.ok(os.MkdirAll(path, 0o755))
}

func (e *env) want(path, text string) {
	e.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		e.Errorf("read: %v", err)
	} else if string(b) != text {
		if len(b) > 100 {
			b = append(b[:100], "…"...)
		}
		e.Errorf("%s holds %q, want %q", path, b, text)
	}
}

func (e *env) gone(path string) {
	e.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		e.Errorf("%s is there: %v", path, err)
	}
}

// list compares a directory's entries.
func (e *env) list(path string, want ...string) {
	e.Helper()
	d, err := os.ReadDir(path)
	if err != nil {
		e.Errorf("list: %v", err)
		return
	}
	var got []string
	for _, x := range d {
		got = append(got, x.Name())
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		e.Errorf("%s lists %q, want %q", path, got, want)
	}
}

func (e *env) stat(path string) unix.Stat_t {
	e.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		e.Fatalf("lstat %s: %v", path, err)
	}
	return st
}

func (e *env) fstat(fd int) unix.Stat_t {
	e.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		e.Fatalf("fstat: %v", err)
	}
	return st
}

func (e *env) mode(path string, want uint32) {
	e.Helper()
	if st := e.stat(path); st.Mode&0o7777 != want {
		e.Errorf("%s has mode %o, want %o", path, st.Mode&0o7777, want)
	}
}

func (e *env) closeAll() {
	for _, fd := range e.fds {
		if err := unix.Close(fd); err != nil && !e.Failed() {
			e.Errorf("close: %v", err)
		}
	}
	e.fds = nil
}

// close closes a descriptor that open returned.
func (e *env) close(fd int) {
	e.Helper()
	e.fds = slices.DeleteFunc(e.fds, func(o int) bool { return o == fd })
	e.ok(unix.Close(fd))
}

// open returns a descriptor, closed at the next unmount.
func (e *env) open(path string, flags int, mode uint32) int {
	e.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, mode)
	if err != nil {
		e.Fatalf("open %s: %v", path, err)
	}
	e.fds = append(e.fds, fd)
	return fd
}

func (e *env) openErr(path string, flags int, want error) {
	e.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
	if err == nil {
		_ = unix.Close(fd)
	}
	e.is(err, want)
}

func (e *env) write(fd int, text string) {
	e.Helper()
	n, err := unix.Write(fd, []byte(text))
	if err != nil || n != len(text) {
		e.Fatalf("write: %d, %v", n, err)
	}
}

func (e *env) pwrite(fd int, text string, off int64) {
	e.Helper()
	n, err := unix.Pwrite(fd, []byte(text), off)
	if err != nil || n != len(text) {
		e.Fatalf("pwrite: %d, %v", n, err)
	}
}

func (e *env) pread(fd int, n int, off int64) string {
	e.Helper()
	b := make([]byte, n)
	n, err := unix.Pread(fd, b, off)
	if err != nil {
		e.Fatalf("pread: %v", err)
	}
	return string(b[:n])
}

// as runs f with the owner's rights on files that a process of that user and
// group has.
func (e *env) as(uid, gid int, f func()) {
	e.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with the goroutine
		prev, err := unix.SetfsgidRetGid(gid)
		if now, _ := unix.SetfsgidRetGid(-1); err != nil || now != gid {
			e.Errorf("setfsgid %d from %d: %d, %v", gid, prev, now, err)
			return
		}
		prev, err = unix.SetfsuidRetUid(uid)
		if now, _ := unix.SetfsuidRetUid(-1); err != nil || now != uid {
			e.Errorf("setfsuid %d from %d: %d, %v", uid, prev, now, err)
			return
		}
		f()
	}()
	<-done
}

// umask runs f in a thread with a file mode mask of its own.
func (e *env) umask(mask int, f func()) {
	e.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			done <- err
			return
		}
		unix.Umask(mask)
		f()
		done <- nil
	}()
	e.ok(<-done)
}

func (e *env) setx(path, name, value string) {
	e.Helper()
	if err := unix.Lsetxattr(path, name, []byte(value), 0); err != nil {
		if e.w.noXattrs && !e.ready && errors.Is(err, unix.EOPNOTSUPP) {
			e.Skip("the lower layer can have no attributes here")
		}
		e.Fatalf("setxattr %s %s: %v", path, name, err)
	}
}

func getx(path, name string) (string, error) {
	b := make([]byte, 65536)
	n, err := unix.Lgetxattr(path, name, b)
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}

func (e *env) wantx(path, name, value string) {
	e.Helper()
	if got, err := getx(path, name); err != nil || got != value {
		e.Errorf("%s has %s=%q, %v; want %q", path, name, got, err, value)
	}
}

func listx(path string) []string {
	b := make([]byte, 65536)
	n, err := unix.Llistxattr(path, b)
	if err != nil || n == 0 {
		return nil
	}
	names := strings.Split(strings.TrimSuffix(string(b[:n]), "\x00"), "\x00")
	slices.Sort(names)
	return names
}

// dirents reads a directory with a buffer of size bytes: name → d_ino, d_type.
func (e *env) dirents(path string, size int) map[string][2]uint64 {
	e.Helper()
	fd := e.open(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	out := map[string][2]uint64{}
	buf := make([]byte, size)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			e.Fatalf("getdents: %v", err)
		}
		if n == 0 {
			return out
		}
		for b := buf[:n]; len(b) > 0; {
			ino := le64(b)
			rec := int(b[16]) | int(b[17])<<8
			name, _, _ := bytes.Cut(b[19:rec], []byte{0})
			if _, twice := out[string(name)]; twice {
				e.Errorf("%s lists %q twice", path, name)
			}
			out[string(name)] = [2]uint64{ino, uint64(b[18])}
			b = b[rec:]
		}
	}
}

func le64(b []byte) (n uint64) {
	for i := range 8 {
		n |= uint64(b[i]) << (8 * i)
	}
	return n
}
