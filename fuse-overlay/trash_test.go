package fuseoverlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// holdTrash has nothing of what is thrown away be removed until somebody waits for
// it, or the mount ends. Before the first is thrown away.
func (r *rig) holdTrash() {
	t := &r.server.o.trash
	t.mu.Lock()
	defer t.mu.Unlock()
	t.before = func() {
		for !t.wanted() {
			time.Sleep(time.Millisecond)
		}
	}
}

func (t *trash) wanted() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next != nil || t.ended
}

// staged are the directories that lie in work.
func (r *rig) staged() (dirs []string) {
	r.t.Helper()
	for _, name := range namesIn(r.t, filepath.Join(r.config.Work, "work")) {
		if st, err := os.Lstat(filepath.Join(r.config.Work, "work", name)); err == nil && st.IsDir() {
			dirs = append(dirs, name)
		}
	}
	return dirs
}

// TestTrash: a removed directory is gone at once, in what a kill leaves too, before
// its whiteouts are; who asks for the room that there is waits for these, and nothing
// of them is left when the mount has ended.
func TestTrash(t *testing.T) {
	t.Parallel()
	for _, how := range []struct {
		name string
		set  func(*MountConfig)
	}{
		{"devices", func(*MountConfig) {}},
		{"files", func(c *MountConfig) { c.FileWhiteouts = true }},
		{"bound", func(c *MountConfig) { c.MaxFiles, c.MaxBytes = 1000, 1<<30 }},
	} {
		t.Run(how.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "mkdir -p d/e keep; touch d/1 d/2 d/e/3 keep/4")
			how.set(&r.config)
			r.start()
			r.holdTrash()
			const look = "echo * */*" // find asks for the room that there is
			const want = "d keep d/new keep/4\n"
			if got := r.do("rm -r d; mkdir d; touch d/new; " + look); got != want {
				t.Errorf("there is %s", got)
			}
			if got := r.staged(); len(got) != 2 {
				t.Errorf("not removed yet: %q, want two", got)
			}
			killed := newRig(t)
			fusetest.Must(t, "cp -a $1/u $1/w $2", r.dir, killed.dir)
			killed.config.Lower = r.config.Lower
			how.set(&killed.config)
			killed.start()
			if got := killed.do(look); got != want {
				t.Errorf("after a kill there is %s", got)
			}
			if got := killed.staged(); len(got) > 0 {
				t.Errorf("swept, but for %q", got)
			}
			var fs unix.Statfs_t
			check(t, unix.Statfs(r.mount, &fs))
			if got := r.staged(); len(got) > 0 {
				t.Errorf("counted as room that is taken: %q", got)
			}
			if r.server.o.quota != nil {
				r.sameCount()
			}
		})
	}
}

// TestTrashAtTheEnd: what waits is bounded, and gone when the mount has ended.
func TestTrashAtTheEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t, "for i in $(seq 100); do mkdir $i; touch $i/f; done")
	r.start()
	r.holdTrash()
	if got := r.do("rm -r *; ls"); got != "" {
		t.Errorf("there is %s", got)
	}
	if got := len(r.staged()); got < 1 || got > mostTrash+1 {
		t.Errorf("%d directories wait", got)
	}
	r.stop()
	if got := namesIn(t, filepath.Join(r.config.Work, "work")); len(got) > 1 || len(got) == 1 && got[0] != sharedWh {
		t.Errorf("left: %q", got)
	}
}

// TestTrashWithoutEnd: who waits for room waits for what was removed before, and comes
// back although others go on removing.
func TestTrashWithoutEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t, "mkdir d; touch d/1")
	r.start()
	o := r.server.o
	o.trash.mu.Lock()
	o.trash.before = func() { // always one more, before one is removed
		staged := o.work.name()
		if err := o.work.stage.Mkdir(staged, 0o700); err != nil {
			t.Error(err)
		}
		o.throw(staged)
	}
	o.trash.mu.Unlock()
	if got := r.do("rm -r d; stat -f -c back ."); got != "back\n" {
		t.Errorf("asked for the room there is: %s", got)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if some, err := o.trash.emptied(ctx); !some || err != nil {
		t.Errorf("waited for something: %v, %v", some, err)
	}
	r.stop()
	if got := r.staged(); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
}

// TestTrashThatStays: while a removal does not end, who asks how much room there is
// is answered in the end, and others meanwhile.
func TestTrashThatStays(t *testing.T) {
	t.Parallel()
	r := newRig(t, "mkdir d; touch d/1")
	r.start()
	o, held := r.server.o, make(chan struct{})
	o.trash.mu.Lock()
	o.trash.before = func() { <-held }
	o.trash.mu.Unlock()
	if got := r.do("rm -r d; stat -f -c back . & for i in $(seq 200); do touch $i; mv $i d; done; wait; ls"); got != "back\nd\n" {
		t.Errorf("there is %s", got)
	}
	if got := r.staged(); len(got) != 1 {
		t.Errorf("not removed yet: %q", got)
	}
	close(held)
	r.stop()
	if got := r.staged(); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
}

// TestTrashMakesRoom: whoever finds no room waits for what has been removed to be gone.
func TestTrashMakesRoom(t *testing.T) {
	t.Parallel()
	changes := []string{
		"mkdir new", "touch made", "ln -s x link", "ln file hard", "chmod 600 lower", "mv moves moved", "rm gone", "rmdir empty",
		"setfattr -n user.a -v b attr", ": > cut", "echo x >> added", "mv dir dir2",
	}
	r := newRig(t, "for i in $(seq 20); do mkdir d$i; touch d$i/1 d$i/2 d$i/3 d$i/4 d$i/5 d$i/6; done; touch lower moves gone attr; echo x > cut; echo y > added; mkdir empty dir; echo f > file")
	at := r.dir + "/at"
	fusetest.Must(t, `mkdir $1 && mount -t tmpfs -o size=8m,nr_inodes=200 x $1 && mkdir $1/u $1/w $1/fill`, at)
	t.Cleanup(func() { check(t, unix.Unmount(at, unix.MNT_DETACH)) }) // a child of others may have what it had open for a moment
	r.config.Upper, r.config.Work = at+"/u", at+"/w"
	r.start()
	r.holdTrash()
	r.do("touch file") // so that it is in the upper
	for i, change := range changes {
		r.do(fmt.Sprintf("rm -r d%d", i+1))
		fill(t, at+"/fill")
		if got := r.do(change + " 2>&1; echo $?"); strings.TrimSpace(got) != "0" {
			t.Errorf("%s: %s", change, got)
		}
		if got := r.staged(); len(got) > 0 {
			t.Errorf("%s had room beside %q", change, got)
		}
		fusetest.Must(t, "rm -r $1/*", at+"/fill")
	}
	r.stop()
}

// fill makes files in dir until there is no room for more.
func fill(t *testing.T, dir string) {
	t.Helper()
	for i := range 1000 {
		err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o600)
		if errors.Is(err, unix.ENOSPC) {
			return
		}
		check(t, err)
	}
	t.Fatal("there is no end of room")
}

// TestFoundBelow: what is known to cover something below does so, whatever was renamed.
func TestFoundBelow(t *testing.T) {
	t.Parallel()
	r := newRig(t, "mkdir -p a/b c; echo 1 > a/f; echo 1 > a/b/g; echo 2 > c/h; ln c/h c/i; echo 3 > x; mkdir gone; touch gone/f", "mkdir -p a/b gone; echo 0 > a/f; echo 0 > a/z; mknod c c 0 0")
	r.config.Redirects = true
	r.start()
	o, seen := r.server.o, 0
	for _, script := range []string{
		"find .", "echo 4 >> a/f; echo 5 >> c/h; chmod 700 a/b", "mv a/f a/F; mv c/i a/i", "mv a/F a/f", "mv a A; mkdir a; touch a/f a/b", "mv A/b c/b; mv c/b A/b",
		"rm -r gone; mkdir gone; touch gone/f", "mv x A/x; mv A/x x; rm A/z; touch A/z", "mv A a2; mv a/f a2/F; find .",
	} {
		r.do(script)
		seen += r.sameBelow(o.root)
	}
	if seen == 0 {
		t.Error("nothing was known")
	}
}

// sameBelow compares what is known of the children of n, and of theirs, with a search,
// and returns of how many it was.
func (r *rig) sameBelow(n *node) (seen int) {
	r.t.Helper()
	o, kids := r.server.o, map[string]*node{}
	o.treeMu.Lock()
	n.dir.idx.all(func(e *entry) {
		if e.node != nil {
			kids[e.name] = e.node
		}
	})
	o.treeMu.Unlock()
	for name, c := range kids {
		known := c.foundBelow(n.below(), name)
		below, err := o.hasBelow(r.t.Context(), n, name)
		check(r.t, err)
		if known && !below {
			r.t.Errorf("%q was found below, and is not there", name)
		}
		if known {
			seen++
		}
		if c.isDir() {
			seen += r.sameBelow(c)
		}
	}
	return seen
}
