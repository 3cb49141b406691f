package fuseoverlay

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// faulted is what a program does while a call of the server fails; before is done
// before, without.
type faulted struct {
	name   string
	before []op
	do     op
	parts  bool // it is several calls of the program, of which the first may be done
	copies bool // it makes nothing: a failure leaves the times of all directories
	short  bool // always tried
}

func faultedOps() []faulted {
	whited := func(names ...string) (out []op) {
		for _, name := range names {
			out = append(out, op{Do: "unlink", P: name})
		}
		return out
	}
	first := func(o ...op) []op { return o }
	return []faulted{
		{name: "unlink", do: op{Do: "unlink", P: "f"}},
		{name: "unlink upper", before: first(op{Do: "chmod", P: "f", N: 0o600}), do: op{Do: "unlink", P: "f"}},
		{name: "unlink made", before: first(op{Do: "write", P: "new", S: "n"}), do: op{Do: "unlink", P: "new"}},
		{name: "unlink linked", do: op{Do: "unlink", P: "h1"}},
		{name: "unlink last", before: whited("h1"), do: op{Do: "unlink", P: "h2"}, short: true},
		{name: "rmdir", do: op{Do: "rmdir", P: "e"}},
		{name: "rmdir upper", before: whited("m/x", "m/y"), do: op{Do: "rmdir", P: "m"}},
		{name: "rmdir made", before: first(op{Do: "mkdir", P: "new"}), do: op{Do: "rmdir", P: "new"}},
		{name: "rmdir over", before: first(op{Do: "rmdir", P: "e"}, op{Do: "mkdir", P: "e"}), do: op{Do: "rmdir", P: "e"}},
		{name: "mkdir", do: op{Do: "mkdir", P: "d/new"}},
		{name: "mkdir over", before: whited("f"), do: op{Do: "mkdir", P: "f"}, short: true},
		{name: "mkdir over dir", before: first(op{Do: "rmtree", P: "d"}), do: op{Do: "mkdir", P: "d"}},
		{name: "create", do: op{Do: "write", P: "d/new", S: "new"}, parts: true},
		{name: "create over", before: whited("f"), do: op{Do: "write", P: "f", S: "new"}, parts: true},
		{name: "symlink over", before: whited("f"), do: op{Do: "symlink", P: "f", S: "new"}},
		{name: "mkfifo", do: op{Do: "mkfifo", P: "d/sub/p"}},
		{name: "append", do: op{Do: "append", P: "f", S: "more"}, copies: true, short: true},
		{name: "append deep", do: op{Do: "append", P: "d/sub/g", S: "more"}},
		{name: "append sparse", do: op{Do: "append", P: "big", S: "more"}},
		{name: "append linked", do: op{Do: "append", P: "h1", S: "more"}},
		{name: "append linked up", before: first(op{Do: "chmod", P: "h1", N: 0o600}), do: op{Do: "append", P: "h2", S: "more"}},
		{name: "append up", before: first(op{Do: "chmod", P: "f", N: 0o600}), do: op{Do: "append", P: "f", S: "more"}, short: true},
		{name: "rewrite", do: op{Do: "write", P: "f", S: "again"}, parts: true},
		{name: "truncate", do: op{Do: "truncate", P: "f", N: 100}},
		{name: "chmod", do: op{Do: "chmod", P: "f", N: 0o640}},
		{name: "chmod dir", do: op{Do: "chmod", P: "d/sub", N: 0o711}, copies: true, short: true},
		{name: "chown link", do: op{Do: "chown", P: "s", N: 5}},
		{name: "chown linked link", do: op{Do: "chown", P: "hs1", N: 5}},
		{name: "utimes", do: op{Do: "utimes", P: "p", N: 1000}},
		{name: "setxattr", do: op{Do: "setxattr", P: "m", Q: "user.x", S: "v"}},
		{name: "link", do: op{Do: "link", P: "f", Q: "d/l"}},
		{name: "link linked", do: op{Do: "link", P: "h1", Q: "d/l"}},
		{name: "link over", before: whited("z"), do: op{Do: "link", P: "f", Q: "z"}},
		{name: "unnamed", do: op{Do: "unnamed", P: "d", Q: "d/l", S: "x"}},
		{name: "rename", do: op{Do: "rename", P: "f", Q: "d/new"}},
		{name: "rename over", do: op{Do: "rename", P: "f", Q: "d/f1"}},
		{name: "rename linked", do: op{Do: "rename", P: "h1", Q: "d/f1"}},
		{name: "rename over linked", do: op{Do: "rename", P: "f", Q: "h1"}},
		{name: "rename over last", before: whited("h1"), do: op{Do: "rename", P: "f", Q: "h2"}},
		{name: "rename dir", do: op{Do: "rename", P: "d", Q: "new"}},
		{name: "rename merged", do: op{Do: "rename", P: "m", Q: "d/new"}},
		{name: "rename dir over", before: whited("m/x", "m/y"), do: op{Do: "rename", P: "d", Q: "m"}},
		{name: "rename dir over empty", do: op{Do: "rename", P: "d", Q: "e"}},
		{name: "rename dir over whiteout", before: first(op{Do: "rmdir", P: "e"}), do: op{Do: "rename", P: "d", Q: "e"}},
		{name: "rename made over whiteout", before: first(op{Do: "rmdir", P: "e"}, op{Do: "mkdir", P: "new"}), do: op{Do: "rename", P: "new", Q: "e"}, short: true},
		{name: "exchange", do: op{Do: "rename", P: "m", Q: "f", N: unix.RENAME_EXCHANGE}},
		{name: "exchange dirs", do: op{Do: "rename", P: "m", Q: "d/sub", N: unix.RENAME_EXCHANGE}},
		{name: "exchange linked", do: op{Do: "rename", P: "h1", Q: "d/f1", N: unix.RENAME_EXCHANGE}},
	}
}

// faultModes are the mounts whose calls fail, and in how many ways.
func faultModes() map[string]func(*MountConfig) {
	asked := func(c *MountConfig) { c.EntryTimeout, c.AttrTimeout = time.Nanosecond, time.Nanosecond }
	return map[string]func(*MountConfig){
		"default":          func(*MountConfig) {},
		"bound":            func(c *MountConfig) { c.MaxFiles, c.MaxBytes = 1<<20, 1<<40 },
		"redirects":        func(c *MountConfig) { c.Redirects, c.Metacopy = true, true },
		"asked":            asked,
		"asked, redirects": func(c *MountConfig) { asked(c); c.Redirects, c.Metacopy = true, true },
	}
}

// TestFaultedChild is the server of TestFaults.
func TestFaultedChild(t *testing.T) {
	dir := os.Getenv("FAULT_DIR")
	if dir == "" {
		t.Skip("runs as a child of TestFaults")
	}
	c := MountConfig{Lower: []string{dir + "/l/a", dir + "/l/b"}, Upper: dir + "/u", Work: dir + "/w"}
	faultModes()[os.Getenv("FAULT_MODE")](&c)
	s, err := Mount(c, dir+"/m")
	check(t, err)
	fmt.Println("mounted")
	check(t, s.Serve())
}

// mostCalls is how many calls of the server for one thing that is done are made fail in
// a long run; lastCalls is how many, the last ones, in others: what comes after the one
// that does it is among them.
const mostCalls, lastCalls = 90, 10

// TestFaults has each system call of the server fail once, with what a full or broken
// disk, or too many open files, answer: what was to be done is not done, the caller is
// told why, and the second time it is; or it is done. What the mount shows, the next one
// shows too. PLYFS_LONG is for all that can be done, in all modes.
func TestFaults(t *testing.T) {
	t.Parallel()
	needRoot(t)
	long := os.Getenv("PLYFS_LONG") != ""
	for mode := range faultModes() {
		for kind := range 4 {
			if !long && (mode != "redirects" || kind > 0) {
				continue
			}
			t.Run(fmt.Sprint(mode, kind), func(t *testing.T) {
				t.Parallel()
				ops, calls := faultedOps(), mostCalls
				if !long {
					ops, calls = slices.DeleteFunc(ops, func(o faulted) bool { return !o.short }), lastCalls
				}
				r := newRig(t, "", "")
				for i := range ops {
					for k := range calls + 1 {
						fillFaulted(t, r.slot(r.lowers[0], i, k), r.slot(r.lowers[1], i, k), long)
					}
				}
				faultModes()[mode](&r.config)
				f := faultRun{rig: r, mode: mode, kind: kind, calls: calls, shown: map[string]map[string]string{}}
				f.start()
				for i, o := range ops {
					f.each(i, o)
				}
				f.end()
			})
		}
	}
}

// slot is the directory below root for the k-th failure of what is done.
func (r *rig) slot(root string, i, k int) string { return filepath.Join(root, fmt.Sprint(i, "-", k)) }

// fillFaulted makes what two layers have in a slot, of all kinds if there is time.
func fillFaulted(t *testing.T, a, b string, all bool) {
	t.Helper()
	for _, d := range []string{a, a + "/d", a + "/d/sub", a + "/e", a + "/m", b, b + "/m"} {
		check(t, os.Mkdir(d, 0o755))
	}
	for _, f := range []string{a + "/f", a + "/h1", a + "/m/x", b + "/m/y"} {
		check(t, os.WriteFile(f, []byte(filepath.Base(f)), 0o644))
	}
	check(t, os.Link(a+"/h1", a+"/h2"))
	if all {
		for _, f := range []string{"d/f1", "d/sub/g", "z", "big"} {
			check(t, os.WriteFile(filepath.Join(a, f), []byte(f), 0o644))
		}
		check(t, os.Truncate(a+"/big", 1<<20+1))
		check(t, os.Symlink("to", a+"/s"))
		check(t, os.Symlink("to", a+"/hs1"))
		check(t, os.Link(a+"/hs1", a+"/hs2"))
		check(t, unix.Mkfifo(a+"/p", 0o644))
	}
	for _, f := range []string{"f", "d", "m"} {
		check(t, unix.Setxattr(filepath.Join(a, f), "user.a", []byte("b"), 0))
	}
	old := time.Unix(1e9-1, 0)
	for _, f := range []string{"f", "h1", "d/sub", "d", "."} {
		check(t, os.Chtimes(filepath.Join(a, f), old, old))
	}
}

// faultRun is one server whose calls fail.
type faultRun struct {
	*rig
	faults
	mode   string
	kind   int
	calls  int // how many of those for one thing that is done fail
	server *exec.Cmd
	shown  map[string]map[string]string // what slots had at last
}

// start starts a server, which must be another process: this one looks at the mount.
func (f *faultRun) start() {
	f.t.Helper()
	exe, err := os.Executable()
	check(f.t, err)
	f.server = exec.Command(exe, "-test.run=^TestFaultedChild$")
	f.server.Env = append(os.Environ(), "PLYFS_TEST_CHILD=1", "FAULT_DIR="+f.dir, "FAULT_MODE="+f.mode)
	f.server.Stderr = os.Stderr
	out, err := f.server.StdoutPipe()
	check(f.t, err)
	if err := f.under(f.server); errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EBUSY) {
		f.t.Skipf("no seccomp filter can show calls here: %v", err)
	} else {
		check(f.t, err)
	}
	word := make([]byte, len("mounted"))
	if _, err := out.Read(word); err != nil || string(word) != "mounted" {
		f.t.Fatalf("the server said %q, %v", word, err)
	}
	f.t.Cleanup(func() { _ = f.server.Process.Kill() }) // if it is there still
}

// wants says how calls fail.
func (f *faultRun) wants(nr int32) unix.Errno {
	switch {
	case slices.Contains(changing, nr):
		return []unix.Errno{unix.ENOSPC, unix.EIO, unix.EDQUOT, unix.ENOMEM}[f.kind]
	case slices.Contains(opening, nr):
		return []unix.Errno{unix.EMFILE, unix.EIO, unix.ENFILE, unix.ENOMEM}[f.kind]
	}
	return []unix.Errno{unix.EIO, unix.ENOMEM, unix.EIO, unix.ENOMEM}[f.kind]
}

func (f *faultRun) list(at string) map[string]string {
	f.t.Helper()
	var rep reply
	l := lister{root: at, rep: &rep}
	l.list()
	for _, s := range rep.Trouble {
		f.t.Errorf("%s: %s", at, s)
	}
	return rep.Tree
}

// prepare does what comes before in a slot.
func (f *faultRun) prepare(o faulted, at string) *actor {
	f.t.Helper()
	a := &actor{root: at, open: map[int]*os.File{}}
	for _, b := range o.before {
		if err := a.act(b); err != nil {
			f.t.Fatalf("%s: before: %v", o.name, err)
		}
	}
	return a
}

// each does one thing while one call fails, and again in another slot with another one.
func (f *faultRun) each(i int, o faulted) {
	f.t.Helper()
	at := f.slot(f.mount, i, 0)
	a := f.prepare(o, at)
	before := f.list(at)
	if err := a.act(o.do); err != nil {
		f.t.Errorf("%s: %v", o.name, err)
		return
	}
	after := f.list(at)
	first := 1
	for k := 1; k <= f.calls; k++ {
		at := f.slot(f.mount, i, k)
		a := f.prepare(o, at)
		if k == 1 && f.calls < mostCalls { // how many there are
			f.during(0, f.wants, func() { check(f.t, a.act(o.do)) })
			first = max(1, len(f.seen)-f.calls+1)
			continue
		}
		var err error
		nr, how := f.during(first+k-1, f.wants, func() { err = a.act(o.do) })
		if nr == 0 {
			if err != nil {
				f.t.Errorf("%s: %v, and nothing failed", o.name, err)
			}
			return
		}
		if why := f.judge(o, a, nr, how, err, before, after); why != "" {
			f.t.Errorf("%s: when call %d (%d) fails with %v, the answer is %v: %s", o.name, first+k-1, nr, how, err, why)
		}
	}
	if f.calls == mostCalls {
		f.t.Errorf("%s takes more than %d calls", o.name, mostCalls)
	}
}

// judge says what is wrong after a failure, and tries again.
func (f *faultRun) judge(o faulted, a *actor, nr int32, how unix.Errno, err error, before, after map[string]string) string {
	f.t.Helper()
	got := f.list(a.root)
	defer func() { f.shown[a.root] = got }()
	done := faultLeft(after, got, nr, false)
	if err == nil {
		if len(done) > 0 {
			return fmt.Sprintf("not done\n%v", done)
		}
		return ""
	}
	if !errors.Is(err, how) {
		return "another error"
	}
	lookedAfter := len(done) == 0 && slices.Contains(looking, nr) // all is done but for saying what there is now
	if undone := faultLeft(before, got, nr, o.copies); len(undone) > 0 && !lookedAfter && !o.parts {
		return fmt.Sprintf("changed\n%v", undone)
	}
	if err := a.act(o.do); err != nil && len(done) > 0 {
		return fmt.Sprintf("the second time %v", err)
	}
	got = f.list(a.root)
	if d := faultLeft(after, got, nr, o.copies); len(d) > 0 {
		return fmt.Sprintf("the second time\n%v", d)
	}
	return ""
}

// faultLeft is unequal, but for what may differ after call nr has failed: unless times
// is true those of directories, in which a file may have been made and removed again,
// and, when what counts links could not be written, their count, which may be too high.
func faultLeft(want, got map[string]string, nr int32, times bool) []string {
	plain := func(tree map[string]string) map[string]string {
		out := map[string]string{}
		for p, s := range tree {
			if s[0] == '4' && !times {
				s = shownTime.ReplaceAllString(s, "")
			}
			if nr == 0 || slices.Contains(records, nr) {
				s = shownLinks.ReplaceAllString(s, "")
			}
			out[p] = s
		}
		return out
	}
	return unequal(plain(want), plain(got))
}

var (
	shownTime  = regexp.MustCompile(` mtime [0-9.]+`)
	shownLinks = regexp.MustCompile(` links [0-9]+`)
)

// end ends the server, and compares what the next one shows.
func (f *faultRun) end() {
	f.t.Helper()
	f.unmount()
	check(f.t, f.server.Wait())
	f.start()
	if left := namesIn(f.t, filepath.Join(f.dir, "w/work")); len(left) != 1 || left[0] != holderName {
		f.t.Errorf("left in work: %q", left)
	}
	for at, want := range f.shown {
		if d := faultLeft(want, f.list(at), 0, false); len(d) > 0 {
			f.t.Errorf("%s after a new mount:\n%v", at, d)
		}
	}
	f.unmount()
	check(f.t, f.server.Wait())
}
