package fuseoverlay

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// op is one thing that a program does in a tree.
type op struct {
	Do   string
	P, Q string
	N    int64
	S    string
	Slot int
}

// batchOf is a batch of ops below Root; with List, the tree is described
// afterwards.
type batchOf struct {
	Root string
	Ops  []op
	List bool
	Done bool // close what is open
}

// reply has an errno's name for each op that failed, and the tree.
type reply struct {
	Errs    []string
	Tree    map[string]string
	Inos    map[string]uint64
	Trouble []string // what must not be whatever the tree holds
}

// driver is a child that acts: a server must not touch its own mount.
type driver struct {
	in  io.WriteCloser
	out *bufio.Reader
	cmd *exec.Cmd
}

func startDriver(t testing.TB) *driver {
	t.Helper()
	exe, err := os.Executable()
	check(t, err)
	d := &driver{cmd: exec.Command(exe, "-test.run=^TestDriverChild$")}
	d.cmd.Dir = "/"
	d.cmd.Env = append(os.Environ(), "PLYFS_TEST_CHILD=1")
	d.cmd.Stderr = os.Stderr
	d.in, err = d.cmd.StdinPipe()
	check(t, err)
	out, err := d.cmd.StdoutPipe()
	check(t, err)
	d.out = bufio.NewReaderSize(out, 1<<20)
	check(t, d.cmd.Start())
	t.Cleanup(func() {
		check(t, d.in.Close())
		check(t, d.cmd.Wait())
	})
	return d
}

func (d *driver) ask(t tb, r batchOf) reply {
	t.Helper()
	b, err := json.Marshal(r)
	check(t, err)
	_, err = d.in.Write(append(b, '\n'))
	check(t, err)
	line, err := d.out.ReadBytes('\n')
	check(t, err)
	var out reply
	check(t, json.Unmarshal(line, &out))
	return out
}

// TestDriverChild is the child of startDriver.
func TestDriverChild(t *testing.T) {
	if !fusetest.IsChild() {
		t.Skip("runs as a child of other tests")
	}
	syscall.Umask(0o022)
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	open := map[string]map[int]*os.File{}
	for {
		var r batchOf
		if err := in.Decode(&r); err != nil {
			os.Exit(0)
		}
		if open[r.Root] == nil {
			open[r.Root] = map[int]*os.File{}
		}
		a := actor{root: r.Root, open: open[r.Root]}
		var rep reply
		for _, o := range r.Ops {
			rep.Errs = append(rep.Errs, errName(a.act(o)))
		}
		if r.List {
			l := lister{root: r.Root, rep: &rep}
			l.list()
		}
		if r.Done {
			for k, f := range a.open {
				_ = f.Close()
				delete(a.open, k)
			}
		}
		check(t, out.Encode(rep))
	}
}

func errName(err error) string {
	if err == nil {
		return ""
	}
	var no syscall.Errno
	if errors.As(err, &no) {
		return unix.ErrnoName(no)
	}
	return err.Error()
}

// actor does ops.
type actor struct {
	root string
	open map[int]*os.File
}

func (a *actor) path(p string) string { return filepath.Join(a.root, p) }

func (a *actor) act(o op) error {
	p, q := a.path(o.P), a.path(o.Q)
	switch o.Do {
	case "write":
		return a.with(p, os.O_TRUNC|os.O_CREATE|os.O_WRONLY, func(f *os.File) error { _, err := f.WriteString(o.S); return err })
	case "append":
		return a.with(p, os.O_APPEND|os.O_CREATE|os.O_WRONLY, func(f *os.File) error { _, err := f.WriteString(o.S); return err })
	case "pwrite":
		return a.with(p, os.O_RDWR, func(f *os.File) error { _, err := f.WriteAt([]byte(o.S), o.N); return err })
	case "mmap":
		return a.with(p, os.O_RDWR, func(f *os.File) error {
			if st, err := f.Stat(); err != nil || os.Getenv(inUser) != "" && st.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 {
				return err // a server in a user namespace cannot keep these; see docs/overlay.md
			}
			return mapped(f)
		})
	case "truncate":
		return os.Truncate(p, o.N)
	case "punch":
		return a.with(p, os.O_RDWR, func(f *os.File) error {
			return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, o.N, 5000)
		})
	case "mkdir":
		return os.Mkdir(p, 0o755)
	case "mkdirs":
		return os.MkdirAll(p, 0o755)
	case "rmdir":
		return unix.Rmdir(p)
	case "unlink":
		return unix.Unlink(p)
	case "rmtree":
		if st, err := os.Stat(filepath.Dir(p)); err != nil || !st.IsDir() { // it opens that, and a FIFO would make it wait
			return syscall.ENOTDIR
		}
		return os.RemoveAll(p)
	case "rename":
		return unix.Renameat2(unix.AT_FDCWD, p, unix.AT_FDCWD, q, uint(o.N))
	case "link":
		return os.Link(p, q)
	case "symlink":
		return os.Symlink(o.S, p)
	case "mkfifo":
		return unix.Mkfifo(p, 0o640)
	case "mknod":
		return unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 7)))
	case "chmod":
		return unix.Fchmodat(unix.AT_FDCWD, p, uint32(o.N), 0)
	case "chown":
		return os.Lchown(p, int(o.N), int(o.N)+1)
	case "utimes":
		tm := time.Unix(o.N, 123456789)
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{unix.NsecToTimespec(tm.UnixNano()), unix.NsecToTimespec(tm.UnixNano())}, unix.AT_SYMLINK_NOFOLLOW)
	}
	return a.more(o, p, q)
}

func (a *actor) more(o op, p, q string) error {
	switch o.Do {
	case "list":
		_, err := os.ReadDir(p)
		return err
	case "setxattr":
		return unix.Lsetxattr(p, o.Q, []byte(o.S), int(o.N))
	case "removexattr":
		return unix.Lremovexattr(p, o.Q)
	case "copy":
		return a.with(p, os.O_RDONLY, func(in *os.File) error {
			return a.with(q, os.O_RDWR|os.O_CREATE, func(out *os.File) error {
				from, to := int64(0), o.N
				_, err := unix.CopyFileRange(int(in.Fd()), &from, int(out.Fd()), &to, 3000, 0)
				return err
			})
		})
	case "open":
		f, err := os.OpenFile(p, os.O_RDWR|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		if old := a.open[o.Slot]; old != nil {
			_ = old.Close()
		}
		a.open[o.Slot] = f
		return nil
	case "unnamed":
		return a.with(p, unix.O_TMPFILE|os.O_RDWR, func(f *os.File) error {
			if _, err := f.WriteString(o.S); err != nil {
				return err
			}
			return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, q, unix.AT_SYMLINK_FOLLOW)
		})
	}
	f := a.open[o.Slot]
	if f == nil {
		return nil
	}
	switch o.Do {
	case "fwrite":
		_, err := f.WriteAt([]byte(o.S), o.N)
		return err
	case "ftruncate":
		return f.Truncate(o.N)
	case "fchmod":
		return unix.Fchmod(int(f.Fd()), uint32(o.N))
	case "fstat":
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return err
		}
		b := make([]byte, 100)
		n, err := f.ReadAt(b, 0)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return errors.Join(err, fmt.Errorf("%o %d %d %d %x", st.Mode, st.Nlink, st.Size, st.Uid, b[:n]))
	case "close":
		delete(a.open, o.Slot)
		return f.Close()
	}
	return fmt.Errorf("unknown op %s", o.Do)
}

func (a *actor) with(p string, flags int, f func(*os.File) error) error {
	file, err := os.OpenFile(p, flags|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	st, err := file.Stat()
	if err == nil && !st.Mode().IsRegular() { // a FIFO would make us wait
		err = syscall.ESPIPE
	}
	if err == nil {
		err = f(file)
	}
	return errors.Join(err, file.Close())
}

// mapped writes through a shared mapping.
func mapped(f *os.File) error {
	st, err := f.Stat()
	if err != nil || st.Size() == 0 || !st.Mode().IsRegular() {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	m[len(m)/2] ^= 0x55
	return unix.Munmap(m)
}

// lister describes a tree.
type lister struct {
	root  string
	rep   *reply
	first map[[2]uint64]string
	inos  map[uint64]string
}

func (l *lister) list() {
	l.rep.Tree, l.rep.Inos = map[string]string{}, map[string]uint64{}
	l.first, l.inos = map[[2]uint64]string{}, map[uint64]string{}
	l.walk("")
}

func (l *lister) trouble(format string, args ...any) {
	l.rep.Trouble = append(l.rep.Trouble, fmt.Sprintf(format, args...))
}

func (l *lister) walk(rel string) {
	p := filepath.Join(l.root, rel)
	if rel == "" {
		p += "/."
	}
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		l.rep.Tree[rel] = "error " + errName(err)
		return
	}
	l.rep.Inos[rel] = st.Ino
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	s := fmt.Sprintf("%o %d:%d rdev %x", st.Mode, st.Uid, st.Gid, st.Rdev)
	if !isDir {
		s += fmt.Sprintf(" links %d size %d", st.Nlink, st.Size)
		key := [2]uint64{st.Dev, st.Ino}
		if l.first[key] == "" {
			l.first[key] = rel
		}
		s += " same " + l.first[key]
	}
	if old := l.inos[st.Ino]; old != "" && l.first[[2]uint64{st.Dev, st.Ino}] == rel || old != "" && isDir {
		l.trouble("%s and %s have one inode number", old, rel)
	}
	l.inos[st.Ino] = rel
	if st.Mtim.Sec < 1e9 {
		s += fmt.Sprintf(" mtime %d.%d", st.Mtim.Sec, st.Mtim.Nsec)
	}
	s += contentOf(p, st.Mode)
	l.rep.Tree[rel] = s + fmt.Sprintf(" %q", realXattrs(p))
	if isDir {
		l.children(rel, p)
	}
}

func contentOf(p string, mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, err := os.Readlink(p)
		return fmt.Sprintf(" -> %q %v", target, err)
	case unix.S_IFREG:
		b, err := os.ReadFile(p)
		sum := sha256.Sum256(b)
		return fmt.Sprintf(" sum %x %s", sum[:6], errName(err))
	}
	return ""
}

func (l *lister) children(rel, p string) {
	d, err := os.Open(p)
	if err != nil {
		l.trouble("open %s: %v", rel, err)
		return
	}
	names := map[string]uint64{}
	buf := make([]byte, 4096)
	for {
		n, err := unix.Getdents(int(d.Fd()), buf)
		if err != nil {
			l.trouble("getdents %s: %v", rel, err)
		}
		if n <= 0 {
			break
		}
		for b := buf[:n]; len(b) > 0; {
			ino := *(*uint64)(ptr(b))
			reclen := int(b[16]) | int(b[17])<<8
			name := strings.TrimRight(string(b[19:reclen]), "\x00")
			name, _, _ = strings.Cut(name, "\x00")
			if _, twice := names[name]; twice {
				l.trouble("%s lists %s twice", rel, name)
			}
			names[name] = ino
			b = b[reclen:]
		}
	}
	_ = d.Close()
	keys := make([]string, 0, len(names))
	for k := range names {
		if k != "." && k != ".." {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	for _, k := range keys {
		child := filepath.Join(rel, k)
		var st unix.Stat_t
		if unix.Lstat(filepath.Join(l.root, child), &st) == nil && names[k] != st.Ino {
			l.trouble("%s: d_ino %d, st_ino %d", child, names[k], st.Ino)
		}
		l.walk(child)
	}
}

// unequal returns the lines in which two trees differ.
func unequal(want, got map[string]string) []string {
	var out []string
	for p, w := range want {
		if got[p] != w {
			out = append(out, fmt.Sprintf("%q\n  want %s\n  got  %s", p, w, got[p]))
		}
	}
	for p, g := range got {
		if _, ok := want[p]; !ok {
			out = append(out, fmt.Sprintf("%q\n  want nothing\n  got  %s", p, g))
		}
	}
	slices.Sort(out)
	return out
}
