package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/lockfile"
)

// View calls fn with the newest state. While no other process has written,
// this takes no lock and reads no file: only tokens and stamps are compared.
// Otherwise the changed files are read under their locks, held for reading
// that long; ErrTimeout when one cannot be had. fn runs under no lock, may
// last, and its error is returned as it is.
func (s *Store) View(ctx context.Context, fn func(*Tx) error) error {
	st, err := s.fresh(ctx)
	if err != nil {
		return err
	}
	return fn(&Tx{s: s, st: st})
}

// Refresh looks whether other processes have written, loads what they wrote,
// and returns the generation of the newest state.
func (s *Store) Refresh(ctx context.Context) (uint64, error) {
	st, err := s.fresh(ctx)
	if err != nil {
		return 0, err
	}
	return st.gen, nil
}

// fresh returns the newest state, loading it if need be.
func (s *Store) fresh(ctx context.Context) (*state, error) {
	if s.writing.Load() {
		return s.cur.Load(), nil
	}
	// The order matters: whoever emptied the queue set busy before, and what
	// it loaded is in cur once busy is no longer set.
	if s.quiet.holds() && !s.busy.Load() && !s.stale.Load() {
		if st := s.cur.Load(); st.gen > 0 {
			return st, nil
		}
	}
	// Here too: whoever says that cur is not stale has put there what is not, so
	// who looks in this order never has the one with what the other says.
	stale := s.stale.Load()
	st := s.cur.Load()
	if !stale && !s.tryQuiet() {
		if same, err := s.unchanged(st); err != nil || same {
			return st, err
		}
	}
	return s.reload(ctx)
}

// tryQuiet tells whether taking the gate now, without waiting, can make the
// next look cheap again.
func (s *Store) tryQuiet() bool {
	return s.quiet.works() && len(s.gate) == 0
}

// unchanged compares tokens and stamps with those of st, with no lock.
func (s *Store) unchanged(st *state) (bool, error) {
	if s.stale.Load() || st.gen == 0 {
		return false, nil
	}
	for k := range Kind(numKinds) {
		same, err := s.unchangedKind(k, &st.kinds[k])
		if err != nil || !same {
			return false, err
		}
	}
	return s.unchangedMounts(&st.mounts)
}

func (s *Store) unchangedKind(k Kind, ks *kindState) (bool, error) {
	token, err := s.locks[k].Token()
	if err != nil || token != ks.stamp.token {
		return false, err
	}
	if k == KindLayer && s.split() {
		if token, err = s.imageLayers.Token(); err != nil || token != ks.stamp.images {
			return false, err
		}
	}
	for file, path := range s.paths[k].own {
		if path == "" {
			continue
		}
		if same, err := unchangedFile(path, ks.stamp.own[file]); err != nil || !same {
			return false, err
		}
	}
	for i, path := range s.paths[k].shadows {
		if same, err := unchangedFile(path, ks.shadows[i]); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

func (s *Store) unchangedMounts(ms *mountsState) (bool, error) {
	token, err := s.mountsLock.Token()
	if err != nil || token != ms.stamp.token {
		return false, err
	}
	return unchangedFile(s.mountsPath, ms.stamp.own[0])
}

func unchangedFile(path string, old fileStamp) (bool, error) {
	now, err := stampPath(path)
	return now == old, err
}

// also joins an error of cleaning up to err, which stays as it is without one.
func also(err, cleanup error) error {
	if cleanup == nil {
		return err
	}
	return errors.Join(err, cleanup)
}

// reload takes the gate and loads what changed, under read locks.
func (s *Store) reload(ctx context.Context) (_ *state, err error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	s.busy.Store(true)
	defer s.busy.Store(false)
	s.quiet.empty()
	cur := s.cur.Load()
	if same, err := s.unchanged(cur); err != nil || same {
		return cur, err
	}
	held, err := s.lockAll(ctx, "")
	defer func() { err = also(err, unlockAll(held)) }()
	if err != nil {
		return nil, err
	}
	return s.loadLocked(ctx, held)
}

// enter takes the gate.
func (s *Store) enter(ctx context.Context) error {
	if s.closed.Load() {
		return errno.New(errno.ErrBadValue, "the store %s is closed", s.opts.GraphRoot)
	}
	limit := time.NewTimer(s.opts.LockTimeout)
	defer limit.Stop()
	select {
	case s.gate <- struct{}{}:
		return nil
	default:
	}
	select {
	case s.gate <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-limit.C:
		return errno.New(errno.ErrTimeout, "%s: waited too long for another transaction of this process", s.opts.GraphRoot)
	}
}

func (s *Store) leave() { <-s.gate }

// heldLocks are the locks of the kinds, and that of a separate image store's
// layers; nil where not held.
type heldLocks [numKinds + 1]*lockfile.Held

// heldImages is the place of the image store's lock in heldLocks.
const heldImages = numKinds

// lockAll takes the locks of all kinds in their order, nested: for writing
// when what says what for, else for reading. What it took so far is returned
// beside an error.
func (s *Store) lockAll(ctx context.Context, what string) (*heldLocks, error) {
	held := new(heldLocks)
	if s.opts.Transient && !s.opts.ReadOnly { // the run root may have been removed
		for _, k := range []Kind{KindLayer, KindContainer} {
			if err := os.MkdirAll(s.volatileDir(k), 0o700); err != nil {
				return held, fmt.Errorf("make the run root: %w", err)
			}
		}
	}
	for k := range Kind(numKinds) {
		var err error
		if held[k], err = acquire(ctx, s.locks[k], what); err != nil {
			return held, fmt.Errorf("lock %s: %w", k.Plural(), err)
		}
		if k == KindLayer && s.split() {
			if held[heldImages], err = acquire(ctx, s.imageLayers, what); err != nil {
				return held, fmt.Errorf("lock %s of the image store: %w", k.Plural(), err)
			}
		}
	}
	return held, nil
}

// acquire takes a lock for writing when what says what for, else for reading.
func acquire(ctx context.Context, f *lockfile.File, what string) (*lockfile.Held, error) {
	if what == "" {
		return f.RLock(ctx)
	}
	return f.Lock(ctx, what)
}

func unlockAll(held *heldLocks) error {
	var err error
	for k := len(held) - 1; k >= 0; k-- {
		if held[k] != nil {
			err = errors.Join(err, held[k].Unlock())
		}
	}
	return err
}

// loadLocked brings cur up to date and publishes it. Preconditions: gate and
// the locks of all kinds are held.
func (s *Store) loadLocked(ctx context.Context, held *heldLocks) (*state, error) {
	cur := s.cur.Load()
	next := *cur
	if cur.gen == 0 {
		s.tempLeft = s.leftTemps()
	}
	stale := s.stale.Load() || cur.gen == 0
	var loads sync.WaitGroup // each writes the part of next that is its kind's
	var errs [numKinds]error
	for k := range Kind(numKinds) {
		same, err := false, error(nil)
		if !stale {
			same, err = s.unchangedKind(k, &cur.kinds[k])
		}
		if errs[k] = err; same || err != nil {
			continue
		}
		token, err := held[k].Token()
		if err == nil && k == KindLayer && s.split() {
			next.kinds[k].stamp.images, err = held[heldImages].Token()
		}
		if errs[k] = err; err != nil {
			continue
		}
		loads.Go(func() {
			if err := s.loadKind(&next, k, token); err != nil {
				errs[k] = fmt.Errorf("read %s: %w", k.Plural(), err)
			}
		})
	}
	loads.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	if err := s.loadMounts(ctx, &next); err != nil {
		return nil, err
	}
	st := s.publish(&next)
	s.stale.Store(false) // in this order: see fresh
	return st, nil
}

// publish makes next the newest state. Precondition: gate is held.
func (s *Store) publish(next *state) *state {
	cur := s.cur.Load()
	var events []Event
	if cur.gen > 0 { // what was there at open is no news
		events = difference(cur, next)
	}
	next.gen = cur.gen
	switch {
	case cur.gen == 0: // greater than all of earlier openings, so that those are known as theirs
		next.gen = uint64(max(1, time.Now().UnixMicro()))
	case len(events) > 0:
		next.gen++
	}
	s.cur.Store(next)
	if next.gen != cur.gen {
		s.events.tell(next.gen, events)
	}
	return next
}
