package layertar

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
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
	// lists says that every directory which is opened will be listed, by
	// another goroutine.
	lists bool
}

// part is one layer's share of a directory.
type part struct {
	d     *safefs.Dir
	layer int
	marks
	// unread says that the marks are not known yet: in the lowest layer nothing
	// asks for them but isMark.
	unread bool
}

// marks are what a layer's share of a directory says about itself.
type marks struct {
	opaque   opacity
	redirect string // as it is written
	names    []byte // of its attributes, as ListxattrTo gives them
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
	// names are those of its attributes if listed says that they were read.
	names  []byte
	listed bool
	// bare says that it had no attributes that are content right after st was read.
	bare bool
	// file, if set, is the file itself, open, and st is its: what its name
	// stands for by now does not matter. It stays its opener's.
	file *safefs.File
}

// getxattr reads an attribute.
func (e *uentry) getxattr(attr string) ([]byte, error) {
	if e.file != nil {
		return e.file.Getxattr(attr)
	}
	return e.dir.Getxattr(e.name, attr)
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
	return dir, u.rootTo(dir)
}

// rootTo is root into an empty directory, which stays empty on an error.
func (u *union) rootTo(dir *udir) error {
	for i, r := range u.roots {
		d, err := u.openDir(r, ".")
		if err != nil {
			return errors.Join(err, dir.close())
		}
		if stop, err := u.add(dir, d, i); err != nil {
			return errors.Join(err, dir.close())
		} else if stop {
			break
		}
	}
	return nil
}

func (u *union) openDir(d *safefs.Dir, name string) (*safefs.Dir, error) {
	if u.lists {
		return d.OpenDirToRead(name)
	}
	return d.OpenDir(name)
}

func (d *udir) close() error {
	var err error
	for _, p := range d.parts {
		err = errors.Join(err, p.d.Close())
	}
	d.parts = d.parts[:0]
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

// attr reads a mark of an entry, nil when there is none.
func (u *union) attr(e *uentry, mark string) ([]byte, error) {
	for _, p := range u.prefixes() {
		v, err := e.getxattr(p + mark)
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

// part is a layer's share with its marks.
func (u *union) part(d *safefs.Dir, layer int) (part, error) {
	p, err := u.marked(d, layer, make([]byte, 128))
	if err != nil || p.opaque != opaqueNot || u.style != whiteout.Files {
		return p, err
	}
	if _, err = d.Stat(whiteout.OpaqueName); err == nil {
		p.opaque = opaqueAll
	} else if errors.Is(err, syscall.ENOENT) {
		err = nil
	}
	return p, err
}

// marked is part but for a mark that is a file. Most directories have no
// marks: so the names of their attributes are listed, into buf if they fit, and what is there is read.
func (u *union) marked(d *safefs.Dir, layer int, buf []byte) (part, error) {
	p := part{d: d, layer: layer}
	if len(u.prefixes()) == 0 {
		return p, nil
	}
	var err error
	if p.names, err = d.ListxattrTo(buf, "."); err != nil && !errors.Is(err, syscall.EOPNOTSUPP) {
		return p, err
	}
	has := func(mark string) bool {
		return slices.ContainsFunc(u.prefixes(), func(prefix string) bool { return hasName(p.names, prefix+mark) })
	}
	self := &uentry{name: ".", dir: d}
	if has("redirect") {
		v, err := u.attr(self, "redirect")
		if err != nil {
			return p, err
		}
		p.redirect = string(v)
	}
	if has("opaque") {
		v, err := u.attr(self, "opaque")
		switch {
		case err != nil:
			return p, err
		case string(v) == "y":
			p.opaque = opaqueAll
		case string(v) == "x":
			p.opaque = opaqueMarks
		}
	}
	return p, nil
}

// hasName tells whether a list of names, each with a zero byte, has one.
func hasName(names []byte, name string) bool {
	for len(names) > 0 {
		n := bytes.IndexByte(names, 0)
		if n < 0 {
			n = len(names)
		}
		if string(names[:n]) == name {
			return true
		}
		names = names[min(n+1, len(names)):]
	}
	return false
}

// isMark tells whether an entry is a whiteout: a device 0:0, or, in a
// directory that says so, an empty file with the attribute.
func (u *union) isMark(p *part, name string, st *safefs.Stat) (bool, error) {
	if u.style == whiteout.Apply {
		return false, nil
	}
	if whiteout.IsDevice(st.Mode, st.Rdev) {
		return true, nil
	}
	if st.Type() != unix.S_IFREG || st.Size != 0 {
		return false, nil
	}
	if p.unread {
		read, err := u.part(p.d, p.layer)
		if err != nil {
			return false, err
		}
		*p = read
	}
	if p.opaque != opaqueMarks {
		return false, nil
	}
	v, err := u.attr(&uentry{name: name, dir: p.d}, "whiteout")
	return v != nil, err
}

// child looks a name up; nil when there is none.
func (u *union) child(dir *udir, name string) (*uentry, error) {
	e := &uentry{}
	if found, err := u.childTo(e, dir, name); !found || err != nil {
		return nil, err
	}
	return e, nil
}

// childTo is child into e; false when there is none.
func (u *union) childTo(e *uentry, dir *udir, name string) (bool, error) {
	for i := range dir.parts {
		p := &dir.parts[i]
		st, white, err := u.look(p, name)
		switch {
		case errors.Is(err, syscall.ENOENT):
			continue
		case err != nil:
			return false, err
		case white:
			return false, nil
		}
		*e = uentry{name: name, dir: p.d, at: i, st: st}
		return true, nil
	}
	return false, nil
}

// look finds a name in one share; ENOENT when it says nothing of it.
func (u *union) look(p *part, name string) (st safefs.Stat, white bool, err error) {
	st, err = p.d.Stat(name)
	if err == nil {
		white, err = u.isMark(p, name, &st)
		return st, white, err
	}
	if u.style != whiteout.Files || !errors.Is(err, syscall.ENOENT) {
		return st, false, err
	}
	if _, werr := p.d.Stat(whiteout.Name(name)); werr == nil {
		return st, true, nil
	}
	return st, false, err
}

// open opens a directory of the union: e's own share, and those below it.
func (u *union) open(dir *udir, e *uentry) (*udir, error) {
	out := &udir{}
	err := u.openTo(out, dir, e)
	if err != nil {
		return nil, errors.Join(err, out.close())
	}
	return out, nil
}

// openTo is open into an empty directory, which the caller closes also after an error.
func (u *union) openTo(out, dir *udir, e *uentry) error {
	p := &dir.parts[e.at]
	d, err := u.openDir(p.d, e.name)
	if err != nil {
		return ofEntry(err)
	}
	next, more, err := u.join(out, p, d, e.name, e.at == len(dir.parts)-1)
	if err != nil || !more {
		return err
	}
	_, err = u.gather(out, dir, next, e.at+1)
	return err
}

// gather opens what the shares of a directory from `at` on have as directories
// under a name, down to the first that has something else; stopped says that there was
// one. It opens before it looks: where there is nothing to open there is no
// need to look.
func (u *union) gather(out, dir *udir, name string, at int) (stopped bool, err error) {
	for i := at; i < len(dir.parts); i++ {
		p := &dir.parts[i]
		d, err := u.openDir(p.d, name)
		switch {
		case errors.Is(err, syscall.ENOENT):
			if u.hiddenBelow(p, name) {
				return true, nil
			}
			continue
		case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP):
			return true, nil
		case err != nil:
			return false, err
		}
		next, more, err := u.join(out, p, d, name, i == len(dir.parts)-1)
		if err != nil || !more {
			return false, err
		}
		name = next
	}
	return false, nil
}

// join adds a share that was opened; next is the name to go on with below it, if
// there is more.
func (u *union) join(out *udir, p *part, d *safefs.Dir, name string, last bool) (next string, more bool, err error) {
	stop, err := u.add(out, d, p.layer)
	if err != nil || stop || (!last && u.hiddenBelow(p, name)) {
		return "", false, err
	}
	next = u.redirect(out.parts[len(out.parts)-1].redirect)
	if strings.HasPrefix(next, "/") {
		return "", false, u.gatherAbs(out, next, p.layer+1)
	}
	if next == "" {
		next = name
	}
	return next, true, nil
}

// hiddenBelow tells whether a share has a whiteout of the style Files beside a
// directory of the same name, as peers leave it: what is below does not show.
func (u *union) hiddenBelow(p *part, name string) bool {
	if u.style != whiteout.Files {
		return false
	}
	_, err := p.d.Stat(whiteout.Name(name))
	return err == nil
}

// add adds one share; stop says that nothing below it shows.
func (u *union) add(out *udir, d *safefs.Dir, layer int) (stop bool, err error) {
	p := part{d: d, layer: layer, unread: true}
	if u.lists || layer < len(u.roots)-1 || u.style == whiteout.Files {
		p, err = u.part(d, layer)
	}
	out.parts = append(out.parts, p)
	return p.opaque == opaqueAll, err
}

// enter opens and adds one share; next is its redirect.
func (u *union) enter(out *udir, p *part, name string) (next string, stop bool, err error) {
	d, err := u.openDir(p.d, name)
	if err != nil {
		return "", false, ofEntry(err)
	}
	if stop, err = u.add(out, d, p.layer); err != nil || stop {
		return "", true, err
	}
	return u.redirect(out.parts[len(out.parts)-1].redirect), false, nil
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
		up, err := u.partIn(i, dir)
		if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
			continue
		}
		if err != nil {
			return err
		}
		st, white, err := u.look(&up, base)
		var next string
		stop := err == nil && (white || !st.IsDir())
		if err == nil && !stop {
			next, stop, err = u.enter(out, &up, base)
		}
		if errors.Is(err, syscall.ENOENT) {
			err = nil
		}
		if err = errors.Join(err, up.d.Close()); err != nil || stop {
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

// partIn opens a directory of one layer.
func (u *union) partIn(layer int, dir string) (part, error) {
	d, err := u.openIn(layer, dir)
	if err != nil {
		return part{}, err
	}
	p, err := u.part(d, layer)
	if err != nil {
		return part{}, errors.Join(err, d.Close())
	}
	return p, nil
}

// content opens a regular file's data: its own, which is e.file if that is set, or
// for a metacopy that of the first file below which has any.
func (u *union) content(dir *udir, e *uentry) (*safefs.File, error) {
	meta, err := u.attr(e, "metacopy")
	if err != nil {
		return nil, err
	}
	if meta == nil && e.file != nil {
		return e.file, nil
	}
	if meta == nil {
		return e.dir.OpenFile(e.name)
	}
	red, err := u.attr(e, "redirect")
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

func (u *union) contentAbs(abs string, from int) (*safefs.File, error) {
	dir, base := splitName(abs[1:])
	all := &udir{}
	defer func() { _ = all.close() }() // O_PATH descriptors: nothing to lose
	for i := from; i < len(u.roots); i++ {
		p, err := u.partIn(i, dir)
		if err == nil {
			all.parts = append(all.parts, p)
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
