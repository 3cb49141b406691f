package fuseoverlay

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestNameTable: names and nodes that come and go are found as in a map.
func TestNameTable(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var table nameTable
		var pages nodePages
		model := map[string]*entry{}
		var names []string
		next := uint64(1)
		add := func(name string) {
			if model[name] != nil {
				return
			}
			e := &entry{name: name, node: &node{id: next}}
			next++
			table.put(e)
			pages.put(e.node)
			model[name], names = e, append(names, name)
		}
		remove := func(i int) {
			e := model[names[i]]
			table.del(e)
			pages.del(e.node)
			delete(model, names[i])
			names = slices.Delete(names, i, i+1)
			if table.get(e.name) != nil || pages.get(e.node.id) != nil {
				t.Fatalf("%q is there after its end", e.name)
			}
		}
		for range rapid.IntRange(1, 12).Draw(t, "phases") {
			k := rapid.SampledFrom([]int{1, 7, 8, 9, 20, 300}).Draw(t, "how many")
			if rapid.Bool().Draw(t, "add") {
				for i := range k {
					add(fmt.Sprint(rapid.IntRange(0, 400).Draw(t, "from")+i, "name"))
				}
			} else {
				for range min(k, len(names)) {
					remove(rapid.IntRange(0, len(names)-1).Draw(t, "which"))
				}
			}
			if table.n != len(model) || pages.n != len(model) {
				t.Fatalf("%d and %d, not %d", table.n, pages.n, len(model))
			}
			for name, e := range model {
				if table.get(name) != e || pages.get(e.node.id) != e.node {
					t.Fatalf("%q is not found", name)
				}
			}
			seen := 0
			table.all(func(e *entry) { seen++ })
			pages.all(func(*node) { seen++ })
			if seen != 2*len(model) || len(table.slots) > 4*few && len(table.slots) > 8*max(len(model), 1) || len(pages.pages) > len(model) {
				t.Fatalf("%d seen, %d slots, %d pages for %d", seen, len(table.slots), len(pages.pages), len(model))
			}
		}
	})
}

// TestManyNames: an index of many names, which come and go, is that of a few, and
// whatever is done to it touches a bounded number of them, since treeMu is held.
func TestManyNames(t *testing.T) {
	t.Parallel()
	const n = 3 * most / 2
	x := childIndex{complete: true}
	largest := func() int {
		slots := len(x.names.slots)
		if x.names.parts != nil {
			for i := range x.names.parts {
				slots = max(slots, len(x.names.parts[i].slots))
			}
		}
		return slots
	}
	for i := range n {
		x.add(fmt.Sprint("name", i))
	}
	if x.names.parts == nil || largest() > most {
		t.Errorf("%d names are in tables of %d slots", n, largest())
	}
	// Removed in an order that is none, while a listing goes on.
	left, cookie, listed := n, uint64(0), 0
	var buf [7]entry
	for i := range n {
		name := fmt.Sprint("name", i*7919%n)
		if x.get(name) == nil || x.get(name+"x") != nil {
			t.Fatalf("%s is not found, or what is not there is", name)
		}
		before := len(x.order) - x.loose + x.packed
		if x.remove(name); x.get(name) != nil {
			t.Fatalf("%s is found after its end", name)
		}
		if after := len(x.order) - x.loose + x.packed; before-after > piece {
			t.Fatalf("%d of %d entries are taken out at once", before-after, before)
		}
		if left--; i%1000 == 0 {
			k := x.after(cookie, buf[:])
			for _, e := range buf[:k] {
				if e.cookie <= cookie || e.gone {
					t.Fatalf("%+v comes after %d", e, cookie)
				}
				cookie = e.cookie
			}
			listed += k
			all := 0
			x.all(func(*entry) { all++ })
			if all != left || x.names.n != left {
				t.Fatalf("%d names are known, %d counted, not %d", all, x.names.n, left)
			}
			if left > 0 {
				rest := make([]entry, left+1)
				if k := x.after(0, rest); k != left {
					t.Fatalf("%d names are listed, not %d", k, left)
				}
			}
		}
	}
	if listed == 0 || x.names.parts != nil || !x.empty() || len(x.order) > 2*piece {
		t.Errorf("%d listed; of none left there are %d, in parts: %v", listed, len(x.order), x.names.parts != nil)
	}
}
