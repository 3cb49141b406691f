package fsview_test

import (
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/drivers/vfs"
	"github.com/plyfs/plyfs/fsview"
	"github.com/plyfs/plyfs/store"
)

// modelObject is what an object, or a draft, should hold. below is the layer
// it stands on, for a container the image; files is what a layer's tree has.
type modelObject struct {
	below string
	items map[string]string
	files map[string]string
}

// objectModel is what a store should hold: objects by "layers/NAME" and the
// like, drafts by name.
type objectModel struct {
	objects map[string]*modelObject
	drafts  map[string]*modelObject
}

// users are the objects that stand on one.
func (m *objectModel) users(of string) []string {
	var list []string
	for name, o := range m.objects {
		if o.below == of {
			list = append(list, name)
		}
	}
	return list
}

// layerInUse tells whether anything stands on a layer, a container's own
// layer, which is not in the model, counted.
func (m *objectModel) layerInUse(layer string) bool {
	return len(m.users(layer)) > 0
}

// delete removes an object that nothing uses; an image takes the layers with
// it that nothing else uses.
func (m *objectModel) delete(name string) {
	below := m.objects[name].below
	delete(m.objects, name)
	if path.Dir(name) != "images" {
		return
	}
	for below != "" && !m.layerInUse(below) {
		next := m.objects[below].below
		delete(m.objects, below)
		below = next
	}
}

// objectSteps are the operations of the random test of objects and drafts.
type objectSteps struct {
	w     *world
	m     objectModel
	trees []*fsview.FS
}

func drawKind(t *rapid.T) string {
	return rapid.SampledFrom([]string{"layers", "images", "containers"}).Draw(t, "kind")
}

func drawName(t *rapid.T) string {
	return rapid.SampledFrom([]string{"p", "q", "r"}).Draw(t, "name")
}

func (s *objectSteps) tree(t *rapid.T) *fsview.FS {
	return s.trees[rapid.IntRange(0, len(s.trees)-1).Draw(t, "tree")]
}

func (s *objectSteps) want(t *rapid.T, err error, ok bool, doing string) bool {
	if (err == nil) != ok {
		t.Fatalf("%s: %v, but the model says %t", doing, err, ok)
	}
	return ok
}

func pickOf(t *rapid.T, of map[string]*modelObject) string {
	if len(of) == 0 {
		t.Skip("nothing there yet")
	}
	return rapid.SampledFrom(slices.Sorted(maps.Keys(of))).Draw(t, "of")
}

// mkdir makes an object of nothing, or on another one.
func (s *objectSteps) mkdir(t *rapid.T) {
	kind, name := drawKind(t), drawName(t)
	o := &modelObject{items: map[string]string{}, files: map[string]string{}}
	dir := kind
	if rapid.Bool().Draw(t, "nested") {
		o.below = pickOf(t, s.m.objects)
		switch {
		case path.Dir(o.below) == "layers" && kind == "layers":
			dir = o.below + "/children"
			maps.Copy(o.files, s.m.objects[o.below].files)
		case path.Dir(o.below) == "layers" && kind == "images", path.Dir(o.below) == "images" && kind == "containers":
			dir = o.below + "/" + kind
		default:
			t.Skip("no such folder")
		}
	}
	taken := s.m.objects[kind+"/"+name] != nil
	err := fsview.Mkdir(s.w.ctx, s.tree(t).Root(), dir+"/"+name)
	if s.want(t, err, !taken, "mkdir "+dir+"/"+name) {
		s.m.objects[kind+"/"+name] = o
	}
}

// item sets the metadata or a data item of an object or a draft.
func (s *objectSteps) item(t *rapid.T) {
	item := rapid.SampledFrom([]string{"metadata", "bigdata/k", "bigdata/l%2Fm"}).Draw(t, "item")
	text := rapid.SampledFrom([]string{"", "x", "two\nlines\n", "\x00raw"}).Draw(t, "text")
	if item == "metadata" {
		text = strings.ReplaceAll(text, "\x00", "")
	}
	if rapid.Bool().Draw(t, "draft") {
		d := pickOf(t, s.m.drafts)
		s.put(t, s.trees[0], "drafts/"+d+"/"+item, text)
		s.m.drafts[d].items[item] = text
		return
	}
	o := pickOf(t, s.m.objects)
	s.put(t, s.tree(t), o+"/"+item, text)
	s.m.objects[o].items[item] = text
}

func (s *objectSteps) put(t *rapid.T, f *fsview.FS, file, text string) {
	if err := fsview.WriteFile(s.w.ctx, f.Root(), file, strings.NewReader(text), false); err != nil {
		t.Fatalf("writing %s: %v", file, err)
	}
}

// draft makes a draft, on another object or on nothing.
func (s *objectSteps) draft(t *rapid.T) {
	name := drawName(t)
	err := fsview.Mkdir(s.w.ctx, s.trees[0].Root(), "drafts/"+name)
	if !s.want(t, err, s.m.drafts[name] == nil, "mkdir drafts/"+name) {
		return
	}
	d := &modelObject{items: map[string]string{}}
	s.m.drafts[name] = d
	if len(s.m.objects) == 0 || !rapid.Bool().Draw(t, "on another") {
		return
	}
	below := pickOf(t, s.m.objects)
	file, ok := map[string][]string{"layers": {"parent", "layer"}, "images": {"image"}}[path.Dir(below)]
	if !ok {
		return
	}
	item := rapid.SampledFrom(file).Draw(t, "file")
	s.put(t, s.trees[0], "drafts/"+name+"/"+item, path.Base(below)+"\n")
	d.below, d.items["on"] = below, item
}

// fill gives a draft that is to be a layer its content.
func (s *objectSteps) fill(t *rapid.T) {
	name := pickOf(t, s.m.drafts)
	d := s.m.drafts[name]
	if d.below != "" && s.m.objects[d.below] == nil {
		t.Skip("its parent is gone")
	}
	file, text := drawName(t), rapid.SampledFrom([]string{"one", "two"}).Draw(t, "content")
	s.put(t, s.trees[0], "drafts/"+name+"/diff.tar", string(tarOf(s.w.t, file+"="+text)))
	d.files = map[string]string{file: text}
}

func (s *objectSteps) drop(t *rapid.T) {
	name := pickOf(t, s.m.drafts)
	if s.want(t, fsview.Rmdir(s.w.ctx, s.trees[0].Root(), "drafts/"+name), true, "rmdir drafts/"+name) {
		delete(s.m.drafts, name)
	}
}

// commit moves a draft to where it becomes an object.
func (s *objectSteps) commit(t *rapid.T) {
	name := pickOf(t, s.m.drafts)
	d, kind, to := s.m.drafts[name], drawKind(t), drawName(t)
	on := map[string]string{"layers": "parent", "images": "layer", "containers": "image"}[kind]
	ok := (d.below == "" || d.items["on"] == on && s.m.objects[d.below] != nil) && (d.files == nil || kind == "layers") && s.m.objects[kind+"/"+to] == nil
	if d.files != nil && !ok {
		t.Skip("a commit that fails may drop the content")
	}
	err := fsview.Rename(s.w.ctx, s.trees[0].Root(), "drafts/"+name, kind+"/"+to)
	if !s.want(t, err, ok, "mv drafts/"+name+" to "+kind+"/"+to) {
		return
	}
	delete(s.m.drafts, name)
	delete(d.items, "on")
	files := map[string]string{}
	if kind == "layers" && d.below != "" {
		maps.Copy(files, s.m.objects[d.below].files)
	}
	maps.Copy(files, d.files)
	d.files = files
	s.m.objects[kind+"/"+to] = d
}

func (s *objectSteps) rmdir(t *rapid.T) {
	name := pickOf(t, s.m.objects)
	for _, d := range s.m.drafts {
		if d.files != nil && d.below != "" {
			t.Skip("a draft has content on a layer")
		}
	}
	err := fsview.Rmdir(s.w.ctx, s.tree(t).Root(), name)
	if s.want(t, err, len(s.m.users(name)) == 0, "rmdir "+name) {
		s.m.delete(name)
	}
}

// check compares every tree with the model.
func (s *objectSteps) check(t *rapid.T) {
	for _, f := range s.trees {
		var got []string
		for _, kind := range []string{"layers", "images", "containers"} {
			for _, n := range s.list(t, f, kind) {
				if len(n) == 1 { // not by-id and the like, nor containers' layers
					got = append(got, kind+"/"+n)
				}
			}
		}
		if want := slices.Sorted(maps.Keys(s.m.objects)); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
			t.Fatalf("the objects are %q, the model says %q", got, want)
		}
		for name, o := range s.m.objects {
			s.checkObject(t, f, name, o)
		}
	}
	if got, want := s.list(t, s.trees[0], "drafts"), slices.Sorted(maps.Keys(s.m.drafts)); !slices.Equal(got, want) {
		t.Fatalf("the drafts are %q, the model says %q", got, want)
	}
}

func (s *objectSteps) list(t *rapid.T, f *fsview.FS, dir string) []string {
	list, err := fsview.List(s.w.ctx, f.Root(), dir)
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Name
	}
	slices.Sort(names)
	return names
}

func (s *objectSteps) text(t *rapid.T, f *fsview.FS, file string) string {
	var b strings.Builder
	if _, err := fsview.ReadFile(s.w.ctx, f.Root(), file, &b); err != nil {
		t.Fatalf("reading %s: %v", file, err)
	}
	return b.String()
}

func (s *objectSteps) checkObject(t *rapid.T, f *fsview.FS, name string, o *modelObject) {
	for item, want := range o.items {
		if got := s.text(t, f, name+"/"+item); got != want {
			t.Fatalf("%s/%s holds %q, the model says %q", name, item, got, want)
		}
	}
	if o.below != "" {
		link := map[string]string{"layers": "parent", "images": "layer", "containers": "image"}[path.Dir(name)]
		if got, want := s.text(t, f, name+"/"+link+"/id"), s.text(t, f, o.below+"/id"); got != want {
			t.Fatalf("%s/%s leads to %q, the model says %q", name, link, got, want)
		}
	}
	if path.Dir(name) != "layers" {
		return
	}
	if got, want := s.list(t, f, name+"/tree"), slices.Sorted(maps.Keys(o.files)); !slices.Equal(got, want) {
		t.Fatalf("%s/tree has %q, the model says %q", name, got, want)
	}
	for file, want := range o.files {
		if got := s.text(t, f, name+"/tree/"+file); got != want {
			t.Fatalf("%s/tree/%s holds %q, the model says %q", name, file, got, want)
		}
	}
}

// clear removes what an earlier round left, users first.
func (s *objectSteps) clear(t *rapid.T) {
	for _, d := range s.list(t, s.trees[0], "drafts") {
		s.want(t, fsview.Rmdir(s.w.ctx, s.trees[0].Root(), "drafts/"+d), true, "cleaning up")
	}
	for range 4 {
		for _, kind := range []string{"containers", "images", "layers"} {
			for _, n := range s.list(t, s.trees[0], kind) {
				if len(n) == 1 {
					_ = fsview.Rmdir(s.w.ctx, s.trees[0].Root(), kind+"/"+n) // a parent goes in a later turn
				}
			}
		}
	}
}

// TestRandomObjects makes, drafts, fills, commits and removes objects of every
// kind at random, through the trees of two handles of one store, and after
// each step compares both with a model.
func TestRandomObjects(t *testing.T) {
	w := newWorldIn(t, memoryDir(t), "vfs")
	other, err := store.Open(w.ctx, store.Options{GraphRoot: w.root, RunRoot: w.run, DriverName: "vfs",
		NewDriver: func(c drivers.Config) (drivers.Driver, error) { return vfs.New(c) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := other.Close(); err != nil {
			t.Error(err)
		}
	})
	second := w.newFS(fsview.Options{Store: other, Trees: dirTrees{}})
	rapid.Check(t, func(t *rapid.T) {
		s := &objectSteps{w: w, m: objectModel{objects: map[string]*modelObject{}, drafts: map[string]*modelObject{}}, trees: []*fsview.FS{w.fs, second}}
		s.clear(t)
		t.Repeat(map[string]func(*rapid.T){
			"mkdir": s.mkdir, "item": s.item, "draft": s.draft, "fill": s.fill, "drop": s.drop, "commit": s.commit, "commit2": s.commit,
			"rmdir": s.rmdir, "": s.check,
		})
	})
	w.rmdirDrafts()
	w.nothingStaged()
}

func (w *world) rmdirDrafts() {
	w.t.Helper()
	for _, d := range w.ls("drafts") {
		w.rmdir("drafts/" + d)
	}
}
