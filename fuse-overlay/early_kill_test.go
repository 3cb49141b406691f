package fuseoverlay

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// TestEarlyKilledChild is the child of TestEarlyKilled: a server that kills itself
// when so many copies were made before they were asked for, and were asked for then,
// and others are staged.
func TestEarlyKilledChild(t *testing.T) {
	dir := os.Getenv("EARLY_DIR")
	if dir == "" {
		t.Skip("runs as a child of TestEarlyKilled")
	}
	used, err := strconv.ParseUint(os.Getenv("EARLY_USED"), 10, 64)
	check(t, err)
	c := MountConfig{Lower: []string{dir + "/l/a"}, Upper: dir + "/u", Work: dir + "/w"}
	s, err := Mount(c, dir+"/m")
	check(t, err)
	a := &s.o.earlyCopies
	a.patient()
	go func() {
		for {
			a.mu.Lock()
			staged, queued := 0, len(a.queue)
			for _, e := range a.early {
				if e.copy != nil {
					staged++
				}
			}
			if a.used >= used && staged > 0 && (used > 0 || queued == 0 && staged == len(a.early)) {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
			a.mu.Unlock()
			time.Sleep(50 * time.Microsecond)
		}
	}()
	fmt.Println("mounted")
	check(t, s.Serve())
}

// TestEarlyKilled kills the server while copies are staged, before any was asked
// for and in the midst of a row: nothing is left of them, what has a name is whole,
// and a new mount has everything.
func TestEarlyKilled(t *testing.T) {
	t.Parallel()
	const script = `mkdir d; for i in $(seq 100 499); do seq $i 2000 >d/f$i; chmod 644 d/f$i; done`
	for name, c := range map[string]struct {
		used  int
		chmod string
	}{
		// As many as make a row. What then comes is staged, and asked for by nobody.
		"before it is asked for": {0, fmt.Sprintf("chmod 600 $(ls -U | head -%d); exec sleep 60", rowShort)},
		"in a row":               {10, "chmod 600 $(ls -U)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, script)
			r.killedEarly(c.used, c.chmod)
			if left := namesIn(t, filepath.Join(r.dir, "w/work")); len(left) > 0 && (len(left) != 1 || left[0] != holderName) {
				t.Errorf("left in work: %q", left)
			}
			up := namesIn(t, filepath.Join(r.dir, "u/d"))
			if len(up) < rowShort+c.used-1 || len(up) == 400 { // what is taken last may have no name yet
				t.Errorf("%d files were copied up: the test shows nothing", len(up))
			}
			same := func(at string, names []string) {
				t.Helper()
				for _, f := range names {
					got, err := os.ReadFile(filepath.Join(at, f))
					check(t, err)
					if want, err := os.ReadFile(filepath.Join(r.lowers[0], "d", f)); err != nil || string(got) != string(want) {
						t.Errorf("%s: %d bytes, not the %d of the layer: %v", f, len(got), len(want), err)
					}
				}
			}
			same(filepath.Join(r.dir, "u/d"), up)
			r.start()
			all := r.do("ls d | wc -l; find d -type f ! -perm 600 ! -perm 644")
			if all != "400\n" {
				t.Errorf("the new mount has %q", all)
			}
			r.do(fmt.Sprintf("test $(find d -type f -perm 600 | wc -l) -ge %d; diff -r d $2/l/a/d; chmod -R 640 d; test $(find d -type f -perm 640 | wc -l) = 400; diff -r d $2/l/a/d", len(up)-1))
			r.stop()
			if left := namesIn(t, filepath.Join(r.dir, "w/work")); len(left) > 0 {
				t.Errorf("left in work after a new mount: %q", left)
			}
			same(filepath.Join(r.dir, "u/d"), namesIn(t, filepath.Join(r.lowers[0], "d")))
		})
	}
}

// killedEarly has a server that is killed as TestEarlyKilledChild says while a
// script runs in its d.
func (r *rig) killedEarly(used int, script string) {
	r.t.Helper()
	server := exec.Command(fusetest.Exe(r.t), "-test.run=^TestEarlyKilledChild$")
	server.Env = append(os.Environ(), "PLYFS_TEST_CHILD=1", "EARLY_DIR="+r.dir, fmt.Sprint("EARLY_USED=", used))
	out, err := server.StdoutPipe()
	check(r.t, err)
	check(r.t, server.Start())
	gone := func() { fusetest.Script(r.t, "umount -l $1", r.mount) } // and with it a server that lives on
	defer gone()
	word := make([]byte, len("mounted"))
	if _, err := out.Read(word); err != nil || string(word) != "mounted" {
		r.t.Fatalf("the server said %q, %v", word, err)
	}
	program := exec.Command("sh", "-c", "cd $1/d; "+script, "sh", r.mount)
	check(r.t, program.Start())
	ended := make(chan struct{})
	go func() {
		_ = program.Wait() // with errors, after the kill
		gone()
		close(ended)
	}()
	err = server.Wait()
	_ = program.Process.Kill()
	<-ended
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		r.t.Fatalf("the server was not killed while copies were staged: %v", err)
	}
}
