package layertar_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// vanishTree makes a directory with a file of every kind that a diff reads.
func vanishTree(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	run(t, strings.NewReader("cd "+dir+`; mkdir a d d/sub e; echo 1 > d/sub/f; echo 2 > d/g; echo 3 > f; ln f g; ln -s f l; : > m; mkfifo p; echo z > z; ln z zz
setfattr -n user.a -v 1 d e f m z`), "sh", "-e")
	return dir
}

// vanishSources are the two ways to make the same diff from dir, over nothing.
func vanishSources(dir string) []layertar.Source {
	return []layertar.Source{{Upper: dir, UpperStyle: whiteout.User}, {New: []string{dir}}}
}

// TestVanish: a name that goes away, or stands for something else, when it is
// about to be written, is left out; everything else is there.
func TestVanish(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"rm -r $1", "rm -r $1; echo new > $1", "rm -r $1; ln -s nowhere $1", "rm -r $1; mkdir $1", "rm -r $1; : > $1", "rm -r $1; mkfifo $1"} {
		for _, name := range []string{"a", "d", "d/sub", "d/sub/f", "d/g", "e", "f", "g", "l", "m", "p", "z"} {
			for i := range vanishSources("") {
				dir := vanishTree(t)
				s := vanishSources(dir)[i]
				whole := contents(t, generate(t, s))
				var out bytes.Buffer
				if err := layertar.GenerateWith(&out, s, func(path string) {
					if path == name {
						run(t, nil, "sh", "-ec", "cd "+dir+"; "+how, "sh", name)
					}
				}); err != nil {
					t.Errorf("%s, %s, source %d: %v", how, name, i, err)
					continue
				}
				got := contents(t, out.Bytes())
				for n := range whole {
					if n == name || strings.HasPrefix(n, name+"/") {
						delete(whole, n)
						delete(got, n)
					}
				}
				if d := cmp.Diff(whole, got); d != "" {
					t.Errorf("%s, %s, source %d: %s", how, name, i, d)
				}
			}
		}
	}
}

// contents returns the content of each name of a stream, of which links have
// what they lead to.
func contents(t testing.TB, stream []byte) map[string]string {
	t.Helper()
	out := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(stream)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeLink {
			to, ok := out[h.Linkname]
			if !ok {
				t.Errorf("%s is a link to %s, which the stream has not", h.Name, h.Linkname)
			}
			b = []byte(to)
		}
		out[strings.TrimSuffix(h.Name, "/")] = string(b)
	}
}

// TestVanishedDirectory: one that is gone when it is about to be opened is
// passed over, with what was in it; in a comparison it is a deletion.
func TestVanishedDirectory(t *testing.T) {
	t.Parallel()
	for _, replace := range []string{"", "; : > d", "; ln -s e d"} {
		for i := range vanishSources("") {
			for _, dirs := range []bool{false, true} {
				dir := vanishTree(t)
				var got []string
				if err := layertar.WalkFiles(vanishSources(dir)[i], dirs, func(path string) {
					if path == "a" {
						run(t, nil, "sh", "-ec", "cd "+dir+"; rm -r d"+replace)
					}
					got = append(got, path)
				}); err != nil {
					t.Errorf("%q, source %d: %v", replace, i, err)
				}
				if s := strings.Join(got, " "); strings.Contains(s, "d/") || !strings.HasSuffix(s, " zz") {
					t.Errorf("%q, source %d: %q", replace, i, got)
				}
			}
		}
	}
	old, dir := vanishTree(t), vanishTree(t)
	run(t, nil, "touch", dir+"/a/new", dir+"/d/new")
	var got []string
	if err := layertar.Changes(context.Background(), layertar.Source{New: []string{dir}, Old: []string{old}}, func(c layertar.Change) error {
		if c.Path == "/a" {
			run(t, nil, "rm", "-r", filepath.Join(dir, "d"))
		}
		got = append(got, c.Kind.String()+" "+c.Path)
		return nil
	}); err != nil {
		t.Error(err)
	}
	if s := strings.Join(got, ", "); !strings.HasPrefix(s, "Modify /a, Add /a/new, Delete /d") || strings.Contains(s, "/d/") {
		t.Error(s)
	}
}

// TestWalksOfALiveTree: whatever comes and goes meanwhile, a walk comes to its end.
func TestWalksOfALiveTree(t *testing.T) {
	t.Parallel()
	dir := vanishTree(t)
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-quit:
				return
			default:
			}
			_ = os.MkdirAll(filepath.Join(dir, "x", "y"), 0o755) // all of it is gone when the test ends
			_ = os.WriteFile(filepath.Join(dir, "x", "y", "f"), []byte("1"), 0o644)
			_ = os.Link(filepath.Join(dir, "x", "y", "f"), filepath.Join(dir, "x", "g"))
			_ = os.Symlink("f", filepath.Join(dir, "x", "l"))
			_ = os.RemoveAll(filepath.Join(dir, "x"))
			if i%2 == 0 {
				_ = os.WriteFile(filepath.Join(dir, "x"), []byte("1"), 0o644)
				_ = os.Remove(filepath.Join(dir, "x"))
			}
		}
	}()
	defer func() { close(quit); <-ended }()
	for range 300 {
		for i, s := range vanishSources(dir) {
			if err := layertar.Generate(context.Background(), io.Discard, s); err != nil {
				t.Fatalf("diff, source %d: %v", i, err)
			}
			if err := layertar.Changes(context.Background(), s, func(layertar.Change) error { return nil }); err != nil {
				t.Fatalf("changes, source %d: %v", i, err)
			}
			if _, err := layertar.Size(context.Background(), s); err != nil {
				t.Fatalf("size, source %d: %v", i, err)
			}
		}
	}
}
