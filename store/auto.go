package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/moby/sys/user"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
)

// Limits of the ID maps that a container is given, unless AutoMaps says others
// (containers-storage.conf(5), "auto-userns-min-size" and on).
const (
	DefaultAutoUser    = "containers"
	DefaultAutoMinSize = 1024
	DefaultAutoMaxSize = 65536
)

// AutoMaps asks for ID maps that no other container has, from the subordinate
// IDs of a user.
type AutoMaps struct {
	// User is whose IDs in /etc/subuid and /etc/subgid are given out; "" is
	// that of Options.Auto, else DefaultAutoUser.
	User string
	// Size is how many IDs the container gets. Zero means as many as the
	// owners of its image's layers need, at least MinSize; more than MaxSize
	// is refused. Limits of zero or less are those of Options.Auto, else the
	// defaults above.
	Size, MinSize, MaxSize int
}

// or is a, with the user and the limits of b where a leaves them open.
func (a AutoMaps) or(b AutoMaps) AutoMaps {
	if a.User == "" {
		a.User = b.User
	}
	if a.MinSize <= 0 {
		a.MinSize = b.MinSize
	}
	if a.MaxSize <= 0 {
		a.MaxSize = b.MaxSize
	}
	return a
}

// subIDFiles are where subordinate IDs are, of users and of groups.
func subIDFiles() [2]string { return [2]string{"/etc/subuid", "/etc/subgid"} }

// autoTries bounds how often maps are chosen anew because another process gave
// the same to a container meanwhile.
const autoTries = 100

// errMapsTaken says that chosen maps were given to another container.
var errMapsTaken = errors.New("the ID maps were given to another container")

// createAuto makes a container with maps of its own. The maps are chosen with
// no lock, and looked at again, under userns.lock and the store's locks, when
// the container is published: so the lock, which peers hold while they choose
// and create, is not held while the layer is made.
func (s *Store) createAuto(ctx context.Context, spec ContainerSpec) (*Container, error) {
	auto := spec.Auto.or(s.opts.Auto).or(AutoMaps{User: DefaultAutoUser, MinSize: DefaultAutoMinSize, MaxSize: DefaultAutoMaxSize})
	spec.Auto = &auto // the caller's own stays as it is
	available, err := s.subIDs(auto)
	if err != nil {
		return nil, err
	}
	for range autoTries {
		err = s.View(ctx, func(t *Tx) (err error) {
			spec.Maps, err = t.chooseMaps(spec, available)
			return err
		})
		if err != nil {
			return nil, err
		}
		var rec *Container
		if rec, err = s.createContainer(ctx, spec); !errors.Is(err, errMapsTaken) {
			return rec, err
		}
	}
	return nil, errno.New(errno.ErrInUse, "no ID maps were left for container %s in %d tries, since others took them: %w", spec.ID, autoTries, err)
}

// subIDs are the spans that maps are chosen from, of users and of groups.
func (s *Store) subIDs(a AutoMaps) (available [2][]idmap.Span, err error) {
	name := a.User
	for i, file := range s.opts.subIDFiles {
		found, err := user.ParseSubIDFileFilter(file, func(e user.SubID) bool { return e.Name == name })
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return available, fmt.Errorf("read subordinate IDs: %w", err)
		}
		for _, e := range found {
			if e.SubID > 0 && e.Count > 0 && e.SubID+e.Count < 1<<32 {
				available[i] = append(available[i], idmap.Span{First: int(e.SubID), Size: int(e.Count)})
			}
		}
		if len(available[i]) == 0 {
			return available, errno.New(errno.ErrNotSupported, "user %q has no subordinate IDs in %s: add a line as %s:2147483648:2147418112, or name another user", name, file, name)
		}
	}
	return available, nil
}

// chooseMaps finds maps that no container has. ErrQuota when there are none.
func (t *Tx) chooseMaps(spec ContainerSpec, available [2][]idmap.Span) (m idmap.Maps, err error) {
	size, err := t.autoSize(spec)
	if err != nil {
		return m, err
	}
	used := t.usedIDs()
	for i, to := range []*[]idmap.Range{&m.UIDs, &m.GIDs} {
		ranges, ok := idmap.Allocate(available[i], used[i], size)
		if !ok {
			return m, errno.New(errno.ErrQuota, "fewer than %d IDs of %s are in no container's maps; delete containers, or add subordinate IDs", size, t.s.opts.subIDFiles[i])
		}
		*to = ranges
	}
	return m, nil
}

// autoSize is how many IDs the container is to have.
func (t *Tx) autoSize(spec ContainerSpec) (int, error) {
	a := *spec.Auto
	size := a.Size
	if size <= 0 {
		size = a.MinSize
		if img := t.ImageByID(spec.Image); img != nil {
			for _, l := range t.Chain(img.TopLayer) {
				for _, id := range slices.Concat(l.UIDs, l.GIDs) {
					size = max(size, int(id)+1)
				}
			}
		}
	}
	if size > a.MaxSize {
		return 0, errno.New(errno.ErrBadValue, "container %s would need %d IDs, and %d are the most it may have; raise the limit (auto-userns-max-size) or give it ID maps", spec.ID, size, a.MaxSize)
	}
	return size, nil
}

// usedIDs are the host IDs of all containers' maps.
func (t *Tx) usedIDs() (used [2][]idmap.Span) {
	for c := range t.Containers() {
		for i, ranges := range [2][]idmap.Range{c.Maps.UIDs, c.Maps.GIDs} {
			for _, r := range ranges {
				used[i] = append(used[i], idmap.Span{First: r.HostID, Size: r.Size})
			}
		}
	}
	return used
}

// checkMapsFree is errMapsTaken when another container has some of the IDs.
func (t *Tx) checkMapsFree(m idmap.Maps) error {
	used := t.usedIDs()
	for i, ranges := range [2][]idmap.Range{m.UIDs, m.GIDs} {
		for _, r := range ranges {
			for _, u := range used[i] {
				if r.HostID < u.First+u.Size && u.First < r.HostID+r.Size {
					return errMapsTaken
				}
			}
		}
	}
	return nil
}

// lockMaps takes userns.lock, before the store's other locks.
func (s *Store) lockMaps(ctx context.Context) (unlock func() error, err error) {
	held, err := s.mapsLock.Lock(ctx, "choose ID maps")
	if err != nil {
		return nil, fmt.Errorf("lock the choice of ID maps: %w", err)
	}
	return held.Unlock, nil
}
