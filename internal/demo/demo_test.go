package demo

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/internal/errno"
)

// The program of this machine's architecture really runs.
func TestProgramRuns(t *testing.T) {
	t.Parallel()
	b, err := program(runtime.GOARCH, Greeting)
	if errors.Is(err, errno.ErrNotSupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "hello")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path).Output()
	if err != nil || string(out) != Greeting {
		t.Errorf("%q, %v", out, err)
	}
}

// Each architecture's program is an ELF file that the standard library reads.
func TestProgramsAreELF(t *testing.T) {
	t.Parallel()
	for arch, want := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		b, err := program(arch, Greeting)
		if err != nil {
			t.Fatal(err)
		}
		f, err := elf.NewFile(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if f.Machine != want || f.Type != elf.ET_EXEC || len(f.Progs) != 1 {
			t.Errorf("%s: %+v", arch, f.FileHeader)
		}
		p := f.Progs[0]
		if p.Filesz != uint64(len(b)) || f.Entry < p.Vaddr || f.Entry >= p.Vaddr+p.Memsz {
			t.Errorf("%s: segment %+v, entry %#x, file %d", arch, p.ProgHeader, f.Entry, len(b))
		}
		if !bytes.HasSuffix(b, []byte(Greeting)) {
			t.Errorf("%s: the text is not at the end", arch)
		}
	}
}

func TestBuildIsDeterministicAndWhole(t *testing.T) {
	t.Parallel()
	img, err := Build("amd64")
	if err != nil {
		t.Fatal(err)
	}
	again, err := Build("amd64")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(img, again); d != "" {
		t.Errorf("two builds differ: %s", d)
	}
	var manifest struct {
		Config struct{ Digest digest.Digest }
		Layers []struct {
			Digest digest.Digest
			Size   int
		}
	}
	if err := json.Unmarshal(img.Manifest, &manifest); err != nil {
		t.Fatal(err)
	}
	if manifest.Config.Digest.Encoded() != img.ID || digest.FromBytes(img.Config).Encoded() != img.ID {
		t.Errorf("the manifest names the configuration %s, the image is %s", manifest.Config.Digest, img.ID)
	}
	var names [][]string
	for n, l := range img.Layers {
		if manifest.Layers[n].Digest != digest.FromBytes(l.Tar) || manifest.Layers[n].Size != len(l.Tar) {
			t.Errorf("layer %d: %+v", n, manifest.Layers[n])
		}
		names = append(names, members(t, l.Tar))
	}
	want := [][]string{
		{"bin/", "bin/hello", "bin/hi", "etc/", "etc/draft", "etc/greeting", "etc/group", "etc/motd", "etc/os-release", "etc/passwd", "tmp/"},
		{"etc/", "etc/.wh.draft", "etc/greeting", "srv/", "srv/notes"},
	}
	if d := cmp.Diff(want, names); d != "" {
		t.Error(d)
	}
}

func members(t *testing.T, b []byte) []string {
	t.Helper()
	var names []string
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

func TestNoProgramForOthers(t *testing.T) {
	t.Parallel()
	if _, err := Build("s390x"); !errors.Is(err, errno.ErrNotSupported) {
		t.Errorf("%v", err)
	}
}
