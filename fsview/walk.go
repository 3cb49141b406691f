package fsview

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sort"
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
)

// maxLinks is how many symlinks one path may lead through.
const maxLinks = 40

// Walk finds path below root. The path may begin with `/`; `.` and `..` mean
// what they mean in a shell after symlinks were followed, and `..` of the root
// is the root. A symlink in the last place is followed only with follow. A
// symlink that leads out of the tree is ErrUnknown.
func Walk(ctx context.Context, root vnode.Node, path string, follow bool) (vnode.Node, error) {
	w := walker{ctx: ctx, shown: path, stack: []vnode.Node{root}}
	return w.walk(path, follow)
}

// walker is one walk: stack holds the directories from the root to here. What
// two walks found that share known is one node when it is one file, as in a
// server; with nil each look-up's node is its own.
type walker struct {
	ctx   context.Context
	shown string
	stack []vnode.Node
	links int
	known map[uint64]vnode.Node
}

// keep returns the node that was found first for n's file.
func (w *walker) keep(n vnode.Node) vnode.Node {
	if w.known == nil {
		return n
	}
	if first, ok := w.known[n.Ino()]; ok {
		return first
	}
	w.known[n.Ino()] = n
	return n
}

func (w *walker) walk(path string, follow bool) (vnode.Node, error) {
	parts := strings.Split(path, "/")
	for len(parts) > 0 {
		name := parts[0]
		parts = parts[1:]
		if err := w.ctx.Err(); err != nil {
			return nil, fmt.Errorf("walking to %s: %w", w.shown, err)
		}
		switch name {
		case "", ".":
			continue
		case "..":
			if len(w.stack) > 1 {
				w.stack = w.stack[:len(w.stack)-1]
			}
			continue
		}
		child, err := lookupIn(w.ctx, w.here(), name, w.shown)
		if err != nil {
			return nil, err
		}
		child = w.keep(child)
		link, err := symlinkOf(w.ctx, child)
		if err != nil {
			return nil, err
		}
		if link == nil || !follow && !moreParts(parts) {
			w.stack = append(w.stack, child)
			continue
		}
		target, err := w.target(link)
		if err != nil {
			return nil, err
		}
		parts = append(strings.Split(target, "/"), parts...)
	}
	return w.here(), nil
}

func (w *walker) here() vnode.Node { return w.stack[len(w.stack)-1] }

func (w *walker) target(link vnode.Symlink) (string, error) {
	if w.links++; w.links > maxLinks {
		return "", fmt.Errorf("%s leads through more than %d symlinks: %w", w.shown, maxLinks, syscall.ELOOP)
	}
	target, err := link.Readlink(w.ctx)
	if err != nil {
		return "", fmt.Errorf("reading a symlink of %s: %w", w.shown, err)
	}
	if strings.HasPrefix(target, "/") {
		return "", errno.New(errno.ErrUnknown, "%s leads through a symlink to %s, which is outside this tree: read the symlink itself", w.shown, target)
	}
	return target, nil
}

// symlinkOf returns n if it is a symlink, else nil. A tree may use one Go type
// for all its files, so that the type bits decide.
func symlinkOf(ctx context.Context, n vnode.Node) (vnode.Symlink, error) {
	l, ok := n.(vnode.Symlink)
	if !ok {
		return nil, nil
	}
	t, err := typeBitsOf(ctx, n)
	if err != nil || t != syscall.S_IFLNK {
		return nil, err
	}
	return l, nil
}

// directoryOf returns n if it is a directory, else nil.
func directoryOf(ctx context.Context, n vnode.Node) (vnode.Directory, error) {
	d, ok := n.(vnode.Directory)
	if !ok {
		return nil, nil
	}
	t, err := typeBitsOf(ctx, n)
	if err != nil || t != syscall.S_IFDIR {
		return nil, err
	}
	return d, nil
}

func typeBitsOf(ctx context.Context, n vnode.Node) (uint32, error) {
	switch n.(type) {
	case *dirNode, *treeNode:
		return syscall.S_IFDIR, nil
	case *linkNode:
		return syscall.S_IFLNK, nil
	}
	a, err := n.Attr(ctx)
	return a.Mode & syscall.S_IFMT, err
}

func moreParts(parts []string) bool {
	for _, p := range parts {
		if p != "" && p != "." {
			return true
		}
	}
	return false
}

func lookupIn(ctx context.Context, dir vnode.Node, name, shown string) (vnode.Node, error) {
	d, err := directoryOf(ctx, dir)
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, errno.New(errno.ErrNotDir, "%s: %q is below something that is not a directory", shown, name)
	}
	child, err := d.Lookup(ctx, name)
	if err != nil {
		return nil, err
	}
	if child.Node == nil {
		return nil, errno.New(errno.ErrUnknown, "%s: there is no %q: list the directory to see what is there", shown, name)
	}
	return child.Node, nil
}

// Entry is one line of List.
type Entry struct {
	Name string
	Node vnode.Node
	Attr vnode.Attr
	// Owned says that Attr's owner is the one that a container sees.
	Owned bool
	// Target is a symlink's, else "".
	Target string
}

// List returns the entries of the directory at path, or the one file that it
// names, sorted by name.
func List(ctx context.Context, root vnode.Node, path string) ([]Entry, error) {
	n, err := Walk(ctx, root, path, true)
	if err != nil {
		return nil, err
	}
	d, err := directoryOf(ctx, n)
	if err != nil {
		return nil, err
	}
	if d == nil {
		e, err := entryOf(ctx, path, n)
		return []Entry{e}, err
	}
	return listDir(ctx, d)
}

func sortEntries(list []Entry) {
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
}

func entryOf(ctx context.Context, name string, n vnode.Node) (Entry, error) {
	a, err := n.Attr(ctx)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Name: name, Node: n, Attr: a}
	if o, ok := n.(vnode.OwnerShower); ok {
		e.Attr.UID, e.Attr.GID, e.Owned = o.ShowOwner(ctx, a.UID, a.GID)
	}
	if l, ok := n.(vnode.Symlink); ok && a.Mode&syscall.S_IFMT == syscall.S_IFLNK {
		if e.Target, err = l.Readlink(ctx); err != nil {
			return Entry{}, err
		}
	}
	return e, nil
}

// ReadFile copies the file at path to w and returns how many bytes it had.
func ReadFile(ctx context.Context, root vnode.Node, path string, w io.Writer) (n int64, err error) {
	h, err := openAt(ctx, root, path, os.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer func() {
		if rerr := h.Release(ctx); err == nil {
			err = rerr
		}
	}()
	buf := make([]byte, 128<<10)
	for {
		got, err := h.ReadAt(ctx, buf, n)
		if got > 0 {
			if _, werr := w.Write(buf[:got]); werr != nil {
				return n, fmt.Errorf("writing what %s holds: %w", path, werr)
			}
			n += int64(got)
		}
		if errors.Is(err, io.EOF) || err == nil && got == 0 {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// WriteFile replaces the file at path by what r yields, or with appending set
// adds it at the end, by the same rules as a write through a mount, but that
// nothing is committed when r fails before its end; of a text that is longer than
// a block (128 KiB), whole lines that came before may have been.
func WriteFile(ctx context.Context, root vnode.Node, path string, r io.Reader, appending bool) error {
	flags := os.O_WRONLY | os.O_TRUNC
	if appending {
		flags = os.O_WRONLY | os.O_APPEND
	}
	h, err := openToWrite(ctx, root, path, flags)
	if err != nil {
		return err
	}
	if err := fill(ctx, h, path, r, appending); err != nil {
		if v, ok := h.(*valueHandle); ok {
			v.forget()
		}
		return firstOf(err, h.Release(ctx))
	}
	if f, ok := h.(vnode.Flusher); ok {
		if err := f.Flush(ctx); err != nil {
			return firstOf(err, h.Release(ctx))
		}
	}
	return h.Release(ctx)
}

// firstOf drops the second error, which follows from the first.
func firstOf(err, _ error) error { return err }

func fill(ctx context.Context, h vnode.Handle, path string, r io.Reader, appending bool) error {
	w, ok := h.(vnode.Writer)
	if !ok {
		return errno.New(errno.ErrReadOnly, "%s cannot be written", path)
	}
	var off int64
	if a, ok := h.(vnode.HandleAttr); ok && appending {
		attr, err := a.Attr(ctx)
		if err != nil {
			return err
		}
		off = int64(attr.Size)
	}
	buf := make([]byte, 128<<10)
	for {
		n, rerr := io.ReadFull(r, buf)
		if rerr != nil && rerr != io.EOF && rerr != io.ErrUnexpectedEOF {
			return fmt.Errorf("reading what to write into %s: %w", path, rerr)
		}
		for done := 0; done < n; {
			m, err := w.WriteAt(ctx, buf[done:n], off)
			if err != nil {
				return err
			}
			done, off = done+m, off+int64(m)
		}
		if rerr != nil {
			return nil
		}
	}
}

func openAt(ctx context.Context, root vnode.Node, path string, flags int) (vnode.Handle, error) {
	n, err := Walk(ctx, root, path, true)
	if err != nil {
		return nil, err
	}
	d, err := directoryOf(ctx, n)
	if err != nil {
		return nil, err
	}
	if d != nil {
		return nil, errno.New(errno.ErrIsDir, "%s is a directory: name a file in it", path)
	}
	o, ok := n.(vnode.Opener)
	if !ok {
		return nil, errno.New(errno.ErrBadValue, "%s is not a file that can be opened", path)
	}
	return o.Open(ctx, flags)
}

// openToWrite opens path, or makes it where its directory can.
func openToWrite(ctx context.Context, root vnode.Node, path string, flags int) (vnode.Handle, error) {
	h, err := openAt(ctx, root, path, flags)
	if errno.Of(err) != syscall.ENOENT {
		return h, err
	}
	dir, name, perr := parentOf(ctx, root, path)
	if perr != nil {
		return nil, err
	}
	c, ok := dir.(vnode.Creator)
	if !ok {
		return nil, err
	}
	_, h, err = c.Create(ctx, name, flags|os.O_CREATE, 0o644)
	return h, err
}

// parentOf returns the directory of path and the last component.
func parentOf(ctx context.Context, root vnode.Node, path string) (vnode.Node, string, error) {
	return parentIn(ctx, root, path, nil)
}

// parentIn is parentOf with the nodes that an earlier walk has found.
func parentIn(ctx context.Context, root vnode.Node, path string, known map[uint64]vnode.Node) (vnode.Node, string, error) {
	trimmed := strings.TrimRight(path, "/")
	i := strings.LastIndexByte(trimmed, '/')
	name := trimmed[i+1:]
	if name == "" || name == "." || name == ".." {
		return nil, "", errno.New(errno.ErrBadValue, "%q does not end in a name: say what to make or change", path)
	}
	if len(name) > maxEntry {
		return nil, "", errno.New(errno.ErrNameTooLong, "%q… has more than %d bytes: choose a shorter name, or write `names`", clip(name), maxEntry)
	}
	w := walker{ctx: ctx, shown: trimmed[:i+1], stack: []vnode.Node{root}, known: known}
	dir, err := w.walk(trimmed[:i+1], true)
	if err != nil {
		return nil, "", err
	}
	d, err := directoryOf(ctx, dir)
	if err != nil {
		return nil, "", err
	}
	if d == nil {
		return nil, "", errno.New(errno.ErrNotDir, "%s is not in a directory", path)
	}
	return dir, name, nil
}

// Mkdir makes the directory path. As mkdir(2), it fails with EEXIST when the
// name is taken in any form.
func Mkdir(ctx context.Context, root vnode.Node, path string) error {
	dir, name, err := parentOf(ctx, root, path)
	if err != nil {
		return err
	}
	if _, err := lookupIn(ctx, dir, name, path); err == nil {
		return errno.New(errno.ErrDuplicate, "%s exists already: choose another name", path)
	}
	m, ok := dir.(vnode.Mkdirer)
	if !ok {
		return errNoChange(path)
	}
	_, err = m.Mkdir(ctx, name, 0o755)
	return err
}

// Rmdir removes the directory path.
func Rmdir(ctx context.Context, root vnode.Node, path string) error {
	dir, name, err := parentOf(ctx, root, path)
	if err != nil {
		return err
	}
	n, err := lookupIn(ctx, dir, name, path)
	if err != nil {
		return err
	}
	d, err := directoryOf(ctx, n)
	if err != nil {
		return err
	}
	if d == nil {
		return errno.New(errno.ErrNotDir, "%s is not a directory: rmdir takes the directory of an object", path)
	}
	r, ok := dir.(vnode.Rmdirer)
	if !ok {
		return errNoChange(path)
	}
	return r.Rmdir(ctx, name)
}

// Unlink removes what is not a directory.
func Unlink(ctx context.Context, root vnode.Node, path string) error {
	dir, name, err := parentOf(ctx, root, path)
	if err != nil {
		return err
	}
	n, err := lookupIn(ctx, dir, name, path)
	if err != nil {
		return err
	}
	d, err := directoryOf(ctx, n)
	if err != nil {
		return err
	}
	if d != nil {
		return errno.New(errno.ErrIsDir, "%s is a directory: use rmdir", path)
	}
	u, ok := dir.(vnode.Unlinker)
	if !ok {
		return errNoChange(path)
	}
	return u.Unlink(ctx, name)
}

// Rename moves from to the path to, as `mv -T` does.
func Rename(ctx context.Context, root vnode.Node, from, to string) error {
	known := map[uint64]vnode.Node{}
	dir, name, err := parentIn(ctx, root, from, known)
	if err != nil {
		return err
	}
	if _, err := lookupIn(ctx, dir, name, from); err != nil {
		return err
	}
	newDir, newName, err := parentIn(ctx, root, to, known)
	if err != nil {
		return err
	}
	r, ok := dir.(vnode.Renamer)
	if !ok {
		return errNoChange(from)
	}
	return r.Rename(ctx, name, newDir, newName, 0)
}

// Symlink makes path a symlink to target, as `ln -s` does.
func Symlink(ctx context.Context, root vnode.Node, target, path string) error {
	dir, name, err := parentOf(ctx, root, path)
	if err != nil {
		return err
	}
	if _, err := lookupIn(ctx, dir, name, path); err == nil {
		return errno.New(errno.ErrDuplicate, "%s exists already: remove it first or choose another name", path)
	}
	s, ok := dir.(vnode.Symlinker)
	if !ok {
		return errNoChange(path)
	}
	_, err = s.Symlink(ctx, name, target)
	return err
}

func errNoChange(path string) error {
	return errno.New(errno.ErrForbidden, "the directory of %s does not let its entries be changed", path)
}

// TypeOf returns the io/fs form of the type and permission bits of mode.
func TypeOf(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	for _, t := range []struct {
		bits uint32
		as   fs.FileMode
	}{
		{syscall.S_IFDIR, fs.ModeDir}, {syscall.S_IFLNK, fs.ModeSymlink},
		{syscall.S_IFCHR, fs.ModeDevice | fs.ModeCharDevice}, {syscall.S_IFBLK, fs.ModeDevice},
		{syscall.S_IFIFO, fs.ModeNamedPipe}, {syscall.S_IFSOCK, fs.ModeSocket},
	} {
		if mode&syscall.S_IFMT == t.bits {
			m |= t.as
		}
	}
	for _, t := range []struct {
		bits uint32
		as   fs.FileMode
	}{{syscall.S_ISUID, fs.ModeSetuid}, {syscall.S_ISGID, fs.ModeSetgid}, {syscall.S_ISVTX, fs.ModeSticky}} {
		if mode&t.bits != 0 {
			m |= t.as
		}
	}
	return m
}
