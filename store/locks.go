package store

import (
	"fmt"
	"strings"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/lockfile"
)

// LockState is who holds one of the store's locks and who waits for it.
type LockState struct {
	// Name is one of LockNames, Path the file.
	Name, Path string
	// Held tells whether anyone holds it; Holder is who, as far as is known.
	Held   bool
	Holder lockfile.Holder
	// Waiting are other programs' processes that wait in the kernel; Here
	// counts what waits in this process.
	Waiting []int
	Here    int
}

// The names of locks that are not those of a kind.
const (
	lockMounts      = "mountpoints"
	lockMaps        = "userns"
	lockImageLayers = "image-layers"
)

// lockOf returns the lock of a name; nil when the store has none of it.
func (s *Store) lockOf(name string) *lockfile.File {
	switch name {
	case lockMounts:
		return s.mountsLock
	case lockMaps:
		return s.mapsLock
	case lockImageLayers:
		return s.imageLayers
	}
	for k := range Kind(numKinds) {
		if k.Plural() == name {
			return s.locks[k]
		}
	}
	return nil
}

// LockNames are the names of the store's locks: each kind's plural,
// "mountpoints" and "userns", which is held while ID maps are chosen, and, with
// a separate image store, "image-layers", that of its layers.
func (s *Store) LockNames() []string {
	names := []string{KindLayer.Plural(), KindImage.Plural(), KindContainer.Plural(), lockMounts, lockMaps}
	if s.split() {
		names = append(names, lockImageLayers)
	}
	return names
}

// LockState tells who holds and who waits for the lock of a name (LockNames);
// ErrUnknown for another. Nothing is locked.
func (s *Store) LockState(name string) (LockState, error) {
	file := s.lockOf(name)
	if file == nil {
		return LockState{}, errno.New(errno.ErrUnknown, "the store has no lock %q: its locks are %s", name, strings.Join(s.LockNames(), ", "))
	}
	st := LockState{Name: name, Path: file.Path()}
	var err error
	if st.Holder, st.Held, err = file.Holder(); err == nil {
		st.Waiting, st.Here, err = file.Waiters()
	}
	if err != nil {
		return st, fmt.Errorf("the lock of %s: %w", name, err)
	}
	return st, nil
}
