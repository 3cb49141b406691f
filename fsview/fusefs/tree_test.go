package fusefs

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
)

// calls records what a test tree was asked, in order.
type calls struct {
	mu  sync.Mutex
	log []string
}

func (c *calls) add(format string, a ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = append(c.log, fmt.Sprintf(format, a...))
}

func (c *calls) take() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := strings.Join(c.log, " ")
	c.log = nil
	return s
}

func inoOf(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s))
	return h.Sum64()
}

// base is the part that all test nodes share.
type base struct {
	name   string
	forgot atomic.Int64
}

func (b *base) Ino() uint64 { return inoOf(b.name) }
func (b *base) Forget()     { b.forgot.Add(1) }

func regular(ino, size uint64) vnode.Attr {
	return vnode.Attr{Ino: ino, Mode: syscall.S_IFREG | 0o644, Nlink: 1, Size: size, Mtime: time.Unix(1, 5)}
}

// dir is a directory of fixed children, which remembers what is made in it.
type dir struct {
	base
	c     *calls
	valid vnode.Validity
	mu    sync.Mutex
	kids  map[string]vnode.Node
}

func newDir(name string, c *calls, kids map[string]vnode.Node) *dir {
	if kids == nil {
		kids = map[string]vnode.Node{}
	}
	return &dir{base: base{name: name}, c: c, kids: kids}
}

func (d *dir) Attr(context.Context) (vnode.Attr, error) {
	return vnode.Attr{Ino: d.Ino(), Mode: syscall.S_IFDIR | 0o755, Nlink: 2}, nil
}

func (d *dir) Lookup(_ context.Context, name string) (vnode.Child, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.kids[name]
	if n == nil {
		return vnode.Child{}, errno.New(errno.ErrUnknown, "there is no %s", name)
	}
	return vnode.Child{Node: n, Entry: d.valid, Attr: d.valid}, nil
}

func (d *dir) ReadDir(ctx context.Context) ([]vnode.Dirent, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []vnode.Dirent
	for name, n := range d.kids {
		a, err := n.Attr(ctx)
		if err != nil {
			continue
		}
		out = append(out, vnode.Dirent{Name: name, Ino: n.Ino(), Type: a.Mode & syscall.S_IFMT})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

// ctlDir makes, moves and removes.
type ctlDir struct{ *dir }

func (d ctlDir) Mkdir(ctx context.Context, name string, mode uint32) (vnode.Child, error) {
	who, _ := vnode.CallerOf(ctx)
	d.c.add("mkdir(%s,%o,uid=%d)", name, mode, who.UID)
	if name == "taken" {
		return vnode.Child{}, errno.New(errno.ErrDuplicate, "taken is taken")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if strings.HasPrefix(name, "nested") {
		n := &link{base: base{name: "link-" + name}, target: "elsewhere"}
		d.kids[name] = n
		return vnode.Child{Node: n}, nil
	}
	n := ctlDir{newDir(d.name+"/"+name, d.c, nil)}
	d.kids[name] = n
	return vnode.Child{Node: n}, nil
}

func (d ctlDir) Rmdir(_ context.Context, name string) error {
	d.c.add("rmdir(%s)", name)
	if name == "busy" {
		return errno.New(errno.ErrInUse, "busy is mounted")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.kids, name)
	return nil
}

func (d ctlDir) Rename(_ context.Context, name string, to vnode.Node, newName string, flags uint32) error {
	td, ok := to.(ctlDir)
	if !ok {
		return errno.New(errno.ErrBadValue, "%s cannot go there", name)
	}
	d.c.add("rename(%s,%s,%s,%d)", name, td.name, newName, flags)
	d.mu.Lock()
	n := d.kids[name]
	delete(d.kids, name)
	d.mu.Unlock()
	td.mu.Lock()
	td.kids[newName] = n
	td.mu.Unlock()
	return nil
}

func (d ctlDir) Symlink(_ context.Context, name, target string) (vnode.Child, error) {
	n := &link{base: base{name: "link-" + name}, target: target}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kids[name] = n
	return vnode.Child{Node: n}, nil
}

type link struct {
	base
	target string
}

func (l *link) Attr(context.Context) (vnode.Attr, error) {
	return vnode.Attr{Ino: l.Ino(), Mode: syscall.S_IFLNK | 0o777, Nlink: 1, Size: uint64(len(l.target))}, nil
}
func (l *link) Readlink(context.Context) (string, error) { return l.target, nil }

// text is a control file: its value is taken at open, writes are buffered and
// FLUSH commits them; the value "bad" is refused.
type text struct {
	base
	c     *calls
	mu    sync.Mutex
	value string
}

func (f *text) Attr(context.Context) (vnode.Attr, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return regular(f.Ino(), uint64(len(f.value))), nil
}

func (f *text) Open(_ context.Context, flags int) (vnode.Handle, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.c.add("open(%s)", openFlags(flags))
	h := &textHandle{f: f, buf: []byte(f.value)}
	if flags&syscall.O_TRUNC != 0 {
		h.buf, h.dirty = nil, true
	}
	return h, nil
}

func (f *text) Getxattr(_ context.Context, name string) ([]byte, error) {
	if name == "user.plyfs.error" {
		return []byte("a sentence"), nil
	}
	return nil, syscall.ENODATA
}
func (f *text) Listxattr(context.Context) ([]string, error) {
	return []string{"user.plyfs.error", "user.b"}, nil
}

func openFlags(flags int) string {
	s := [...]string{"r", "w", "rw", "?"}[flags&3]
	if flags&syscall.O_TRUNC != 0 {
		s += "t"
	}
	return s
}

type textHandle struct {
	f     *text
	mu    sync.Mutex
	buf   []byte
	dirty bool
}

func (h *textHandle) Flags() vnode.OpenFlags { return vnode.DirectIO }

func (h *textHandle) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if off >= int64(len(h.buf)) {
		return 0, nil
	}
	return copy(p, h.buf[off:]), nil
}

func (h *textHandle) WriteAt(_ context.Context, p []byte, off int64) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.f.c.add("write(%q@%d)", p, off)
	if off+int64(len(p)) > 1<<16 {
		return 0, errno.New(errno.ErrTooLarge, "over 64 KiB")
	}
	for int64(len(h.buf)) < off+int64(len(p)) {
		h.buf = append(h.buf, 0)
	}
	h.dirty = true
	return copy(h.buf[off:], p), nil
}

func (h *textHandle) Truncate(_ context.Context, size uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.f.c.add("truncate(%d)", size)
	if size > 1<<16 {
		return errno.ErrTooLarge
	}
	h.buf, h.dirty = append(make([]byte, 0, size), h.buf...)[:size], true
	return nil
}

func (h *textHandle) Flush(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.f.c.add("flush")
	if !h.dirty {
		return nil
	}
	if strings.HasPrefix(string(h.buf), "bad") {
		return errno.New(errno.ErrBadValue, "bad is bad")
	}
	h.dirty = false
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	h.f.value = string(h.buf)
	return nil
}

func (h *textHandle) Release(context.Context) error {
	h.f.c.add("release")
	return nil
}

// odd is a file that misbehaves.
type odd struct {
	base
	c *calls
}

func (o *odd) Attr(context.Context) (vnode.Attr, error) { return regular(o.Ino(), 1<<20), nil }

func (o *odd) Open(_ context.Context, flags int) (vnode.Handle, error) {
	switch o.name {
	case "panic":
		panic("on purpose") //nolint:forbidigo // what a daemon must survive
	case "enosys":
		return nil, fmt.Errorf("wrapped: %w", syscall.ENOSYS)
	case "plain":
		return nil, errors.New("no errno at all")
	}
	return &slowHandle{o}, nil
}

// slowHandle blocks in ReadAt until the caller gives up.
type slowHandle struct{ o *odd }

func (h *slowHandle) Flags() vnode.OpenFlags { return vnode.DirectIO | vnode.NonSeekable }
func (h *slowHandle) ReadAt(ctx context.Context, _ []byte, _ int64) (int, error) {
	h.o.c.add("blocked")
	<-ctx.Done()
	h.o.c.add("woken")
	return 0, ctx.Err()
}
func (h *slowHandle) Release(context.Context) error { return nil }

// page is an immutable file that counts its reads.
type page struct {
	base
	data  string
	reads atomic.Int64
}

func (p *page) Attr(context.Context) (vnode.Attr, error) {
	return regular(p.Ino(), uint64(len(p.data))), nil
}
func (p *page) Open(context.Context, int) (vnode.Handle, error) { return pageHandle{p}, nil }

type pageHandle struct{ p *page }

func (h pageHandle) Flags() vnode.OpenFlags { return vnode.KeepCache | vnode.NoFlush }
func (h pageHandle) ReadAt(_ context.Context, b []byte, off int64) (int, error) {
	h.p.reads.Add(1)
	if off >= int64(len(h.p.data)) {
		return 0, nil
	}
	return copy(b, h.p.data[off:]), nil
}
func (h pageHandle) Release(context.Context) error { return nil }
