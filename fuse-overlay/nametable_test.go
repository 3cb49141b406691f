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
