package layertar

import (
	"context"
	"errors"
	"hash/maphash"
	"io"
	"path"
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/internal/spill"
	"github.com/plyfs/plyfs/internal/unix"

	"github.com/moby/sys/userns"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// maxOwners bounds the different owners of a stream, which are kept with its
// layer.
const maxOwners = 1 << 16

// applier extracts members into a directory. It is used by one goroutine.
type applier struct {
	root *openDir
	o    ApplyOptions
	in   *parser
	out  *pipe
	// records is set when there is a record, which has each name once.
	records bool

	dirs map[string]*openDir // clean path → open directory
	// links are real paths of directories that a name with symlinks led to,
	// until anything is removed.
	links    map[string]string
	closeErr error
	stale    bool // a directory was removed: the cache may hold it
	// made holds a hash of every path that this stream made, and of the
	// directories above: an opaque mark spares them. It is nil when the root
	// was empty: then everything is the stream's. named holds those that
	// stood in the stream, for the peers' rule that a record has each once.
	made, named *spill.Set
	// marked says that there may be whiteouts of the style Files.
	marked     bool
	pruned     *spill.Set // paths below which only what the stream made was left
	seed       maphash.Seed
	late       lateDirs
	uids, gids map[uint32]struct{}
	entries    int
	userns     bool
	us         creator
}

var errNotEmpty = errors.New("the directory is not empty")

func newApplier(root *safefs.Dir, in *parser, rec *recorder, fail func(error), o ApplyOptions) *applier {
	return &applier{
		root: newOpenDir(root), o: o, in: in, out: newPipe(rec, fail), records: rec != nil,
		dirs: map[string]*openDir{}, links: map[string]string{}, named: spill.NewSet(), pruned: spill.NewSet(),
		seed: maphash.MakeSeed(), uids: map[uint32]struct{}{}, gids: map[uint32]struct{}{},
		userns: userns.RunningInUserNS(), us: whoCreates(),
	}
}

// run applies the whole stream. When it returns, nothing is under way.
func (a *applier) run(ctx context.Context) (err error) {
	defer func() {
		a.forget()
		err = errors.Join(err, a.closeErr, a.named.Close(), a.pruned.Close(), a.late.s.Close())
		if a.made != nil {
			err = errors.Join(err, a.made.Close())
		}
	}()
	err = a.start()
	if err == nil {
		err = a.members(ctx)
	}
	if err != nil {
		a.out.failWith(err) // what is under way is dropped
	}
	if perr := a.out.close(); err == nil {
		err = perr
	}
	if err != nil {
		return err
	}
	return a.finish()
}

// start looks whether the root has anything in it.
func (a *applier) start() error {
	err := a.root.ReadDir(func(safefs.Entry) error { return errNotEmpty })
	if errors.Is(err, errNotEmpty) {
		a.made, a.marked, err = spill.NewSet(), true, nil
	}
	return err
}

func (a *applier) members(ctx context.Context) error {
	for {
		h, err := a.in.next()
		if err == io.EOF { //nolint:errorlint // next returns it bare
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := a.member(h); err != nil {
			return describe(err, h)
		}
	}
}

// describe adds the member to an error that does not name one.
func describe(err error, h *header) error {
	var kind *errno.Kind
	var other *memberError // of a file that was written meanwhile
	if errors.As(err, &kind) || errors.As(err, &other) {
		return err
	}
	return &memberError{where(h), err}
}

type memberError struct {
	where string
	err   error
}

func (e *memberError) Error() string { return "extract " + e.where + ": " + e.err.Error() }
func (e *memberError) Unwrap() error { return e.err }

func (a *applier) member(h *header) error {
	o, reason := planMember(h, a.in.lim)
	if reason != "" {
		return refuse(h, reason)
	}
	if err := a.count(h); err != nil {
		return err
	}
	if o.kind != opSkip && o.kind != opRoot {
		// From here on the member has its real place, whatever led there.
		var err error
		if _, o.dir, err = a.locate(h, o.dir, true); err != nil {
			return err
		}
	}
	full := path.Join(o.dir, o.base)
	if err := a.once(h, o.dir, o.base); err != nil {
		return err
	}
	if err := a.execute(h, &o); err != nil {
		return err
	}
	if o.kind != opWhiteout && o.kind != opSkip && o.kind != opOpaque {
		if err := a.unhide(h, &o, full); err != nil {
			return err
		}
		if err := a.mark(full); err != nil {
			return err
		}
	}
	size := h.stored
	if h.isSparse || o.kind != opFile {
		size = 0
	}
	a.out.file(h.name, size)
	return nil
}

// execute makes what the member asks for.
func (a *applier) execute(h *header, o *op) (err error) {
	if o.kind == opFile {
		err = a.file(h, o)
	} else if err = a.other(h, o); err == nil {
		err = a.in.skipData()
	}
	if a.stale {
		a.stale = false
		a.forget()
	}
	return err
}

// count counts the member and its owners.
func (a *applier) count(h *header) error {
	a.entries++
	a.uids[uint32(h.uid)], a.gids[uint32(h.gid)] = struct{}{}, struct{}{}
	if len(a.uids) > maxOwners || len(a.gids) > maxOwners {
		return refuse(h, "the stream has more owners than the limit")
	}
	return nil
}

func (a *applier) hash(p string) uint64 { return maphash.String(a.seed, p) }

// once refuses a second member of the same name: the record could not give
// the first one's content back, and the peers refuse it, too. With no record
// the last one counts.
func (a *applier) once(h *header, dir, base string) error {
	if !a.records {
		return nil
	}
	k := a.hash(path.Join(dir, base))
	switch ok, err := a.named.Has(k); {
	case err != nil:
		return err
	case !ok:
		return a.named.Add(k)
	case a.present(h, dir, base):
		return refuse(h, "the stream has two members of this name")
	}
	return nil
}

// present rules out that two names share a hash.
func (a *applier) present(h *header, dir, base string) bool {
	d, err := a.parent(h, dir, false)
	if err != nil {
		return false
	}
	if base == "" || strings.HasPrefix(base, whiteout.Prefix) {
		return true
	}
	_, err = d.Stat(base)
	return err == nil
}

// mark notes a path that this stream made, with the directories above it.
func (a *applier) mark(full string) error {
	if a.made == nil {
		return nil
	}
	for full != "" && full != "." {
		k := a.hash(full)
		if ok, err := a.made.Has(k); ok || err != nil {
			return err
		}
		if err := a.made.Add(k); err != nil {
			return err
		}
		full, _ = splitName(full)
	}
	return nil
}

// isMade tells whether name of d, the path full, is there and made by this
// stream: not by an earlier one, and no mark.
func (a *applier) isMade(d *safefs.Dir, name, full string) (bool, error) {
	if a.made != nil {
		return a.made.Has(a.hash(full))
	}
	st, err := d.Stat(name)
	switch {
	case errors.Is(err, syscall.ENOENT):
		return false, nil
	case err != nil:
		return false, err
	case a.o.Style == whiteout.Files:
		mark, _ := whiteout.Parse(name)
		return mark == whiteout.Plain, nil
	case a.o.Style == whiteout.Apply:
		return true, nil
	case whiteout.IsDevice(st.Mode, st.Rdev):
		return false, nil
	case a.o.Style == whiteout.User && st.Type() == unix.S_IFREG && st.Size == 0:
		_, err := d.Getxattr(name, a.o.Style.XattrPrefix()+"whiteout")
		return err != nil, nil
	}
	return true, nil
}

// other makes what has no content.
func (a *applier) other(h *header, o *op) error {
	switch o.kind {
	case opSkip:
		return nil
	case opRoot:
		return a.dirAttrs(h, a.root, ".", "", o)
	case opFile, opDir, opSymlink, opLink, opNode, opWhiteout, opOpaque:
	}
	d, err := a.parent(h, o.dir, true)
	if err != nil {
		return err
	}
	switch o.kind {
	case opDir:
		return a.directory(h, d, o)
	case opSymlink:
		if err := a.replacing(h, d.Dir, o, func() error { return d.Symlink(h.link, o.base) }); err != nil {
			return err
		}
		return a.attrs(h, d, o, "symlink")
	case opLink:
		return a.link(h, d, o)
	case opNode:
		return a.mknod(h, d, o)
	case opWhiteout:
		return a.whiteout(d.Dir, o)
	case opOpaque:
		return a.opaque(h, o)
	case opSkip, opRoot, opFile:
	}
	return nil
}

// replacing calls mk, and again after what is in its way has been removed.
func (a *applier) replacing(h *header, d *safefs.Dir, o *op, mk func() error) error {
	name, full := o.base, path.Join(o.dir, o.base)
	err := mk()
	if !errors.Is(err, syscall.EEXIST) {
		return err
	}
	if err := a.clear(h, d, name, full); err != nil {
		return err
	}
	return mk()
}

// clear removes what is in a member's way. What this stream has made, or gone
// through, is refused: the record could not give it back.
func (a *applier) clear(h *header, d *safefs.Dir, name, full string) error {
	if a.records {
		if made, err := a.isMade(d, name, full); err != nil {
			return err
		} else if made {
			return refuse(h, "it takes the place of what the stream has made under its name")
		}
	}
	return a.remove(d, name)
}

// directory makes a directory or takes the one that is there. One that
// replaces a whiteout hides what is below.
func (a *applier) directory(h *header, d *openDir, o *op) error {
	full := path.Join(o.dir, o.base)
	err := d.mkdir(o.base, 0o700)
	if errors.Is(err, syscall.EEXIST) {
		st, serr := d.Stat(o.base)
		switch {
		case serr != nil:
			return serr
		case st.IsDir():
			return a.dirAttrs(h, d, o.base, full, o)
		}
		white := whiteout.IsDevice(st.Mode, st.Rdev) && a.o.Style != whiteout.Apply
		if err = a.clear(h, d.Dir, o.base, full); err == nil {
			err = d.mkdir(o.base, 0o700)
		}
		if err == nil && white {
			err = a.markOpaque(d.Dir, o.base)
		}
	}
	if err != nil {
		return err
	}
	return a.dirAttrs(h, d, o.base, full, o)
}

// link makes a hard link to a file that the layer's own directory has.
func (a *applier) link(h *header, d *openDir, o *op) error {
	dir, base := splitName(o.target)
	if len(a.dirs) >= maxDirCache-1 {
		a.forget() // so that the second look-up does not close the first one's
		var err error
		if d, err = a.parent(h, o.dir, true); err != nil {
			return err
		}
	}
	from, err := a.parent(h, dir, false)
	if err != nil {
		return err
	}
	st, err := from.Stat(base)
	switch {
	case errors.Is(err, syscall.ENOENT):
		return refuse(h, "it is a hard link to "+clip(quote(h.link))+", which is not in the layer")
	case err != nil:
		return err
	case st.IsDir():
		return refuse(h, "it is a hard link to a directory")
	case whiteout.IsDevice(st.Mode, st.Rdev) && a.o.Style != whiteout.Apply:
		return refuse(h, "it is a hard link to "+clip(quote(h.link))+", which is not in the layer")
	}
	err = from.Link(base, d.Dir, o.base)
	if !errors.Is(err, syscall.EEXIST) {
		return err
	}
	if now, err := d.Stat(o.base); err == nil && now.Ino == st.Ino && now.Dev == st.Dev {
		return nil
	}
	if err := a.clear(h, d.Dir, o.base, path.Join(o.dir, o.base)); err != nil {
		return err
	}
	return a.linkAgain(h, o)
}

// linkAgain makes the link after what stood in its way was removed, which may
// have been a directory above the target.
func (a *applier) linkAgain(h *header, o *op) error {
	a.forget()
	dir, base := splitName(o.target)
	at, err := a.parent(h, dir, false)
	if err != nil {
		return err
	}
	from, err := at.OpenDir(".") // the next look-up may empty the cache
	if err != nil {
		return err
	}
	d, err := a.parent(h, o.dir, true)
	if err == nil {
		err = from.Link(base, d.Dir, o.base)
	}
	if errors.Is(err, syscall.ENOENT) {
		err = refuse(h, "it replaces the directory that its target is in")
	}
	return errors.Join(err, from.Close())
}

// mknod makes a device or FIFO. A user namespace may make no devices: the
// peers leave them out there.
func (a *applier) mknod(h *header, d *openDir, o *op) error {
	if a.o.OverrideStat && o.node != unix.S_IFIFO {
		return a.overrideNode(h, d, o)
	}
	err := a.replacing(h, d.Dir, o, func() error { return d.Mknod(o.base, o.node|0o600, o.dev) })
	if errors.Is(err, syscall.EPERM) && a.userns && o.node != unix.S_IFIFO {
		return nil
	}
	if err != nil {
		return err
	}
	return a.attrs(h, d, o, "")
}

// overrideNode stands an empty file with a note in for a device.
func (a *applier) overrideNode(h *header, d *openDir, o *op) error {
	what := "block"
	if o.node == unix.S_IFCHR {
		what = "char"
	}
	if err := a.replacing(h, d.Dir, o, func() error { return d.Mknod(o.base, unix.S_IFREG|0o600, 0) }); err != nil {
		return err
	}
	return a.attrs(h, d, o, what+"-"+utoa(unix.Major(o.dev))+"-"+utoa(unix.Minor(o.dev)))
}
