package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/plyfs/plyfs/internal/lockfile"
)

const (
	// extractDir is the extract area below the graph root.
	extractDir = "plyfs"
	// lockSuffix ends the name of an entry's lock file.
	lockSuffix = ".lock"
	// entryBytes is the number of random bytes in an entry's name.
	entryBytes = 8
)

// lifecycle is what the Store holds for operations that outlast a lock.
type lifecycle struct {
	background context.Context    // ends at Close
	stop       context.CancelFunc // ends background
	removals   sync.WaitGroup     // removals that go on in the background
	unfinished unfinished
}

// unfinished counts the removals that go on in the background.
type unfinished struct {
	mu   sync.Mutex    // a leaf
	n    int           // guarded by mu
	none chan struct{} // closed when n is 0 again; nil while it is; guarded by mu
}

func (u *unfinished) begin() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.n++; u.n == 1 {
		u.none = make(chan struct{})
	}
}

func (u *unfinished) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.n--; u.n == 0 {
		close(u.none)
		u.none = nil
	}
}

// Removals is how many operations are over whose files are still being removed
// in the background.
func (s *Store) Removals() int {
	s.unfinished.mu.Lock()
	defer s.unfinished.mu.Unlock()
	return s.unfinished.n
}

// WaitRemovals waits until nothing is being removed in the background.
func (s *Store) WaitRemovals(ctx context.Context) error {
	s.unfinished.mu.Lock()
	none := s.unfinished.none
	s.unfinished.mu.Unlock()
	if none == nil {
		return nil
	}
	select {
	case <-none:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for files to be removed: %w", ctx.Err())
	}
}

// stageEntry is an entry of the extract area that this process owns. It is
// used by one goroutine at a time.
type stageEntry struct {
	root string // the graph root
	// roots are all that the store writes; twin is an entry in the other one.
	roots []string
	twin  *stageEntry
	name  string
	lock  *os.File
	fail  func(step string) // the store's failpoint
	// keep leaves the entry, with its journal, to the next opening of the
	// store: the operation went too far to be undone and not to its end.
	keep bool
}

// openExtract makes the extract area ready, settles the journals that dead
// owners left and begins to remove their entries in the background. Open calls
// it last, with no lock held; never on a read-only store.
func (s *Store) openExtract(ctx context.Context) error {
	s.background, s.stop = context.WithCancel(context.Background())
	entries, err := s.deadEntries()
	if err != nil {
		return fmt.Errorf("look at the extract area: %w", err)
	}
	for i, e := range entries {
		err := s.settle(ctx, e)
		if ctx.Err() != nil {
			for _, left := range entries[i:] {
				err = errors.Join(err, left.abandon())
			}
			return fmt.Errorf("complete what a killed process began: %w", errors.Join(err, s.closeExtract()))
		}
		if err != nil { // what is damaged must not keep the store shut
			e.keep = true
			s.log.WithError(err).Warnf("what a killed process began cannot be completed; see %s", e.dir())
		}
		s.discardLater(e)
	}
	return nil
}

// closeExtract stops the background removals, or finishes them where the
// options say so, and waits for them.
func (s *Store) closeExtract() error {
	if s.stop == nil {
		return nil
	}
	if s.opts.Brief {
		// Nobody may open the store for long after it, so what was left is
		// removed now.
		s.removals.Wait()
	}
	s.stop()
	s.removals.Wait()
	return nil
}

// fail is the tests' failpoint.
func (s *Store) fail(step string) {
	if s.opts.failpoint != nil {
		s.opts.failpoint(step)
	}
}

// newEntry makes an entry in the graph root and takes its lock.
func (s *Store) newEntry() (*stageEntry, error) { return s.newEntryIn(s.opts.GraphRoot) }

// newEntryIn is newEntry for any of the roots.
func (s *Store) newEntryIn(root string) (*stageEntry, error) {
	return (&stageEntry{roots: s.roots(), fail: s.fail}).newAt(root)
}

// newAt makes an entry like e in a graph root.
func (e *stageEntry) newAt(root string) (*stageEntry, error) {
	area := filepath.Join(root, extractDir)
	if err := os.MkdirAll(area, 0o700); err != nil {
		return nil, fmt.Errorf("make the extract area: %w", err)
	}
	e = &stageEntry{root: root, roots: e.roots, fail: e.fail}
	for {
		var random [entryBytes]byte
		if _, err := rand.Read(random[:]); err != nil {
			return nil, fmt.Errorf("name an entry of the extract area: %w", err)
		}
		e.name = hex.EncodeToString(random[:])
		err := e.takeLock(os.O_EXCL)
		if err == nil {
			break
		}
		// A sweeper that sees the file before it is locked takes it for dead.
		if !errors.Is(err, errOwned) && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("lock an entry of the extract area: %w", err)
		}
	}
	e.fail("entry:1")
	for _, dir := range []string{e.dir(), filepath.Join(e.dir(), "d"), e.own("")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, errors.Join(fmt.Errorf("make an entry of the extract area: %w", err), e.remove(context.Background()))
		}
	}
	return e, nil
}

// errOwned says that an entry has a living owner.
var errOwned = errors.New("the entry has a living owner")

// errUnfinished is why an entry with keep is left.
var errUnfinished = errors.New("its operation could not be completed")

// takeLock opens the lock file, creating it, and locks it.
func (e *stageEntry) takeLock(flag int) error {
	path := e.dir() + lockSuffix
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|flag, 0o600)
	if err != nil {
		return err
	}
	got, err := lockfile.TryLock(f, true)
	if err == nil && got {
		// A sweeper may have removed the file between open and lock.
		open, err1 := f.Stat()
		named, err2 := os.Stat(path)
		got = err1 == nil && err2 == nil && os.SameFile(open, named)
	}
	if err == nil && !got {
		err = errOwned
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	e.lock = f
	return nil
}

// dir is the entry's absolute directory.
func (e *stageEntry) dir() string { return filepath.Join(e.root, extractDir, e.name) }

// stage is what drivers call the stage: the path, relative to the graph root,
// of the part of the entry that is the driver's.
func (e *stageEntry) stage() string { return filepath.Join(extractDir, e.name, "d") }

// own is the absolute path of a file of the store's part.
func (e *stageEntry) own(name string) string { return filepath.Join(e.dir(), "s", name) }

// trash moves what is at path, if anything, into the entry or its twin in that
// path's root.
func (e *stageEntry) trash(path string) error {
	e, err := e.on(e.rootOfPath(path))
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		to := e.own(fmt.Sprintf("trash%d", i))
		if _, err := os.Lstat(to); err == nil {
			continue
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.Rename(path, to); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("move to the extract area: %w", err)
		}
		return nil
	}
}

// remove removes the entry; until it returns nil the lock is held.
func (e *stageEntry) remove(ctx context.Context) error {
	e.fail("entry:2")
	if e.twin != nil {
		if err := e.twin.remove(ctx); err != nil {
			return err
		}
		e.twin = nil
	}
	if err := removeTree(ctx, e.dir()); err != nil {
		return err
	}
	e.fail("entry:3")
	if err := os.Remove(e.dir() + lockSuffix); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return e.lock.Close()
}

// abandon lets go of the lock and leaves the rest to the next sweep.
func (e *stageEntry) abandon() error {
	if e.twin != nil {
		return errors.Join(e.twin.abandon(), e.lock.Close())
	}
	return e.lock.Close()
}

// maxRemovals bounds the removals that go on in the background because they take
// longer than Options.RemoveWithin: each has a few descriptors.
const maxRemovals = 64

// discard removes an entry. When ctx ends first, or Options.RemoveWithin is over,
// the removal goes on in the background; what fails is logged and left to the
// next sweep, since the operation that the entry belonged to is over either way.
func (s *Store) discard(ctx context.Context, e *stageEntry) {
	if s.opts.RemoveWithin > 0 && s.Removals() < maxRemovals {
		over := time.NewTimer(s.opts.RemoveWithin)
		defer over.Stop()
		select {
		case <-s.discardLater(e):
		case <-over.C:
		case <-ctx.Done():
		}
		return
	}
	if !e.keep {
		err := e.remove(ctx)
		if err == nil {
			return
		}
		if ctx.Err() == nil {
			s.leaveEntry(e, err)
			return
		}
	}
	s.discardLater(e)
}

// discardLater removes an entry in the background; the channel is closed at its end.
func (s *Store) discardLater(e *stageEntry) <-chan struct{} {
	done := make(chan struct{})
	if e.keep {
		s.leaveEntry(e, errUnfinished)
		close(done)
		return done
	}
	s.unfinished.begin()
	s.removals.Go(func() {
		defer close(done)
		defer s.unfinished.end()
		if err := e.remove(s.background); err != nil {
			s.leaveEntry(e, err)
		}
	})
	return done
}

// leaveEntry logs why an entry could not be removed, and abandons it.
func (s *Store) leaveEntry(e *stageEntry, err error) {
	if cerr := e.abandon(); cerr != nil {
		err = errors.Join(err, cerr)
	}
	if !errors.Is(err, context.Canceled) {
		s.log.WithError(err).Warnf("%s is left for the next opening of the store to remove", e.dir())
	}
}

// deadEntries returns the entries whose owners are dead, locked by us.
func (s *Store) deadEntries() ([]*stageEntry, error) {
	var entries []*stageEntry
	for _, root := range s.roots() {
		found, err := s.deadEntriesIn(root)
		entries = append(entries, found...)
		if err != nil {
			for _, e := range entries {
				err = errors.Join(err, e.abandon())
			}
			return nil, err
		}
	}
	return entries, nil
}

// deadEntriesIn is deadEntries for one root.
func (s *Store) deadEntriesIn(root string) ([]*stageEntry, error) {
	found, err := os.ReadDir(filepath.Join(root, extractDir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, f := range found {
		if name := strings.TrimSuffix(f.Name(), lockSuffix); isEntryName(name) {
			names[name] = true
		}
	}
	var entries []*stageEntry
	for name := range names {
		e := &stageEntry{root: root, roots: s.roots(), name: name, fail: s.fail}
		switch err := e.takeLock(0); {
		case err == nil:
			entries = append(entries, e)
		case errors.Is(err, errOwned):
		default:
			return entries, err
		}
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].name < entries[j].name })
	return entries, nil
}

func isEntryName(name string) bool {
	return len(name) == 2*entryBytes && strings.Trim(name, "0123456789abcdef") == ""
}
