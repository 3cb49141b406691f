package fuseoverlay

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/safefs"
)

// fileCopy is a staged copy of a regular file.
type fileCopy struct {
	p    *copyPlan
	r    *safefs.Ref
	name string // in work; "": it has none
	made safefs.Stat
}

// discard gives a copy without a name back, if there is one; nothing is lost.
func (c *fileCopy) discard() {
	if c != nil {
		_ = c.r.Close()
	}
}

// copyRegular copies a regular file up. The copy stays open: whoever asked for
// it goes on with it.
func (o *Overlay) copyRegular(ctx context.Context, n *node, p *copyPlan) error {
	c, err := o.stageCopy(ctx, n, p)
	if err != nil {
		return err
	}
	if err := o.settleCopy(c); err != nil {
		return errors.Join(err, o.unstage(c))
	}
	return o.placeCopy(n, c)
}

// stageCopy makes a copy that only lacks its place, once it is settled.
func (o *Overlay) stageCopy(ctx context.Context, n *node, p *copyPlan) (_ *fileCopy, err error) {
	c, err := o.newStaged(p)
	if err != nil {
		return nil, err
	}
	err = o.fillCopy(ctx, n, p, c.r, &c.made)
	if err != nil {
		return nil, errors.Join(err, o.unstage(c))
	}
	return c, nil
}

// newStaged makes the file of a copy, or takes one that was made already.
func (o *Overlay) newStaged(p *copyPlan) (c *fileCopy, err error) {
	if f := o.takeSpare(p); f != nil {
		p.older = true
		return &fileCopy{p: p, r: f.r, made: f.made}, nil
	}
	c = &fileCopy{p: p}
	if c.r, c.name, err = o.stageFile(p); err != nil {
		return nil, err
	}
	if c.made, err = c.r.Stat(); err != nil {
		return nil, errors.Join(err, o.unstage(c))
	}
	return c, nil
}

// settles tells whether c is to be settled before it gets its place.
func (o *Overlay) settles(c *fileCopy) bool { return c.p.size > 0 && !c.p.meta && o.settling() }

// settleCopy settles a staged copy where that has to be.
func (o *Overlay) settleCopy(c *fileCopy) error {
	if !o.settles(c) {
		return nil
	}
	return o.work.settle(c.r.Fd())
}

// unstage gives back what is left of a copy in work.
func (o *Overlay) unstage(c *fileCopy) (err error) {
	if c.r != nil {
		err = c.r.Close()
	}
	if c.name != "" {
		err = errors.Join(err, removeTree(o.work.stage, c.name))
	}
	return err
}

// placeCopy puts a staged copy of n in its place.
func (o *Overlay) placeCopy(n *node, c *fileCopy) (err error) {
	defer func() { err = errors.Join(err, o.unstage(c)) }()
	r, p := c.r, c.p
	return o.publish(n, func(d *safefs.Dir, to string) error {
		if err := o.linkCopy(n, p, r, &c.made, d, to); err != nil {
			return err
		}
		if !p.meta {
			c.r = nil
			o.fds.put(n, &backing{fd: r.Fd(), write: true, upper: true})
		}
		return nil
	}, func() error {
		c.r = nil
		if err := o.holdUnnamed(n, r); err != nil {
			return err
		}
		o.becomeUpper(n, p)
		return nil
	})
}

// fillCopy gives a staged file, made as st says, all that it is to have.
func (o *Overlay) fillCopy(ctx context.Context, n *node, p *copyPlan, r *safefs.Ref, st *safefs.Stat) error {
	if err := o.fillData(ctx, n, p, r); err != nil {
		return err
	}
	if err := o.dress(access{ref: r}, p, st); err != nil {
		return err
	}
	if p.index != "" {
		err := o.work.loans.during(r, func() error {
			return r.Setxattr(o.work.prefix+"nlink", formatLinks('U', int(p.st.Nlink)-1), 0)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (o *Overlay) fillData(ctx context.Context, n *node, p *copyPlan, r *safefs.Ref) error {
	switch {
	case p.meta:
		err := retryEINTR(func() error { return unix.Ftruncate(r.Fd(), p.size) })
		return errors.Join(err, r.Setxattr(o.work.prefix+"metacopy", nil, 0))
	case p.size == 0:
		return nil
	case p.src != nil:
		return o.copyData(ctx, p.src, r.Fd(), p.size)
	}
	src, err := openSource(n.lowerData())
	if err != nil {
		return err
	}
	defer src.close()
	return o.copyData(ctx, src, r.Fd(), p.size)
}

// linkCopy gives the copy, made as st says, its names.
func (o *Overlay) linkCopy(n *node, p *copyPlan, r *safefs.Ref, st *safefs.Stat, d *safefs.Dir, to string) error {
	if p.index != "" {
		if err := r.Link(o.work.index, p.index); err != nil {
			return fmt.Errorf("index of hard links: %w", err)
		}
	}
	if err := r.Link(d, to); err != nil {
		return errors.Join(err, o.unindex(p))
	}
	o.copied(n, p, st)
	o.linksChanged(n, 0)
	return nil
}

// unindex takes back the index entry of a copy that came to nothing.
func (o *Overlay) unindex(p *copyPlan) error {
	if p.index == "" {
		return nil
	}
	return o.work.index.Unlink(p.index)
}

// copied makes n the file st of the upper, which has its name.
func (o *Overlay) copied(n *node, p *copyPlan, st *safefs.Stat) {
	if p.index != "" {
		o.treeMu.Lock()
		o.addKeyLocked(n, fileID{st.Dev, st.Ino})
		o.treeMu.Unlock()
	} else if p.st.Nlink > 1 {
		o.splitOff(n, o.shownIno(st.Dev, st.Ino))
	}
	o.becomeUpper(n, p)
}

// splitOff gives n, the copy of one name of a lower file of several, a number of
// its own: it is another file now.
func (o *Overlay) splitOff(n *node, ino uint64) {
	n.rare().split.Store(ino)
	o.treeMu.Lock()
	defer o.treeMu.Unlock()
	if dir := n.home.dir; dir != nil {
		dir.dir.idx.bind(n.home.name, n)
	}
}

// tellSplit makes the kernel forget the number that n had. No lock is held: what
// is told of a directory waits for those who list it.
func (o *Overlay) tellSplit(n *node) {
	if n.number() == n.ino || o.numberChanged == nil {
		return
	}
	if dir := o.homeOf(n).dir; dir != nil {
		o.numberChanged(n, dir)
	}
}

// becomeUpper makes n upper as p says.
func (o *Overlay) becomeUpper(n *node, p *copyPlan) {
	n.copyMu.Lock()
	switch {
	case !p.meta:
		n.setData(nil)
	case n.data() == nil:
		data := n.lower
		n.setData(&data)
	}
	if p.index != "" {
		n.rare().links.index.Store(&p.index)
		n.rare().links.diff = int(p.st.Nlink) - 2
	}
	if n.clear(flagNaked) {
		n.set(flagBare) // the upper's filesystem may have given the copy a label
	}
	n.set(flagUp)
	n.copyMu.Unlock()
	o.fds.drop(n)
	if p.bare && o.modeChanged != nil {
		o.modeChanged(n)
	}
}

// stageFile makes a file in work, open for reading and writing: without a name
// where that can be, else with the one returned. Its mode is what it will be,
// but for what the owner needs, and bits that data or another owner would take.
func (o *Overlay) stageFile(p *copyPlan) (*safefs.Ref, string, error) {
	mode := uint32(0o600)
	if !o.keepsAside(unix.S_IFREG) {
		mode = stagedMode(p)
	}
	if o.work.unnamed {
		r, err := o.work.stage.OpenTemp(mode)
		return r, "", err
	}
	name := o.work.name()
	fd, err := o.work.stage.OpenFD(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, mode)
	if err != nil {
		return nil, "", err
	}
	return safefs.OpenedRef(fd), name, nil
}

// stagedMode is the mode that a copy's file has from the start.
func stagedMode(p *copyPlan) uint32 { return 0o600 | p.st.Mode&0o777 }

// completeData gives a metadata-only copy its data: written in place and
// synced, before the mark that it has none is taken off.
func (o *Overlay) completeData(ctx context.Context, n *node, size int64) (err error) {
	var r *safefs.Ref
	err = o.withUpper(n, func(a access) error {
		fd, err := openAccess(a, unix.O_RDWR)
		if err == nil {
			r = safefs.OpenedRef(fd)
		}
		return err
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	st, err := r.Stat()
	if err != nil {
		return err
	}
	p := &copyPlan{size: int64(st.Size)}
	if size >= 0 {
		p.size = min(p.size, size)
	}
	if err := o.completeRoom(n, p.size); err != nil {
		return err
	}
	defer func() {
		if err != nil { // the file is what it was
			_ = r.Utimens(st.Atime, st.Mtime)
		}
	}()
	if err := o.fillData(ctx, n, p, r); err != nil {
		return err
	}
	if o.settling() {
		if err := o.work.settle(r.Fd()); err != nil {
			return err
		}
	}
	err = o.withUpper(n, func(a access) error {
		if err := hasData(a); err != nil {
			return err
		}
		return a.utimens(st.Atime, st.Mtime)
	})
	if err == nil {
		o.becomeUpper(n, &copyPlan{})
	}
	return err
}

// hasData takes off the marks of a copy of metadata only.
func hasData(a access) error {
	for _, prefix := range []string{trustedPrefix, userPrefix} {
		for _, mark := range []string{"metacopy", "redirect"} {
			if err := a.removexattr(prefix + mark); err != nil && !noXattrs(err) && !errors.Is(err, syscall.EPERM) {
				return err
			}
		}
	}
	return nil
}
