package fuseoverlay

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// atRest waits until what reads ahead of a walk rests, or has ended.
func (a *ahead) atRest(t tb) {
	t.Helper()
	check(t, eventually(func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.running != nil && !a.running.resting {
			return errors.New("it is reading")
		}
		return nil
	}))
}

// goAhead begins a walk that has the rest of the tree read ahead.
func (a *arena) goAhead(root string) {
	ops := []op{{Do: "list"}}
	for _, p := range pathParts {
		ops = append(ops, op{Do: "list", P: p})
	}
	a.d.ask(a.t, batchOf{Root: root, Ops: ops[:1+len(pathParts)/2]})
	a.server.o.ahead.atRest(a.t)
}

// begun returns how many directories were read ahead after a walk has begun in t,
// as far as two of the directories in it.
func (r *rig) begun() uint64 {
	r.t.Helper()
	r.do("ls -lU . t >/dev/null; for d in $(ls -U t | head -2); do ls -lU t/$d >/dev/null; done")
	a := &r.server.o.ahead
	a.atRest(r.t)
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.read
}

const (
	// manyDirs makes directories in t with all kinds of files.
	manyDirs = `for k in sub/deep none; do seq -f t/%g/$k 40; done | xargs mkdir -p; for k in $(seq 15); do seq -f t/%g/file-$k 40; done | xargs touch
		for d in $(seq 40); do echo $d >t/$d/sub/x; ln t/$d/sub/x t/$d/y; ln -s ../sub t/$d/sub/z; done; mkfifo t/3/sub/deep/p; chmod 700 t/*/sub
		ln t/1/sub/x t/30/sub/other; ln t/1/sub/x t/35/first; mkdir t/36/large; seq -f t/36/large/n%g 2100 | xargs touch; mkdir -p t/37/$(seq -s / 100)
	`
	// overThem is a layer over that with marks of all kinds.
	overThem = `mkdir -p t/5/sub t/6 t/7/new/new t/8 t/300/sub t/301; echo top >t/5/sub/x; mknod t/5/y c 0 0; mknod t/6/sub c 0 0; touch t/7/.wh.sub; mkdir t/8/sub; touch t/8/sub/.wh..wh..opq
		mkdir t/9; mkdir t/9/sub; setfattr -n trusted.overlay.opaque -v y t/9/sub; echo u >t/9/sub/u; setfattr -n trusted.overlay.redirect -v /t/40 t/301
		mkdir t/10; truncate -s 3 t/10/y; setfattr -n trusted.overlay.metacopy -v '' t/10/y; chmod 4755 t/10/y; for i in $(seq 200); do mkdir t/300/sub/$i; echo $i >t/300/sub/$i/f; done
	`
	everything = `find . -printf '%p %y %m %s %n %i %U:%G %T@ %l\n' | sort; find . -type f -name '[!f]*' ! -path '*large*' | sort | xargs md5sum`
)

// TestAhead: what was read ahead of a walk is what the walk finds without that, in
// lower directories of one layer and of several, with and without an upper, and it
// is used.
func TestAhead(t *testing.T) {
	t.Parallel()
	for _, upper := range []bool{true, false} {
		t.Run(fmt.Sprint("upper ", upper), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, overThem, manyDirs)
			fusetest.Must(t, "mkdir -p $1/t/20 $1/t/21/sub $1/new; echo up >$1/t/20/file-3; echo up >$1/t/21/sub/up", r.config.Upper)
			if !upper {
				r.config.Upper, r.config.Work = "", ""
			}
			r.config.row = -1
			r.start()
			want := r.do(everything)
			if k := r.begun(); k != 0 {
				t.Errorf("%d directories were read ahead", k)
			}
			r.stop()
			r.config.row, r.config.patience = 1, time.Minute
			r.start()
			if k := r.begun(); k < 50 {
				t.Errorf("%d directories were read ahead", k)
			}
			if got := r.do(everything); got != want {
				t.Error(difference(t, got, want))
			}
			a := &r.server.o.ahead
			a.atRest(t)
			a.mu.Lock()
			defer a.mu.Unlock()
			if a.used < 50 || a.used > a.read {
				t.Errorf("%d directories were used, of %d", a.used, a.read)
			}
		})
	}
}

// TestAheadOfChanges: what was read ahead is not what is seen once it was changed,
// whatever was, and by whichever name.
func TestAheadOfChanges(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"files":       "for d in t/[12]*; do echo new >$d/new; rm $d/file-1; echo x >>$d/file-2; chmod 600 $d/file-3; mv $d/file-4 $d/moved; mkdir $d/made; ln $d/file-5 $d/linked; done",
		"below":       "for d in t/[12]*/sub; do echo new >$d/new; rm $d/z; chmod 600 $d/x; echo more >>$d/x; mv $d/x $d/moved; mkdir $d/made; done",
		"gone":        "rm -r t/*/sub t/*/none t/1?; mkdir t/20/sub t/11",
		"moved":       "for d in t/[12]*; do mv $d/sub $d/other; mv $d/none $d/sub; done; mv t/30 t/new; mv t/31 t/30",
		"hard links":  "chmod 600 t/*/y; for d in t/[12]*; do echo more >>$d/sub/x; done; rm t/1/y; mv t/30/sub/other t/30/sub/x",
		"attributes":  "chmod 711 t/* t/*/sub t/*/sub/deep; touch -d @1000000000 t/*/none; setfattr -n user.x -v y t/*/sub/x",
		"in its turn": "find t -mindepth 2 -name sub -prune -exec sh -c 'echo new >$1/new; mv $1/deep $1/shallow; rm -rf $1/../../39' - {} \\; 2>/dev/null || true",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, manyDirs)
			r.config.Redirects = name == "moved" // else it copies
			r.start()
			r.do("mkdir $2/plain; cp -a . $2/plain")
			const look = `; find . -type d -printf '%p %y %m\n' -o -printf '%p %y %m %s %n %l\n' | sort; find . -type f -name '[!f]*' ! -path '*large*' | sort | xargs md5sum; getfattr -hd t/*/sub/* 2>/dev/null || true`
			want := r.do("cd $2/plain; " + script + look)
			r.stop()
			r.config.row, r.config.patience = 1, time.Minute
			r.start()
			r.begun()
			if got := r.do("cd $1; " + script + look); got != want {
				t.Error(difference(t, got, want))
			}
		})
	}
}

// TestAheadOfOne: while one directory is being listed, names are found in another
// that has the same ones.
func TestAheadOfOne(t *testing.T) {
	t.Parallel()
	r := newRig(t, `python3 -c '
import os
for d in "0", "a", "b":
    os.makedirs("t/" + d)
    for i in range(300):
        with open("t/%s/%0200d" % (d, i), "w") as f: f.write(d * (i + ord(d)))
'`)
	r.config.row, r.config.patience = 1, time.Minute
	r.start()
	r.do("ls -lU . t >/dev/null")
	r.server.o.ahead.atRest(t)
	r.do(`python3 -c '
import os
lists = {d: os.scandir("t/" + d) for d in "0ab"}
for d in "0ab": next(lists[d])
for d in "b0a":
    for i in range(300):
        size = os.stat("t/%s/%0200d" % (d, i)).st_size
        assert size == i + ord(d), (d, i, size)
for d in "0ab": assert len(list(lists[d])) == 299
'`)
}

// TestAheadIsBounded: it rests when it is far enough ahead, has left out what is
// large, and is given up when nobody follows: nothing stays.
func TestAheadIsBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, manyDirs+"for d in $(seq 100 112); do mkdir t/$d; seq -f t/$d/%g 300 | xargs touch; done")
	r.config.row, r.config.patience = 1, time.Minute
	r.start()
	a := &r.server.o.ahead
	r.begun()
	a.mu.Lock()
	if a.running == nil || a.weight <= aheadMost/2 || a.weight > aheadMost+aheadMost/2 {
		t.Errorf("it went on to %d", a.weight)
	}
	weight := 0
	for _, d := range a.found {
		weight += d.weight
		if len(d.names) > 300 {
			t.Errorf("%d names are kept", len(d.names))
		}
	}
	if weight != a.weight {
		t.Errorf("what is kept weighs %d, not %d", weight, a.weight)
	}
	a.mu.Unlock()
	r.stop() // and with it what rests
	r.config.patience = time.Millisecond
	r.start()
	r.begun()
	a = &r.server.o.ahead
	check(t, eventually(func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.running != nil || len(a.found) > 0 || a.weight > 0 || a.current != nil || a.need != 4 {
			return fmt.Errorf("it stays: %d directories, %d, and begins after %d more", len(a.found), a.weight, a.need)
		}
		return nil
	}))
	if s := r.server.fuse.EntryNotify(rootID, "t"); !s.Ok() {
		t.Fatalf("forget: %v", s)
	}
	check(t, eventually(func() error {
		if k := r.server.o.tree.cache.Len(); k > 0 {
			return fmt.Errorf("%d descriptors of directories stay", k)
		}
		return nil
	}))
}

// TestAheadKeepsNothing: after a walk that went to its end nothing is kept of the
// directory that it came to last.
func TestAheadKeepsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, "for d in $(seq 20); do mkdir -p t/$d; seq -f t/$d/%g 20 | xargs touch; done")
	r.config.row, r.config.patience = 1, time.Hour
	o, err := newOverlay(r.config)
	check(t, err)
	a := &o.ahead
	a.init(o)
	a.row, a.need = 1, 1 // also where there is one processor
	list := func(dir *node) (names []string) {
		var buf [64]entry
		k, err := o.children(t.Context(), dir, 0, buf[:])
		check(t, err)
		for i := range buf[:k] {
			names = append(names, buf[i].name)
		}
		o.wasListed(dir)
		return names
	}
	dir, _, err := o.lookup(t.Context(), o.root, "t")
	check(t, err)
	list(o.root)
	for _, name := range list(dir) {
		sub, _, err := o.lookup(t.Context(), dir, name)
		check(t, err)
		a.atRest(t)
		list(sub)
	}
	check(t, eventually(func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.running == nil && a.letGo != nil {
			a.letGo.Reset(time.Millisecond) // not after an hour
		}
		if a.running != nil || a.current != nil || len(a.found) > 0 {
			return fmt.Errorf("kept: %v, and %d more", a.current, len(a.found))
		}
		return nil
	}))
	a.mu.Lock()
	if a.used == 0 {
		t.Error("nothing was read ahead: the test shows nothing")
	}
	a.mu.Unlock()
	check(t, o.close())
}

// TestAheadNotWhereLayersChange: the upper inside a lower layer is never read ahead.
func TestAheadNotWhereLayersChange(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ setup, upper string }{
		"upper in a lower layer":      {"mkdir -p t/p/u t/p/w t/q", "/l/a/t/p"},
		"upper there by a bind mount": {"mkdir -p t/p/u t/p/w t/q ../../bound; mount --bind t/p ../../bound", "/bound"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.setup)
			if c.upper == "/bound" {
				t.Cleanup(func() { check(t, unix.Unmount(r.dir+"/bound", unix.MNT_DETACH)) })
			}
			r.config.Upper, r.config.Work = r.dir+c.upper+"/u", r.dir+c.upper+"/w"
			r.config.row, r.config.patience = 1, time.Minute
			r.start()
			r.do("ls -lU . t >/dev/null")
			r.server.o.ahead.atRest(t)
			r.do("mkdir other; echo text >new; echo text >other/new; ls -U t/p; ls -U t/p/u | grep -x other; ls -U t/p/u/other | grep -x new; cat t/p/u/new t/p/u/other/new")
		})
	}
}

// TestAheadLeavesOut: a walk that leaves out a directory that was read ahead has
// nothing kept of those that it comes to after that.
func TestAheadLeavesOut(t *testing.T) {
	t.Parallel()
	r := &earlyRig{rig: newRig(t, "seq -f %02g 50 | xargs mkdir")}
	r.config.row, r.config.patience = 1, time.Hour
	var err error
	r.o, err = newOverlay(r.config)
	check(t, err)
	r.ctx = t.Context()
	dirs := r.list(r.o.root)
	r.list(dirs[0])
	a := &r.o.ahead
	a.atRest(t)
	for _, d := range dirs[2:] {
		r.list(d)
	}
	a.mu.Lock()
	if a.used != 48 || len(a.found) != 1 || len(a.order) != 1 {
		t.Errorf("%d directories were used, %d are kept, in a list of %d", a.used, len(a.found), len(a.order))
	}
	a.mu.Unlock()
	check(t, r.o.close())
}
