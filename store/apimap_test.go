package store_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// calls2018 and calls2025 are all calls of the containers tools' library, as
// their documentation lists them.
const (
	calls2018 = `RunRoot GraphRoot GraphDriverName GraphOptions UIDMap GIDMap GraphDriver CreateLayer PutLayer
CreateImage CreateContainer Metadata SetMetadata Exists Lookup Names SetNames Status Version Layer Image Container
Layers Images Containers ImagesByTopLayer ImagesByDigest ContainerByLayer LayersByCompressedDigest
LayersByUncompressedDigest Delete DeleteLayer DeleteImage DeleteContainer Wipe Mount Unmount Mounted Changes DiffSize
Diff ApplyDiff LayerSize ImageSize ContainerSize LayerParentOwners ContainerParentOwners ListImageBigData ImageBigData
ImageBigDataSize ImageBigDataDigest SetImageBigData ListContainerBigData ContainerBigData ContainerBigDataSize
ContainerBigDataDigest SetContainerBigData ContainerDirectory ContainerRunDirectory SetContainerDirectoryFile
FromContainerDirectory SetContainerRunDirectoryFile FromContainerRunDirectory Shutdown`
	calls2025 = `ImageStore TransientStore PullOptions MountImage UnmountImage PrepareStagedLayer ApplyStagedLayer
CleanupStagedLayer DifferTarget LayersByTOCDigest Free AddNames RemoveNames ImageDirectory ImageRunDirectory
ListLayerBigData LayerBigData SetLayerBigData GetDigestLock LookupAdditionalLayer GarbageCollect Check Repair MultiList
Dedup`
)

// apiRow is a row of docs/api-map.md.
type apiRow struct {
	call                      string
	ours, path, command, test []string
}

var quoted = regexp.MustCompile("`([^`]+)`")

// cell returns what is named in a cell; one that begins with a dash names
// nothing, and must say why.
func cell(text string) (names []string, err error) {
	text = strings.TrimSpace(text)
	if reason, dash := strings.CutPrefix(text, "–"); dash {
		if len(strings.Trim(reason, " ()")) < 10 {
			return nil, fmt.Errorf("a dash without a reason: %q", text)
		}
		return nil, nil
	}
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("nothing is named in %q", text)
	}
	return names, nil
}

func apiMap(t *testing.T) []apiRow {
	t.Helper()
	text, err := os.ReadFile("../docs/api-map.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []apiRow
	for line := range strings.Lines(string(text)) {
		cols := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") || strings.HasPrefix(line, "| call ") {
			continue
		}
		if len(cols) != 5 {
			t.Errorf("%d columns, want 5: %s", len(cols), line)
			continue
		}
		r := apiRow{call: strings.TrimSpace(cols[0])}
		for i, to := range []*[]string{&r.ours, &r.path, &r.command, &r.test} {
			if *to, err = cell(cols[i+1]); err != nil {
				t.Errorf("%s: %v", r.call, err)
			}
		}
		rows = append(rows, r)
	}
	return rows
}

// exported are the exported names of a package, methods and fields after their
// type's and a dot, each after the package's name and a dot.
func exported(t *testing.T, dir string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	add := func(parts ...string) {
		for _, p := range parts {
			if !ast.IsExported(p) {
				return
			}
		}
		names[filepath.Base(dir)+"."+strings.Join(parts, ".")] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, e.Name()), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			declared(d, add)
		}
	}
	return names
}

func declared(d ast.Decl, add func(...string)) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil {
			add(d.Name.Name)
			return
		}
		recv := d.Recv.List[0].Type
		if star, ok := recv.(*ast.StarExpr); ok {
			recv = star.X
		}
		if id, ok := recv.(*ast.Ident); ok {
			add(id.Name, d.Name.Name)
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				add(s.Name.Name)
				if st, ok := s.Type.(*ast.StructType); ok {
					for _, f := range st.Fields.List {
						for _, n := range f.Names {
							add(s.Name.Name, n.Name)
						}
					}
				}
			case *ast.ValueSpec:
				for _, n := range s.Names {
					add(n.Name)
				}
			}
		}
	}
}

// testNames are the names of all tests of the module.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	decl := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range decl.FindAllSubmatch(text, -1) {
			names[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// docs/api-map.md has a row for every call, each once and in order, and names
// nothing that is not there.
func TestAPIMap(t *testing.T) {
	t.Parallel()
	rows := apiMap(t)
	var have []string
	for _, r := range rows {
		have = append(have, r.call)
	}
	all := strings.Fields(calls2018 + " " + calls2025)
	if len(strings.Fields(calls2018)) != 64 || len(strings.Fields(calls2025)) != 25 || !slices.Equal(have, all) {
		for _, c := range all {
			if !slices.Contains(have, c) {
				t.Errorf("no row for %s", c)
			}
		}
		t.Errorf("the rows are %d, want %d: %v", len(have), len(all), have)
	}
	names := map[string]bool{}
	for _, dir := range []string{"../store", "../drivers", "../store/config"} {
		for n := range exported(t, dir) {
			names[n] = true
		}
	}
	controlfs, err := os.ReadFile("../docs/controlfs.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := testNames(t)
	for _, r := range rows {
		for _, n := range r.ours {
			if !names[n] {
				t.Errorf("%s: there is no %s", r.call, n)
			}
		}
		for _, p := range r.path {
			if !strings.Contains(string(controlfs), "\n| `"+p+"` |") {
				t.Errorf("%s: docs/controlfs.md has no row for %s", r.call, p)
			}
		}
		for _, n := range r.test {
			if !tests[n] {
				t.Errorf("%s: there is no test %s", r.call, n)
			}
		}
	}
}

// Each command of docs/api-map.md has its page of the manual, which is made
// from the commands that there are.
func TestAPIMapCommands(t *testing.T) {
	t.Parallel()
	const dir = "../docs/man"
	if found, err := filepath.Glob(dir + "/containers-storage*.1"); err != nil || len(found) == 0 {
		t.Skip("docs/man has no pages of containers-storage: its commands cannot be looked up")
	}
	for _, r := range apiMap(t) {
		for _, c := range r.command {
			if !exists(filepath.Join(dir, "containers-storage-"+c+".1")) {
				t.Errorf("%s: there is no command %s", r.call, c)
			}
		}
	}
}
