package fuseoverlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/inomap"
	"github.com/plyfs/plyfs/internal/safefs"
)

// Overlay is the writable union of an upper directory and lower layers, or,
// without an upper, the read-only union of the lower ones. Its methods may be
// called from many goroutines; see doc.go for its locks.
type Overlay struct {
	c           MountConfig
	log         *logrus.Entry
	tree        *Tree
	work        *work // nil: read-only
	clones      dropping
	volume      []volume
	hash        inomap.Space
	root        *node
	fds         fds
	pass        *passing     // nil: not in passthrough mode; set before there are requests
	quota       *quota       // nil: no bound
	mapped      mappedMounts // of lower layers, by their IDs; see idmapped.go
	aside       string       // the attribute that keeps owners and modes; "": none does
	ahead       ahead        // of walks; see ahead.go
	earlyCopies earlyCopies  // copies; see early.go
	spares      spares       // files for copies; see spare.go
	trash       trash        // directories to be removed in work; see trash.go
	counters

	// takesACLs: the upper's filesystem has taken an ACL.
	takesACLs atomic.Bool

	maxOrphans int64 // files without a name that live by a descriptor; see orphan.go
	orphans    atomic.Int64
	orphaned   atomic.Uint64 // how many there ever were
	awaited    atomic.Uint64 // orphaned when somebody last waited for them to be forgotten

	// modeChanged is told of modes, and times, that change without the kernel's asking; nil
	// before there is a mount.
	modeChanged func(n *node)
	// numberChanged is told of inode numbers that change; nil before there is a mount.
	numberChanged func(n, dir *node)

	// uncloned holds the devices of lower files of which the upper's filesystem
	// takes no reflinks.
	uncloned sync.Map

	renameMu sync.RWMutex
	treeMu   sync.Mutex
	table    table // guarded by treeMu

	// degraded, once set, says why nothing is changed any more.
	degraded atomic.Pointer[string]
}

// volume is a filesystem that a layer's root is on.
type volume struct {
	dev   uint64
	uuid  [16]byte
	form  handleForm
	lower bool // a lower layer is on it: origins may be
	twin  bool // another of these has the same UUID (or has none either)
}

// newOverlay opens the layers. Nothing is mounted.
func newOverlay(c MountConfig) (_ *Overlay, err error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	o := &Overlay{c: c, log: c.Log, hash: inomap.New("fuse-overlay\x00mount")}
	o.table = table{byKey: map[fileID]*node{}, next: rootID}
	dirs := c.Lower
	if c.Upper != "" {
		dirs = append([]string{c.Upper}, dirs...)
	}
	perKind := descriptors(c.Descriptors, len(dirs))
	o.fds.max, o.maxOrphans = perKind, int64(perKind)
	o.earlyCopies.prepare(perKind / 4)
	o.spares.prepare(perKind / 4)
	o.trash.prepare()
	cfg := Config{Key: "mount", Formats: c.Formats, Cache: NewCache(perKind)}
	for _, d := range dirs {
		abs, err := layerDir("layer", d)
		if err != nil {
			return nil, err
		}
		cfg.Layers = append(cfg.Layers, Layer{Name: abs, Dir: abs})
	}
	if o.tree, err = Open(cfg); err != nil {
		return nil, err
	}
	o.tree.writable, o.tree.pinned, o.tree.clones = c.Upper != "", true, &o.clones
	if c.EntryTimeout == 0 && !c.AllowRoot {
		o.tree.often = c.often()
	}
	o.ahead.init(o)
	defer func() {
		if err != nil {
			err = errors.Join(err, o.close())
		}
	}()
	if c.Upper != "" {
		if err = o.openWork(cfg.Layers); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(o.findVolumes(), o.findMapped()); err != nil {
		return nil, err
	}
	if c.Upper != "" {
		if o.quota, err = newQuota(&o.c, o.work, o.tree.layers[0].root); err != nil {
			return nil, err
		}
	}
	return o, o.makeRoot()
}

// openWork opens the work directory beside the upper, the first of the layers.
func (o *Overlay) openWork(layers []Layer) error {
	dir, err := layerDir("workdir", o.c.Work)
	if err != nil {
		return err
	}
	upper, lower := layers[0].Dir, make([]string, 0, len(layers)-1)
	for _, l := range layers[1:] {
		lower = append(lower, l.Dir)
	}
	warning, err := apart(lower, upper, dir)
	if err != nil {
		return err
	}
	if warning != "" {
		o.log.Warn(warning)
	}
	if o.work, err = openWork(&o.c, upper, dir, &o.clones); err != nil {
		return err
	}
	if o.tree.written, err = idsOf(upper, dir); err != nil {
		return err
	}
	o.tree.layers[0].attrWhiteouts, o.tree.layers[0].opened = o.work.attrWh, o.work.upper
	o.tree.loans, o.tree.dotWh = o.work.loans, o.work.dotWh
	if err := o.work.sweepIndex(); err != nil {
		return fmt.Errorf("clean the index in workdir %s: %w", o.c.Work, err)
	}
	if o.c.Metacopy && o.work.prefix != trustedPrefix {
		o.log.Warn("metacopy=on has no effect: the kernel reads copies of metadata only with trusted.* attributes, which cannot be set here")
		o.c.Metacopy = false
	}
	for _, l := range o.work.lacks() {
		if l.is && (!l.asked || !o.c.FileWhiteouts) {
			o.log.Warnf("upperdir %s: %s", o.c.Upper, l.say)
		}
	}
	return nil
}

// idsOf says which files dirs are.
func idsOf(dirs ...string) (ids []fileID, err error) {
	for _, d := range dirs {
		var st unix.Stat_t
		if err := unix.Stat(d, &st); err != nil {
			return nil, fmt.Errorf("stat %s: %w", d, err)
		}
		ids = append(ids, fileID{st.Dev, st.Ino})
	}
	return ids, nil
}

// layerDir returns the absolute path of a layer or the work directory (what),
// which must be a directory.
func layerDir(what, dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if errors.Is(err, os.ErrNotExist) {
		return "", errno.New(errno.ErrUnknown, "the %s %s does not exist: make the directory, or leave it out", what, dir)
	}
	if err != nil {
		return "", fmt.Errorf("find the %s %s: %w", what, dir, err)
	}
	st, err := os.Stat(abs)
	if err != nil {
		return "", fmt.Errorf("find the %s %s: %w", what, dir, err)
	}
	if !st.IsDir() {
		return "", errno.New(errno.ErrNotDir, "the %s %s is not a directory", what, dir)
	}
	return abs, nil
}

// ownFiles is how many descriptors a server has for itself: the connection, the work
// directory, pipes, the runtime's, and what requests at work have open for a moment.
const ownFiles = 36

// descriptors says how many descriptors to keep for directories, and again for
// files, for those without names, and for what is made ahead, beside those of the
// layers' roots. All of them are less than the process may have.
func descriptors(asked, roots int) int {
	if asked > 0 {
		return asked
	}
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 256
	}
	return min(max((int(min(l.Cur, 1<<20))-roots-ownFiles)/4, 4), 16384)
}

// findVolumes learns the filesystems of the layers.
func (o *Overlay) findVolumes() error {
	for _, l := range o.tree.layers {
		err := l.root.with(func(d *safefs.Dir) error {
			st, err := d.Stat(".")
			if err != nil {
				return err
			}
			lower := o.work == nil || l.index > 0
			for i := range o.volume {
				if o.volume[i].dev == st.Dev {
					o.volume[i].lower = o.volume[i].lower || lower
					return nil
				}
			}
			v := volume{dev: st.Dev, uuid: uuidOf(d), lower: lower}
			var fs unix.Statfs_t
			if h, ok := handleAt(d.Fd(), "."); ok && unix.Fstatfs(d.Fd(), &fs) == nil {
				v.form = formOf(fs.Type, h.bytes, st.Ino)
			}
			o.volume = append(o.volume, v)
			return nil
		})
		if err != nil {
			return err
		}
	}
	for i := range o.volume {
		for j := range o.volume[:i] {
			if a, b := &o.volume[i], &o.volume[j]; a.uuid == b.uuid && a.lower && b.lower {
				a.twin, b.twin = true, true
			}
		}
	}
	return nil
}

func (o *Overlay) makeRoot() error {
	var st safefs.Stat
	stack := make([]*place, len(o.tree.layers))
	for i, l := range o.tree.layers {
		stack[i] = l.root
	}
	for i, p := range stack {
		if p.ends() {
			stack = stack[:i+1]
			break
		}
	}
	if err := stack[0].with(func(d *safefs.Dir) (err error) {
		st, err = d.Stat(".")
		return err
	}); err != nil {
		return err
	}
	n := newNode(unix.S_IFDIR, o.shownIno(st.Dev, st.Ino))
	n.setStack(stack)
	n.setIf(o.work != nil, flagUp)
	if err := o.rootAside(n); err != nil {
		return err
	}
	if o.work != nil && o.readMark(n.stack()[0].spot(), "impure") == "y" {
		n.dir.impure.Store(true)
	}
	o.treeMu.Lock()
	defer o.treeMu.Unlock()
	o.addLocked(n, nil, "")
	o.root = n
	return nil
}

// closeWaits is how long an unmount waits for what reads layers on its own account.
const closeWaits = 5 * time.Second

// close gives everything back that is open; there are no requests any more.
func (o *Overlay) close() error { return o.closeWithin(closeWaits) }

// closeWithin is close, which waits at most that long for a layer that does not
// answer: what is read of it, or copied, ahead of programs, and what is removed
// behind them, has descriptors in use, so everything is closed after that has
// ended, or by the process's end.
func (o *Overlay) closeWithin(most time.Duration) error {
	ahead, idle := o.ahead.stop(), make(chan struct{})
	o.earlyCopies.stop()
	o.spares.stop()
	o.trash.end()
	go func() {
		<-ahead
		o.earlyCopies.working.Wait()
		o.trash.done.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return o.closeAll()
	case <-time.After(most):
	}
	o.log.Warn("a layer does not answer, or not soon: what is open is closed when it does, or when this process ends")
	go func() {
		<-idle
		if err := o.closeAll(); err != nil {
			o.log.Warnf("close the overlay: %v", err)
		}
	}()
	return nil
}

func (o *Overlay) closeAll() error {
	o.fds.closeAll()
	o.treeMu.Lock()
	nodes := o.table.nodes
	o.table.nodes, o.table.byKey = nodePages{}, map[fileID]*node{}
	o.table.back.stop()
	o.treeMu.Unlock()
	nodes.all(o.release)
	err := o.tree.Close()
	if o.work != nil {
		err = errors.Join(err, o.work.close())
	}
	o.clones.wait()
	return err
}

// mayWrite returns EROFS where nothing is to be changed.
func (o *Overlay) mayWrite() error {
	if o.work == nil || o.c.ReadOnly {
		return errno.New(errno.ErrReadOnly, "the overlay is mounted read-only")
	}
	if why := o.degraded.Load(); why != nil {
		return errno.New(errno.ErrReadOnly, "the overlay was turned read-only: %s", *why)
	}
	return nil
}

// degrade turns the overlay read-only after an error that must not be.
func (o *Overlay) degrade(format string, args ...any) {
	why := fmt.Sprintf(format, args...)
	if o.degraded.CompareAndSwap(nil, &why) {
		o.log.Errorf("the overlay turns read-only: %s", why)
	}
}

// shownIno is the inode number of a file of a layer: its own where all layers
// are on one filesystem, else with the filesystem's number in the upper byte,
// and where that does not fit a hash.
func (o *Overlay) shownIno(dev, ino uint64) uint64 {
	for i, v := range o.volume {
		if v.dev != dev {
			continue
		}
		if i == 0 && (len(o.volume) == 1 || ino>>56 == 0) {
			return ino
		}
		if ino>>56 == 0 && i < 256 {
			return ino | uint64(i)<<56
		}
	}
	return o.hash.Number(0, dev, ino)
}

// originIno returns the inode number that an origin record says.
func (o *Overlay) originIno(record string) (uint64, bool) {
	h, uuid, ok := decodeOrigin([]byte(record))
	if !ok {
		return 0, false
	}
	for _, v := range o.volume {
		if v.uuid != uuid || v.twin || !v.lower {
			continue
		}
		if ino, ok := v.form.ino(h.bytes); ok {
			return o.shownIno(v.dev, ino), true
		}
	}
	return 0, false
}

// originOf returns the record for the file at s, nil where there is none.
func (o *Overlay) originOf(s spot, dev uint64) []byte {
	var record []byte
	err := s.place.with(func(d *safefs.Dir) error {
		record = o.originAt(d.Fd(), s.name, dev)
		return nil
	})
	if err != nil {
		return nil // no origin is no harm
	}
	return record
}

// originAt is originOf for name in dirfd, or for the file itself (".").
func (o *Overlay) originAt(dirfd int, name string, dev uint64) []byte {
	for i := range o.volume {
		if v := &o.volume[i]; v.dev == dev {
			if h, ok := handleAt(dirfd, name); ok {
				return encodeOrigin(h, v.uuid)
			}
			return nil
		}
	}
	return nil
}

func handleAt(dirfd int, name string) (handleOf, bool) {
	flags := 0
	if name == "." {
		name, flags = "", unix.AT_EMPTY_PATH
	}
	h, _, err := unix.NameToHandleAt(dirfd, name, flags)
	if err != nil {
		return handleOf{}, false
	}
	return handleOf{h.Type(), h.Bytes()}, true
}

// fsGetUUID is FS_IOC_GETFSUUID of linux/fs.h (6.9): a length, then 16 bytes.
const fsGetUUID = 0x80111500

// uuidOf returns the UUID of d's filesystem, zeros where it cannot be asked.
func uuidOf(d *safefs.Dir) (uuid [16]byte) {
	fd, err := d.OpenFD(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return uuid
	}
	defer closeFDs([]int{fd})
	if b, ok := ioctlUUID(fd); ok && b[0] == 16 {
		copy(uuid[:], b[1:])
	}
	return uuid
}

// readMark returns the value of one of the overlay's own attributes at an
// upper spot, "" when there is none.
func (o *Overlay) readMark(s spot, mark string) string {
	if o.work == nil || o.work.prefix == "" {
		return ""
	}
	var v []byte
	err := s.place.with(func(d *safefs.Dir) (err error) {
		v, err = d.Getxattr(s.name, o.work.prefix+mark)
		return err
	})
	if err != nil {
		return ""
	}
	return string(v)
}

// checkName refuses names that cannot be made.
func (o *Overlay) checkName(name string) error {
	switch {
	case len(name) > maxName:
		return syscall.ENAMETOOLONG
	case !safefs.ValidName(name):
		return fmt.Errorf("name %q: %w", name, syscall.EINVAL)
	case o.c.Formats&Files != 0 && strings.HasPrefix(name, whiteoutPrefix):
		return errno.New(errno.ErrBadValue, "%q: names that begin with %s are marks of deletion in image layers and cannot be made", name, whiteoutPrefix)
	}
	return nil
}
