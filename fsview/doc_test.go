package fsview_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/drivers/vfs"
	"github.com/plyfs/plyfs/fsview"
	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
)

var update = flag.Bool("update", false, "write the rows of docs/controlfs.md")

const (
	controlfsDoc = "../docs/controlfs.md"
	rowsBegin    = "from the table that the tree is -->\n"
	rowsEnd      = "<!-- end of rows -->\n"
)

// docRows is what docs/controlfs.md must hold.
func docRows() string {
	var b strings.Builder
	b.WriteString("| path | kind | mode | listed | kept | meaning |\n|---|---|---|---|---|---|\n")
	for _, r := range fsview.Table() {
		kept := map[vnode.Validity]string{vnode.ValidNone: "no", vnode.ValidStore: "store", vnode.ValidForever: "always"}[r.Valid]
		fmt.Fprintf(&b, "| `%s` | %s | %04o | %s | %s | %s |\n", r.Path, r.Kind, r.Mode, r.Listed, kept, r.Doc)
	}
	return b.String()
}

// TestControlfsDoc keeps the documented paths and the tree's equal.
func TestControlfsDoc(t *testing.T) {
	raw, err := os.ReadFile(controlfsDoc)
	if err != nil {
		t.Fatal(err)
	}
	doc := string(raw)
	i, j := strings.Index(doc, rowsBegin), strings.Index(doc, rowsEnd)
	if i < 0 || j < i {
		t.Fatalf("%s has lost the marks around its rows", controlfsDoc)
	}
	i += len(rowsBegin)
	if *update {
		if err := os.WriteFile(controlfsDoc, []byte(doc[:i]+docRows()+doc[j:]), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(doc[i:j], docRows()); d != "" {
		t.Errorf("%s and the table differ; run this test with -update and read the result:\n%s", controlfsDoc, d)
	}
}

// TestEveryRowIsSaid checks what the form of the rows promises.
func TestEveryRowIsSaid(t *testing.T) {
	for _, r := range fsview.Table() {
		if r.Doc == "" || !strings.HasSuffix(r.Doc, ".") {
			t.Errorf("%s: its sentence is missing or does not end: %q", r.Path, r.Doc)
		}
		if strings.ContainsAny(r.Doc, "|\n") {
			t.Errorf("%s: its sentence would break the table: %q", r.Path, r.Doc)
		}
	}
}

// TestErrnoDoc keeps docs/errno.md and the kinds of internal/errno equal.
func TestErrnoDoc(t *testing.T) {
	want := kindsInSource(t)
	raw, err := os.ReadFile("../docs/errno.md")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| (E[A-Z0-9]+) \\| `(Err[A-Za-z]+)`").FindAllStringSubmatch(string(raw), -1) {
		got[m[2]] = m[1]
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("docs/errno.md (+) and the kinds in internal/errno (-) differ:\n%s", d)
	}
}

// kindsInSource reads the kinds out of the source, where they are declared.
func kindsInSource(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../internal/errno/errno.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || len(v.Values) != 1 {
			return true
		}
		u, ok := v.Values[0].(*ast.UnaryExpr)
		if !ok {
			return true
		}
		c, ok := u.X.(*ast.CompositeLit)
		if !ok || len(c.Elts) != 2 {
			return true
		}
		if s, ok := c.Elts[1].(*ast.SelectorExpr); ok {
			kinds[v.Names[0].Name] = s.Sel.Name
		}
		return true
	})
	if len(kinds) < 10 {
		t.Fatalf("only %s kinds were found in the source", strconv.Itoa(len(kinds)))
	}
	return kinds
}

// TestEveryRowIsThere walks a store that has one of everything, and finds
// each row of the table at least once.
func TestEveryRowIsThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs", func(o *fsview.Options) { o.ShowStreams = true })
	one(w)
	stores := newWorld(t, "vfs")
	one(stores)
	in := w.create("images/import", "f")
	defer func() { in.ok(in.release()) }()
	two := newWorld(t, "vfs").with(stores.root)
	apart := newWorld(t, "vfs").reopened(store.Options{ImageStore: t.TempDir(), NewDriver: vfs.New})
	seen := map[string]bool{"/": true}
	for _, r := range fsview.Table() {
		path, w := sampleOf(w, r.Path), w
		if strings.HasPrefix(path, "/stores") {
			w = two
		}
		if path == "/locks/image-layers" {
			w = apart
		}
		n, err := fsview.Walk(w.ctx, w.fs.Root(), path, false)
		if err != nil {
			t.Errorf("row %s: looking up %s: %v", r.Path, path, err)
			continue
		}
		a, err := n.Attr(w.ctx)
		if err != nil {
			t.Errorf("row %s: %s: %v", r.Path, path, err)
			continue
		}
		if perm := a.Mode & 0o777; perm != r.Mode && r.Kind != fsview.Subtree {
			t.Errorf("%s has mode %04o, its row says %04o", path, perm, r.Mode)
		}
		if a.Ino != n.Ino() {
			t.Errorf("%s: stat shows inode %d, the node is %d", path, a.Ino, n.Ino())
		}
		seen[r.Path] = true
	}
	var missing []string
	for _, r := range fsview.Table() {
		if !seen[r.Path] {
			missing = append(missing, r.Path)
		}
	}
	sort.Strings(missing)
	if len(missing) > 0 {
		t.Errorf("rows that nothing in a full store has: %s", strings.Join(missing, " "))
	}
}

// one makes one of everything.
func one(w *world) {
	w.t.Helper()
	w.mkdir("layers/base")
	w.mkdir("layers/base/children/top")
	if err := w.write("layers/by-name/top/diff.tar", string(tarOf(w.t, "etc/", "etc/hello=hi"))); err != nil {
		w.t.Fatalf("writing diff.tar: %v", err)
	}
	w.mkdir("layers/top/images/app")
	w.mkdir("images/app/containers/web")
	for _, p := range []string{"layers/top", "images/app", "containers/web"} {
		if err := w.write(p+"/bigdata/k", "v"); err != nil {
			w.t.Fatalf("writing big data: %v", err)
		}
	}
	for _, k := range []string{"layers/base", "images/app", "containers/web"} {
		kind := strings.SplitN(k, "/", 2)[0]
		if err := fsview.Symlink(w.ctx, w.fs.Root(), "../../"+k, kind+"/by-name/folder%2Fother"); err != nil {
			w.t.Fatalf("adding a name: %v", err)
		}
	}
	// A container with ID maps gives its image a mapped copy of its layer.
	w.peer("create-container", "--uidmap", "0:1000:100", "--gidmap", "0:1000:100", "app")
	w.mkdir("drafts/d")
	if err := w.write("drafts/d/bigdata/k", "v"); err != nil {
		w.t.Fatalf("writing a draft's data: %v", err)
	}
}

// only returns the one entry of a directory.
func only(w *world, path string) string {
	w.t.Helper()
	list := w.ls(path)
	if len(list) != 1 {
		w.t.Fatalf("%s holds %q, want one entry", path, list)
	}
	return list[0]
}

// sampleOf fills a row's pattern with what one made.
func sampleOf(w *world, pattern string) string {
	for from, to := range map[string]string{
		"/layers/<layer>/children/<layer>":       "/layers/base/children/top",
		"/layers/<layer>/images/<image>":         "/layers/top/images/app",
		"/layers/<layer>/used-by/<user>":         "/layers/top/used-by/image:app",
		"/images/<image>/used-by/<user>":         "/images/app/used-by/container:web",
		"/images/<image>/containers/<container>": "/images/app/containers/web",
		"/images/<image>/layers/<NN>":            "/images/app/layers/00",
		"/images/<image>/mapped-layers/<layer>":  "/images/app/mapped-layers/" + only(w, "images/app/mapped-layers"),
		"/layers/by-digest/<digest>":             "/layers/by-digest/" + strings.TrimSpace(w.read("layers/top/digest/uncompressed")),
		"/images/by-digest/<digest>":             "/images/by-digest/" + strings.TrimSpace(w.read("images/app/digest")),
		"/layers/<name>":                         "/layers/folder%2Fother",
		"/images/<name>":                         "/images/folder%2Fother",
		"/containers/<name>":                     "/containers/folder%2Fother",
		"/layers/by-id/<id>":                     "/layers/by-id/" + strings.TrimSpace(w.read("layers/top/id")),
		"/images/by-id/<id>":                     "/images/by-id/" + strings.TrimSpace(w.read("images/app/id")),
		"/containers/by-id/<id>":                 "/containers/by-id/" + strings.TrimSpace(w.read("containers/web/id")),
		"/stores/<n>/layers/<layer>":             "/stores/1/layers/top",
		"/stores/<n>/images/<image>":             "/stores/1/images/app",
		"/layers/<layer>/merged":                 "/layers/" + strings.TrimSpace(w.read("containers/web/layer/id")) + "/merged",
	} {
		if pattern == from {
			return to
		}
	}
	return strings.NewReplacer("<a>..<b>", "layer:base..layer:top", "<N>", "0", "<n>", "1", "<file>", "f", "<layer>", "top", "<image>", "app", "<container>", "web", "<draft>", "d", "<key>", "k",
		"by-name/<folder>", "by-name/folder", "by-name/<name>", "by-name/folder/other").Replace(pattern)
}

// TestProofDoc: the tests that docs/controlfs-proof.md names are there.
func TestProofDoc(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../docs/controlfs-proof.md")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, dir := range []string{".", "fusefs", "../cmd/plyfs", "../tests/interop", "../internal/doctor", "../internal/layertar", "../store", "../store/archive"} {
		files, err := filepath.Glob(dir + "/*_test.go")
		if err != nil || len(files) == 0 {
			t.Fatal(dir, err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			source.Write(text)
		}
	}
	names := regexp.MustCompile("`(?:Test|Fuzz)\\w+`").FindAllString(string(raw), -1)
	scripts := regexp.MustCompile(`[a-z-]{2,}\.txtar`).FindAllString(string(raw), -1)
	if len(names) < 50 || len(scripts) < 15 {
		t.Errorf("it names %d tests and %d scripts", len(names), len(scripts))
	}
	for _, n := range names {
		if !strings.Contains(source.String(), "\nfunc "+strings.Trim(n, "`")+"(") {
			t.Errorf("there is no %s", n)
		}
	}
	for _, s := range scripts {
		if _, err := os.Stat("../tests/scripts/" + s); err != nil {
			t.Error(err)
		}
	}
}
