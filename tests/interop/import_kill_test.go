package interop

import (
	"archive/tar"
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// importStore is one store that the program works on without a mount.
type importStore struct {
	*env
	bin  string
	args []string
}

// newImportStore makes an empty store below the environment's folder.
func (e *env) newImportStore(name string) *importStore {
	e.Helper()
	bin, err := plyfsBinary()
	if err != nil {
		e.Fatal(err)
	}
	root, run := filepath.Join(e.dir, name), filepath.Join(e.dir, name+"-run")
	e.run("containers-storage", "--graph", root, "--run", run, "--storage-driver", e.driver, "layers")
	return &importStore{e, bin, []string{"--root", root, "--runroot", run, "--storage-driver", e.driver}}
}

func (s *importStore) command(verb string, args ...string) *exec.Cmd {
	return exec.Command(s.bin, append(append([]string{verb}, s.args...), args...)...)
}

func (s *importStore) must(stdin []byte, verb string, args ...string) string {
	s.Helper()
	r := s.try(stdin, s.bin, append(append([]string{verb}, s.args...), args...)...)
	if r.code != 0 {
		s.Fatalf("plyfs %s %q: exit %d: %s", verb, args, r.code, r.err)
	}
	return r.out
}

// ids are the IDs of all layers and images.
func (s *importStore) ids() string {
	s.Helper()
	return s.must(nil, "ls", "layers/by-id") + s.must(nil, "ls", "images/by-id")
}

// archive returns an image of two layers, of over a megabyte, as an archive
// made in a store of its own.
func (e *env) archive() []byte {
	e.Helper()
	s := e.newImportStore("from")
	noise := make([]byte, 1<<20)
	r := rand.NewChaCha8([32]byte{1})
	if _, err := r.Read(noise); err != nil {
		e.Fatal(err)
	}
	for i, layer := range []string{"layers/base", "layers/base/children/top"} {
		var b bytes.Buffer
		tw := tar.NewWriter(&b)
		if err := tw.WriteHeader(&tar.Header{Name: "f" + layer[len("layers/"):len("layers/")+4], Mode: 0o644, Size: int64(len(noise) / (i + 1))}); err != nil {
			e.Fatal(err)
		}
		if _, err := tw.Write(noise[:len(noise)/(i+1)]); err != nil {
			e.Fatal(err)
		}
		if err := tw.Close(); err != nil {
			e.Fatal(err)
		}
		s.must(nil, "mkdir", layer)
		s.must(b.Bytes(), "write", []string{"layers/base", "layers/top"}[i]+"/diff.tar")
	}
	s.must(nil, "mkdir", "layers/top/images/app")
	return []byte(s.must(nil, "cat", "images/app/oci.tar"))
}

// awaitLayer waits until the import has recorded its first layer.
func (s *importStore) awaitLayer(name string) {
	s.Helper()
	for range 6000 {
		text, err := os.ReadFile(filepath.Join(s.dir, name, "vfs-layers", "layers.json"))
		if err == nil && bytes.Contains(text, []byte(`"id"`)) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	s.Errorf("%s: no layer was recorded", name)
}

// TestImportKilled kills an import when it was given a part of the archive, and
// when it was given all of it and may have begun to make layers: the store then
// holds the whole image or none, nothing in it is damaged, and a second import
// ends as one that was never disturbed.
func TestImportKilled(t *testing.T) {
	t.Parallel()
	e := newEnv(t, "vfs")
	data := e.archive()
	want := e.newImportStore("undisturbed")
	want.must(data, "write", "images/import/app.tar")
	for name, part := range map[string]int{"begun": 200 << 10, "half": len(data) / 2, "nearly": len(data) - 600, "whole": len(data), "recorded": len(data)} {
		s := e.newImportStore(name)
		cmd := s.command("write", "images/import/app.tar")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(in, bytes.NewReader(data[:part]))
		if err == nil && part == len(data) {
			err = in.Close()
		}
		if err != nil {
			t.Errorf("%s: feeding it: %v", name, err)
		}
		if name == "recorded" {
			s.awaitLayer(name)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Logf("%s: it was done before the kill", name)
		}
		images := strings.Fields(s.must(nil, "ls", "images/by-id"))
		if part < len(data) && len(images) > 0 {
			t.Errorf("%s: a part of the archive made the images %q", name, images)
		}
		for _, id := range images {
			if got := s.must(nil, "cat", "images/by-id/"+id+"/oci.tar"); got != string(data) {
				t.Errorf("%s: the image that was left is another: %d bytes of archive, want %d", name, len(got), len(data))
			}
		}
		if status := s.must(nil, "cat", "status"); strings.Contains(status, "damaged") {
			t.Errorf("%s: %s", name, status)
		}
		s.must(data, "write", "images/import/app.tar")
		if got := s.ids(); got != want.ids() {
			t.Errorf("%s: the second import made\n%s\nwant\n%s", name, got, want.ids())
		}
		s.must(nil, "write", "ctl", "check full")
		if left, err := filepath.Glob(filepath.Join(e.dir, name, "plyfs", "*", "*")); err != nil || len(left) > 0 {
			t.Errorf("%s: left over: %q (%v)", name, left, err)
		}
	}
}
