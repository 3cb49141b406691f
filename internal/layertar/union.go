package layertar

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/plyfs/plyfs/internal/unix"

	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// fuseOpaque is a device that the C mount program leaves in opaque directories
// beside the mark (format.md §2.5).
const fuseOpaque = ".wh..opq"

// union reads a stack of layer directories as one tree, top first: whiteouts,
// opaque marks, redirects and metacopies of the style are understood, nothing
// is followed out of a layer. Directories may be read by one goroutine.
type union struct {
	roots []*safefs.Dir
	style whiteout.Style
	// many, if set, is held while a list of many names is made: its memory is
	// needed once then, however many unions share the lock. Nothing else is
	// locked under it.
	many *sync.Mutex
}

// part is one layer's share of a directory.
type part struct {
	d     *safefs.Dir
	layer int
}

// udir is a directory of the union: the layers' shares, top first. It owns
// their descriptors.
type udir struct{ parts []part }

// uentry is what a name in a udir stands for. dir is the share that it was
// found in and stays the udir's.
type uentry struct {
	name string
	dir  *safefs.Dir
	at   int // index into the udir's parts
	st   safefs.Stat
}

func openUnion(dirs []string, style whiteout.Style) (*union, error) {
	u := &union{style: style}
	for _, dir := range dirs {
		d, err := safefs.OpenRoot(dir)
		if err != nil {
			return nil, errors.Join(err, u.close())
		}
		u.roots = append(u.roots, d)
	}
	return u, nil
}

func (u *union) close() error {
	var err error
	for _, d := range u.roots {
		err = errors.Join(err, d.Close())
	}
	u.roots = nil
	return err
}

// root returns the union's root, cut off below an opaque layer.
func (u *union) root() (*udir, error) {
	dir := &udir{}
	for i, r := range u.roots {
		d, err := r.OpenDir(".")
		if err != nil {
			return nil, errors.Join(err, dir.close())
		}
		dir.parts = append(dir.parts, part{d, i})
		if mark, err := u.opaque(d); err != nil || mark == opaqueAll {
			return dir, err
		}
	}
	return dir, nil
}

func (d *udir) close() error {
	var err error
	for _, p := range d.parts {
		err = errors.Join(err, p.d.Close())
	}
	d.parts = nil
	return err
}

type opacity uint8

const (
	opaqueNot   opacity = iota
	opaqueMarks         // "x": the directory has whiteouts that are attributes
	opaqueAll           // "y": nothing below shows through
)

// prefixes returns the namespaces in which the style's marks are.
func (u *union) prefixes() []string {
	switch u.style {
	case whiteout.Trusted:
		return []string{whiteout.TrustedPrefix}
	case whiteout.User:
		return []string{whiteout.UserPrefix}
	case whiteout.Files:
		return []string{whiteout.TrustedPrefix, whiteout.UserPrefix, whiteout.FusePrefix}
	case whiteout.Apply:
	}
	return nil
}

// attr reads a mark of name in d, nil when there is none.
func (u *union) attr(d *safefs.Dir, name, mark string) ([]byte, error) {
	for _, p := range u.prefixes() {
		v, err := d.Getxattr(name, p+mark)
		switch {
		case err == nil:
			return v, nil
		case errors.Is(err, unix.ENODATA), errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.EPERM):
		default:
			return nil, err
		}
	}
	return nil, nil
}

func (u *union) opaque(d *safefs.Dir) (opacity, error) {
	v, err := u.attr(d, ".", "opaque")
	switch {
	case err != nil:
		return opaqueNot, err
	case string(v) == "y":
		return opaqueAll, nil
	case string(v) == "x":
		return opaqueMarks, nil
	case u.style != whiteout.Files:
		return opaqueNot, nil
	}
	if _, err := d.Stat(whiteout.OpaqueName); err == nil {
		return opaqueAll, nil
	} else if !errors.Is(err, syscall.ENOENT) {
		return opaqueNot, err
	}
	return opaqueNot, nil
}

// isMark tells whether an entry is a whiteout: a device 0:0, or, in a
// directory that says so, an empty file with the attribute.
func (u *union) isMark(d *safefs.Dir, name string, st *safefs.Stat) (bool, error) {
	if u.style == whiteout.Apply {
		return false, nil
	}
	if whiteout.IsDevice(st.Mode, st.Rdev) {
		return true, nil
	}
	if st.Type() != unix.S_IFREG || st.Size != 0 {
		return false, nil
	}
	if mark, err := u.opaque(d); err != nil || mark != opaqueMarks {
		return false, err
	}
	v, err := u.attr(d, name, "whiteout")
	return v != nil, err
}

// child looks a name up; nil when there is none.
func (u *union) child(dir *udir, name string) (*uentry, error) {
	for i, p := range dir.parts {
		st, white, err := u.look(p.d, name)
		switch {
		case errors.Is(err, syscall.ENOENT):
			continue
		case err != nil:
			return nil, err
		case white:
			return nil, nil
		}
		return &uentry{name, p.d, i, st}, nil
	}
	return nil, nil
}

// look finds a name in one share; ENOENT when it says nothing of it.
func (u *union) look(d *safefs.Dir, name string) (st safefs.Stat, white bool, err error) {
	st, err = d.Stat(name)
	if err == nil {
		white, err = u.isMark(d, name, &st)
		return st, white, err
	}
	if u.style != whiteout.Files || !errors.Is(err, syscall.ENOENT) {
		return st, false, err
	}
	if _, werr := d.Stat(whiteout.Name(name)); werr == nil {
		return st, true, nil
	}
	return st, false, err
}

// open opens a directory of the union: e's own share, and those below it.
func (u *union) open(dir *udir, e *uentry) (*udir, error) {
	out := &udir{}
	err := u.gather(out, dir, e)
	if err != nil {
		return nil, errors.Join(err, out.close())
	}
	return out, nil
}

func (u *union) gather(out, dir *udir, e *uentry) error {
	name := e.name
	for i := e.at; i < len(dir.parts); i++ {
		p := dir.parts[i]
		st, white, err := u.look(p.d, name)
		if errors.Is(err, syscall.ENOENT) {
			continue
		}
		if err != nil {
			return err
		}
		if white || !st.IsDir() {
			return nil
		}
		next, stop, err := u.enter(out, p, name)
		if err != nil || stop {
			return err
		}
		if strings.HasPrefix(next, "/") {
			return u.gatherAbs(out, next, p.layer+1)
		}
		if next != "" {
			name = next
		}
	}
	return nil
}

// enter adds one share; next is its redirect.
func (u *union) enter(out *udir, p part, name string) (next string, stop bool, err error) {
	d, err := p.d.OpenDir(name)
	if err != nil {
		return "", false, err
	}
	out.parts = append(out.parts, part{d, p.layer})
	mark, err := u.opaque(d)
	if err != nil || mark == opaqueAll {
		return "", true, err
	}
	red, err := u.attr(d, ".", "redirect")
	return u.redirect(string(red)), false, err
}

// redirect judges a redirect's text: one name, or a clean absolute path; what
// is neither is passed over.
func (u *union) redirect(text string) string {
	if strings.HasPrefix(text, "/") {
		if clean := "/" + cleanName(text); clean == text && clean != "/" {
			return text
		}
		return ""
	}
	if !safefs.ValidName(text) {
		return ""
	}
	return text
}

// gatherAbs goes on with a redirect's path in the layers from `from` down.
func (u *union) gatherAbs(out *udir, abs string, from int) error {
	dir, base := splitName(abs[1:])
	for i := from; i < len(u.roots); i++ {
		up, err := u.openIn(i, dir)
		if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
			continue
		}
		if err != nil {
			return err
		}
		st, white, err := u.look(up, base)
		var next string
		stop := err == nil && (white || !st.IsDir())
		if err == nil && !stop {
			next, stop, err = u.enter(out, part{up, i}, base)
		}
		if errors.Is(err, syscall.ENOENT) {
			err = nil
		}
		if err = errors.Join(err, up.Close()); err != nil || stop {
			return err
		}
		switch {
		case strings.HasPrefix(next, "/"):
			dir, base = splitName(next[1:])
		case next != "":
			base = next
		}
	}
	return nil
}

func (u *union) openIn(layer int, dir string) (*safefs.Dir, error) {
	if dir == "" {
		return u.roots[layer].OpenDir(".")
	}
	return u.roots[layer].OpenDirAt(dir, safefs.NoSymlinks)
}

// content opens a regular file's data: its own, or for a metacopy that of the
// first file below which has any.
func (u *union) content(dir *udir, e *uentry) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_NONBLOCK
	meta, err := u.attr(e.dir, e.name, "metacopy")
	if err != nil {
		return nil, err
	}
	if meta == nil {
		return e.dir.Open(e.name, flags, 0)
	}
	red, err := u.attr(e.dir, e.name, "redirect")
	if err != nil {
		return nil, err
	}
	name := e.name
	switch next := u.redirect(string(red)); {
	case strings.HasPrefix(next, "/"):
		return u.contentAbs(next, dir.parts[e.at].layer+1)
	case next != "":
		name = next
	}
	below := &udir{parts: dir.parts[e.at+1:]}
	low, err := u.child(below, name)
	if err != nil {
		return nil, err
	}
	if low == nil || low.st.Type() != unix.S_IFREG {
		return nil, fmt.Errorf("the data of %s, whose layer holds its attributes only, is in no layer below", quote(clip(e.name)))
	}
	return u.content(below, low)
}

func (u *union) contentAbs(abs string, from int) (*os.File, error) {
	dir, base := splitName(abs[1:])
	all := &udir{}
	defer func() { _ = all.close() }() // O_PATH descriptors: nothing to lose
	for i := from; i < len(u.roots); i++ {
		d, err := u.openIn(i, dir)
		if err == nil {
			all.parts = append(all.parts, part{d, i})
		} else if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ENOTDIR) && !errors.Is(err, syscall.ELOOP) {
			return nil, err
		}
	}
	low, err := u.child(all, base)
	if err != nil {
		return nil, err
	}
	if low == nil || low.st.Type() != unix.S_IFREG {
		return nil, fmt.Errorf("the data at %s, to which a layer refers, is in no layer below", quote(clip(abs)))
	}
	return u.content(all, low)
}
