package layertar_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// kernelOverlay mounts lower and upper with options, runs a script in the
// mount and returns the three directories and what is seen.
func kernelOverlay(t *testing.T, options, prepare, script string) (lower, upper string, seen []string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the oracle is the kernel's overlay")
	}
	top := t.TempDir()
	lower, upper = filepath.Join(top, "lower"), filepath.Join(top, "upper")
	merged := filepath.Join(top, "merged")
	for _, d := range []string{lower, upper, merged, filepath.Join(top, "work")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sh := func(dir, script string) {
		t.Helper()
		cmd := exec.Command("sh", "-e")
		cmd.Dir, cmd.Stdin = dir, strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	sh(lower, prepare)
	opt := "lowerdir=" + lower + ",upperdir=" + upper + ",workdir=" + top + "/work," + options
	if out, err := exec.Command("mount", "-t", "overlay", "overlay", "-o", opt, merged).CombinedOutput(); err != nil {
		t.Skipf("the kernel mounts no overlay with %s here: %v %s", options, err, out)
	}
	defer run(t, nil, "umount", merged)
	sh(merged, script)
	return lower, upper, treeOf(t, merged)
}

// A redirected directory and a metacopy are exported whole: applied over the
// lower tree, the diff gives what the mount showed.
func TestNativeDiffOfRedirectsAndMetacopies(t *testing.T) {
	t.Parallel()
	for _, options := range []string{"redirect_dir=on,metacopy=on", "redirect_dir=on", "index=on"} {
		lower, upper, seen := kernelOverlay(t, options,
			"mkdir -p d/sub e f; echo 1 > d/1; echo 2 > d/sub/2; echo big > e/big; echo m > e/meta; echo t > e/time; echo x > f/x; chmod 700 d/sub",
			"mv d moved || { cp -a d moved; rm -r d; }; echo new > moved/new; rm moved/1; mkdir d; echo other > d/1; chmod 600 e/meta; mv e/time time; touch -d @1 time; mv f e/ || { cp -a f e/f; rm -r f; }; mv e/f/x e/f/y; touch -d @5 d e moved e/f .")
		s := layertar.Source{Upper: upper, UpperStyle: whiteout.Trusted, Lowers: []string{lower}}
		stream := generate(t, s)
		dir := t.TempDir()
		run(t, nil, "cp", "-a", lower+"/.", dir)
		if _, err := importInto(t, dir, filepath.Join(t.TempDir(), "s"), bytes.NewReader(stream), layertar.ApplyOptions{}); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(seen[1:], treeOf(t, dir)[1:]); d != "" {
			t.Errorf("%s (-mount +diff applied):\n%s", options, d)
		}
		// The comparison of the two unions leads to the same tree.
		c := layertar.Source{New: []string{upper, lower}, Old: []string{lower}, UpperStyle: whiteout.Trusted}
		dir2 := t.TempDir()
		run(t, nil, "cp", "-a", lower+"/.", dir2)
		if _, err := importInto(t, dir2, filepath.Join(t.TempDir(), "s"), bytes.NewReader(generate(t, c)), layertar.ApplyOptions{}); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(seen[1:], treeOf(t, dir2)[1:]); d != "" {
			t.Errorf("%s (-mount +comparison applied):\n%s", options, d)
		}
	}
}

// Whatever the style of the marks on disk, a stream with whiteouts and opaque
// marks goes in and comes out with the same names and meaning.
func TestMarksOfEveryStyle(t *testing.T) {
	t.Parallel()
	below := makeTar(t, member{typ: '5', name: "d/"}, member{typ: '0', name: "d/old", data: "1"}, member{typ: '0', name: "gone", data: "1"}, member{typ: '0', name: "kept", data: "1"})
	above := makeTar(t, member{typ: '5', name: "d/"}, member{typ: '0', name: "d/.wh..wh..opq"}, member{typ: '0', name: "d/new", data: "1"}, member{typ: '0', name: ".wh.gone"})
	for _, style := range []whiteout.Style{whiteout.Trusted, whiteout.User, whiteout.Files} {
		if style != whiteout.Files && os.Geteuid() != 0 {
			t.Log("not as an ordinary user: devices and trusted attributes")
			continue
		}
		lower, _, _, err := importTar(t, below, layertar.ApplyOptions{Style: style})
		if err != nil {
			t.Fatal(err)
		}
		upper, _, _, err := importTar(t, above, layertar.ApplyOptions{Style: style})
		if err != nil {
			t.Fatal(err)
		}
		s := layertar.Source{Upper: upper, UpperStyle: style, Lowers: []string{lower}}
		if d := cmp.Diff([]string{"d/", "d/.wh..wh..opq", "d/new", ".wh.gone"}, namesOf(t, generate(t, s))); d != "" {
			t.Errorf("style %d: %s", style, d)
		}
		c := layertar.Source{New: []string{upper, lower}, Old: []string{lower}, UpperStyle: style}
		if d := cmp.Diff([]string{"Add /d/new", "Delete /d/old", "Delete /gone", "Modify /d"}, ourChanges(t, c)); d != "" {
			t.Errorf("style %d: %s", style, d)
		}
	}
}

func namesOf(t testing.TB, stream []byte) []string {
	t.Helper()
	var out []string
	for r := tar.NewReader(bytes.NewReader(stream)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, h.Name)
	}
}

// The attribute form of whiteouts, as those write it who may not mknod.
func TestXattrWhiteouts(t *testing.T) {
	t.Parallel()
	lower, upper := t.TempDir(), t.TempDir()
	for _, f := range []string{lower + "/gone", lower + "/kept", upper + "/gone", upper + "/empty"} {
		if err := os.WriteFile(f, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run(t, nil, "setfattr", "-n", "user.overlay.whiteout", "-v", "y", upper+"/gone")
	run(t, nil, "setfattr", "-n", "user.overlay.opaque", "-v", "x", upper)
	s := layertar.Source{Upper: upper, UpperStyle: whiteout.User, Lowers: []string{lower}}
	if d := cmp.Diff([]string{"Add /empty", "Delete /gone"}, ourChanges(t, s)); d != "" {
		t.Error(d)
	}
	c := layertar.Source{New: []string{upper, lower}, Old: []string{lower}, UpperStyle: whiteout.User}
	if d := cmp.Diff([]string{"Add /empty", "Delete /gone"}, ourChanges(t, c)); d != "" {
		t.Error(d)
	}
}
