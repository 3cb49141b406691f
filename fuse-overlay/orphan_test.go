package fuseoverlay

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// TestManyOpenFilesWithoutName: programs may have any number of removed files
// open: the server's descriptors do not run out, each file is what it was, and
// when they are closed nothing is left.
func TestManyOpenFilesWithoutName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"lower", "linked", "new", "unnamed"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "mkdir d; for i in $(seq 0 99); do echo $i > d/f$i; ln d/f$i d/g$i; echo $i > d/h$i; done")
			r.config.Descriptors, r.config.MaxFiles = 8, 100000
			r.start()
			before := r.do("stat -f -c %d .")
			res := fusetest.Script(t, "python3 - $1 $2 <<'E'\n"+manyOrphans+"\nE", r.mount, name)
			if res.Status != 0 {
				t.Errorf("%s%s", res.Out, res.Err)
			}
			if err := eventually(func() error {
				if k := r.server.o.orphans.Load(); k > 0 {
					return fmt.Errorf("%d are held", k)
				}
				left, err := os.ReadDir(r.config.Work + "/" + stageName)
				for _, e := range left {
					if e.Name() != sharedWh && e.Name() != holderName {
						return fmt.Errorf("%s stays", e.Name())
					}
				}
				return err
			}); err != nil {
				t.Error(err)
			}
			r.do("rm -rf d e; sync")
			if err := eventually(func() error {
				if after := r.do("stat -f -c %d ."); after != before {
					return fmt.Errorf("%s inodes are free, before %s", after, before)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
}

const manyOrphans = `
import ctypes, os, sys
os.chdir(sys.argv[1])
kind = sys.argv[2]
libc = ctypes.CDLL(None, use_errno=True)
os.mkdir("e")
fds = []
for i in range(100):
    text = b"%d\n" % i
    if kind == "unnamed":
        fd = os.open("e", os.O_TMPFILE | os.O_RDWR)
        os.write(fd, text)
    else:
        if kind == "new":
            p = "e/n%d" % i
            open(p, "wb").write(text)
        else:
            p = ("d/f%d" if kind == "linked" else "d/h%d") % i
        fd = os.open(p, os.O_RDWR)
        if kind != "lower":
            os.chmod(p, 0o640)
        os.unlink(p)
        if kind == "linked":
            assert os.fstat(fd).st_nlink == 1, os.fstat(fd)
            os.unlink("d/g%d" % i)
    fds.append(fd)
for i, fd in enumerate(fds):
    text = b"%d\n" % i
    assert os.fstat(fd).st_nlink == 0, (i, os.fstat(fd))
    assert os.pread(fd, 100, 0) == text, i
    assert os.pwrite(fd, b"more", len(text)) == 4
    os.fchmod(fd, 0o600)
    os.setxattr(fd, "user.a", b"b")
    assert os.pread(fd, 100, 0) == text + b"more", i
    if kind == "unnamed" and i % 2:
        assert libc.linkat(fd, b"", -100, b"e/l%d" % i, 0x1000) == 0, os.strerror(ctypes.get_errno())
        assert os.fstat(fd).st_nlink == 1, os.fstat(fd)
        os.link("e/l%d" % i, "e/m%d" % i)
        assert os.fstat(fd).st_nlink == 2, os.fstat(fd)
        os.unlink("e/m%d" % i)
        os.unlink("e/l%d" % i)
        assert os.fstat(fd).st_nlink == 0, os.fstat(fd)
assert os.listdir("e") == [], os.listdir("e")
`

// TestNamedWhileUsed: a file without a name is given one while others use it.
func TestNamedWhileUsed(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	o, err := newOverlay(r.config)
	check(t, err)
	defer func() { check(t, o.close()) }()
	for i := range 50 {
		n, _, err := o.unnamed(t.Context(), o.root, 0o600, caller{})
		check(t, err)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for range 50 {
					if _, err := o.stat(n); err != nil {
						t.Errorf("stat: %v", err)
					}
					if err := o.setxattr(context.Background(), n, "user.a", []byte("b"), 0); err != nil {
						t.Errorf("setxattr: %v", err)
					}
				}
			})
		}
		name := fmt.Sprint(i)
		if _, err := o.link(t.Context(), n, o.root, name); err != nil {
			t.Errorf("link: %v", err)
		}
		if err := o.unlink(t.Context(), o.root, name); err != nil {
			t.Errorf("unlink: %v", err)
		}
		wg.Wait()
		o.forget(n, 2)
	}
	if k := o.orphans.Load(); k != 0 {
		t.Errorf("%d are held", k)
	}
}

// TestForgottenMakesRoom: a file that is removed takes room until the kernel forgets it,
// and who finds none waits for that, once for files that programs hold open.
func TestForgottenMakesRoom(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	at := r.dir + "/at"
	fusetest.Must(t, "mkdir $1 && mount -t tmpfs -o size=2m x $1 && mkdir $1/u $1/w", at)
	t.Cleanup(func() { fusetest.Must(t, "umount $1", at) })
	r.config.Upper, r.config.Work = at+"/u", at+"/w"
	o, err := newOverlay(r.config)
	check(t, err)
	defer func() { check(t, o.close()) }()
	raw := newRaw(o)
	made := func(name string) *node {
		n, _, err := o.mknod(t.Context(), o.root, name, unix.S_IFREG|0o644, 0, caller{})
		check(t, err)
		return n
	}
	write := func(n *node, off int) fuse.Status {
		in := &fuse.WriteIn{InHeader: fuse.InHeader{NodeId: n.id}, Offset: uint64(off), Size: 4096}
		_, status := raw.Write(nil, in, make([]byte, 4096))
		return status
	}
	fill := func(n *node) (off int) {
		for write(n, off).Ok() {
			off += 4096
		}
		return off
	}
	first, second, full := made("first"), made("second"), made("full")
	for off := range 100 {
		if !write(first, off<<12).Ok() || !write(second, off<<12).Ok() {
			t.Fatal("there is no room for two files")
		}
	}
	end := fill(full)

	check(t, o.unlink(t.Context(), o.root, "first"))
	var wg sync.WaitGroup
	wg.Go(func() {
		time.Sleep(5 * time.Millisecond) // the kernel tells what it forgets after other requests
		o.forget(first, 1)
	})
	s := write(full, end)
	wg.Wait()
	if !s.Ok() {
		t.Errorf("there is no room though a file was removed and forgotten: %v", s)
	}
	end = fill(full)

	check(t, o.unlink(t.Context(), o.root, "second")) // and a program has it open
	if s := write(full, end); s != fuse.Status(unix.ENOSPC) {
		t.Errorf("there is room though a file that was removed is held: %v", s)
	}
	if o.forgotten(t.Context()) {
		t.Error("what is held open is waited for again")
	}
	o.forget(second, 1)
	if s := write(full, end); !s.Ok() {
		t.Errorf("there is no room though a file was removed and forgotten: %v", s)
	}
}

// TestFailedReplace: a rename that fails at its last step leaves the directory
// that it was to replace as it was.
func TestFailedReplace(t *testing.T) {
	t.Parallel()
	for _, files := range []bool{false, true} {
		r := newRig(t, "mkdir -p src dst; echo s > src/s; echo d > dst/d; echo f > f; ln f g")
		r.config.FileWhiteouts = files
		at := r.dir + "/at"
		fusetest.Must(t, "mkdir $1 && mount -t tmpfs -o size=16m,nr_inodes=60 x $1 && mkdir $1/u $1/w", at)
		t.Cleanup(func() { check(t, unix.Unmount(at, unix.MNT_DETACH)) })
		r.config.Upper, r.config.Work = at+"/u", at+"/w"
		r.start()
		const show = "stat -c '%n %A %u %g %Y %i' dst src; getfattr -d dst; ls dst src"
		r.do("rm dst/d; chmod 2750 dst; setfattr -n user.a -v b dst; setfacl -d -m u:5:rwx dst; chown 1000:5 dst; echo t > src/s; touch -d 2001-01-01 dst; chmod 600 f")
		const fill = "i=0; while : > fill$i; do i=$((i+1)); done 2>/dev/null; "
		for _, free := range []string{"", "rm fill0", "rm fill0 fill1", "rm fill0 fill1 fill2"} {
			got := r.do(fill + free + "\n" + show + "; python3 -c 'import os; os.rename(\"src\", \"dst\")' 2>&1 | tail -1\nif test -d src; then " + show + "; else echo moved; fi\nrm -f fill*")
			if strings.HasSuffix(got, "moved\n") {
				r.do("mv dst src; mkdir dst") // there was room
				continue
			}
			parts := strings.SplitN(got, "OSError: [Errno 28] No space left on device: 'src' -> 'dst'\n", 2)
			if len(parts) != 2 || parts[0] != parts[1] {
				t.Errorf("with %q: %s", free, got)
			}
			r.do("echo q > dst/q; rm dst/q; touch -d 2001-01-01 dst")
		}
		r.do("python3 -c 'import os; os.rename(\"src\", \"dst\")'; cat dst/s; ! ls src 2>/dev/null; mkdir src; ! ls src/s 2>/dev/null")
		r.stop()
	}
}
