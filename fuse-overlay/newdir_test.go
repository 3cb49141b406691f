package fuseoverlay

import "testing"

// TestNewDirectories: a directory that was just made is known to be empty, with
// whatever lies below its name, and names come and go in it as in a plain one.
func TestNewDirectories(t *testing.T) {
	t.Parallel()
	r := newRig(t, "mkdir -p gone/sub there; echo x >gone/f; echo y >gone/sub/g; echo z >there/h", "mkdir gone; echo low >gone/low").start()
	r.do("mkdir $2/plain; cp -a . $2/plain")
	for _, script := range []string{
		"rm -r gone; mkdir gone; [ ! -e gone/f ] && [ ! -e gone/low ]; ",
		"mkdir -p new/a/b; [ ! -e new/none ]; echo 1 >new/one; mv new/one new/two; [ ! -e new/one ]; ln new/two new/a/three; ",
		"mv there/h new/h; mv new/a gone/a; [ ! -e new/a ] && [ -e gone/a/three ]; mkdir new/a; [ ! -e new/a/b ]; ",
		"mkdir there/n; mv there/n there/m; mkdir there/n; echo q >there/m/q; mv -T there/m there/n; [ -e there/n/q ]; ",
		"rmdir new/a; [ ! -e new/a ]; ln -s two new/a; rm new/two; mkdir new/two; for i in $(seq 100); do : >new/two/$i; done; rm new/two/5*; ",
	} {
		const look = `find . -printf '%P %y %l\n' | sort; cat gone/a/three new/h 2>/dev/null || true; for n in gone/f gone/low new/two/5 new/two/50 new/none; do [ -e $n ] || echo no $n; done`
		want := r.do("cd $2/plain; " + script + look)
		if got := r.do(script + look); got != want {
			t.Errorf("after %q:\n%s", script, difference(t, want, got))
		}
	}
	tree := `find . -printf '%P %y %l\n' | sort`
	want := r.do(tree)
	r.stop()
	r.start()
	if got := r.do(tree); got != want {
		t.Errorf("after a new mount:\n%s", difference(t, want, got))
	}
}

// The index of a directory that was just made needs no listing.
func TestNewDirectoryIsComplete(t *testing.T) {
	t.Parallel()
	r := newRig(t, "mkdir d; echo x >d/f").start()
	r.do("rm -r d; mkdir d n; [ ! -e d/f ]; mkdir d/e")
	o := r.server.o
	o.treeMu.Lock()
	defer o.treeMu.Unlock()
	for _, name := range []string{"d", "n"} {
		if e := o.root.dir.idx.get(name); e == nil || e.node == nil || !e.node.dir.idx.complete {
			t.Errorf("%s is to be listed", name)
		}
	}
}
