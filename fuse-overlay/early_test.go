package fuseoverlay

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
	"github.com/plyfs/plyfs/internal/safefs"
)

// earlyScript makes files of all that a copy must keep, in several directories.
const earlyScript = `
	for d in . a a/b c; do mkdir -p $d; (cd $d
		for i in $(seq 40); do echo "$d $i" >f$i; chmod 6755 f$i; touch -d @$((i * 1000)).5 f$i; done
		for i in $(seq 5); do : >empty$i; head -c 300000 /dev/urandom >large$i; ln f$i second$i; ln -s f$i to$i; mkfifo pipe$i
			truncate -s 200000 hole$i; printf x >>hole$i; setfattr -n user.a -v $i f$i; chmod 000 f1$i; chown 7:8 f2$i; done)
	done
`

// TestEarlySameAsPlainDirectory: a whole tree whose attributes are changed is
// what it is in a plain directory, though most copies were made before they were
// asked for, and nothing of them is left.
func TestEarlySameAsPlainDirectory(t *testing.T) {
	t.Parallel()
	for name, volatile := range map[string]bool{"synced": false, "volatile": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, earlyScript)
			r.config.Volatile = volatile
			plain := t.TempDir()
			fusetest.Must(t, "chmod 755 $2; cp -a $1/. $2", r.lowers[0], plain)
			const changes = `
				chmod -R g-r,o+w .; chown -R 12:13 a; chmod -R u+s c/f*
				chmod g+x f* && echo more >>f3; chown -h 5:5 a/* && rm a/f7; chmod -R 700 .`
			fusetest.Must(t, "cd $1\n"+changes, plain)
			want := fusetest.Must(t, "cd $1\n"+showScript, plain)
			r.start()
			r.server.o.earlyCopies.patient()
			r.do(changes)
			if diff := difference(t, want, r.do(showScript)); diff != "" {
				t.Errorf("through the mount:\n%s", diff)
			}
			if a := &r.server.o.earlyCopies; a.taken() == 0 {
				t.Error("no copy was made before it was asked for: the test shows nothing")
			}
			r.stop()
			if left := namesIn(t, filepath.Join(r.dir, "w/work")); len(left) > 1 || len(left) == 1 && left[0] != sharedWh {
				t.Errorf("left in work: %q", left)
			}
			r.start()
			if diff := difference(t, want, r.do(showScript)); diff != "" {
				t.Errorf("after a remount:\n%s", diff)
			}
		})
	}
}

// patient makes rows go on and copies wait for good: machines may be busy.
func (a *earlyCopies) patient() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pause, a.waits = time.Hour, time.Hour
}

func (a *earlyCopies) taken() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.used
}

func namesIn(t testing.TB, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	check(t, err)
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// earlyRig is an overlay, not mounted, of forty files in d that are known, of
// which one thread had as many changed as it takes: the next ones are staged.
type earlyRig struct {
	*rig
	o     *Overlay
	d     *node
	files []*node
	ctx   context.Context
}

func newEarlyRig(t *testing.T) *earlyRig {
	t.Helper()
	r := &earlyRig{rig: newRig(t, "mkdir d; for i in $(seq 10 49); do echo lower $i >d/f$i; done")}
	var err error
	r.o, err = newOverlay(r.config)
	check(t, err)
	r.o.earlyCopies.patient()
	r.ctx = asked{t.Context(), nil, 4711}
	r.d, _, err = r.o.lookup(r.ctx, r.o.root, "d")
	check(t, err)
	var buf [64]entry
	k, err := r.o.children(r.ctx, r.d, 0, buf[:])
	check(t, err)
	for i := range buf[:k] {
		n, _, err := r.o.lookup(r.ctx, r.d, buf[i].name)
		check(t, err)
		r.files = append(r.files, n)
	}
	for _, n := range r.files[:rowShort] {
		r.chmod(n)
	}
	return r
}

func (r *earlyRig) chmod(n *node) {
	r.t.Helper()
	mode := uint32(0o640)
	_, err := r.o.setattr(r.ctx, n, change{mode: &mode})
	check(r.t, err)
}

// staged waits until n's copy is made, and returns it as it is on the table.
func (r *earlyRig) staged(n *node) *early {
	r.t.Helper()
	a := &r.o.earlyCopies
	a.mu.Lock()
	e := a.early[n.lower]
	a.mu.Unlock()
	if e == nil {
		r.t.Fatal("no copy is being made before it is asked for")
	}
	<-e.done
	return e
}

func (r *earlyRig) content(n *node) string {
	r.t.Helper()
	buf := make([]byte, 100)
	k, err := r.o.read(n, buf, 0)
	check(r.t, err)
	return string(buf[:k])
}

// TestEarlyOtherwise does something else with files whose copies are made
// already than what they were made for.
func TestEarlyOtherwise(t *testing.T) {
	t.Parallel()
	r := newEarlyRig(t)
	o, rest := r.o, r.files[rowShort:]
	for _, n := range rest[:8] {
		r.staged(n)
	}
	if left := namesIn(t, filepath.Join(r.dir, "w/work")); len(left) > 0 {
		t.Errorf("what is staged can be seen: %q", left)
	}
	if in := namesIn(t, filepath.Join(r.dir, "u/d")); len(in) != rowShort {
		t.Errorf("in the upper before they were asked for: %q", in)
	}
	name := func(n *node) string { return o.homeOf(n).name }
	text := func(n *node) string { return "lower " + name(n)[1:] + "\n" }

	cut, short := uint64(0), uint64(3)
	_, err := o.setattr(r.ctx, rest[0], change{size: &cut})
	check(t, err)
	_, err = o.setattr(r.ctx, rest[1], change{size: &short})
	check(t, err)
	_, err = o.write(r.ctx, rest[2], []byte("UPPER"), 0, false)
	check(t, err)
	moved, linked := name(rest[3]), name(rest[4])
	check(t, o.rename(r.ctx, r.d, moved, r.d, "moved", 0))
	_, err = o.link(r.ctx, rest[4], r.d, "linked")
	check(t, err)
	gone := name(rest[5])
	check(t, o.unlink(r.ctx, r.d, gone))
	r.chmod(rest[5]) // a file that is open still

	for i, want := range []string{"", "low", "UPPER" + text(rest[2])[5:], "lower " + moved[1:] + "\n", "lower " + linked[1:] + "\n", "lower " + gone[1:] + "\n"} {
		if got := r.content(rest[i]); got != want {
			t.Errorf("file %d: %q, want %q", i, got, want)
		}
	}
	if st, err := o.stat(rest[5]); err != nil || st.Mode&0o7777 != 0o640 || st.Nlink != 0 {
		t.Errorf("the removed file: %o, %d links, %v", st.Mode, st.Nlink, err)
	}
	for _, n := range append(r.files, r.d) {
		o.forget(n, 1)
	}
	check(t, o.close())
	for i := 10; i < 50; i++ { // the layer is what it was
		b, err := os.ReadFile(fmt.Sprintf("%s/d/f%d", r.lowers[0], i))
		if check(t, err); string(b) != fmt.Sprintf("lower %d\n", i) {
			t.Errorf("below, f%d: %q", i, b)
		}
	}
}

// TestEarlyLetsGo: copies that nobody wants are closed: of a file that is
// forgotten, after a while, and at the end; and it takes more then to make others.
func TestEarlyLetsGo(t *testing.T) {
	t.Parallel()
	r := newEarlyRig(t)
	a := &r.o.earlyCopies
	rest := r.files[rowShort:]
	var copies []*safefs.Ref
	for _, n := range rest[:8] {
		copies = append(copies, r.staged(n).copy.r)
	}
	closed := func(i int) {
		t.Helper()
		if copies[i].Fd() >= 0 {
			t.Errorf("copy %d is open still", i)
		}
	}
	a.drop(rest[0])
	closed(0)
	a.dropAll()
	for i := range copies {
		closed(i)
	}
	if len(a.early) > 0 || len(a.queue) > 0 || a.need != 2*rowShort {
		t.Errorf("%d on the table, %d in the queue, a row of %d is needed", len(a.early), len(a.queue), a.need)
	}
	for _, n := range rest[:2*rowShort] {
		r.chmod(n)
	}
	r.staged(rest[2*rowShort])
	check(t, r.o.close())
	if len(a.early) > 0 || a.workers != 0 {
		t.Errorf("at the end: %d on the table, %d at work", len(a.early), a.workers)
	}
	if got := a.add([]*early{{n: rest[0], from: rest[0].lower}}); got != 0 {
		t.Error("more is staged after the end")
	}
}

// TestEarlyMakesRoom: copies that nobody took are no reason for a full upper.
func TestEarlyMakesRoom(t *testing.T) {
	t.Parallel()
	r := newEarlyRig(t)
	c := r.staged(r.files[rowShort]).copy
	if r.o.madeRoom(t.Context(), syscall.EIO) || !r.o.madeRoom(t.Context(), syscall.EDQUOT) || c.r.Fd() >= 0 {
		t.Error("a copy that nobody took is kept where there is no room")
	}
	if r.o.madeRoom(t.Context(), syscall.ENOSPC) {
		t.Error("there is nothing more to be let go of")
	}
	check(t, r.o.close())
}

// TestEarlyMostlyUsed: where more was used than is left at the end, as after a chmod
// -R of a part of the tree, the next row need not be longer.
func TestEarlyMostlyUsed(t *testing.T) {
	t.Parallel()
	r := newEarlyRig(t)
	a, rest := &r.o.earlyCopies, r.files[rowShort:]
	for _, n := range rest[:24] {
		r.staged(n)
		r.chmod(n)
	}
	for _, n := range rest[24:] {
		r.staged(n)
	}
	need := func(want int, when string) {
		t.Helper()
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.early) > 0 || a.used != 24 || a.need != want {
			t.Errorf("%s: %d on the table, %d were used, a row of %d is needed", when, len(a.early), a.used, a.need)
		}
	}
	a.dropAll()
	need(rowShort, "8 of 32 are left")
	r.o.stageEntries([]entry{{node: rest[30]}})
	r.staged(rest[30])
	a.dropAll()
	need(2*rowShort, "one of one is left")
	check(t, r.o.close())
}

// TestEarlyPassedOver: copies that a row leaves out are let go of while it lasts,
// and a longer one is needed when they are many.
func TestEarlyPassedOver(t *testing.T) {
	t.Parallel()
	r := newEarlyRig(t)
	a, out, in := &r.o.earlyCopies, r.files[rowShort:rowShort+15], r.files[rowShort+15:]
	var copies []*safefs.Ref
	for _, n := range out {
		copies = append(copies, r.staged(n).copy.r)
	}
	for _, n := range in[:17] {
		r.staged(n)
	}
	a.mu.Lock()
	a.most, a.used = 8, 0
	a.mu.Unlock()
	for i, n := range in[:17] {
		if r.chmod(n); i < 16 {
			r.o.stageEntries(nil)
			for k := range out {
				if copies[k].Fd() < 0 {
					t.Fatalf("copy %d was let go of after %d others", k, i+1)
				}
			}
		}
	}
	r.o.stageEntries(nil)
	for k := range copies {
		if copies[k].Fd() >= 0 {
			t.Errorf("copy %d is open still", k)
		}
	}
	a.mu.Lock()
	if len(a.early) > 0 || a.used != 17 || a.need != rowShort {
		t.Errorf("%d on the table, %d were used, a row of %d is needed", len(a.early), a.used, a.need)
	}
	a.usedBefore = a.used
	a.mu.Unlock()
	r.o.stageEntries([]entry{{node: out[0]}})
	r.staged(out[0])
	for range 17 {
		r.chmod(in[0]) // is no copy-up
		_, _ = a.take(4711, in[0], metaOnly)
	}
	r.o.stageEntries(nil)
	a.mu.Lock()
	if len(a.early) > 0 || a.need != 2*rowShort || a.row != 0 {
		t.Errorf("%d on the table, and after a row of %d one of %d is needed", len(a.early), a.row, a.need)
	}
	a.mu.Unlock()
	check(t, r.o.close())
}

// list lists dir as a program does that walks through the tree, and returns the
// nodes of what is in it.
func (r *earlyRig) list(dir *node) (out []*node) {
	r.t.Helper()
	var buf [64]entry
	k, err := r.o.children(r.ctx, dir, 0, buf[:])
	check(r.t, err)
	for i := range buf[:k] {
		n, _, err := r.o.lookup(r.ctx, dir, buf[i].name)
		check(r.t, err)
		out = append(out, n)
	}
	r.o.wasListed(dir)
	return out
}

// TestEarlyElsewhere: files of directories to which the program has not come yet
// are staged, without nodes, and taken once it comes there, though the directory is
// copied up before. Not staged are those of several names and large ones.
func TestEarlyElsewhere(t *testing.T) {
	t.Parallel()
	r := &earlyRig{rig: newRig(t, `for d in 1 2; do mkdir -p $d/sub; (cd $d
		for i in $(seq 10 19); do echo $d $i >f$i; done; echo linked >l1; ln l1 l2; truncate -s 1M large; echo $d sub >sub/f1); done`)}
	r.config.row, r.config.patience = 1, time.Hour
	var err error
	r.o, err = newOverlay(r.config)
	check(t, err)
	o, a := r.o, &r.o.earlyCopies
	a.patient()
	r.ctx = asked{t.Context(), nil, 4711}
	dirs := r.list(o.root)
	for _, n := range r.list(dirs[0]) {
		if o.homeOf(n).name[0] == 'f' {
			o.ahead.atRest(t)
			r.chmod(n)
		}
	}
	place := dirs[1].stack()[0]
	for i := 10; i < 20; i++ {
		a.mu.Lock()
		e := a.early[spot{place, fmt.Sprintf("f%d", i)}]
		a.mu.Unlock()
		if e == nil || e.n != nil {
			t.Fatalf("a file of the next directory: %v", e)
		}
	}
	a.mu.Lock()
	staged := slices.Collect(maps.Values(a.early))
	a.mu.Unlock()
	for _, e := range staged {
		<-e.done
	}

	r.chmod(dirs[1])
	listed, before := o.ahead.used, a.taken()
	files := r.list(dirs[1])
	if o.ahead.used != listed+1 {
		t.Error("what was read ahead of a directory that is copied up is of no use")
	}
	for _, n := range files {
		if !n.isDir() {
			r.chmod(n)
		}
		home := o.homeOf(n)
		st, err := o.stat(n)
		if check(t, err); home.name[0] != 'f' {
			continue
		}
		if got, want := r.content(n), o.homeOf(dirs[1]).name+" "+home.name[1:]+"\n"; st.Mode&0o7777 != 0o640 || got != want {
			t.Errorf("%s: %o, %q", home.name, st.Mode, got)
		}
	}
	if got := a.taken() - before; got != 11 { // the large one's is none
		t.Errorf("%d copies were taken", got)
	}
	check(t, o.close())
}

// TestUntouched: what is in a directory that was copied up for nothing but itself
// is found below, until something is put in it, and then where it is.
func TestUntouched(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(r *earlyRig, d *node) error{
		"create": func(r *earlyRig, d *node) error {
			n, _, err := r.o.mknod(r.ctx, d, "new", unix.S_IFREG|0o644, 0, caller{})
			if err == nil {
				r.o.forget(n, 1)
			}
			return err
		},
		"unlink": func(r *earlyRig, d *node) error { return r.o.unlink(r.ctx, d, "f") },
		"rename": func(r *earlyRig, d *node) error { return r.o.rename(r.ctx, r.o.root, "other", d, "f", 0) },
		"copy up": func(r *earlyRig, d *node) error {
			n, _, err := r.o.lookup(r.ctx, d, "f")
			if err != nil {
				return err
			}
			r.chmod(n)
			r.o.forget(n, 1)
			return nil
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := &earlyRig{rig: newRig(t, "mkdir d; echo f >d/f; echo g >d/g; echo other >other", "mkdir d; echo below >d/f; echo h >d/h")}
			var err error
			r.o, err = newOverlay(r.config)
			check(t, err)
			o := r.o
			r.ctx = t.Context()
			d, _, err := o.lookup(r.ctx, o.root, "d")
			check(t, err)
			r.chmod(d)
			if len(d.stack()) != 3 || len(d.searched()) != 2 {
				t.Errorf("of %d layers %d are searched", len(d.stack()), len(d.searched()))
			}
			show := func() (out []string) {
				for _, name := range []string{"f", "g", "h", "new"} {
					n, st, err := o.lookup(r.ctx, d, name)
					if check(t, err); n != nil {
						out = append(out, fmt.Sprintf("%s %o %s", name, st.Mode, r.content(n)))
						o.forget(n, 1)
					}
				}
				return out
			}
			show()
			check(t, change(r, d))
			want := map[string]string{
				"create":  "[f 100644 f\n g 100644 g\n h 100644 h\n new 100644 ]",
				"unlink":  "[g 100644 g\n h 100644 h\n]",
				"rename":  "[f 100644 other\n g 100644 g\n h 100644 h\n]",
				"copy up": "[f 100640 f\n g 100644 g\n h 100644 h\n]",
			}[what]
			if got := fmt.Sprint(show()); got != want {
				t.Errorf("%q, want %q", got, want)
			}
			o.forget(d, 1)
			check(t, o.close())
		})
	}
}

// TestEarlyLeft: a copy whose caller is gone is closed, whether it is made by then
// or not.
func TestEarlyLeft(t *testing.T) {
	t.Parallel()
	r := newEarlyRig(t)
	a, rest := &r.o.earlyCopies, r.files[rowShort:]
	made := r.staged(rest[0])
	making := &early{n: rest[1], from: rest[1].lower, begun: true, done: make(chan struct{})}
	other := r.staged(rest[1])
	a.mu.Lock()
	a.early[rest[1].lower] = making
	a.mu.Unlock()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := r.o.takeEarly(ended, rest[1], metaOnly); c != nil || err == nil {
		t.Errorf("took %v, %v", c, err)
	}
	a.finish(making, other.copy)
	if other.copy.r.Fd() >= 0 {
		t.Error("what was made for nobody is open still")
	}
	a.leave(made)
	if made.copy.r.Fd() >= 0 {
		t.Error("what was made, and left, is open still")
	}
	a.mu.Lock()
	delete(a.early, rest[0].lower) // its caller took it
	a.mu.Unlock()
	check(t, r.o.close())
}

// TestEarlyRows: what begins, goes on and ends a row.
func TestEarlyRows(t *testing.T) {
	t.Parallel()
	file, dir := newNode(unix.S_IFREG, 1), newNode(unix.S_IFDIR, 2)
	a := &earlyCopies{}
	a.prepare(1)
	a.patient()
	row := func(pid uint32, times int) (more bool) {
		for range times {
			_, more = a.take(pid, file, metaOnly)
		}
		return more
	}
	if row(1, rowShort-1) || !row(1, 1) {
		t.Error("a row of other length")
	}
	if _, more := a.take(1, dir, allData); !more {
		t.Error("a directory that is copied up for a file in it ends the row")
	}
	if _, more := a.take(1, file, 0); more || row(1, rowShort-1) {
		t.Error("a file that is written does not end the row")
	}
	row(1, 1)
	if row(2, rowShort-1) || !row(2, 1) {
		t.Error("another thread goes on with the row")
	}
	a.last = a.last.Add(-2 * a.pause)
	if _, more := a.take(2, file, metaOnly); more {
		t.Error("a pause does not end the row")
	}
}

// TestEarlyAside: a copy that is made early and for nobody takes nothing back of
// the owner and mode that its file was given meanwhile, where these are kept in
// attributes.
func TestEarlyAside(t *testing.T) {
	t.Parallel()
	o := &Overlay{aside: overrideNames()[2], c: MountConfig{Aside: AsideSecurity}}
	st := safefs.Stat{Mode: unix.S_IFREG | 0o644}
	for range 50000 {
		n, done := newNode(unix.S_IFREG, 1), make(chan struct{})
		go func() {
			o.asideOf(n, &st)
			close(done)
		}()
		o.asideOf(n, &st)
		n.setAside(&override{perm: 0o600})
		<-done
		if v := n.aside(); v.perm != 0o600 {
			t.Fatalf("the file shows %o again", v.perm)
		}
	}
}
