package fuseoverlay

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func indexed(t *testing.T, r *rig) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(r.config.Work, indexName))
	check(t, err)
	return len(entries)
}

// TestIndexSwept: an entry of the index whose file has lost its last name is
// removed at the next mount, one that names use stays.
func TestIndexSwept(t *testing.T) {
	t.Parallel()
	r := newRig(t, "echo 1 > a; ln a b; echo 2 > c; ln c d; echo 3 > e; ln e f")
	r.start()
	r.do("echo x >> a; echo x >> c; echo x >> e; rm e")
	r.stop()
	if n := indexed(t, r); n != 3 {
		t.Fatalf("%d entries", n)
	}
	// What a kill leaves between the removal of the last name and the entry's.
	idx, err := filepath.Glob(filepath.Join(r.config.Work, indexName, "*"))
	check(t, err)
	for _, p := range idx {
		b, err := os.ReadFile(p)
		check(t, err)
		if strings.HasPrefix(string(b), "1") {
			check(t, os.Remove(filepath.Join(r.config.Upper, "a")))
			for _, name := range []string{"a", "b"} {
				check(t, unix.Mknod(filepath.Join(r.config.Upper, name), unix.S_IFCHR, 0))
			}
			check(t, unix.Lsetxattr(p, "trusted.overlay.nlink", []byte("U-1"), 0))
		}
	}
	r.start()
	if got := r.do("ls; cat c d f; stat -c %h c d f"); got != "c\nd\nf\n2\nx\n2\nx\n3\nx\n2\n2\n1\n" {
		t.Errorf("got %s", got)
	}
	if n := indexed(t, r); n != 2 {
		t.Errorf("%d entries", n)
	}
}

// TestSplitLinks: copies that an index-less mount made of the names of one
// lower file are two files.
func TestSplitLinks(t *testing.T) {
	t.Parallel()
	r := newRig(t, "echo 1 > a; ln a b; ln -s x l; ln l m")
	r.throughKernel("index=off", "echo 2 >> a; echo 3 >> b; chown -h 5 l; chown -h 6 m")
	r.start()
	if got := r.do("stat -c %i a b l m | sort -u | wc -l; cat a b; stat -c %u l m"); got != "4\n1\n2\n1\n3\n5\n6\n" {
		t.Errorf("got %s", got)
	}
}

// TestLinkedSpecials: the names of one symlink, or FIFO, of a lower layer stay
// one file, also over a remount and for the kernel.
func TestLinkedSpecials(t *testing.T) {
	t.Parallel()
	r := newRig(t, "ln -s x l; ln l m; mkfifo p; ln p q; ln p s")
	r.start()
	r.do("chown -h 5 l; chown -h 6 m; chmod 600 q; rm s")
	const show = "stat -c '%n %u %a %h' l m p q; stat -c %i l m p q | sort -u | wc -l"
	const want = "l 6 777 2\nm 6 777 2\np 0 600 2\nq 0 600 2\n2\n"
	if got := r.do(show); got != want {
		t.Errorf("got %s", got)
	}
	r.stop()
	if got := r.throughKernel("index=on", show); got != want {
		t.Errorf("the kernel shows %s", got)
	}
	r.start()
	if got := r.do(show); got != want {
		t.Errorf("after a remount %s", got)
	}
	r.do("rm l m p q")
	if n := indexed(t, r); n != 0 {
		t.Errorf("%d entries in the index", n)
	}
}

// TestCloseError: an error of close of a file that was written to is told by
// its next fsync, once.
func TestCloseError(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	o, err := newOverlay(r.config)
	check(t, err)
	defer func() { check(t, o.close()) }()
	n, _, err := o.mknod(t.Context(), o.root, "f", unix.S_IFREG|0o644, 0, caller{})
	check(t, err)
	defer o.forget(n, 1)
	o.fds.put(n, &backing{fd: 1 << 30, write: true, upper: true}) // no such descriptor: close fails
	o.fds.drop(n)
	if err := o.fsync(n, false); err == nil || !strings.Contains(err.Error(), "may be lost") {
		t.Errorf("fsync: %v", err)
	}
	if err := o.fsync(n, false); err != nil {
		t.Errorf("fsync again: %v", err)
	}
}
