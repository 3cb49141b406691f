package fuseoverlay

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

func indexed(t *testing.T, r *rig) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(r.config.Work, indexName))
	check(t, err)
	return len(entries)
}

// TestIndexSwept: an entry of the index whose file has lost its last name is
// removed at the next mount, as is what the kernel staged there; one that names
// use stays.
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
	// What a killed kernel mount leaves.
	fusetest.Must(t, "cd $1; echo half > '#3'; mkdir -p '#4/d'; echo x > '#4/d/f'", filepath.Join(r.config.Work, indexName))
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

// TestLinksWithoutIndex: where the index can keep no copy of a lower file of
// several names (a lower filesystem without file handles, a type of file that
// cannot be marked), a change of one name is of that name, as on the kernel's
// overlay, whichever name was looked at first.
func TestLinksWithoutIndex(t *testing.T) {
	t.Parallel()
	const fill = `mkdir d1 d2; for i in $(seq 9); do echo $i > d1/a$i; ln d1/a$i d2/b$i; ln -s t$i d1/l$i; ln d1/l$i d2/m$i; mkfifo d1/p$i; ln d1/p$i d2/q$i; done`
	const work = `umask 022; for i in $(seq 8); do stat d1/a$i d2/b$i d1/l$i d2/m$i d1/p$i d2/q$i >/dev/null; done
		echo new >> d2/b1; echo new >> d1/a2; echo new >> d2/b3; rm d1/a3; mv d2/b4 d2/c4; mv d2/c4 d1/; echo x > d2/x; mv d2/x d2/b5; rm d2/b6; echo 6 > d2/b6; ln d2/b7 d2/c7; echo 7 >> d2/c7; echo new >> d2/b9
		touch -hd 2001-01-01 d2/m1 d1/l2 d2/m3; rm d1/l3; mv d2/m4 d2/n4; mv d2/n4 d1/; ln -s y d2/y; mv d2/y d2/m5; rm d2/m6; ln d2/m7 d2/n7; chown -h 5 d2/n7
		chmod 600 d2/q1 d1/p2 d2/q3; rm d1/p3; mv d2/q4 d2/r4; mv d2/r4 d1/; rm d2/q6; ln d2/q7 d2/r7; chmod 640 d2/r7
		touch -hd 2001-01-01 d1/l8; rm d1/l8; ls -l d2 >/dev/null; touch -h d2/m8; echo 8 >> d1/a8; rm d1/a8; setfattr -n user.x -v y d2/b8`
	const show = `find . ! -type d -printf '%p %y %n %#m %U %s %l\n' | sort; grep -r . . | sort; find . ! -type d -printf '%i %p\n' | sort -k 2 | awk '{ if (!($1 in n)) n[$1] = $2; print $2, n[$1] }'`
	for name, formats := range map[string]Format{"no-handles": 0, "no-marks": User | Files} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "")
			kernel := "index=off"
			const prepare = "mkdir $1/ll $1/lu $1/lw $1/low; cd $1/ll; " + fill
			fusetest.Must(t, prepare, r.dir)
			if formats == 0 {
				fusetest.Must(t, "mount -t overlay o -o lowerdir=$1/ll,upperdir=$1/lu,workdir=$1/lw $1/low", r.dir)
				t.Cleanup(func() { check(t, unix.Unmount(r.dir+"/low", unix.MNT_DETACH)) })
			} else {
				kernel += ",userxattr"
				r.config.Formats = formats
				fusetest.Must(t, "cp -a $1/ll/. $1/low; rm $1/low/d2/b*; for i in $(seq 9); do cp -a $1/low/d1/a$i $1/low/d2/b$i; done", r.dir)
			}
			r.lowers = []string{r.dir + "/low"}
			r.config.Lower = r.lowers
			want := r.throughKernel(kernel, work+"\n"+show)
			wantLater := r.throughKernel(kernel, show)
			fusetest.Must(t, "cd $1; rm -rf u w; mkdir u w", r.dir)
			r.start()
			if got := r.do(work + "\n" + show); got != want {
				t.Errorf("%s", fusetest.Must(t, `echo "$1" > $3/1; echo "$2" > $3/2; diff $3/1 $3/2 || true`, want, got, r.dir))
			}
			r.stop()
			r.start()
			if got := r.do(show); got != wantLater {
				t.Errorf("after a remount %s", fusetest.Must(t, `echo "$1" > $3/1; echo "$2" > $3/2; diff $3/1 $3/2 || true`, wantLater, got, r.dir))
			}
		})
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

// TestLinkCountsErrHigh: a kill, or an error, between the steps of a change of a
// file in the index leaves no count that is too low: for that, what was written
// would be lost with the next name that is removed.
func TestLinkCountsErrHigh(t *testing.T) {
	t.Parallel()
	r := newRig(t, "mkdir d; echo 1 > a; ln a d/b; echo 2 > e; ln e f")
	// What a kill between the link into the index and the name leaves.
	o, err := newOverlay(r.config)
	check(t, err)
	n, _, err := o.lookup(t.Context(), o.root, "a")
	check(t, err)
	p, err := o.planCopy(n, allData)
	check(t, err)
	ref, _, err := o.stageFile(p)
	check(t, err)
	st, err := ref.Stat()
	check(t, err)
	check(t, o.fillCopy(t.Context(), n, p, ref, &st))
	check(t, ref.Link(o.work.index, p.index))
	check(t, ref.Close())
	p.src.close()
	o.forget(n, 1)
	check(t, o.close())
	r.start()
	if got := r.do("stat -c %h a d/b; echo new >> a; rm a; cat d/b"); got != "2\n2\n1\nnew\n" {
		t.Errorf("after a kill: %q", got)
	}
	// What an error of the step leaves is what a kill before it leaves.
	r.do("echo new >> e; touch d/x")
	r.stop()
	dir := filepath.Join(r.config.Upper, "d")
	if out := fusetest.Script(t, "chattr +i $1", dir); out.Status != 0 {
		t.Skipf("no immutable directories here: %s", out.Err)
	}
	defer fusetest.Must(t, "chattr -i $1", dir)
	r.start()
	r.do("! rm d/b 2>/dev/null; ! mv d/b d/c 2>/dev/null")
	r.stop()
	r.start()
	if got := r.do("stat -c %h d/b; cat d/b"); got != "1\n1\nnew\n" {
		t.Errorf("after errors: %q", got)
	}
}

// TestLinkCountsTogether: names of one lower file that are removed at the same
// time, in different directories, are each counted, and once: the kernel counts
// too, from what it was told last.
func TestLinkCountsTogether(t *testing.T) {
	t.Parallel()
	r := newRig(t, `mkdir 1 2 3 4 5 6 7 8; for f in a b c d e f; do
		echo x > 1/$f; for i in 2 3 4 5 6 7 8; do ln 1/$f $i/$f; done; done`)
	r.start()
	r.do("for i in *; do stat $i/*; done >/dev/null; for f in a b c d e f; do for i in 2 3 4 5 6 7; do rm $i/$f & done; wait; done")
	if got := r.do("stat -c %h 1/* 8/* | sort | uniq -c"); got != "     12 2\n" {
		t.Errorf("got %q", got)
	}
	r.stop()
	r.start()
	if got := r.do("stat -c %h 1/* 8/* | sort | uniq -c; rm 1/*; cat 8/* | uniq; rm 8/*"); got != "     12 2\nx\n" {
		t.Errorf("after a remount %q", got)
	}
	if n := indexed(t, r); n != 0 {
		t.Errorf("%d entries in the index", n)
	}
}
