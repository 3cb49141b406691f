package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/errno"
)

// naive answers what sets answer, by looking at every record.
type naive map[string]*Layer

func (n naive) sorted() []string {
	ids := make([]string, 0, len(n))
	for id := range n {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (n naive) resolve(ref string) (string, bool) {
	if _, ok := n[ref]; ok {
		return ref, true
	}
	for id, l := range n {
		if slices.Contains(l.Names, ref) {
			return id, true
		}
	}
	var found []string
	for id := range n {
		if ref != "" && strings.HasPrefix(id, ref) {
			found = append(found, id)
		}
	}
	if len(found) == 1 {
		return found[0], true
	}
	return "", false
}

// A set and its copies answer as a look at every record does, through any
// sequence of changes; and a copy's changes never show in the original.
func TestSetAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.StringMatching(`[ab]{1,4}`)
		s, model := newSet[*Layer](KindLayer, 0), naive{}
		var frozen *set[*Layer]
		frozenText := ""
		taken := func(n, but string) bool {
			for o, l := range model {
				if o != but && slices.Contains(l.Names, n) {
					return true
				}
			}
			return false
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				l := &Layer{ID: id.Draw(t, "id"), Parent: rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "parent")}
				l.DiffDigest = digest.Digest(rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "digest"))
				l.CompressedDigest = digest.Digest(rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "digest"))
				if _, ok := model[l.ID]; ok {
					t.Skip("taken")
				}
				if n := id.Draw(t, "name"); !taken(n, "") {
					l.Names = []string{n}
				}
				s.add(l)
				model[l.ID] = l
			},
			"replace": func(t *rapid.T) {
				if len(model) == 0 {
					t.Skip("empty")
				}
				old := model[rapid.SampledFrom(model.sorted()).Draw(t, "which")]
				l := old.clone()
				l.Parent = rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "parent")
				l.Names = nil
				if n := id.Draw(t, "name"); !taken(n, l.ID) {
					l.Names = []string{n}
				}
				s.replace(old, l)
				model[l.ID] = l
			},
			"remove": func(t *rapid.T) {
				if len(model) == 0 {
					t.Skip("empty")
				}
				which := rapid.SampledFrom(model.sorted()).Draw(t, "which")
				s.remove(model[which])
				delete(model, which)
			},
			"freeze": func(*rapid.T) {
				frozen, frozenText = s, fmt.Sprint(model.sorted(), len(s.byName), len(s.related(relParent, "a")))
				s = s.mutable()
			},
			"": func(t *rapid.T) {
				checkModel(t, s, model)
				if frozen == nil {
					return
				}
				if got := fmt.Sprint(frozen.ids, len(frozen.byName), len(frozen.related(relParent, "a"))); got != frozenText {
					t.Fatalf("the original changed: %s, was %s", got, frozenText)
				}
			},
		})
	})
}

func checkModel(t *rapid.T, s *set[*Layer], model naive) {
	if !slices.Equal(s.ids, model.sorted()) || len(s.list) != len(model) || len(s.byID) != len(model) {
		t.Fatalf("IDs %v, want %v", s.ids, model.sorted())
	}
	tx := &Tx{s: new(Store), st: &state{layers: known(decoded[*Layer]{set: s})}}
	refs := []string{"", "a", "b", "ab", "aab", "abab", "bbbb", "c"}
	for _, ref := range append(refs, model.sorted()...) {
		got, err := tx.Resolve(KindLayer, ref)
		want, ok := model.resolve(ref)
		if got != want || ok != (err == nil) || err != nil && errno.Of(err) != errno.ErrUnknown.Errno() {
			t.Fatalf("resolve %q: %q, %v; want %q, %v", ref, got, err, want, ok)
		}
	}
	for _, key := range []string{"a", "b"} {
		model.same(t, "children of "+key, tx.Children(key), func(l *Layer) bool { return l.Parent == key })
		model.same(t, "digest "+key, tx.LayersByDigest(digest.Digest(key)), func(l *Layer) bool {
			return string(l.DiffDigest) == key || string(l.CompressedDigest) == key
		})
	}
}

// same compares records with those of the model that fit.
func (n naive) same(t *rapid.T, what string, got []*Layer, fits func(*Layer) bool) {
	var ids, want []string
	for _, l := range got {
		ids = append(ids, l.ID)
	}
	for id, l := range n {
		if fits(l) {
			want = append(want, id)
		}
	}
	slices.Sort(ids)
	slices.Sort(want)
	if !slices.Equal(ids, want) {
		t.Fatalf("%s: %v, want %v", what, ids, want)
	}
}

// A chain ends where parents go in a circle.
func TestChainCircle(t *testing.T) {
	s := newSet[*Layer](KindLayer, 0)
	for _, l := range []*Layer{{ID: "x", Parent: "z"}, {ID: "y", Parent: "x"}, {ID: "z", Parent: "y"}, {ID: "w", Parent: "y"}} {
		s.add(l)
	}
	tx := &Tx{s: new(Store), st: &state{layers: known(decoded[*Layer]{set: s}), images: nothing[*Image](KindImage), containers: nothing[*Container](KindContainer)}}
	if c := tx.Chain("w"); len(c) != 4 || c[0].ID != "w" {
		t.Errorf("chain %v", c)
	}
	if err := tx.Damage(KindLayer, "w"); errno.Of(err) != errno.ErrDamaged.Errno() {
		t.Errorf("damage of a circle: %v", err)
	}
}
