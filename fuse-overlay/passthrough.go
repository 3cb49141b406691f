package fuseoverlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
)

// passing is what a mount in passthrough mode knows of open files. The kernel
// reads and writes the backing file of an open file by itself
// (Documentation/filesystems/fuse-passthrough.rst). Its rules: an inode has one
// backing file at a time, and while it has one, nobody has the inode open with
// its pages cached, and the other way round; a mixture fails the open with EIO.
//
// Only upper files that have their data are passed through. A lower file is not:
// its inode would keep the lower one as its backing file while somebody has it
// open, whatever is copied up. It is read as in the other modes, and a copy-up
// that finds it open changes nothing for those who have it: they go on
// asking, and so does everybody else until the last has closed it. An upper file
// stays what it is for good, so what is passed through never has to change.
type passing struct {
	server server
	log    func(format string, args ...any)
	giving *giving // see given.go

	mu sync.Mutex
	// open has the nodes that are open; guarded by mu, under which there is no
	// system call but those of the FUSE device, which wait for nothing.
	open map[*node]*handles
	// said are the errnos that were logged; guarded by mu.
	said map[syscall.Errno]bool
}

// handles counts a node's open files: those passed through, or the others. One
// of the two is 0.
type handles struct {
	passed, cached int
	id             int32 // the kernel's number for the backing file; valid while passed > 0
	// giving is closed when who opened the file first has given its contents; nil:
	// nobody gives any.
	giving chan struct{}
}

// What an open file is, as its handle says.
const (
	handleCached = 1
	handlePassed = 2
)

// passes tells whether n can be passed through.
func (n *node) passes() bool { return n.typ == unix.S_IFREG && n.is(flagUp) && !n.lacksData() }

// acquire counts one more open file of n, opened with flags, and returns its handle
// and, when it is to be passed through, the number of the backing file. What cannot
// be passed through is not; EINTR comes only to a caller who is killed while another's
// OPEN gives n's contents. Once it returns the kernel has them.
func (o *Overlay) acquire(ctx context.Context, n *node, flags uint32) (handle uint64, id int32, err error) {
	handle, id, given := o.pass.again(n)
	if handle == 0 {
		var mine bool
		if handle, id, given, mine = o.acquireFirst(n, flags); mine {
			defer o.pass.ends(n, given)
			o.give(n)
			return handle, id, nil
		}
	}
	if given == nil {
		return handle, id, nil
	}
	if err := await(ctx, given); err != nil {
		o.pass.release(n, handle)
		return 0, 0, err
	}
	return handle, id, nil
}

// acquireFirst is acquire of a file that was not open just now.
func (o *Overlay) acquireFirst(n *node, flags uint32) (handle uint64, id int32, given chan struct{}, mine bool) {
	var b *backing
	if n.passes() {
		var err error
		if b, err = o.open(n, false); err != nil {
			o.log.Debugf("open a file for passthrough: %v", err)
			b = nil
		}
	}
	fd := -1
	if b != nil {
		defer o.fds.leave(b)
		if b.upper && !b.data {
			fd = b.fd
		}
	}
	return o.pass.first(n, fd, flags)
}

// again counts one more, if n is open; handle 0: it is not. Its contents are being
// given until given is closed.
func (p *passing) again(n *node) (handle uint64, id int32, given chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.againLocked(n)
}

func (p *passing) againLocked(n *node) (handle uint64, id int32, given chan struct{}) {
	e := p.open[n]
	switch {
	case e == nil:
		return 0, 0, nil
	case e.passed > 0:
		e.passed++
		return handlePassed, e.id, nil
	}
	e.cached++
	return handleCached, 0, e.giving
}

// first opens n, with the backing file fd (-1: none), unless it is open by now. mine
// tells that it is for the caller to give n's contents, and then to say that it ends.
func (p *passing) first(n *node, fd int, flags uint32) (handle uint64, id int32, given chan struct{}, mine bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if handle, id, given = p.againLocked(n); handle != 0 {
		return handle, id, given, false
	}
	if fd >= 0 {
		var no syscall.Errno
		if id, no = p.server.RegisterBackingFd(&fuse.BackingMap{Fd: int32(fd)}); no == 0 {
			p.open[n] = &handles{passed: 1, id: id}
			n.set(flagPassed)
			return handlePassed, id, nil, false
		}
		if !p.said[no] {
			p.said[no] = true
			p.log("some files are not passed through: %v", whyNot(no))
		}
	}
	if p.beginsLocked(n, flags) {
		given = make(chan struct{})
	}
	p.open[n] = &handles{cached: 1, giving: given}
	return handleCached, 0, given, given != nil
}

// release takes back one open file of n.
func (p *passing) release(n *node, handle uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.open[n]
	if e == nil {
		return
	}
	if handle == handlePassed {
		e.passed--
	} else {
		e.cached--
	}
	p.closeLocked(n, e)
}

// closeLocked lets go of what is not open any more.
func (p *passing) closeLocked(n *node, e *handles) {
	if e.passed > 0 || e.cached > 0 {
		return
	}
	delete(p.open, n)
	if e.id == 0 {
		return
	}
	// EBADF: the connection is closed, and the kernel has let go of all.
	if no := p.server.UnregisterBackingFd(e.id); no != 0 && !errors.Is(no, syscall.EBADF) {
		p.log("let go of a backing file: %v", no)
	}
}

// drop forgets n, which the kernel has forgotten.
func (p *passing) drop(n *node) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.open[n]; e != nil {
		e.passed, e.cached = 0, 0
		p.closeLocked(n, e)
	}
}

// count returns how many backing files the kernel holds.
func (p *passing) count() (k int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.open {
		if e.passed > 0 {
			k++
		}
	}
	return k
}

// whyNot says what an errno of the FUSE device means.
func whyNot(no syscall.Errno) error {
	switch {
	case errors.Is(no, syscall.EPERM):
		return errors.New("it needs CAP_SYS_ADMIN of the machine, not of a user namespace")
	case errors.Is(no, syscall.ELOOP):
		return errors.New("the upper directory is on a stacked filesystem (an overlay, or FUSE)")
	case errors.Is(no, syscall.EOPNOTSUPP):
		return errors.New("the upper directory's filesystem cannot be passed through to")
	}
	return no
}

// noPassthrough tells why the mount that c is for cannot be in passthrough mode;
// nil: nothing is known against it.
func (c *MountConfig) noPassthrough() error {
	for _, w := range []struct {
		wrong bool
		say   string
	}{
		{c.Upper == "" || c.ReadOnly, "nothing is written, and only written files are passed through"},
		{c.MaxBytes > 0 || c.MaxFiles > 0, "with size or inodes every write is counted"},
		{c.Writeback, "writeback is another mode"},
		{os.Geteuid() != 0, whyNot(syscall.EPERM).Error()},
	} {
		if w.wrong {
			return errors.New(w.say)
		}
	}
	return nil
}

// errNoPassthrough is why a mount is not in passthrough mode.
func (o *Overlay) errNoPassthrough(why error) error {
	if o.c.Passthrough != PassthroughOnly {
		o.log.Warnf("passthrough has no effect: %v", why)
		return nil
	}
	return errno.New(errno.ErrNotSupported, "passthrough cannot be had: %v: leave it out, or leave out strict", why)
}

// tryPassthrough finds out whether the kernel passes through to the upper, with
// a file in the work directory.
func (o *Overlay) tryPassthrough(s server) (err error) {
	if s.KernelSettings().Flags64()&fuse.CAP_PASSTHROUGH == 0 {
		return errors.New("the kernel has none (it comes with Linux 6.9 and CONFIG_FUSE_PASSTHROUGH)")
	}
	f, name, err := o.stageFile(&copyPlan{})
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if name != "" {
			err = errors.Join(err, removeTree(o.work.stage, name))
		}
	}()
	id, no := s.RegisterBackingFd(&fuse.BackingMap{Fd: int32(f.Fd())})
	if no != 0 {
		return whyNot(no)
	}
	if no := s.UnregisterBackingFd(id); no != 0 {
		return fmt.Errorf("let go of a backing file: %w", no)
	}
	o.pass = &passing{server: s, log: o.log.Warnf, giving: newGiving(), open: map[*node]*handles{}, said: map[syscall.Errno]bool{}}
	return nil
}

// openFor does what open(2) with flags does to n before it is open: the copy-up
// for a writer, and O_TRUNC. killPriv: set-ID bits go with the truncation.
func (o *Overlay) openFor(ctx context.Context, n *node, flags uint32, killPriv bool) error {
	trunc := flags&unix.O_TRUNC != 0
	if flags&unix.O_ACCMODE == unix.O_RDONLY && !trunc {
		return nil
	}
	if err := o.pass.changes(ctx, n); err != nil {
		return err
	}
	if err := o.mayWrite(); err != nil {
		return err
	}
	if !trunc {
		was := n.is(flagUp)
		err := o.copyUp(ctx, n, allData)
		if err == nil && !was {
			o.modeChanged(n) // the copy's time of change is its own, and there may be no write
		}
		return err
	}
	_, err := o.setattr(ctx, n, change{size: new(uint64), killPriv: killPriv})
	if err == nil && killPriv {
		o.modeChanged(n)
	}
	return err
}

// passOpen answers for a file of n that was opened with flags; known tells
// whether the kernel knows n already. Of a file that it does not know it never fails.
func (r *raw) passOpen(ctx context.Context, n *node, flags uint32, known bool, out *fuse.OpenOut) (err error) {
	had := n.is(flagPassed)
	if out.Fh, out.BackingID, err = r.o.acquire(ctx, n, flags); err != nil {
		return err
	}
	if out.Fh == handleCached {
		out.OpenFlags = fuse.FOPEN_NOFLUSH
		if !had { // else pages may be of before it was passed through
			out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
		}
		return nil
	}
	out.OpenFlags = fuse.FOPEN_PASSTHROUGH | fuse.FOPEN_NOFLUSH
	// A store to a shared mapping, also of a file closed since, changes times that
	// nobody tells the kernel of: it is to ask, from now on.
	if flags&unix.O_ACCMODE == unix.O_RDWR && n.set(flagMapped) && known {
		r.o.modeChanged(n)
	}
	return nil
}

// passCreate is CREATE: MKNOD and OPEN in one.
func (r *raw) passCreate(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	dir, s := r.node(in.NodeId)
	if !s.Ok() {
		return s
	}
	ctx := request(cancel, &in.InHeader)
	n, st, err := r.o.mkfile(ctx, dir, name, in.Mode&0o7777, r.caller(&in.InHeader, in.Umask))
	if err != nil {
		return r.status("create", err)
	}
	if err = r.passOpen(ctx, n, in.Flags, false, &out.OpenOut); err == nil {
		r.fillEntry(&out.EntryOut, n, &st)
	}
	return r.status("create", err)
}
