package fsview

import (
	"context"
	"strings"

	"github.com/plyfs/plyfs/store"
)

type mkdirFunc func(ctx context.Context, p place, name string) (entry, error)

// linkUp is the target of a symlink depth directories below the root to the
// object of kind whose ID is the place's further name.
func linkUp(depth int, kind store.Kind) func(place) (string, bool) {
	return func(p place) (string, bool) { return p.index().up(depth, kind, p.linked()) }
}

// linked is the ID that a link's place is about: inside an object the further
// name, else the ID.
func (p place) linked() string {
	if p.row.obj != objNone {
		return p.arg
	}
	return p.id
}

func listObjects(kind store.Kind) func(place) []entry {
	return func(p place) []entry {
		x := &p.index().kinds[kind]
		row := p.row.child("<" + kind.String() + ">")
		list := make([]entry, 0, len(x.ids))
		for _, id := range x.ids {
			list = append(list, entry{x.entryOf[id], where{row: row, id: id}})
		}
		return list
	}
}

func findObject(kind store.Kind) func(context.Context, place, string) (entry, error) {
	return func(_ context.Context, p place, name string) (entry, error) {
		id, alias, ok := p.index().resolve(kind, name)
		switch {
		case !ok:
			return entry{}, unknown("there is no %s %q: ls /%s shows them, and unique ID prefixes resolve in /%s/by-id", kind, clip(name), kind.Plural(), kind.Plural())
		case alias:
			return entry{name, where{p.row.child("<name>"), id, name}}, nil
		}
		return entry{name, where{row: p.row.child("<" + kind.String() + ">"), id: id}}, nil
	}
}

func listByID(kind store.Kind) func(place) []entry {
	return func(p place) []entry {
		x := &p.index().kinds[kind]
		row := p.row.child("<id>")
		list := make([]entry, 0, len(x.ids))
		for _, id := range x.ids {
			if e := Encode(id); len(e) <= maxEntry {
				list = append(list, entry{e, where{row: row, id: id}})
			}
		}
		return list
	}
}

func findByID(kind store.Kind) func(context.Context, place, string) (entry, error) {
	return func(_ context.Context, p place, name string) (entry, error) {
		prefix, err := Decode(name)
		if err != nil {
			return entry{}, unknown("%v", err)
		}
		x := &p.index().kinds[kind]
		row := p.row.child("<id>")
		if _, ok := x.entryOf[prefix]; ok {
			return entry{name, where{row: row, id: prefix}}, nil
		}
		found := ""
		for _, id := range x.ids {
			if !strings.HasPrefix(id, prefix) {
				continue
			}
			if found != "" {
				return entry{}, unknown("%q is the beginning of several %s IDs: give more digits", clip(prefix), kind)
			}
			found = id
		}
		if found == "" {
			return entry{}, unknown("no %s has an ID that begins with %q", kind, clip(prefix))
		}
		return entry{name, where{row, found, name}}, nil
	}
}

func listByDigest(kind store.Kind) func(place) []entry {
	return func(p place) []entry {
		x := &p.index().kinds[kind]
		row := p.row.child("<digest>")
		list := make([]entry, 0, len(x.digestList))
		for _, d := range x.digestList {
			list = append(list, entry{d, where{row, x.digests[d], d}})
		}
		return list
	}
}

func findByDigest(kind store.Kind) func(context.Context, place, string) (entry, error) {
	return func(_ context.Context, p place, name string) (entry, error) {
		id, ok := p.index().kinds[kind].digests[name]
		if !ok {
			return entry{}, unknown("no %s has the digest %q", kind, clip(name))
		}
		return entry{name, where{p.row.child("<digest>"), id, name}}, nil
	}
}

// links makes the list and find of a directory of symlinks inside an object,
// to the objects of kind that ids returns.
func links(kind store.Kind, child string, ids func(p place) []string) (func(place) []entry, func(context.Context, place, string) (entry, error)) {
	list := func(p place) []entry {
		x, row := p.index(), p.row.child(child)
		var list []entry
		for _, id := range ids(p) {
			if e, ok := x.entry(kind, id); ok {
				list = append(list, entry{e, where{row, p.id, id}})
			}
		}
		return list
	}
	find := func(_ context.Context, p place, name string) (entry, error) {
		if id, _, ok := p.index().resolve(kind, name); ok && contains(ids(p), id) {
			return entry{name, where{p.row.child(child), p.id, id}}, nil
		}
		return entry{}, unknown("there is no %s %q in %s", kind, clip(name), p.label())
	}
	return list, find
}

// linksRows are the two rows of such a directory.
func linksRows(path string, kind store.Kind, doc, linkDoc string, mkdir mkdirFunc, ids func(p place) []string) []Row {
	child := "<" + kind.String() + ">"
	list, find := links(kind, child, ids)
	mode := uint32(modeDir)
	if mkdir != nil {
		mode = modeMake
	}
	return []Row{
		{Path: path, Kind: Links, Mode: mode, Valid: 1, Doc: doc,
			rowOps: rowOps{list: list, find: find, mkdir: mkdir, mtime: modifiedAny}},
		{Path: path + "/" + child, Kind: Link, Mode: modeLink, Valid: 1, Doc: linkDoc,
			rowOps: rowOps{mtime: modifiedAny, target: func(p place) (string, bool) { return p.index().up(3, kind, p.arg) }}},
	}
}

func idsOf[T any](list []T, id func(T) string) []string {
	ids := make([]string, len(list))
	for i, x := range list {
		ids[i] = id(x)
	}
	return ids
}

func layerID(l *store.Layer) string         { return l.ID }
func imageID(i *store.Image) string         { return i.ID }
func containerID(c *store.Container) string { return c.ID }

// user is one thing that needs an object.
type user struct {
	kind store.Kind
	id   string
}

// users returns everything that needs the place's object.
func (p place) users() []user {
	var list []user
	seen := map[user]bool{}
	add := func(kind store.Kind, ids []string) {
		for _, id := range ids {
			if u := (user{kind, id}); !seen[u] {
				seen[u] = true
				list = append(list, u)
			}
		}
	}
	switch p.row.obj {
	case objLayer:
		add(store.KindLayer, idsOf(p.tx.Children(p.id), layerID))
		add(store.KindImage, idsOf(p.tx.ImagesOn(p.id), imageID))
		add(store.KindImage, idsOf(p.tx.MappedBy(p.id), imageID))
		add(store.KindContainer, idsOf(p.tx.ContainersOnLayer(p.id), containerID))
	case objImage:
		add(store.KindContainer, idsOf(p.tx.ContainersOf(p.id), containerID))
	}
	return list
}

// userEntry names a user in used-by/: `<kind>:<entry>`, or with the ID where
// the entry is too long.
func (x *index) userEntry(u user) (string, bool) {
	e, ok := x.entry(u.kind, u.id)
	if !ok {
		return "", false
	}
	name := u.kind.String() + ":" + e
	if len(name) > maxEntry {
		name = u.kind.String() + ":" + Encode(u.id)
	}
	return name, len(name) <= maxEntry
}

func listUsers(p place) []entry {
	x, row := p.index(), p.row.child("<user>")
	var list []entry
	for _, u := range p.users() {
		if name, ok := x.userEntry(u); ok {
			list = append(list, entry{name, where{row, p.id, name}})
		}
	}
	return list
}

func findUser(_ context.Context, p place, name string) (entry, error) {
	if _, ok := p.userNamed(name); !ok {
		return entry{}, unknown("nothing called %q needs %s", clip(name), p.label())
	}
	return entry{name, where{p.row.child("<user>"), p.id, name}}, nil
}

func (p place) userNamed(name string) (user, bool) {
	x := p.index()
	for _, u := range p.users() {
		if e, ok := x.userEntry(u); ok && e == name {
			return u, true
		}
	}
	return user{}, false
}

func targetUser(p place) (string, bool) {
	u, ok := p.userNamed(p.arg)
	if !ok {
		return "", false
	}
	return p.index().up(3, u.kind, u.id)
}

// describeUsers lists who needs an object, for a sentence: at most five.
func (p place) describeUsers() string {
	x := p.index()
	users := p.users()
	var words []string
	for i, u := range users {
		if i == 5 {
			words = append(words, "and others")
			break
		}
		e, _ := x.entry(u.kind, u.id)
		words = append(words, u.kind.String()+" "+clip(e))
	}
	return strings.Join(words, ", ")
}
