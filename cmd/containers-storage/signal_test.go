package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// started is a command with pipes that nobody closes while it runs.
func (p *place) started(t *testing.T, args ...string) (cmd *exec.Cmd, in io.WriteCloser, out io.ReadCloser, errs *bytes.Buffer) {
	t.Helper()
	cmd = exec.Command(ours, append([]string{"-g", filepath.Join(p.dir, "root"), "-R", filepath.Join(p.dir, "run"), "-s", "vfs"}, args...)...)
	cmd.Dir = p.dir
	errs = &bytes.Buffer{}
	cmd.Stderr = errs
	in, err := cmd.StdinPipe()
	if err == nil {
		out, err = cmd.StdoutPipe()
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // if the test ends before it
	return cmd, in, out, errs
}

// TestInterruptedWhileWaiting: a command that waits for who writes what it
// reads, or reads what it writes, ends by a signal, and a broken stream is told
// before its writer ends, once a block of it has come. Nothing is left in the store.
func TestInterruptedWhileWaiting(t *testing.T) {
	t.Parallel()
	p := newPlace(t, "vfs")
	for _, text := range []string{"create-layer -i a", "create-layer -i b", "applydiff -f big b"} {
		if strings.Contains(text, "big") {
			big := exec.Command("sh", "-c", "mkdir d && head -c 3000000 /dev/zero >d/f && tar cf big d")
			big.Dir = filepath.Join(p.dir, "work")
			if out, err := big.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		for _, l := range parseScript(t, text) {
			if o := p.run(ours, l); o.Status != 0 {
				t.Fatalf("%s: %v", text, o)
			}
		}
	}
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		cmd, in, _, errs := p.started(t, "applydiff", "a")
		// A stream that has begun: it is waiting for more.
		if _, err := io.WriteString(in, strings.Repeat("\x00", 100)); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Errorf("applydiff, %v: no failure: %s", sig, errs)
		}
		cmd, _, out, errs := p.started(t, "diff", "b")
		if _, err := io.ReadFull(out, make([]byte, 1)); err != nil { // it writes
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if state, err := cmd.Process.Wait(); err != nil || state.Success() {
			t.Errorf("diff, %v: %v, %v: %s", sig, state, err, errs)
		}
	}
	cmd, in, _, errs := p.started(t, "applydiff", "a")
	_, _ = io.WriteString(in, strings.Repeat("no tar ", 1<<17)) // which it need not read to its end
	if err := cmd.Wait(); err == nil || !strings.Contains(errs.String(), "invalid tar header") {
		t.Errorf("a broken stream: %v: %s", err, errs)
	}
	for _, l := range parseScript(t, "layers") { // sweeps what a kill left
		p.run(ours, l)
	}
	left, err := filepath.Glob(filepath.Join(p.dir, "root", "plyfs", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}
