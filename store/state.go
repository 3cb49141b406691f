package store

import (
	"path/filepath"
	"slices"
)

// state is everything that was loaded, at one generation. A published state
// is immutable.
type state struct {
	gen        uint64
	layers     *part[*Layer]
	images     *part[*Image]
	containers *part[*Container]
	kinds      [numKinds]kindState
	mounts     mountsState
}

// kindState tells of which version of a kind's files the records are.
type kindState struct {
	stamp kindStamp
	// shadows are the stamps of the additional stores' files, in their order.
	shadows []fileStamp
}

// mountsState is mountpoints.json.
type mountsState struct {
	stamp  kindStamp
	table  mountTable
	broken error
}

func emptyState() *state {
	return &state{
		layers:     nothing[*Layer](KindLayer),
		images:     nothing[*Image](KindImage),
		containers: nothing[*Container](KindContainer),
	}
}

func nothing[R record[R]](k Kind) *part[R] { return known(decoded[R]{set: newSet[R](k, 0)}) }

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
