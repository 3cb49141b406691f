package layertar_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// verifyEnv is an imported layer over another.
type verifyEnv struct {
	dir, split string
	src        layertar.Source
}

// newVerifyEnv imports the tar of a tree over that of another, as an upper
// over a lower or as a whole tree (style Apply).
func newVerifyEnv(t *testing.T, style whiteout.Style) verifyEnv {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: owners and whiteouts")
	}
	tarOf := func(script string) []byte {
		dir := t.TempDir()
		run(t, nil, "sh", "-ec", "cd "+dir+"; "+script)
		return run(t, nil, "tar", "-C", dir, "-c", ".")
	}
	base := tarOf(`mkdir -p usr/lib etc gone deep/a/b; echo 1 > usr/lib/old; ln -s usr/lib lib; echo x > gone/f; echo y > deep/a/b/c; echo e > etc/e; echo same > etc/same`)
	top := tarOf(`mkdir -p etc usr/bin new/dir; echo t > etc/top; chmod 4755 etc/top; ln etc/top etc/linked; ln -s top etc/sym
		mknod usr/bin/null c 1 3; mkfifo new/pipe; chown 7:8 new/dir; echo z > new/dir/z; : > .wh.gone; mkdir deep; : > deep/.wh..wh..opq; echo n > deep/n; echo same > etc/same`)
	parent := t.TempDir()
	if _, err := importInto(t, parent, filepath.Join(t.TempDir(), "s"), strings.NewReader(string(base)), layertar.ApplyOptions{Style: style}); err != nil {
		t.Fatal(err)
	}
	e := verifyEnv{dir: t.TempDir(), split: filepath.Join(t.TempDir(), "split")}
	if style == whiteout.Apply {
		run(t, nil, "cp", "-a", parent+"/.", e.dir)
		e.src = layertar.Source{New: []string{e.dir}, Old: []string{parent}, UpperStyle: style}
	} else {
		e.src = layertar.Source{Upper: e.dir, Lowers: []string{parent}, UpperStyle: style}
	}
	if _, err := importInto(t, e.dir, e.split, strings.NewReader(string(top)), layertar.ApplyOptions{Style: style}); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e verifyEnv) verify(t *testing.T, o layertar.VerifyOptions) string {
	t.Helper()
	s, err := layertar.OpenSplit(e.split)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, s)
	list, err := s.Verify(context.Background(), e.src, o)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, c := range list {
		out = append(out, fmt.Sprint(c.Kind, " ", c.Path))
	}
	return strings.Join(out, ", ")
}

// An imported layer is as its stream says, and each change of it is told, by
// kind and path, whatever the style of its marks.
func TestVerify(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]string{
		"true":                              "",
		"echo more > etc/added":             "Add /etc/added",
		"mkdir -p extra/d":                  "Add /extra, Add /extra/d",
		"rm etc/top":                        "Delete /etc/top",
		"rm -r new":                         "Delete /new, Delete /new/dir, Delete /new/dir/z, Delete /new/pipe",
		"chmod 700 etc/sym new/dir/z":       "Modify /etc/linked, Modify /etc/top, Modify /new/dir/z",
		"echo longer > new/dir/z":           "Modify /new/dir/z",
		"chown 1 new/dir":                   "Modify /new/dir",
		"ln -sfn other etc/sym":             "Modify /etc/sym",
		"rm new/pipe; mkdir new/pipe":       "Modify /new/pipe",
		"rm usr/bin/null; : > usr/bin/null": "Modify /usr/bin/null",
		"touch -d 2001-01-01 new/dir/z":     "",
	} {
		for _, style := range []whiteout.Style{whiteout.Apply, whiteout.Trusted, whiteout.Files} {
			t.Run(fmt.Sprint(script, style), func(t *testing.T) {
				t.Parallel()
				e := newVerifyEnv(t, style)
				if out, err := exec.Command("sh", "-ec", "cd "+e.dir+"; "+script).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				if got := e.verify(t, layertar.VerifyOptions{}); got != want {
					t.Errorf("%q, want %q", got, want)
				}
				if n := len(strings.Split(e.verify(t, layertar.VerifyOptions{Limit: 1}), ", ")); n != 1 {
					t.Errorf("%d differences in place of one", n)
				}
			})
		}
	}
}

// Loose leaves owners and modes out.
func TestVerifyLoose(t *testing.T) {
	t.Parallel()
	e := newVerifyEnv(t, whiteout.Trusted)
	run(t, nil, "sh", "-ec", "cd "+e.dir+"; chown 5 etc/top; chmod 600 new/dir/z; rm usr/bin/null; echo longer > new/dir/z")
	if got := e.verify(t, layertar.VerifyOptions{Loose: true}); got != "Modify /new/dir/z" {
		t.Error(got)
	}
}

// A member that came in through a symlink of its own layer is where it led.
func TestVerifyThroughSymlink(t *testing.T) {
	t.Parallel()
	stream := makeTar(t, member{name: "real/", typ: '5'}, member{name: "way", typ: '2', link: "real"}, member{name: "way/f", data: "1"})
	dir, split, _, err := importTar(t, stream, layertar.ApplyOptions{Style: whiteout.Apply})
	if err != nil {
		t.Fatal(err)
	}
	e := verifyEnv{dir, split, layertar.Source{New: []string{dir}}}
	if got := e.verify(t, layertar.VerifyOptions{}); got != "" {
		t.Error(got)
	}
	if err := os.Remove(filepath.Join(dir, "real", "f")); err != nil {
		t.Fatal(err)
	}
	if got := e.verify(t, layertar.VerifyOptions{}); got != "Delete /real/f" {
		t.Error(got)
	}
}
