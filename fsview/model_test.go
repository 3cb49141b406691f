package fsview_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/fsview"
)

// model is what the names of containers should be: each object is known by a
// number, and has a list of names, newest first.
type model struct {
	objects map[int][]string
	next    int
}

func (m *model) owner(name string) (int, bool) {
	for o, names := range m.objects {
		if slices.Contains(names, name) {
			return o, true
		}
	}
	return 0, false
}

// entry is the name that an object is listed under.
func (m *model) entry(o int) string {
	names := m.objects[o]
	return fsview.Encode(names[len(names)-1])
}

// folder tells whether a name nests below this one, so that by-name has it as
// a folder.
func (m *model) folder(name string) bool {
	if strings.Contains(name, "/") {
		return false // it is written in one component
	}
	for _, names := range m.objects {
		for _, n := range names {
			if strings.HasPrefix(n, name+"/") && !strings.Contains(n, "//") && !m.inTheWay(n) {
				return true
			}
		}
	}
	return false
}

// inTheWay tells whether a shorter name keeps n from nesting.
func (m *model) inTheWay(n string) bool {
	for i := range len(n) {
		if n[i] == '/' {
			if _, taken := m.owner(n[:i]); taken {
				return true
			}
		}
	}
	return false
}

// steps are the operations of the random test, on a store that two trees show.
type steps struct {
	m     model
	ids   map[int]string
	w     *world
	trees []*fsview.FS
}

func (s *steps) tree(t *rapid.T) *fsview.FS {
	return s.trees[rapid.IntRange(0, len(s.trees)-1).Draw(t, "tree")]
}

func anyName(t *rapid.T) string {
	return rapid.SampledFrom([]string{"a", "b", "a/b", "a/b/c", "b%", "x.", "..", "a//b"}).Draw(t, "name")
}

// want compares an outcome with what the model says should have happened.
func (s *steps) want(t *rapid.T, err error, ok bool, doing string) bool {
	if (err == nil) != ok {
		t.Fatalf("%s: %v, but the model says %t", doing, err, ok)
	}
	return ok
}

func (s *steps) mkdir(t *rapid.T) {
	f, name := s.tree(t), anyName(t)
	_, taken := s.m.owner(name)
	err := fsview.Mkdir(s.w.ctx, f.Root(), "containers/"+fsview.Encode(name))
	if s.want(t, err, !taken, "mkdir "+name) {
		s.m.next++
		s.m.objects[s.m.next] = []string{name}
		s.ids[s.m.next] = strings.TrimSpace(s.readIn(t, f, "containers/"+fsview.Encode(name)+"/id"))
	}
}

func (s *steps) readIn(t *rapid.T, f *fsview.FS, path string) string {
	var b strings.Builder
	if _, err := fsview.ReadFile(s.w.ctx, f.Root(), path, &b); err != nil {
		t.Fatalf("reading %s: %v", path, err)
	}
	return b.String()
}

func (s *steps) pick(t *rapid.T) int {
	if len(s.m.objects) == 0 {
		t.Skip("nothing there yet")
	}
	return rapid.SampledFrom(slices.Sorted(maps.Keys(s.m.objects))).Draw(t, "object")
}

func (s *steps) mv(t *rapid.T) {
	f, o, name := s.tree(t), s.pick(t), anyName(t)
	names := s.m.objects[o]
	owner, taken := s.m.owner(name)
	same := taken && owner == o && name == names[len(names)-1]
	err := fsview.Rename(s.w.ctx, f.Root(), "containers/"+s.m.entry(o), "containers/"+fsview.Encode(name))
	if s.want(t, err, !taken || same, "mv of "+s.m.entry(o)+" to "+name) {
		names[len(names)-1] = name
	}
}

func (s *steps) ln(t *rapid.T) {
	f, o, name := s.tree(t), s.pick(t), anyName(t)
	_, taken := s.m.owner(name)
	taken = taken || s.m.folder(name)
	err := fsview.Symlink(s.w.ctx, f.Root(), s.ids[o], "containers/by-name/"+fsview.Encode(name))
	if s.want(t, err, !taken, "ln -s "+name) {
		s.m.objects[o] = append([]string{name}, s.m.objects[o]...)
	}
}

func (s *steps) rm(t *rapid.T) {
	f, name := s.tree(t), anyName(t)
	o, taken := s.m.owner(name)
	if taken && len(s.m.objects[o]) == 1 {
		t.Skip("its only name")
	}
	err := fsview.Unlink(s.w.ctx, f.Root(), "containers/by-name/"+fsview.Encode(name))
	if s.want(t, err, taken, "rm of the name "+name) {
		s.m.objects[o] = slices.DeleteFunc(s.m.objects[o], func(n string) bool { return n == name })
	}
}

func (s *steps) rmdir(t *rapid.T) {
	f, o := s.tree(t), s.pick(t)
	err := fsview.Rmdir(s.w.ctx, f.Root(), "containers/"+s.m.entry(o))
	if s.want(t, err, true, "rmdir") {
		delete(s.m.objects, o)
	}
}

func (s *steps) writeNames(t *rapid.T) {
	f, o := s.tree(t), s.pick(t)
	names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "a/b", "b%", "x."}), 1, 3, rapid.ID).Draw(t, "names")
	for _, n := range names {
		if owner, taken := s.m.owner(n); taken && owner != o && len(s.m.objects[owner]) == 1 {
			t.Skip("it would take another's only name")
		}
	}
	left := map[int]int{}
	for _, n := range names {
		if owner, taken := s.m.owner(n); taken && owner != o {
			left[owner]++
		}
	}
	for owner, n := range left {
		if n == len(s.m.objects[owner]) {
			t.Skip("it would take all names of another")
		}
	}
	err := fsview.WriteFile(s.w.ctx, f.Root(), "containers/by-id/"+s.ids[o]+"/names", strings.NewReader(strings.Join(names, "\n")+"\n"), false)
	if !s.want(t, err, true, fmt.Sprintf("writing the names %q", names)) {
		return
	}
	for other := range s.m.objects {
		s.m.objects[other] = slices.DeleteFunc(s.m.objects[other], func(n string) bool { return slices.Contains(names, n) })
	}
	s.m.objects[o] = names
}

// check compares both trees with the model.
func (s *steps) check(t *rapid.T) {
	for _, f := range s.trees {
		list, err := fsview.List(s.w.ctx, f.Root(), "containers")
		if err != nil {
			t.Fatal(err)
		}
		var got, want []string
		for _, e := range list {
			if !strings.HasPrefix(e.Name, "by-") {
				got = append(got, e.Name)
			}
		}
		for o, names := range s.m.objects {
			want = append(want, s.m.entry(o))
			shown := s.readIn(t, f, "containers/"+s.m.entry(o)+"/names")
			if shown != strings.Join(names, "\n")+"\n" {
				t.Fatalf("%s has the names %q, the model says %q", s.m.entry(o), shown, names)
			}
			for _, n := range names {
				if id := s.readIn(t, f, "containers/by-name/"+fsview.Encode(n)+"/id"); id != s.ids[o]+"\n" {
					t.Fatalf("by-name %q leads to %q", n, id)
				}
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("the entries are %q, the model says %q", got, want)
		}
	}
}

// TestRandomOperations runs random operations through two trees on one store,
// and after each compares both with a model.
func TestRandomOperations(t *testing.T) {
	w := newWorldIn(t, memoryDir(t), "vfs")
	second := w.newFS(fsview.Options{Store: w.store})
	rapid.Check(t, func(t *rapid.T) {
		s := &steps{m: model{objects: map[int][]string{}}, ids: map[int]string{}, w: w, trees: []*fsview.FS{w.fs, second}}
		s.clear(t)
		t.Repeat(map[string]func(*rapid.T){
			"mkdir": s.mkdir, "mv": s.mv, "ln": s.ln, "rm": s.rm, "rmdir": s.rmdir, "names": s.writeNames, "": s.check,
		})
	})
}

// clear removes what an earlier round left.
func (s *steps) clear(t *rapid.T) {
	list, err := fsview.List(s.w.ctx, s.w.fs.Root(), "containers")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if strings.HasPrefix(e.Name, "by-") {
			continue
		}
		if err := fsview.Rmdir(s.w.ctx, s.w.fs.Root(), "containers/"+e.Name); err != nil {
			t.Fatalf("cleaning up: %v", err)
		}
	}
}
