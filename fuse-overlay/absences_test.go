package fuseoverlay

import (
	"hash/maphash"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// TestAbsences: in directories that were asked in vain so often that they are
// listed, names that are there, that come, go and come back, and that only a
// mark hides, are what they are in a plain directory. Each time the mount is
// made anew, and its directories are listed last: of one that was, no layer is asked.
func TestAbsences(t *testing.T) {
	t.Parallel()
	const longest = `long=$(head -c 251 /dev/zero | tr '\0' n); `
	r := newRig(t,
		longest+"mkdir d; cd d; echo top >both; mkdir dir; echo z >dir/z; touch .wh.hidden .wh.$long; ln -s both link; echo >LINK",
		longest+"mkdir d e; cd d; echo low >both; echo low >low; echo low >hidden; echo low >LOW; mkdir dir; echo y >dir/y; echo >$long; echo >wxyz$long; cd ../e; seq -f n%g 3000 | xargs touch")
	r.start()
	r.do("mkdir $2/plain; cp -a . $2/plain")
	const missing = `for d in d e d/dir; do for i in $(seq 700); do echo $d/none$i; done | xargs stat >/dev/null 2>&1 || true; done; `
	const look = longest + `ls d/hidden d/Low d/link d/LINK d/Link d/none1 e/n1 e/n3000 e/n3001 d/$long d/wxyz$long d/wxy$long d/wxyz${long%n}m 2>&1 || true
		cat d/both d/low d/LOW d/dir/z d/dir/y d/dir/none7 2>&1 || true; find . -type d -printf '%p %y\n' -o -printf '%p %y %s %l\n' | sort; cat d/dir/* 2>&1 || true`
	compare := func(after string) {
		t.Helper()
		want := r.do("cd $2/plain; " + after + look)
		r.stop()
		r.start()
		if got := r.do("cd $1; " + missing + after + look); got != want {
			t.Errorf("after %q: %s", after, difference(t, got, want))
		}
	}
	compare("true; ")
	compare("echo new >d/none1; mv d/low d/none2; rm d/both; mkdir d/none3; ")
	compare("rm d/none1; mv d/none2 d/low; echo again >d/both; rmdir d/none3; echo x >d/hidden; ")
	compare("rm d/hidden d/LOW; rm -r d/dir; mkdir d/dir; echo n >d/dir/none7; mv d/dir/none7 e/none8; ln e/none8 e/n3001; ")
	compare("true; ")
}

// askInVain asks the mount for n names that its root has not.
func (r *rig) askInVain(first, n string) {
	r.t.Helper()
	r.do("seq -f " + first + "%g " + n + " | xargs stat >/dev/null 2>&1 || true")
}

// TestAbsencesAreBounded: a directory with more names than were asked for in
// vain justify is not remembered, and is when they were; what is has no more
// room than for its names. What has two spellings of a name for one file, as a
// directory that folds cases has, is not.
func TestAbsencesAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, "seq -f n%g 1025 | xargs touch", "echo >a1; ln a1 A1", "echo >b; echo >B; seq 1000 | xargs touch", "").start()
	known := func(i int) *nameSet { return r.server.o.root.stack()[i].absences.known.Load() }
	r.askInVain("x", "63")
	for i := range 5 {
		if known(i) != nil {
			t.Errorf("layer %d is remembered too early", i)
		}
	}
	r.askInVain("y", "100")
	if known(1) != nil {
		t.Error("1025 names are remembered after 163 questions")
	}
	if s := known(3); s == nil || len(s.hashes) != 1002 || cap(s.hashes) > 1100 {
		t.Error("1002 names are not remembered after 163 questions")
	}
	if s := known(4); s == nil || len(s.hashes) != 0 {
		t.Error("that there is no name is not remembered")
	}
	r.askInVain("z", "500")
	if s := known(1); s == nil || len(s.hashes) != 1025 {
		t.Error("1025 names are not remembered after 663 questions")
	}
	if known(2) != nil {
		t.Error("a directory that may fold cases is remembered")
	}
}

// TestAbsencesNotWhereLayersChange: names that come where a layer changes while
// it is mounted, and that nobody asked for before, are found.
func TestAbsencesNotWhereLayersChange(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		setup, upper, work string
		config             func(*MountConfig)
	}{
		"upper in a lower layer":       {"mkdir p p/u p/w", "/l/a/p/u", "/l/a/p/w", nil},
		"upper there by a bind mount":  {"mkdir p p/u p/w ../../bound; mount --bind p ../../bound", "/bound/u", "/bound/w", nil},
		"names that are asked again":   {"mkdir p p/u", "", "", func(c *MountConfig) { c.EntryTimeout = time.Millisecond }},
		"names that are never trusted": {"mkdir p p/u", "", "", func(c *MountConfig) { c.AllowRoot = true }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.setup)
			if strings.Contains(c.setup, "mount") {
				t.Cleanup(func() { check(t, unix.Unmount(r.dir+"/bound", unix.MNT_DETACH)) })
			}
			if c.upper != "" {
				r.config.Upper, r.config.Work = r.dir+c.upper, r.dir+c.work
			} else {
				c.config(&r.config)
			}
			r.start()
			r.do("cd p/u; seq -f n%g 700 | xargs stat >/dev/null 2>&1 || true")
			if c.upper != "" {
				r.do("echo text >new; cat p/u/new")
			} else {
				fusetest.Must(t, "echo text >$1/l/a/p/u/new", r.dir)
				r.do("cat p/u/new")
			}
		})
	}
}

// TestAbsencesNotInCasefolds: where a directory takes names for others, each is
// asked for.
func TestAbsencesNotInCasefolds(t *testing.T) {
	t.Parallel()
	for name, mkfs := range map[string]string{
		"ext4": "mkfs.ext4 -q -O casefold -E encoding=utf8", "xfs": "mkfs.xfs -q -n version=ci",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "")
			_, at := fusetest.Loop(t, r.dir, 400, mkfs, "")
			fusetest.Must(t, "mkdir $1/d; [ $2 = xfs ] || chattr +F $1/d; echo low >$1/d/Name", at, name)
			r.config.Lower = []string{at + "/d"}
			r.start()
			r.askInVain("x", "700")
			r.do("grep low nAmE")
		})
	}
}

// TestNameSet: of names of any bytes and length none is said not to be there,
// however it is put together.
func TestNameSet(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOf(rapid.SliceOfN(rapid.Byte(), 1, 255)).Draw(t, "names")
		s := &nameSet{seed: maphash.MakeSeed()}
		for _, n := range names {
			s.hashes = append(s.hashes, uint32(maphash.Bytes(s.seed, n)))
		}
		slices.Sort(s.hashes)
		for _, n := range names {
			at := rapid.IntRange(0, len(n)).Draw(t, "at")
			if !s.may(string(n[:at]), string(n[at:])) {
				t.Errorf("%q and %q", n[:at], n[at:])
			}
		}
		if len(names) == 0 && s.may("", "x") {
			t.Error("an empty set has a name")
		}
	})
}
