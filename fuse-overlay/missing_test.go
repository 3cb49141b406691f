package fuseoverlay

import (
	"testing"
	"time"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// missing returns what a directory is known to lack, the root for "".
func (r *rig) missing(dir string) string {
	o := r.server.o
	n := o.root
	if dir != "" {
		n = o.ifKnown(rootID, dir)
	}
	o.treeMu.Lock()
	defer o.treeMu.Unlock()
	return n.dir.idx.missing
}

// TestLastMissing: the name that was last looked up in vain is known to be missing, in
// directories of one layer and of several, until any name comes in; files that are
// moved to it, made there and come there in whatever way are found.
func TestLastMissing(t *testing.T) {
	t.Parallel()
	r := newRig(t, "mkdir d; echo low >d/low; echo >both; echo >gone", "mkdir d; echo >d/more").start()
	for _, dir := range []string{"", "d"} {
		r.do("mkdir -p $1/" + dir)
		in := "cd ./" + dir + "; "
		r.do(in + "! stat none")
		if got := r.missing(dir); got != "none" {
			t.Errorf("%q is what %q is known to lack", got, dir)
		}
		r.do(in + "echo 1 >one")
		if got := r.missing(dir); got != "" {
			t.Errorf("%q is what %q is known to lack after a name came", got, dir)
		}
		for _, how := range []string{
			"mv one none; grep 1 none; mv none one", "mv -T one none; ln none one; rm none", "ln one none; rm none",
			"mkdir none; rmdir none", "ln -s one none; rm none", "mkfifo none; rm none", "echo 2 >none; grep 2 none; rm none",
			"mkdir x; mv -T x none; rmdir none",
		} {
			r.do(in + "! stat none; " + how + "; ! stat none; ls | { ! grep none; }")
		}
		r.do(in + "! stat none; echo 3 >none")
		if got := r.missing(dir); got == "none" {
			t.Errorf("%q is known to lack a name that it has", dir)
		}
		r.do(in + "rm none one")
	}
	r.do("! stat d/came; mv both d/came; ! stat both; stat d/came; mv d/low both; grep low both; ! stat d/low; rm gone; ! stat gone; mv both gone; grep low gone")
	r.stop()
	r.start()
	r.do("grep low gone; stat d/came; ! stat d/low; ! stat both")
}

// TestLastMissingNotWhereLayersChange: it is not where others may give a name to what
// has none.
func TestLastMissingNotWhereLayersChange(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]func(*MountConfig){
		"names that are asked again":   func(c *MountConfig) { c.EntryTimeout = time.Millisecond },
		"names that are never trusted": func(c *MountConfig) { c.AllowRoot = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "echo >f")
			c(&r.config)
			r.start()
			r.do("! stat none")
			fusetest.Must(t, "echo text >$1/l/a/none", r.dir)
			time.Sleep(5 * time.Millisecond)
			r.do("grep text none")
		})
	}
	r := newRig(t, "mkdir p p/u p/w")
	r.config.Upper, r.config.Work = r.dir+"/l/a/p/u", r.dir+"/l/a/p/w"
	r.start()
	r.do("! stat p/u/none")
	if got := r.missing("p"); got != "" {
		t.Errorf("%q is what a directory beside the upper is known to lack", got)
	}
	r.do("cd p/u; ! stat none")
	o := r.server.o
	p := o.ifKnown(rootID, "p")
	u := o.ifKnown(p.id, "u")
	if got := u.dir.idx.missing; got != "" {
		t.Errorf("%q is what the upper, seen in a layer, is known to lack", got)
	}
}
