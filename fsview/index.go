package fsview

import (
	"sort"
	"strconv"
	"strings"

	"github.com/plyfs/plyfs/store"
)

// index holds the names of entries in one generation of the store. It is
// immutable.
type index struct {
	tx    *store.Tx
	gen   uint64
	kinds [3]kindIndex
}

// kindIndex is the index of one kind.
type kindIndex struct {
	// entryOf maps an ID to its entry in the kind's directory, idOf back.
	entryOf, idOf map[string]string
	// ids are all IDs, in the order of the records.
	ids []string
	// folders maps a path of by-name ("" for by-name itself) to its entries,
	// sorted; leaf maps a full path, encoded, to the name it stands for.
	folders map[string][]nameEntry
	leaf    map[string]string
	// digests maps an entry of by-digest to an ID; digestList is sorted.
	digests    map[string]string
	digestList []string
}

type nameEntry struct {
	entry  string
	folder bool
}

// indexOf returns the index of tx's generation. Two goroutines may make the
// same one; either is good.
func (f *FS) indexOf(tx *store.Tx) *index {
	if x := f.index.Load(); x != nil && x.gen == tx.Generation() {
		return x
	}
	x := &index{tx: tx, gen: tx.Generation()}
	for kind := store.KindLayer; kind <= store.KindContainer; kind++ {
		x.kinds[kind] = indexKind(tx, kind, f.fixed(kind))
	}
	f.index.Store(x)
	return x
}

// fixed returns the fixed entries of a kind's directory, and those that later
// versions of the tree will have there.
func (f *FS) fixed(kind store.Kind) map[string]bool {
	m := map[string]bool{"import": true, "ctl": true, "by-id": true, "by-name": true, "by-digest": true}
	for _, k := range f.paths["/"+kind.Plural()].kids {
		if !k.dynamic() {
			m[k.name] = true
		}
	}
	return m
}

func indexKind(tx *store.Tx, kind store.Kind, fixed map[string]bool) kindIndex {
	x := kindIndex{ids: tx.IDs(kind)}
	x.entryOf = make(map[string]string, len(x.ids))
	x.idOf = make(map[string]string, len(x.ids))
	isAnID := make(map[string]bool, len(x.ids))
	for _, id := range x.ids {
		isAnID[id] = true
	}
	var unnamed []string
	for _, id := range x.ids {
		names, _ := tx.Names(kind, id)
		e := ""
		if len(names) > 0 {
			e = entryFor(names[len(names)-1], fixed, isAnID)
		}
		if e == "" || x.idOf[e] != "" {
			unnamed = append(unnamed, id)
			continue
		}
		x.entryOf[id], x.idOf[e] = e, id
	}
	for _, id := range unnamed {
		e := Encode(id)
		if fixed[id] || x.idOf[e] != "" {
			e = encodeAll(id)
		}
		x.entryOf[id], x.idOf[e] = e, id
	}
	x.indexNames(tx, kind)
	x.indexDigests(tx, kind)
	return x
}

// entryFor returns the entry of an object whose oldest name is name, or "" if
// it is reachable by its ID only.
func entryFor(name string, fixed, isAnID map[string]bool) string {
	if name == "" {
		return ""
	}
	e := Encode(name)
	if fixed[e] || isAnID[name] || isID(name) {
		e = EncodeFirst(name)
	}
	if len(e) > maxEntry {
		return ""
	}
	return e
}

// indexNames lays the names out as by-name shows them.
func (x *kindIndex) indexNames(tx *store.Tx, kind store.Kind) {
	x.folders, x.leaf = map[string][]nameEntry{"": nil}, map[string]string{}
	isName := func(s string) bool {
		_, ok := tx.ByName(kind, s)
		return ok
	}
	for _, id := range x.ids {
		names, _ := tx.Names(kind, id)
		for _, name := range names {
			if path, ok := namePath(name, isName); ok {
				x.addPath(path, name)
			}
		}
	}
	for _, list := range x.folders {
		sort.Slice(list, func(i, j int) bool { return list[i].entry < list[j].entry })
	}
}

func (x *kindIndex) addPath(path, name string) {
	if _, ok := x.leaf[path]; ok {
		return
	}
	x.leaf[path] = name
	folder := false
	for {
		up, base := "", path
		if i := strings.LastIndexByte(path, '/'); i >= 0 {
			up, base = path[:i], path[i+1:]
		}
		_, known := x.folders[up]
		x.folders[up] = append(x.folders[up], nameEntry{base, folder})
		if known {
			return
		}
		path, folder = up, true
	}
}

// namePath returns where a name stands below by-name: nested at each `/` if
// it can, else encoded in one component; false if neither fits a file name.
func namePath(name string, isName func(string) bool) (string, bool) {
	if strings.Contains(name, "/") && nests(name, isName) {
		parts := strings.Split(name, "/")
		for i, c := range parts {
			parts[i] = Encode(c)
		}
		return strings.Join(parts, "/"), true
	}
	e := Encode(name)
	return e, name != "" && len(e) <= maxEntry
}

// nests tells whether each component of name can be an entry and no shorter
// name stands in the way of a folder.
func nests(name string, isName func(string) bool) bool {
	start := 0
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		c := name[start:i]
		if c == "" || c == "." || c == ".." || len(Encode(c)) > maxEntry {
			return false
		}
		if i < len(name) && isName(name[:i]) {
			return false
		}
		start = i + 1
	}
	return true
}

// indexDigests names what by-digest shows: `<digest>` for the first object
// that has it, `<digest>.<id>` for each further one.
func (x *kindIndex) indexDigests(tx *store.Tx, kind store.Kind) {
	x.digests = map[string]string{}
	for _, id := range x.ids {
		for _, d := range digestsOf(tx, kind, id) {
			e := Encode(d)
			if other, taken := x.digests[e]; taken && other != id {
				e = Encode(d + "." + id)
			}
			if len(e) <= maxEntry {
				x.digests[e] = id
			}
		}
	}
	for e := range x.digests {
		x.digestList = append(x.digestList, e)
	}
	sort.Strings(x.digestList)
}

// digestsOf returns the digests an object is known by, each once.
func digestsOf(tx *store.Tx, kind store.Kind, id string) []string {
	var list []string
	add := func(d string) {
		for _, have := range list {
			if have == d {
				return
			}
		}
		if d != "" {
			list = append(list, d)
		}
	}
	switch kind {
	case store.KindLayer:
		if l := tx.LayerByID(id); l != nil {
			add(string(l.DiffDigest))
			add(string(l.CompressedDigest))
			add(string(l.TOCDigest))
		}
	case store.KindImage:
		if i := tx.ImageByID(id); i != nil {
			add(string(i.Digest))
			for _, key := range i.BigDataNames {
				if key == "manifest" || strings.HasPrefix(key, "manifest-") {
					add(string(i.BigDataDigests[key]))
				}
			}
		}
	}
	return list
}

// resolve finds an object by what stands in its kind's directory: its entry,
// or (with alias true) its full ID or another of its names, encoded.
func (x *index) resolve(kind store.Kind, name string) (id string, alias, ok bool) {
	k := &x.kinds[kind]
	if id, ok := k.idOf[name]; ok {
		return id, false, true
	}
	plain, err := Decode(name)
	if err != nil {
		return "", false, false
	}
	if _, ok := k.entryOf[plain]; ok {
		return plain, true, true
	}
	id, ok = x.tx.ByName(kind, plain)
	return id, true, ok
}

// entry returns the entry of an object in its kind's directory.
func (x *index) entry(kind store.Kind, id string) (string, bool) {
	e, ok := x.kinds[kind].entryOf[id]
	return e, ok
}

// up returns the relative symlink target that leads from a symlink depth
// directories below the root to an object's entry.
func (x *index) up(depth int, kind store.Kind, id string) (string, bool) {
	e, ok := x.entry(kind, id)
	if !ok {
		return "", false
	}
	return strings.Repeat("../", depth) + kind.Plural() + "/" + e, true
}

// ordinal is the NN of layers/NN, as wide as the highest needs, at least 2.
func ordinal(i, count int) string {
	width := max(2, len(strconv.Itoa(count-1)))
	s := strconv.Itoa(i)
	return strings.Repeat("0", max(0, width-len(s))) + s
}
