package fuseoverlay

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/safefs"
)

// renaming is a rename on its way: what is asked, then what was found, then
// what is to be done.
type renaming struct {
	from, to         *node // directories
	oldName, newName string
	flags            uint32

	src, dst  *node // dst nil: nothing there
	redirects bool  // merged directories are not copied, and get redirects
	plan      renamePlan

	held    *safefs.Ref // the directory that is replaced
	cleared bool        // an empty copy is in its place, and it in work
	links   int         // by how much the recorded count of the file that is replaced was changed
}

// renamePlan is the one system call and what must come before it.
type renamePlan struct {
	flags uint
	// opaqueSrc, opaqueDst: mark the moved directory before it moves.
	opaqueSrc, opaqueDst bool
	// redirectSrc, redirectDst: instead, say where its lower layers have it.
	redirectSrc, redirectDst bool
	// clear: exchange the empty target directory with one without whiteouts.
	clear bool
	// uncover: after an exchange with a whiteout, the whiteout that lies in
	// the old place hides nothing and is removed.
	uncover bool
	// mark: a mark is made for the old name first, and put there after the move.
	mark bool
}

// facts are what the plan of a rename depends on.
type facts struct {
	exchange, isDir, dstIsDir, dstExists bool
	belowSrc                             bool // a lower layer has the name
	mergedTo, mergedFrom                 bool // lower layers have the directory
	mergedSrc, mergedDst                 bool // what moves was merged
	whiteoutDst                          bool // the upper has a whiteout at a directory's target
	dirtyDst                             bool // the target directory holds whiteouts
	dotWh, attrWh                        bool
	redirects                            bool // may be written
}

// planRename decides. It makes no system call.
func planRename(f facts) renamePlan {
	var p renamePlan
	p.opaqueSrc, p.redirectSrc = f.marks(f.isDir, f.mergedTo, f.mergedSrc)
	if f.exchange {
		p.flags = unix.RENAME_EXCHANGE
		p.opaqueDst, p.redirectDst = f.marks(f.dstIsDir, f.mergedFrom, f.mergedDst)
		return p
	}
	p.clear = f.isDir && f.dstExists && f.dirtyDst
	switch {
	case f.dotWh:
		p.mark = f.belowSrc
	case f.isDir && f.whiteoutDst:
		p.flags = unix.RENAME_EXCHANGE
		p.uncover = !f.belowSrc
	case f.attrWh:
		p.mark = f.belowSrc // no filesystem leaves such a whiteout behind by itself
	case f.belowSrc:
		p.flags = unix.RENAME_WHITEOUT
	}
	return p
}

// marks says which mark a file gets that comes into a directory (of lower
// layers too: mergedTo), and was itself one of lower layers too (merged).
func (f facts) marks(isDir, mergedTo, merged bool) (opaque, redirect bool) {
	if merged && f.redirects {
		return false, true
	}
	return isDir && (mergedTo || merged), false
}

// rename moves oldName in from to newName in to; flags are renameat2's.
func (o *Overlay) rename(ctx context.Context, from *node, oldName string, to *node, newName string, flags uint32) error {
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 || flags == unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE {
		return fmt.Errorf("rename with flags %#x: %w", flags, syscall.EINVAL)
	}
	if err := o.checkName(newName); err != nil {
		return err
	}
	r := &renaming{from: from, to: to, oldName: oldName, newName: newName, flags: flags}
	defer func() {
		for _, n := range []*node{r.src, r.dst} {
			if n != nil {
				o.forget(n, 1)
			}
		}
	}()
	if err := o.prepareRename(ctx, r); err != nil || r.src == r.dst {
		return err
	}
	var trash string
	defer func() { o.discard(trash) }()
	o.renameMu.Lock()
	defer o.renameMu.Unlock()
	r.lock()
	defer r.unlock()
	return o.renameLocked(ctx, r, &trash)
}

// lock takes the directories' locks; with renameMu held for writing nobody
// else holds one while waiting for another.
func (r *renaming) lock() {
	r.from.dir.mu.Lock()
	if r.to != r.from {
		r.to.dir.mu.Lock()
	}
	if r.dst != nil && r.dst.isDir() && r.dst != r.from {
		r.dst.dir.mu.Lock()
	}
}

func (r *renaming) unlock() {
	if r.dst != nil && r.dst.isDir() && r.dst != r.from {
		r.dst.dir.mu.Unlock()
	}
	if r.to != r.from {
		r.to.dir.mu.Unlock()
	}
	r.from.dir.mu.Unlock()
}

// prepareRename finds both files and copies up what has to be, without locks.
func (o *Overlay) prepareRename(ctx context.Context, r *renaming) (err error) {
	if r.src, err = o.toRemove(ctx, r.from, r.oldName); err != nil {
		return err
	}
	if !r.to.isDir() {
		return syscall.ENOTDIR
	}
	if err := o.copyUp(ctx, r.to, allData); err != nil {
		return err
	}
	if r.dst, _, err = o.lookup(ctx, r.to, r.newName); err != nil {
		return err
	}
	if err := r.check(); err != nil || r.src == r.dst {
		return err
	}
	r.redirects = o.mayRedirect(r.src, r) && (r.flags&unix.RENAME_EXCHANGE == 0 || o.mayRedirect(r.dst, r))
	if err := o.movable(ctx, r.src, r.redirects); err != nil || r.dst == nil {
		return err
	}
	if r.flags&unix.RENAME_EXCHANGE != 0 {
		return o.movable(ctx, r.dst, r.redirects)
	}
	if r.dst.isDir() {
		return o.complete(ctx, r.dst)
	}
	return o.linkedUp(ctx, r.dst)
}

func (r *renaming) check() error {
	exchange := r.flags&unix.RENAME_EXCHANGE != 0
	switch {
	case exchange && r.dst == nil:
		return syscall.ENOENT
	case exchange || r.dst == nil:
	case r.flags&unix.RENAME_NOREPLACE != 0:
		return syscall.EEXIST
	case r.src.isDir() && !r.dst.isDir():
		return syscall.ENOTDIR
	case !r.src.isDir() && r.dst.isDir():
		return syscall.EISDIR
	}
	return nil
}

// movable copies n up so that its name in the upper is all there is of it: of
// a directory, unless a redirect will say where the rest is, the whole subtree.
func (o *Overlay) movable(ctx context.Context, n *node, redirect bool) error {
	if !n.isDir() || redirect {
		return o.copyUp(ctx, n, allData)
	}
	b := &budget{files: o.c.RenameFiles, bytes: o.c.RenameBytes}
	return o.subtreeUp(ctx, n, b)
}

// budget is how much a rename may still copy.
type budget struct {
	files int
	bytes int64
}

func (b *budget) take(n *node, size int64) error {
	if n.is(flagUp) {
		return nil
	}
	b.files--
	b.bytes -= size
	if b.files < 0 || b.bytes < 0 {
		return errno.New(errno.ErrCrossDevice, "the directory has more in lower layers than a rename copies: it is to be copied and removed")
	}
	return nil
}

// subtreeUp copies up n and all below it that a lower layer has.
func (o *Overlay) subtreeUp(ctx context.Context, n *node, b *budget) error {
	o.hold(n)
	todo := []*node{n}
	var err error
	for len(todo) > 0 {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if err == nil {
			err = o.copyUp(ctx, d, allData)
		}
		if err == nil && len(d.below()) > 0 {
			var dirs []*node
			dirs, err = o.childrenUp(ctx, d, b)
			todo = append(todo, dirs...)
		}
		o.forget(d, 1)
	}
	return err
}

// childrenUp copies up the children of d and returns those that are
// directories with one more look-up.
func (o *Overlay) childrenUp(ctx context.Context, d *node, b *budget) (dirs []*node, err error) {
	buf := make([]entry, 256)
	for cookie := uint64(0); ; {
		k, err := o.children(ctx, d, cookie, buf)
		if err != nil || k == 0 {
			return dirs, err
		}
		for _, e := range buf[:k] {
			cookie = e.cookie
			n, st, err := o.lookup(ctx, d, e.name)
			if err != nil {
				return dirs, err
			}
			if n == nil {
				continue
			}
			if err = b.take(n, int64(st.Size)); err == nil {
				err = o.copyUp(ctx, n, allData)
			}
			if err == nil {
				err = o.nameUp(n, d, e.name)
			}
			if err != nil {
				o.forget(n, 1)
				return dirs, err
			}
			if n.isDir() {
				dirs = append(dirs, n)
			} else {
				o.forget(n, 1)
			}
		}
	}
}

// nameUp gives an indexed file its name in the upper.
func (o *Overlay) nameUp(n, dir *node, name string) error {
	if n.indexName() == "" {
		return nil
	}
	o.renameMu.RLock()
	defer o.renameMu.RUnlock()
	dir.dir.mu.Lock()
	defer dir.dir.mu.Unlock()
	if !o.boundTo(n, dir, name) {
		return nil
	}
	if err := o.impureLocked(dir); err != nil {
		return err
	}
	return o.inUpperLocked(dir, func(d *safefs.Dir) error { return o.realName(n, d, name) })
}

// renameLocked looks again, plans and acts, with all locks held.
func (o *Overlay) renameLocked(ctx context.Context, r *renaming, trash *string) error {
	if !o.boundTo(r.src, r.from, r.oldName) || r.dst != nil && !o.boundTo(r.dst, r.to, r.newName) {
		return syscall.ENOENT
	}
	return o.inUpperLocked(r.from, func(fd *safefs.Dir) error {
		return o.inUpperLocked(r.to, func(td *safefs.Dir) error {
			f, err := o.renameFacts(ctx, r, td)
			if err != nil {
				return err
			}
			r.plan = planRename(f)
			return o.carryOut(r, f, fd, td, trash)
		})
	})
}

func (o *Overlay) renameFacts(ctx context.Context, r *renaming, td *safefs.Dir) (f facts, err error) {
	f = facts{
		exchange: r.flags&unix.RENAME_EXCHANGE != 0, isDir: r.src.isDir(),
		dstExists: r.dst != nil, dstIsDir: r.dst != nil && r.dst.isDir(),
		mergedTo: len(r.to.below()) > 0, mergedFrom: len(r.from.below()) > 0, dotWh: o.work.dotWh, attrWh: o.work.attrWh,
		redirects: r.redirects,
	}
	f.mergedSrc = f.isDir && len(r.src.stack()) > 1
	f.mergedDst = f.dstIsDir && len(r.dst.stack()) > 1
	if f.belowSrc, err = o.coversBelow(ctx, r.src, r.from, r.oldName); err != nil {
		return f, err
	}
	if f.dstExists && !f.exchange && f.isDir {
		if err := o.mustBeEmpty(r.dst); err != nil {
			return f, err
		}
		f.dirtyDst = r.dst.is(flagUp)
	}
	if !f.dstExists && f.isDir { // a file replaces a whiteout like anything
		st, err := td.Stat(r.newName)
		if err != nil && !absent(err) {
			return f, err
		}
		f.whiteoutDst = err == nil && o.work.isWhiteout(td, r.newName, &st)
	}
	return f, nil
}

// carryOut does what was planned.
func (o *Overlay) carryOut(r *renaming, f facts, fd, td *safefs.Dir, trash *string) error {
	p := r.plan
	if p.flags&unix.RENAME_WHITEOUT != 0 && !o.work.cover {
		return errno.New(errno.ErrCrossDevice, "the upper's filesystem cannot leave a whiteout behind: the file is to be copied and removed")
	}
	var mark, final string
	if p.mark {
		var err error
		if mark, final, err = o.stageMark(fd, r.oldName); err != nil {
			return err
		}
		defer func() { o.discard(mark) }()
	}
	if f.whiteoutDst && p.flags == unix.RENAME_EXCHANGE && !p.uncover {
		if err := o.work.allowWhiteouts(fd); err != nil {
			return err
		}
	}
	err := o.beforeRename(r, f, fd, td, trash)
	if err == nil {
		err = fd.Rename(r.oldName, td, r.newName, p.flags)
	}
	if err != nil {
		return errors.Join(err, o.takeBack(r, td, *trash))
	}
	if p.mark {
		// Put there after the move: a kill between shows the old file of the
		// layers below again, beside the new name; before it would hide both.
		if err := o.work.stage.Rename(mark, fd, final, 0); err != nil {
			o.degrade("%q was moved, and its old name cannot be marked as gone: %v", r.oldName, err)
		} else {
			mark = ""
		}
	}
	if p.uncover {
		if err := fd.Unlink(r.oldName); err != nil {
			o.log.Warnf("a whiteout that hides nothing stays at %q: %v", r.oldName, err)
		}
	}
	o.quota.settleDir(fd)
	o.quota.settleDir(td)
	o.renamed(r, f)
	return nil
}

// beforeRename marks, clears and keeps.
func (o *Overlay) beforeRename(r *renaming, f facts, fd, td *safefs.Dir, trash *string) error {
	for _, m := range []struct {
		n     *node
		dir   *node
		mark  bool
		redir bool
		in    *safefs.Dir
		name  string
	}{{r.src, r.to, r.plan.opaqueSrc, r.plan.redirectSrc, fd, r.oldName}, {r.dst, r.from, r.plan.opaqueDst, r.plan.redirectDst, td, r.newName}} {
		if m.n == nil || m.n == r.dst && !f.exchange {
			continue
		}
		if err := o.realName(m.n, m.in, m.name); err != nil {
			return err
		}
		if m.mark {
			if err := o.markOpaque(m.in, m.name); err != nil {
				return err
			}
		}
		if m.redir {
			if err := o.setRedirect(m.n, r, m.in, m.name); err != nil {
				return err
			}
		}
		if m.mark || m.redir {
			o.quota.settleName(m.in, m.name)
		}
		if err := o.impureLocked(m.dir); err != nil {
			return err
		}
	}
	if f.exchange || r.dst == nil {
		return nil
	}
	return o.beforeReplace(r, td, trash)
}

// changeOf is by how much the difference of link counts changes when name goes.
func (o *Overlay) changeOf(n *node, d *safefs.Dir, name string) int {
	if n.indexName() == "" {
		return 0
	}
	if above, err := o.work.inDir(d, name); err == nil && !above {
		return -1
	}
	return 0
}

// realName sees that an indexed file has its name in the upper, as others
// may be there in lower layers only.
func (o *Overlay) realName(n *node, d *safefs.Dir, name string) error {
	idx := n.indexName()
	if idx == "" {
		return nil
	}
	above, err := o.work.inDir(d, name)
	if err != nil || above {
		return err
	}
	if err := o.work.index.Link(idx, d, name); err != nil {
		return err
	}
	o.linksChanged(n, -1)
	return nil
}

// renamed brings the table up to date after the move.
func (o *Overlay) renamed(r *renaming, f facts) {
	if r.dst != nil && !f.exchange && r.dst.isDir() {
		r.dst.dir.dead = true
		if r.held != nil {
			o.holdOrphan(r.dst, r.held)
		}
	}
	o.treeMu.Lock()
	o.unbindLocked(r.src, r.from, r.oldName)
	r.from.dir.idx.remove(r.oldName)
	if r.dst != nil {
		o.unbindLocked(r.dst, r.to, r.newName)
		r.to.dir.idx.remove(r.newName)
	}
	o.bindLocked(r.src, r.to, r.newName)
	if f.exchange {
		o.bindLocked(r.dst, r.from, r.oldName)
	}
	o.treeMu.Unlock()
	if r.src.isDir() {
		o.moved(r.src, r.to, r.newName, r.plan.redirectSrc)
	}
	if f.exchange && r.dst.isDir() {
		o.moved(r.dst, r.from, r.oldName, r.plan.redirectDst)
	}
	if r.dst != nil && !f.exchange && !r.dst.isDir() {
		o.linksChanged(r.dst, r.links)
		o.dropIndex(r.dst)
	}
}

// moved tells a directory where it is now and, unless a redirect says where
// lower layers have it, it and those below it that they are of the upper only.
func (o *Overlay) moved(n, to *node, name string, redirected bool) {
	top := n.upper()
	top.moved.Store(&spot{to.upper(), name})
	if redirected {
		return
	}
	merged := len(n.stack()) > 1
	todo := []*node{n}
	for len(todo) > 0 {
		c := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if len(c.stack()) == 1 {
			continue
		}
		c.setStack(c.stack()[:1])
		o.treeMu.Lock()
		c.dir.idx.all(func(e *entry) {
			if e.node != nil && e.node.isDir() {
				todo = append(todo, e.node)
			}
		})
		o.treeMu.Unlock()
	}
	if !merged {
		return
	}
	if err := o.sweepWhiteouts(top); err != nil {
		o.log.Warnf("whiteouts that hide nothing stay in %q: %v", name, err)
	}
}

// sweepWhiteouts removes the whiteouts in the upper directory p and below, which
// hide nothing. A directory there that a redirect led to lower layers, all of it
// copied up now, is made opaque first.
func (o *Overlay) sweepWhiteouts(p *place) error {
	return p.walk(func(d *safefs.Dir, below func(string, *safefs.Stat)) error {
		return o.work.loans.during(d.Self(), func() error { return o.sweepWhiteoutsIn(p, d, below) })
	})
}

func (o *Overlay) sweepWhiteoutsIn(p *place, d *safefs.Dir, below func(string, *safefs.Stat)) error {
	var gone []string
	var redirects error
	err := d.ReadDir(func(e safefs.Entry) error {
		switch {
		case o.c.Formats.isMarkFile(e.Name) && e.Name != opaqueFile:
			gone = append(gone, e.Name)
		case e.Type != unix.S_IFREG || o.work.attrWh:
			st, err := p.stat(d, e.Name)
			if err != nil {
				return err
			}
			switch {
			case p.covered(&st):
			case o.work.isWhiteout(d, e.Name, &st):
				gone = append(gone, e.Name)
			case st.IsDir():
				if err := o.dropRedirect(d, e.Name); err != nil {
					redirects = errors.Join(redirects, err)
					return nil
				}
				below(e.Name, &st)
			}
		}
		return nil
	})
	return errors.Join(err, redirects, unlinkAll(d, gone))
}

// unlinkAll removes names from d, whose times stay.
func unlinkAll(d *safefs.Dir, names []string) error {
	if len(names) == 0 {
		return nil
	}
	st, err := d.Stat(".")
	if err != nil {
		return err
	}
	for _, name := range names {
		err = errors.Join(err, d.Unlink(name))
	}
	return errors.Join(err, d.Utimens(".", st.Atime, st.Mtime))
}
