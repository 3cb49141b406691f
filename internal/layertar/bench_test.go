package layertar_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/plyfs/plyfs/internal/layertar"
)

// benchStream is a tar of parts of the Go source: about 8,000 entries.
func benchStream(b *testing.B) []byte {
	b.Helper()
	src := filepath.Join(runtime.GOROOT(), "src") //nolint:staticcheck // the tree that is measured
	stream := run(b, nil, "tar", "c", "-C", src, ".")
	b.Logf("stream of %d MB", len(stream)>>20)
	return stream
}

// benchDir is on tmpfs where there is one, so that the disk does not decide.
func benchDir(b *testing.B) string {
	b.Helper()
	if _, err := os.Stat("/dev/shm"); err != nil {
		return b.TempDir()
	}
	d, err := os.MkdirTemp("/dev/shm", "plyfs-bench-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := os.RemoveAll(d); err != nil {
			b.Error(err)
		}
	})
	return d
}

func BenchmarkImport(b *testing.B) {
	plain := benchStream(b)
	top := benchDir(b)
	for _, comp := range []string{"plain", "gzip", "zstd"} {
		stream := plain
		unpack := []string{"tar", "xp"}
		switch comp {
		case "gzip":
			stream, unpack = run(b, bytes.NewReader(plain), "gzip", "-1c"), []string{"tar", "xpz"}
		case "zstd":
			stream, unpack = run(b, bytes.NewReader(plain), "zstd", "-c"), []string{"tar", "xp", "--zstd"}
		}
		file := filepath.Join(top, "in."+comp)
		if err := os.WriteFile(file, stream, 0o600); err != nil {
			b.Fatal(err)
		}
		fresh := func(b *testing.B, i int) string {
			dir := filepath.Join(top, fmt.Sprint(comp, i))
			b.StopTimer()
			defer b.StartTimer()
			if err := os.RemoveAll(dir); err != nil {
				b.Fatal(err)
			}
			if err := os.Mkdir(dir, 0o755); err != nil {
				b.Fatal(err)
			}
			return dir
		}
		b.Run(comp+"/ours", func(b *testing.B) {
			for range b.N {
				dir := fresh(b, 0)
				importFile(b, file, dir, filepath.Join(top, "split"))
			}
		})
		b.Run(comp+"/tar", func(b *testing.B) {
			for range b.N {
				dir := fresh(b, 0)
				run(b, nil, unpack[0], append(unpack[1:], "-f", file, "-C", dir)...)
			}
		})
		b.Run(comp+"/containers-storage", func(b *testing.B) {
			if _, err := exec.LookPath("containers-storage"); err != nil || os.Geteuid() != 0 {
				b.Skip("needs containers-storage and root")
			}
			for range b.N {
				dir := fresh(b, 1)
				run(b, nil, "containers-storage", "-s", "overlay", "-g", dir+"/g", "-R", dir+"/r", "import-layer", "-f", file)
				b.StopTimer()
				run(b, nil, "containers-storage", "-s", "overlay", "-g", dir+"/g", "-R", dir+"/r", "shutdown", "--force")
				b.StartTimer()
			}
		})
	}
}

func importFile(b *testing.B, file, dir, split string) {
	b.Helper()
	in, err := os.Open(file)
	if err != nil {
		b.Fatal(err)
	}
	defer closeIt(b, in)
	d, err := os.Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer closeIt(b, d)
	s, err := os.Create(split)
	if err != nil {
		b.Fatal(err)
	}
	defer closeIt(b, s)
	if _, err := layertar.Import(context.Background(), d, in, s, layertar.ApplyOptions{}); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkExport(b *testing.B) {
	top := benchDir(b)
	stream, dir, split := filepath.Join(top, "in"), filepath.Join(top, "root"), filepath.Join(top, "split")
	plain := benchStream(b)
	if err := os.WriteFile(stream, plain, 0o600); err != nil {
		b.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	importFile(b, stream, dir, split)
	b.Run("unchanged/ours", func(b *testing.B) {
		for range b.N {
			root, err := os.Open(dir)
			if err != nil {
				b.Fatal(err)
			}
			s, err := layertar.OpenSplit(split)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := s.Reader(root).WriteTo(io.Discard); err != nil {
				b.Fatal(err)
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			if err := root.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("generated/ours", func(b *testing.B) {
		for range b.N {
			if err := layertar.Generate(context.Background(), io.Discard, layertar.Source{New: []string{dir}}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("tar", func(b *testing.B) {
		for range b.N {
			run(b, nil, "sh", "-c", "tar c -C "+dir+" . | cat >/dev/null")
		}
	})
	b.Run("unchanged/containers-storage", func(b *testing.B) {
		if _, err := exec.LookPath("containers-storage"); err != nil || os.Geteuid() != 0 {
			b.Skip("needs containers-storage and root")
		}
		top := benchDir(b)
		cs := []string{"-s", "overlay", "-g", top + "/g", "-R", top + "/r"}
		defer func() { run(b, nil, "containers-storage", append(cs, "shutdown", "--force")...) }()
		run(b, nil, "containers-storage", append(cs, "create-layer", "-i", "l")...)
		run(b, nil, "containers-storage", append(cs, "applydiff", "-f", stream, "l")...)
		b.ResetTimer()
		for range b.N {
			run(b, nil, "containers-storage", append(cs, "diff", "-u", "-f", "/dev/null", "l")...)
		}
		b.StopTimer()
	})
}
