package fuseoverlay

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOutdatedDescriptor: a reader that opened the data below a metadata-only
// copy, and comes to keep the descriptor only after the copy got its data, does
// not make later readers see what was below.
func TestOutdatedDescriptor(t *testing.T) {
	t.Parallel()
	r := newRig(t, "echo old > f")
	r.config.Metacopy = true
	o, err := newOverlay(r.config)
	check(t, err)
	defer func() { check(t, o.close()) }()
	n, _, err := o.lookup(t.Context(), o.root, "f")
	check(t, err)
	defer o.forget(n, 1)
	check(t, o.copyUp(t.Context(), n, metaOnly))
	if !n.lacksData() {
		t.Fatal("the copy has its data")
	}
	fd, _, err := o.openUpper(n, false) // the reader, as far as its open
	check(t, err)
	late := &backing{fd: fd, upper: true, data: true, refs: 1}

	check(t, o.copyUp(t.Context(), n, allData)) // the writer
	w, err := o.open(n, true)
	check(t, err)
	_, err = unix.Pwrite(w.fd, []byte("new"), 0)
	check(t, err)
	o.fds.leave(w)

	o.fds.put(n, late)
	o.fds.leave(late)
	b, err := o.open(n, false)
	check(t, err)
	defer o.fds.leave(b)
	got := make([]byte, 3)
	if _, err := unix.Pread(b.fd, got, 0); err != nil || string(got) != "new" {
		t.Errorf("read %q, %v", got, err)
	}
}

// TestFewDescriptors: however few files the server may have open, all that programs do
// with more of them goes on.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	r := newRig(t, `for i in $(seq 48); do mkdir d$i; echo $i >d$i/a; echo $i >d$i/b; echo $i >d$i/c; done`)
	exe, err := os.Executable()
	check(t, err)
	server := exec.Command(exe, "-test.run=^TestFewDescriptorsChild$")
	server.Env = append(os.Environ(), "PLYFS_TEST_CHILD=1", "FEW_DIR="+r.dir)
	server.Stderr = os.Stderr
	out, err := server.StdoutPipe()
	check(t, err)
	check(t, server.Start())
	word := make([]byte, len("mounted"))
	if _, err := out.Read(word); err != nil || string(word) != "mounted" {
		t.Fatalf("the server said %q, %v", word, err)
	}
	defer func() {
		r.unmount()
		check(t, server.Wait())
	}()
	r.do(`find . -type f | xargs cat >/dev/null
		for i in $(seq 48); do exec {fd}<>d$i/a; rm d$i/a; echo more >&$fd; chmod 600 d$i/b; echo more >d$i/c; done
		find . -type f | xargs cat >/dev/null; for i in $(seq 48); do mv d$i/c d$i/a; mkdir d$i/new; done
		test $(find . -type f -perm 600 | wc -l) = 48; rm d*/b`)
}

// TestFewDescriptorsChild is the server of TestFewDescriptors.
func TestFewDescriptorsChild(t *testing.T) {
	dir := os.Getenv("FEW_DIR")
	if dir == "" {
		t.Skip("runs as a child of TestFewDescriptors")
	}
	check(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 64}))
	s, err := Mount(MountConfig{Lower: []string{dir + "/l/a"}, Upper: dir + "/u", Work: dir + "/w", Volatile: true}, dir+"/m")
	check(t, err)
	fmt.Println("mounted")
	check(t, s.Serve())
}
