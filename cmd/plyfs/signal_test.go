package main

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// treeProgram is the program on a store of the test's own.
func treeProgram(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	return exec.Command(program(t), append([]string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs"}, args...)...)
}

// TestInterruptedOnPipes: a verb that waits for who writes what it reads, or
// reads what it writes, ends by a signal; what had come of a value or of a
// stream is not taken, and nothing is left in the store.
func TestInterruptedOnPipes(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes a store")
	}
	dir := t.TempDir()
	for _, args := range [][]string{
		{"mkdir", "--create", "layers/a", "layers/b", "containers/c"},
		{"write", "layers/b/diff.tar"},
		{"write", "containers/c/metadata", "before"},
	} {
		cmd := treeProgram(t, dir, args...)
		if args[0] == "write" && len(args) == 2 {
			var stream bytes.Buffer
			w := tar.NewWriter(&stream)
			if err := w.WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg, Size: 3 << 20, Mode: 0o644}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(make([]byte, 3<<20)); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			cmd.Stdin = &stream
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		for _, path := range []string{"layers/a/diff.tar", "containers/c/metadata"} {
			interruptedWrite(t, dir, path, sig)
		}
		interruptedCat(t, dir, sig)
	}
	out, err := treeProgram(t, dir, "cat", "containers/c/metadata").Output()
	if err != nil || string(out) != "before\n" {
		t.Errorf("metadata is %q, %v", out, err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "root", "plyfs", "*", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}

// interruptedWrite sends a signal to a write that has read something.
func interruptedWrite(t *testing.T, dir, path string, sig os.Signal) {
	t.Helper()
	cmd := treeProgram(t, dir, "write", path)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close(); _ = w.Close() }()
	cmd.Stdin = r
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// More than a pipe holds: when it is written, some was read.
	if _, err := io.WriteString(w, strings.Repeat("\x00", 512)+strings.Repeat("x", 1<<16)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("write %s, %v: %v: %s", path, sig, err, errs.String())
	}
}

// interruptedCat sends a signal to a cat that nobody reads any more.
func interruptedCat(t *testing.T, dir string, sig os.Signal) {
	t.Helper()
	cmd := treeProgram(t, dir, "cat", "layers/b/diff.tar")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil { // it writes
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	if state, err := cmd.Process.Wait(); err != nil || state.ExitCode() != 1 {
		t.Errorf("cat, %v: %v, %v: %s", sig, state, err, errs.String())
	}
	if err := out.Close(); err != nil {
		t.Error(err)
	}
}
