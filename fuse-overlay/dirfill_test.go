package fuseoverlay

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// TestFilling: whatever is looked up and forgotten while an index is made
// complete, between any two pieces of that work, is known as it is, and the
// listing has each name once.
func TestFilling(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var x childIndex
		bound := map[string]*node{}
		next := uint64(1)
		ever := map[string]bool{} // bound since the filling began, or before it and still
		some := func(most int) {
			for range rapid.IntRange(0, most).Draw(t, "changes") {
				name := fmt.Sprint(rapid.IntRange(0, 3*most).Draw(t, "name"))
				if rapid.IntRange(0, 3).Draw(t, "forget") == 0 {
					x.unbind(name)
					delete(bound, name)
				} else if bound[name] == nil {
					bound[name], ever[name] = &node{id: next, ino: next, typ: unix.S_IFREG}, true
					x.bind(name, bound[name])
					next++
				}
			}
			for name := range ever {
				if e := x.get(name); bound[name] != nil && (e == nil || e.node != bound[name]) || e != nil && e.node != bound[name] {
					t.Fatalf("%s is %v and not %v", name, e, bound[name])
				}
			}
			if x.kids != len(bound) {
				t.Fatalf("%d kids, of %d", x.kids, len(bound))
			}
		}
		size := rapid.SampledFrom([]int{2, 6, 30, 2 * piece}).Draw(t, "size")
		some(size)
		for name := range ever {
			if bound[name] == nil {
				delete(ever, name)
			}
		}
		var names []dirName
		for i := range rapid.IntRange(0, 2*size).Draw(t, "listed") {
			names = append(names, dirName{name: fmt.Sprint(i), typ: unix.S_IFREG, ino: 1 << 40})
		}
		f := x.begin()
		some(size)
		f.build(names)
		for more := true; more; {
			some(size)
			more = x.join(f)
		}
		select {
		case <-f.done:
		default:
			t.Fatal("who waits for it is not told")
		}
		for i := range names {
			ever[names[i].name] = true
		}
		some(size)
		buf := make([]entry, len(ever)+1)
		k := x.after(0, buf)
		if k != len(ever) || x.names.n != k || x.fill != nil {
			t.Fatalf("%d names are listed, and %d of %d known", k, x.names.n, len(ever))
		}
		for i := range buf[:k] {
			e := &buf[i]
			if !ever[e.name] || e.node != bound[e.name] || e.ino == 0 || e.kind == 0 || i > 0 && e.cookie <= buf[i-1].cookie {
				t.Fatalf("entry %d: %+v", i, e)
			}
			delete(ever, e.name)
		}
		if !slices.IsSortedFunc(x.order, func(a, b *entry) int { return int(a.cookie) - int(b.cookie) }) || k > 0 && x.order[len(x.order)-1].cookie >= x.next {
			t.Fatal("the order is none")
		}
	})
}

// TestListingStopsNobody: between the steps of a first listing of a large
// directory there are look-ups in it and elsewhere, and other listings of it.
func TestListingStopsNobody(t *testing.T) {
	t.Parallel()
	needRoot(t)
	const files = 3 * piece
	r := newRig(t, fmt.Sprintf("mkdir d e; touch e/other; cd d; seq -f file-%%g %d | xargs touch", files))
	check(t, os.WriteFile(filepath.Join(r.config.Upper, "top"), nil, 0o600))
	o, err := newOverlay(r.config)
	check(t, err)
	defer func() { check(t, o.close()) }()
	ctx := context.Background()
	look := func(dir *node, name string) *node {
		t.Helper()
		n, _, err := o.lookup(ctx, dir, name)
		check(t, err)
		if n == nil {
			t.Fatalf("%s is not there", name)
		}
		return n
	}
	dir, other := look(o.root, "d"), look(o.root, "e")
	look(dir, "file-1")
	kept := look(dir, "file-2")
	names, err := o.list(ctx, dir)
	check(t, err)
	dir.dir.mu.RLock()
	f := dir.dir.idx.begin()
	look(other, "other")
	var waiting sync.WaitGroup
	for range 3 {
		waiting.Go(func() {
			var buf [8]entry
			if k, err := o.children(ctx, dir, firstCookie-1, buf[:]); k != len(buf) || err != nil {
				t.Errorf("a second listing has %d names: %v", k, err)
			}
		})
	}
	o.forget(kept, 1)
	if look(dir, "file-2") == kept {
		t.Error("a node is there after it was forgotten")
	}
	f.build(names)
	steps := 0
	for more := true; more; steps++ {
		for i := range 2 * piece {
			if steps == 0 {
				look(dir, fmt.Sprint("file-", i+3))
			}
		}
		look(other, "other")
		o.treeMu.Lock()
		more = dir.dir.idx.join(f)
		o.treeMu.Unlock()
	}
	dir.dir.mu.RUnlock()
	waiting.Wait()
	if steps < 2 {
		t.Errorf("%d names that came late were taken in at %d goes", 2*piece, steps)
	}
	seen := map[string]bool{}
	buf := make([]entry, files+1)
	k, err := o.children(ctx, dir, firstCookie-1, buf)
	check(t, err)
	for i := range buf[:k] {
		seen[buf[i].name] = true
	}
	if k != files || len(seen) != files {
		t.Errorf("%d names are listed, %d different ones, of %d", k, len(seen), files)
	}
}
