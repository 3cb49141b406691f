package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sirupsen/logrus"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/durable"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/lockfile"
	"github.com/plyfs/plyfs/internal/mounts"
)

// Store is an open store. Its methods may be called from many goroutines.
// See the package comment for locks and the order of steps.
type Store struct {
	opts   Options
	log    *logrus.Entry
	driver drivers.Driver
	bare   *os.File // the graph root without the mounts below it; nil when read-only
	paths  [numKinds]storePaths
	locks  [numKinds]*lockfile.File
	// imageLayers and bareImages are a separate image store's lock of layers
	// and its root; nil without one.
	imageLayers *lockfile.File
	bareImages  *os.File
	// mountsPath and mountsLock are of the run root's table of mounts.
	mountsPath string
	mountsLock *lockfile.File
	mapsLock   *lockfile.File // userns.lock

	// gate is held, by a send, while states are loaded or written. It comes
	// before every lock file.
	gate chan struct{}
	// cur is the newest state; stored with gate held.
	cur atomic.Pointer[state]
	// writing tells that Update holds every lock: cur is then what counts,
	// whatever the files say.
	writing atomic.Bool
	// stale tells that the files may hold something else than cur though the
	// stamps agree (a save failed half way). Set and cleared with gate held.
	stale atomic.Bool
	// tempLeft tells that there was a temporary file when the store was opened.
	// Open alone writes and reads it.
	tempLeft bool
	// late are record files that are read when they are asked for.
	late lateTexts

	lifecycle

	// busy tells that quiet was emptied and cur may not yet show what that
	// told. Set and cleared with gate held.
	busy    atomic.Bool
	quiet   *quiet
	events  *hub
	watcher *watcher
	closed  atomic.Bool
	// singleID is SingleID, asked once: what the process may does not change.
	singleID func() bool
}

// Open opens the store, making what is missing of its directories, and loads
// it. A damaged object, or a whole damaged file, is no error: see Damaged.
// ErrUnknown when o.MustExist and no store is there; ErrTimeout when a lock
// cannot be had. The caller closes the store.
func Open(ctx context.Context, o Options) (_ *Store, err error) {
	if err := checkOptions(&o); err != nil {
		return nil, err
	}
	s := &Store{opts: o, log: o.Log, gate: make(chan struct{}, 1), singleID: sync.OnceValue(SingleID)}
	if err := s.makeDirs(); err != nil {
		return nil, err
	}
	s.setPaths()
	s.cur.Store(emptyState())
	s.events = newHub()
	s.quiet = neverQuiet()
	if !o.Brief {
		s.quiet = newQuiet(s.recordDirs())
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	loaded := make(chan error, 1)
	go func() { // which needs no driver
		_, err := s.reload(ctx)
		loaded <- err
	}()
	err = s.openDriver()
	if lerr := <-loaded; err == nil && lerr != nil {
		err = fmt.Errorf("load the store %s: %w", o.GraphRoot, lerr)
	}
	if err != nil {
		return nil, err
	}
	if !o.Brief {
		s.watcher = newWatcher(s)
	}
	if o.ReadOnly {
		return s, nil
	}
	if err := s.openExtract(ctx); err != nil {
		return nil, err
	}
	return s, s.sweep(ctx)
}

func checkOptions(o *Options) error {
	for _, p := range append([]string{o.GraphRoot, o.RunRoot}, o.ImageStores...) {
		if !filepath.IsAbs(p) {
			return errno.New(errno.ErrBadValue, "store path %q is not absolute; give a path that begins with /", p)
		}
	}
	if o.DriverName == "" || unsafeID(o.DriverName) != "" {
		return errno.New(errno.ErrBadValue, "%q is no driver name; choose overlay or vfs", o.DriverName)
	}
	if err := o.Maps.Validate(); err != nil {
		return errno.New(errno.ErrBadValue, "the store's ID maps: %w: correct remap-uids and its like", err)
	}
	if o.subIDFiles == [2]string{} {
		o.subIDFiles = subIDFiles()
	}
	if err := errors.Join(o.Sync.check(), checkImageStore(o)); err != nil {
		return err
	}
	if o.LockTimeout <= 0 {
		o.LockTimeout = DefaultLockTimeout
	}
	if o.Log == nil {
		quiet := logrus.New()
		quiet.SetOutput(io.Discard)
		o.Log = logrus.NewEntry(quiet)
	}
	return nil
}

// makeDirs makes the directories that peers make at open, modes as theirs.
func (s *Store) makeDirs() error {
	o := s.opts
	if o.MustExist || o.ReadOnly {
		if _, err := os.Stat(filepath.Join(o.GraphRoot, o.DriverName+"-"+KindLayer.Plural())); err != nil {
			kind := errno.ErrUnknown
			if !errors.Is(err, fs.ErrNotExist) {
				kind = errno.ErrForbidden
			}
			return errno.New(kind, "%s holds no %s store that can be opened: %w; name its graph root and driver, or let it be made", o.GraphRoot, o.DriverName, err)
		}
	}
	if o.ReadOnly {
		return nil
	}
	dirs := []string{o.GraphRoot, o.RunRoot, s.runDir(KindLayer), s.runDir(KindContainer), s.sideDir()}
	for k := range Kind(numKinds) {
		dirs = append(dirs, s.kindDir(k))
	}
	if s.split() {
		dirs = append(dirs, s.imageLayersDir())
	}
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("make the store's directories: %w", err)
		}
	}
	return nil
}

// kindDir is the directory of a kind's records and data.
func (s *Store) kindDir(k Kind) string {
	root := s.opts.GraphRoot
	if k == KindImage {
		root = s.imageRoot()
	}
	return filepath.Join(root, s.opts.DriverName+"-"+k.Plural())
}

// runDir is the directory of a kind's data that a restart forgets.
func (s *Store) runDir(k Kind) string {
	return filepath.Join(s.opts.RunRoot, s.opts.DriverName+"-"+k.Plural())
}

// volatileDir is the directory of a kind's records that need not outlive the
// machine's run.
func (s *Store) volatileDir(k Kind) string {
	if s.opts.Transient {
		return s.runDir(k)
	}
	return s.kindDir(k)
}

// lockDir is the directory of a kind's lock file: a transient store's
// containers are locked in the run root.
func (s *Store) lockDir(k Kind) string {
	if k == KindContainer {
		return s.volatileDir(k)
	}
	return s.kindDir(k)
}

// recordDirs are the directories of all record and lock files.
func (s *Store) recordDirs() []string {
	dirs := []string{s.runDir(KindLayer)}
	if s.opts.Transient {
		dirs = append(dirs, s.runDir(KindContainer))
	}
	if s.split() {
		dirs = append(dirs, s.imageLayersDir())
	}
	for k := range Kind(numKinds) {
		dirs = append(dirs, s.kindDir(k))
		for _, path := range s.paths[k].shadows {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	return dirs
}

// sideDir holds the side records that say which of our processes holds a lock.
func (s *Store) sideDir() string { return filepath.Join(s.opts.RunRoot, "plyfs-locks") }

func (s *Store) setPaths() {
	o := lockfile.Options{Timeout: s.opts.LockTimeout, ReadOnly: s.opts.ReadOnly}
	if !o.ReadOnly {
		o.SideDir = s.sideDir()
	}
	for k := range Kind(numKinds) {
		s.paths[k] = s.pathsOf(k)
		s.locks[k] = lockfile.New(filepath.Join(s.lockDir(k), k.Plural()+".lock"), o)
	}
	if s.split() {
		other := o
		other.SideName = lockImageLayers
		s.imageLayers = lockfile.New(filepath.Join(s.imageLayersDir(), KindLayer.Plural()+".lock"), other)
	}
	s.mapsLock = lockfile.New(filepath.Join(s.opts.GraphRoot, "userns.lock"), o)
	s.mountsPath = filepath.Join(s.runDir(KindLayer), "mountpoints.json")
	s.mountsLock = lockfile.New(filepath.Join(s.runDir(KindLayer), "mountpoints.lock"), o)
}

func (s *Store) openDriver() (err error) {
	if !s.opts.ReadOnly {
		if s.bare, err = mounts.OpenBare(s.opts.GraphRoot); err != nil {
			return fmt.Errorf("open the graph root: %w", err)
		}
	}
	if s.opts.NewDriver == nil {
		return nil
	}
	c := drivers.Config{
		Root:        s.opts.GraphRoot,
		RunRoot:     s.opts.RunRoot,
		Bare:        s.bare,
		ImageStores: s.opts.ImageStores,
		Options:     s.opts.DriverOptions,
		Log:         s.log,
	}
	if s.split() {
		return s.openSplit(c)
	}
	s.driver, err = s.opts.NewDriver(c)
	if err != nil {
		return fmt.Errorf("driver %s: %w", s.opts.DriverName, err)
	}
	return nil
}

// sweep removes what dead writers left: half-made objects, and temporary
// files beside the record files.
func (s *Store) sweep(ctx context.Context) error {
	needed := s.tempLeft
	st := s.cur.Load()
	for k := range Kind(numKinds) {
		needed = needed || len(st.part(k).incomplete()) > 0
		if s.opts.Brief { // there can be a file in them for each layer
			continue
		}
		dirs := []string{s.kindDir(k), s.volatileDir(k)}
		if k == KindLayer && s.split() {
			dirs = append(dirs, s.imageLayersDir())
		}
		for _, dir := range dirs {
			entries, err := os.ReadDir(dir)
			if err != nil && dir == s.kindDir(k) {
				return fmt.Errorf("look for leftovers: %w", err)
			}
			needed = needed || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return durable.IsTemp(e.Name()) })
		}
	}
	if !needed {
		return nil
	}
	return s.Update(ctx, func(w *WriteTx) error { return s.sweepTemps() })
}

// leftTemps tells whether a writer of ours left the temporary file of a record
// file. Precondition: the locks of all kinds are held, so that it is dead.
func (s *Store) leftTemps() bool {
	for _, p := range s.paths {
		for _, path := range p.own {
			if path == "" {
				continue
			}
			if _, err := os.Lstat(durable.FirstTemp(path)); err == nil {
				return true
			}
		}
	}
	return false
}

// sweepTemps removes temporary files of the record files. Precondition: the
// write locks of all kinds are held, so that their writers are dead.
func (s *Store) sweepTemps() error {
	var err error
	for _, p := range s.paths {
		for _, path := range p.own {
			if path != "" {
				err = errors.Join(err, durable.Sweep(filepath.Dir(path), filepath.Base(path)))
			}
		}
	}
	return err
}

// Close ends the watching of files and delivers what is still to be told to
// subscribers. Nothing may be called after it but Close; transactions that
// run must have ended. Removals that go on in the background are stopped, to be
// continued by the next opening; of a store opened with Brief they are finished.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	var err error
	if s.watcher != nil {
		err = s.watcher.close()
	}
	s.events.close()
	err = errors.Join(err, s.quiet.close(), s.late.close())
	err = errors.Join(err, s.closeExtract())
	locks := append(s.locks[:], s.mountsLock, s.mapsLock)
	if s.imageLayers != nil {
		locks = append(locks, s.imageLayers)
	}
	for _, l := range locks {
		err = errors.Join(err, l.Close())
	}
	for _, f := range []*os.File{s.bare, s.bareImages} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// Driver returns the driver, nil when Options gave no constructor.
func (s *Store) Driver() drivers.Driver { return s.driver }

// Status returns what the driver tells of itself, name and value, in the peers'
// order; versions that matter to a driver are among it. Nil without a driver.
func (s *Store) Status() [][2]string {
	if s.driver == nil {
		return nil
	}
	return s.driver.Status()
}

// GraphRoot returns the absolute graph root.
func (s *Store) GraphRoot() string { return s.opts.GraphRoot }

// RunRoot returns the absolute run root.
func (s *Store) RunRoot() string { return s.opts.RunRoot }

// DriverName returns the driver's name as directories spell it.
func (s *Store) DriverName() string { return s.opts.DriverName }

// Options returns the options that the store was opened with, defaults filled in.
func (s *Store) Options() Options { return s.opts }
