package store

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/lockfile"
)

// state is everything that was loaded, at one generation. A published state
// is immutable.
type state struct {
	gen        uint64
	layers     *set[*Layer]
	images     *set[*Image]
	containers *set[*Container]
	kinds      [numKinds]kindState
	mounts     mountsState
}

// kindState is what is known of a kind beside its records.
type kindState struct {
	stamp kindStamp
	// shadows are the stamps of the additional stores' files, in their order.
	shadows []fileStamp
	// broken says why a file could not be read whole; the kind is then
	// read-only.
	broken error
	// modified is when the set of objects or names last changed.
	modified time.Time
}

// mountsState is mountpoints.json.
type mountsState struct {
	stamp  kindStamp
	table  mountTable
	broken error
}

func emptyState() *state {
	return &state{
		layers:     newSet[*Layer](KindLayer, 0),
		images:     newSet[*Image](KindImage, 0),
		containers: newSet[*Container](KindContainer, 0),
	}
}

// objects is a set without its type.
type objects interface {
	anyOf(id string) object
	ownerOf(name string) object
	withPrefix(prefix string, limit int) []string
	each(yield func(object) bool)
	len() int
	odd() []opaque
	sortedIDs() []string
	incomplete() []string
}

func (s *set[R]) each(yield func(object) bool) {
	for _, r := range s.list {
		if !yield(r) {
			return
		}
	}
}

func (s *set[R]) len() int            { return len(s.list) }
func (s *set[R]) sortedIDs() []string { return s.ids }

func (s *set[R]) odd() []opaque {
	return slices.Concat(s.opaque[:]...)
}

// incomplete returns the IDs of own records that a dead writer left half made.
func (s *set[R]) incomplete() []string {
	var ids []string
	for _, r := range s.related(relIncomplete, "") {
		if r.m().shadow == 0 {
			ids = append(ids, r.id())
		}
	}
	return ids
}

func (st *state) of(k Kind) objects {
	switch k {
	case KindLayer:
		return st.layers
	case KindImage:
		return st.images
	}
	return st.containers
}

// loadKind reads the files of kind k, whose lock is held for reading or
// writing, into next. now is the stamp's token, read under that lock.
func (s *Store) loadKind(next *state, k Kind, token lockfile.Token) error {
	var err error
	switch k {
	case KindLayer:
		next.layers, err = loadSet(s, &next.kinds[k], k, next.layers, decodeLayer, token)
	case KindImage:
		next.images, err = loadSet(s, &next.kinds[k], k, next.images, decodeImage, token)
	case KindContainer:
		next.containers, err = loadSet(s, &next.kinds[k], k, next.containers, decodeContainer, token)
	}
	return err
}

func loadSet[R record[R]](s *Store, ks *kindState, k Kind, old *set[R], decode func(*scanner) (R, error), token lockfile.Token) (*set[R], error) {
	ks.stamp.token, ks.broken = token, nil
	var own [numFiles]parsed[R]
	for file, path := range s.paths[k].own {
		if path == "" {
			continue
		}
		var err error
		own[file], ks.stamp.own[file], err = loadFile(k, path, old, origin{file: file}, decode)
		if err != nil {
			return nil, err
		}
		ks.broken = errors.Join(ks.broken, own[file].broken)
	}
	shadows := make([]parsed[R], len(s.paths[k].shadows))
	ks.shadows = make([]fileStamp, len(shadows))
	for i, path := range s.paths[k].shadows {
		var err error
		shadows[i], ks.shadows[i], err = loadFile(k, path, old, origin{shadow: i + 1}, decode)
		if err != nil {
			s.log.WithError(err).Warnf("additional image store: %s cannot be read", path)
		}
	}
	set := merge(k, own, shadows)
	ks.modified = modifiedAt(old, set, ks)
	return set, nil
}

// origin says which file a record comes from.
type origin struct{ file, shadow int }

func loadFile[R record[R]](k Kind, path string, old *set[R], from origin, decode func(*scanner) (R, error)) (parsed[R], fileStamp, error) {
	text, stamp, err := readText(path)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return parsed[R]{}, stamp, err
		}
		broken := errno.New(errno.ErrDamaged, "%ss are read-only and not shown: %w", k, err)
		return parsed[R]{broken: broken}, stamp, nil
	}
	p := parser[R]{kind: k, path: path, oldID: old.byID}
	for _, r := range old.list {
		if r.m().origin() == from {
			p.old = append(p.old, r)
		}
	}
	p.decode = func(at *scanner) (R, error) {
		r, err := decode(at)
		if err == nil {
			r.settle(from)
		}
		return r, err
	}
	return p.parse(text), stamp, nil
}

func (m *meta) origin() origin {
	return origin{file: m.file, shadow: m.shadow}
}

func (m *meta) settle(from origin) {
	m.shadow = from.shadow
	m.file = from.file
}

func (l *Layer) settle(from origin) {
	l.meta.settle(from)
	l.ReadOnly = from.shadow > 0
	l.Volatile = from.file == fileVolatile
}

func (i *Image) settle(from origin) {
	i.meta.settle(from)
	i.ReadOnly = from.shadow > 0
}

func (c *Container) settle(from origin) {
	c.meta.settle(from)
	c.Volatile = c.Volatile || from.file == fileVolatile
}

// modifiedAt dates the last change to the set of objects and names: the
// newest file's time when it changed, else what is known already.
func modifiedAt[R record[R]](old, now *set[R], ks *kindState) time.Time {
	newest := ks.stamp.own[0].time()
	for _, f := range append(ks.stamp.own[1:], ks.shadows...) {
		if t := f.time(); t.After(newest) {
			newest = t
		}
	}
	if ks.modified.IsZero() || !sameNames(old, now) {
		return newest
	}
	return ks.modified
}

// sameNames tells whether two sets hold the same IDs and names.
func sameNames[R record[R]](a, b *set[R]) bool {
	if len(a.byID) != len(b.byID) || len(a.byName) != len(b.byName) {
		return false
	}
	for id := range a.byID {
		if _, ok := b.byID[id]; !ok {
			return false
		}
	}
	for name, r := range a.byName {
		if o, ok := b.byName[name]; !ok || o.id() != r.id() {
			return false
		}
	}
	return true
}

// The own files of a kind: its main one, that of volatile objects and, of
// layers, that of a separate image store.
const (
	fileMain = iota
	fileVolatile
	fileImages
	numFiles
)

// storePaths are the record files of one kind.
type storePaths struct {
	// own are the kind's files; "" where it has none of a sort.
	own     [numFiles]string
	shadows []string
}

func (s *Store) pathsOf(k Kind) storePaths {
	p := storePaths{own: [numFiles]string{filepath.Join(s.kindDir(k), k.Plural()+".json")}}
	if k != KindImage {
		p.own[fileVolatile] = filepath.Join(s.volatileDir(k), "volatile-"+k.Plural()+".json")
	}
	if k == KindLayer && s.split() {
		p.own[fileImages] = filepath.Join(s.imageLayersDir(), k.Plural()+".json")
	}
	if k == KindContainer {
		return p
	}
	for nth := range s.shadowRoots(k) {
		p.shadows = append(p.shadows, s.shadowPath(k, nth+1, k.Plural()+".json"))
	}
	return p
}
