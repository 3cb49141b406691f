package fuseoverlay

import (
	"errors"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/safefs"
)

// hit is what one layer has under one name.
type hit struct {
	spot
	mark
	st safefs.Stat
	// naked: a regular file that was found to have no extended attribute.
	naked bool
	// covered: a directory on which another filesystem is mounted.
	covered bool
	made    *place // what enter returns; nil: a new one
}

// enter makes a hit that is a directory a place.
func (h *hit) enter() *place {
	if h.made != nil {
		return h.made
	}
	p := &place{
		tree: h.place.tree, layer: h.place.layer, up: h.place, name: h.name,
		dev: h.st.Dev, ino: h.st.Ino, xwhiteouts: h.opacity == xwhiteouts, empty: h.covered,
	}
	if p.empty {
		p.dev, p.ino = p.up.dev, p.up.ino // see openIn
	}
	return p
}

// probe looks at name in p, marks included. Those of directories in the bottom
// layer mean nothing and are not read. What it sees goes to at.
func (p *place) probe(name string, at *hit) error {
	if p.empty {
		*at = hit{spot: spot{p, name}}
		return nil
	}
	if p.lacks(name) {
		*at = hit{spot: spot{p, name}, mark: mark{kind: missing}}
		return nil
	}
	h, err := p.enter()
	if err != nil {
		return err
	}
	defer p.tree.cache.leave(h)
	*at = hit{spot: spot{p, name}}
	if p.writable() {
		at.st, err = p.tree.loans.seen(func() (safefs.Stat, error) { return p.stat(h.dir, name) })
	} else {
		at.st, err = p.stat(h.dir, name)
	}
	if absent(err) {
		at.kind, err = p.absentKind(h.dir, name)
		p.missed(h.dir)
		return p.layer.explain(err)
	}
	if err != nil {
		return p.layer.explain(err)
	}
	at.kind = kindOf(&at.st)
	if p.covered(&at.st) {
		if at.covered = at.kind == directory && !p.writable(); !at.covered {
			return p.errCovered(name)
		}
		return p.layer.explain(at.likeAbove(h.dir))
	}
	if !p.tree.last(p) || at.kind == regular { // a metacopy has no data there either
		err = p.readMarks(h.dir, at)
	}
	return p.layer.explain(err)
}

// absent tells whether a look-up found nothing; a name that is too long for a
// layer's filesystem is not in it.
func absent(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENAMETOOLONG)
}

func kindOf(st *safefs.Stat) kind {
	switch st.Type() {
	case unix.S_IFDIR:
		return directory
	case unix.S_IFREG:
		return regular
	case unix.S_IFCHR:
		if st.Rdev == 0 {
			return whiteout
		}
	}
	return other
}

// absentKind tells a name that p does not have from one that it hides.
func (p *place) absentKind(dir *safefs.Dir, name string) (kind, error) {
	if p.tree.last(p) {
		return missing, nil
	}
	hidden, err := p.hasMarkFile(dir, name)
	if err != nil || !hidden {
		return missing, err
	}
	return whiteout, nil
}

// hasMarkFile tells whether `.wh.NAME` is in p.
func (p *place) hasMarkFile(dir *safefs.Dir, name string) (bool, error) {
	if p.tree.formats&Files == 0 || len(whiteoutPrefix)+len(name) > maxName || p.lacksMark(name) {
		return false, nil
	}
	_, err := dir.Stat(whiteoutPrefix + name)
	if absent(err) {
		return false, nil
	}
	return err == nil, err
}

// readMarks completes at.mark.
func (p *place) readMarks(dir *safefs.Dir, at *hit) error {
	if at.kind != directory && at.kind != regular {
		return nil
	}
	var buf [256]byte
	list, err := dir.ListxattrTo(buf[:], at.name)
	if err != nil && !noXattrs(err) {
		return err
	}
	at.naked = err == nil && len(list) == 0 && at.kind == regular
	if err == nil && len(list) > 0 {
		if err := p.applyMarks(dir, at, safefs.SplitNames(list)); err != nil {
			return err
		}
	}
	if at.kind == directory && at.opacity != opaque && p.tree.formats&Files != 0 {
		return p.readOpaqueFile(dir, at)
	}
	return nil
}

func noXattrs(err error) bool {
	return errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENODATA) || errors.Is(err, syscall.ENOSYS)
}

func (p *place) applyMarks(dir *safefs.Dir, at *hit, names []string) error {
	formats := p.tree.formats
	if p.mayHoldWhiteouts() && at.kind == regular && at.st.Size == 0 && formats.hasWhiteout(names) {
		at.kind = whiteout
		return nil
	}
	for _, m := range markTable() {
		if formats&m.format == 0 || !slices.Contains(names, m.name) {
			continue
		}
		value, err := dir.Getxattr(at.name, m.name)
		if errors.Is(err, syscall.EACCES) && p.writable() {
			err = p.tree.loans.at(dir, at.name, func() (err error) {
				value, err = dir.Getxattr(at.name, m.name)
				return err
			})
		}
		if noXattrs(err) {
			continue
		}
		if err != nil {
			return err
		}
		m.apply(&at.mark, value)
	}
	return nil
}

// mayHoldWhiteouts tells whether files with an attribute may be whiteouts in p.
func (p *place) mayHoldWhiteouts() bool { return p.xwhiteouts || p.layer.attrWhiteouts }

// hasWhiteout tells whether the attributes make an empty file a whiteout.
func (f Format) hasWhiteout(names []string) bool {
	return f&Trusted != 0 && slices.Contains(names, trustedPrefix+"whiteout") ||
		f&User != 0 && slices.Contains(names, userPrefix+"whiteout")
}

// readOpaqueFile looks for `.wh..wh..opq` in the directory, and for `.wh.NAME`
// beside it: a layer that holds both whites out what is below and has its own.
func (p *place) readOpaqueFile(dir *safefs.Dir, at *hit) error {
	hidden, err := p.hasMarkFile(dir, at.name)
	if err != nil {
		return err
	}
	if !hidden {
		has, err := hasOpaqueFile(dir, at.name)
		if errors.Is(err, syscall.EACCES) && p.writable() {
			err = p.tree.loans.at(dir, at.name, func() (err error) {
				has, err = hasOpaqueFile(dir, at.name)
				return err
			})
		}
		if err != nil || !has {
			return err
		}
	}
	at.opacity = opaque
	return nil
}

func hasOpaqueFile(dir *safefs.Dir, name string) (bool, error) {
	r, err := dir.RefAt(name+"/"+opaqueFile, safefs.NoSymlinks)
	if absent(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_ = r.Close() // O_PATH: nothing to lose
	return true, nil
}
