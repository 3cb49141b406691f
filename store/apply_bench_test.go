package store_test

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"
)

// bigTarEnv makes the test binary write a tar of so many bytes to its output.
const bigTarEnv = "PLYFS_STORE_TEST_BIGTAR"

// TestBigTarChild is the process that writes it.
func TestBigTarChild(t *testing.T) {
	text := os.Getenv(bigTarEnv)
	if text == "" {
		t.Skip("it is the child of BenchmarkApplyBeside")
	}
	size, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	out := os.NewFile(3, "the pipe")
	if err := errors.Join(writeBigTar(out, size), out.Close()); err != nil {
		t.Fatal(err)
	}
}

func writeBigTar(to io.Writer, size int64) error {
	const each = 4 << 20
	buf := bufio.NewWriterSize(to, 1<<20)
	w := tar.NewWriter(buf)
	content := make([]byte, each)
	for n := int64(0); n*each < size; n++ {
		for i := 0; i < len(content); i += 512 {
			copy(content[i:], fmt.Sprintf("%d %d", n, i))
		}
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("f%d", n), Mode: 0o644, Size: each}); err != nil {
			return err
		}
		if _, err := w.Write(content); err != nil {
			return err
		}
	}
	return errors.Join(w.Close(), buf.Flush())
}

// BenchmarkApplyBeside lists the layers of a store, a hundred times, with a
// command, while another process applies 2 GiB to a layer of it; ours and
// then theirs. What is told is by how much the command takes longer than when
// nothing else goes on.
func BenchmarkApplyBeside(b *testing.B) {
	needs(b, "containers-storage")
	needs(b, "go")
	ours := buildOurs(b)
	for _, program := range []string{ours, "containers-storage"} {
		name := map[bool]string{true: "plyfs", false: "containers-storage"}[program == ours]
		b.Run(name, func(b *testing.B) {
			e := newLifeEnv(b, "overlay")
			for b.Loop() {
				applyBeside(b, e, program)
			}
			e.unmountAll()
		})
	}
}

func applyBeside(b *testing.B, e *lifeEnv, program string) {
	args := []string{"--graph", e.root, "--run", e.run, "--storage-driver", e.driver}
	layers := func() time.Duration {
		at := time.Now()
		if out, err := output(exec.Command(program, append(slices.Clone(args), "layers")...)); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		return time.Since(at)
	}
	for range 50 {
		if out, err := output(exec.Command(program, append(slices.Clone(args), "create-layer")...)); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
	var idle, busy []time.Duration
	for range 30 {
		idle = append(idle, layers())
	}
	// A command that waits until the apply is over yields one time an apply.
	const mostApplies = 3
	rounds := 0
	for ; len(busy) < 100 && rounds < mostApplies; rounds++ {
		done := make(chan error, 1)
		go func() {
			done <- importBig(program, append(slices.Clone(args), "import-layer"))
		}()
		for running := true; running; {
			select {
			case err := <-done:
				if err != nil {
					b.Fatal(err)
				}
				running = false
			default:
				busy = append(busy, layers())
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
	busy = busy[:min(100, len(busy))]
	calm := median(idle)
	b.Logf("`layers` alone %.3g ms; beside an apply of 2 GiB %+.3g ms median, %+.3g ms worst of %d (%d applies)",
		ms(calm), ms(median(busy)-calm), ms(slices.Max(busy)-calm), len(busy), rounds)
	b.ReportMetric(ms(median(busy)-calm), "median-delay-ms")
	b.ReportMetric(ms(slices.Max(busy)-calm), "worst-delay-ms")
}

// importBig feeds a tar of 2 GiB to a command.
func importBig(program string, args []string) (err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	gen := exec.Command(os.Args[0], "-test.run=^TestBigTarChild$", "-test.count=1")
	gen.Env = append(os.Environ(), bigTarEnv+"="+strconv.Itoa(2<<30))
	gen.ExtraFiles = []*os.File{w}
	err = gen.Start()
	if err = errors.Join(err, w.Close()); err != nil {
		return errors.Join(err, r.Close())
	}
	cmd := exec.Command(program, args...)
	cmd.Stdin = r
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return errors.Join(err, r.Close(), gen.Wait())
}
