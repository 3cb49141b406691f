package xz_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	lib "github.com/ulikunitz/xz"

	"github.com/plyfs/plyfs/internal/xz"
)

// BenchmarkDecode decodes a tar of parts of the Go source to nowhere, by us, by
// the library and by xz, whose start is included.
func BenchmarkDecode(b *testing.B) {
	program := xzProgram(b)
	plain, err := exec.Command("tar", "c", "-C", filepath.Join(runtime.GOROOT(), "src"), "cmd/compile", "cmd/internal", "net", "runtime", "crypto").Output() //nolint:staticcheck // the tree that is measured
	if err != nil {
		b.Fatal(err)
	}
	for _, preset := range []string{"0", "6", "9"} {
		b.Run(preset, func(b *testing.B) { benchmarkDecode(b, program, plain, pack(b, program, plain, "-"+preset, "-T1")) })
	}
}

func benchmarkDecode(b *testing.B, program string, plain, packed []byte) {
	for _, c := range []struct {
		name   string
		decode func() (int64, error)
	}{
		{"ours", func() (int64, error) {
			r := xz.NewReader(bufio.NewReader(bytes.NewReader(packed)))
			n, err := io.Copy(io.Discard, r)
			return n, errors.Join(err, r.Close())
		}},
		{"library", func() (int64, error) {
			r, err := lib.NewReader(bytes.NewReader(packed))
			if err != nil {
				return 0, err
			}
			return io.Copy(io.Discard, r)
		}},
		{"xz", func() (int64, error) {
			cmd := exec.Command(program, "-dc", "-T1")
			cmd.Stdin = bytes.NewReader(packed)
			var n counter
			cmd.Stdout = &n
			err := cmd.Run()
			return int64(n), err
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			for b.Loop() {
				if n, err := c.decode(); err != nil || n != int64(len(plain)) {
					b.Fatal(n, err)
				}
			}
		})
	}
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}
