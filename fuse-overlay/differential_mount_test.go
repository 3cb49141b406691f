package fuseoverlay

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/fusetest"
	"github.com/plyfs/plyfs/internal/idmap"
)

// drawOp draws one op.
func drawOp(t *rapid.T, i int) op {
	kinds := []string{
		"write", "write", "append", "pwrite", "mmap", "truncate", "punch", "mkdir", "mkdir", "mkdirs", "rmdir", "unlink", "unlink",
		"rmtree", "rename", "rename", "rename", "link", "link", "symlink", "mkfifo", "mknod", "chmod", "chown", "utimes", "setxattr",
		"removexattr", "copy", "open", "fwrite", "ftruncate", "fchmod", "fstat", "close", "unnamed",
		"list", "list",
	}
	o := op{Do: rapid.SampledFrom(kinds).Draw(t, "do"), P: drawPath(t), Slot: rapid.IntRange(0, 1).Draw(t, "slot")}
	switch o.Do {
	case "write", "append", "pwrite", "fwrite":
		o.S = strings.Repeat(fmt.Sprint("data ", i, " "), rapid.SampledFrom([]int{0, 1, 1500}).Draw(t, "times"))
		o.N = rapid.Int64Range(0, 20000).Draw(t, "at")
	case "truncate", "ftruncate", "punch":
		o.N = rapid.Int64Range(0, 30000).Draw(t, "size")
	case "copy":
		o.Q, o.N = drawPath(t), rapid.Int64Range(0, 9000).Draw(t, "at")
	case "rename":
		o.Q = drawPath(t)
		o.N = rapid.SampledFrom([]int64{0, 0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}).Draw(t, "flags")
	case "link", "unnamed":
		o.Q, o.S = drawPath(t), "unnamed"
	case "symlink":
		o.S = rapid.SampledFrom(append([]string{"a/b", "nowhere"}, pathParts...)).Draw(t, "target")
	case "chmod", "fchmod":
		o.N = rapid.SampledFrom([]int64{0o600, 0o755, 0o4755, 0o2775, 0o1777, 0}).Draw(t, "mode")
	case "chown", "utimes":
		o.N = rapid.Int64Range(1, 1000).Draw(t, "n")
	case "setxattr", "removexattr":
		o.Q = rapid.SampledFrom([]string{"user.x", "trusted.y", "trusted.overlay.opaque"}).Draw(t, "attr")
		o.S = "y"
		o.N = rapid.SampledFrom([]int64{0, 0, unix.XATTR_CREATE, unix.XATTR_REPLACE}).Draw(t, "flags")
	}
	return o
}

func drawOps(t *rapid.T, low, high int) []op {
	ops := make([]op, rapid.IntRange(low, high).Draw(t, "ops"))
	for i := range ops {
		ops[i] = drawOp(t, i)
	}
	return ops
}

// arena is where one case takes place.
type arena struct {
	t      *rapid.T
	mode   differentialMode
	d      *driver
	dir    string
	lowers []string
	server *Server // the last one mounted
}

func (a *arena) path(name string) string { return filepath.Join(a.dir, name) }

// kernel mounts the kernel's overlay over lowers with upper u and calls f with
// its root.
func (a *arena) kernel(lowers []string, u, w string, options []string, f func(root string)) {
	a.t.Helper()
	if a.mode.user {
		options = []string{"userxattr"} // with which the others are not taken, or of no use
	}
	root, end := kernelMount(a.t, lowers, append([]string{"upperdir=" + u, "workdir=" + w}, options...)...)
	defer end()
	f(strings.Replace(root, "/self/", fmt.Sprintf("/%d/", os.Getpid()), 1))
}

func (a *arena) mkdirs(names ...string) {
	for _, n := range names {
		check(a.t, os.MkdirAll(a.path(n), 0o755))
	}
}

// layers makes 1 to 3 lower layers: a plain one, and what the kernel's overlay
// leaves over it. Hard links are in single ones only: a layer above would hide
// some of a file's names, which neither overlay takes off its count.
func (a *arena) layers() {
	a.mkdirs("l0")
	a.lowers = []string{a.path("l0")}
	more := rapid.IntRange(0, 2).Draw(a.t, "layers")
	ops := drawOps(a.t, 5, 25)
	if more > 0 || a.mode.user { // which has no index for some of them
		ops = withoutLinkOps(ops)
	}
	a.d.ask(a.t, batchOf{Root: a.path("l0"), Ops: ops, Done: true})
	for i := range more {
		l, w := fmt.Sprint("l", i+1), fmt.Sprint("lw", i+1)
		a.mkdirs(l, w)
		a.kernel(a.lowers, a.path(l), a.path(w), []string{"index=off", "redirect_dir=off", "metacopy=off"}, func(root string) {
			a.d.ask(a.t, batchOf{Root: root, Ops: withoutLinkOps(drawOps(a.t, 1, 15)), Done: true})
		})
		a.lowers = append([]string{a.path(l)}, a.lowers...)
	}
}

func withoutLinkOps(ops []op) []op {
	return slices.DeleteFunc(ops, func(o op) bool { return o.Do == "link" || o.Do == "unnamed" })
}

// same fails when two answers differ.
func (a *arena) same(what string, ops []op, want, got reply) {
	a.t.Helper()
	out := unequal(want.Tree, got.Tree)
	for i := range want.Errs {
		if want.Errs[i] != got.Errs[i] {
			out = append(out, fmt.Sprintf("op %d %s %s: want %q, got %q", i, ops[i].Do, ops[i].P, want.Errs[i], got.Errs[i]))
		}
	}
	if out = append(out, got.Trouble...); len(out) > 0 {
		a.t.Fatalf("%s:\n%s\nafter\n%s", what, strings.Join(out, "\n"), describe(ops))
	}
}

func describe(ops []op) string {
	var b strings.Builder
	for i, o := range ops {
		s := o.S
		if len(s) > 12 {
			s = s[:12] + "…"
		}
		fmt.Fprintf(&b, "%d: %s %s %s n=%o %q slot %d\n", i, o.Do, o.P, o.Q, o.N, s, o.Slot)
	}
	return b.String()
}

// ours mounts ours over the case's layers, calls f with its root and unmounts.
func (a *arena) ours(volatile bool, f func(root string)) {
	a.t.Helper()
	c := MountConfig{Lower: a.lowers, Upper: a.path("u"), Work: a.path("w"), Volatile: volatile}
	if volatile {
		c.missed = 1 // what a layer lacks is remembered at once; else hardly ever
		c.row, c.patience = 1, time.Minute
	}
	if a.mode.config != nil {
		a.mode.config(&c)
	}
	if !a.mode.nested {
		a.serve(c, "m", f)
		return
	}
	a.mkdirs("ol", "o")
	a.serve(MountConfig{Lower: []string{a.path("ol")}, Upper: c.Upper, Work: c.Work, Volatile: volatile}, "o", func(root string) {
		a.mkdirs("o/u", "o/w")
		c.Upper, c.Work = root+"/u", root+"/w"
		a.serve(c, "m", f)
	})
}

// counted sees that what a bounded mount has counted is what its upper holds, once
// the kernel has forgotten what is gone.
func (a *arena) counted(ops []op) {
	a.t.Helper()
	if !a.mode.bounded {
		return
	}
	o := a.server.o
	if err := eventually(func() error {
		now := &quota{work: o.work, files: map[uint64]int64{}}
		if err := now.count(o.root.stack()[0]); err != nil {
			return err
		}
		if bytes, files := o.quota.holds(); files != len(now.files) || bytes < now.bytes || bytes > now.bytes+blockRoom { // extents are merged later
			return fmt.Errorf("counted %d bytes in %d files, and there are %d in %d", bytes, files, now.bytes, len(now.files))
		}
		return nil
	}); err != nil {
		a.t.Fatalf("%v\nafter\n%s", err, describe(ops))
	}
}

// serve mounts on the folder at, calls f with its path and unmounts.
func (a *arena) serve(c MountConfig, at string, f func(root string)) {
	a.t.Helper()
	s, err := Mount(c, a.path(at))
	check(a.t, err)
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	a.server = s
	defer func() {
		if err := unix.Unmount(a.path(at), unix.MNT_DETACH); err != nil {
			a.t.Errorf("unmount: %v", err)
		}
		if err := <-served; err != nil {
			a.t.Errorf("serve: %v", err)
		}
	}()
	f(a.path(at))
}

// differential is one case.
func differential(t *rapid.T, d *driver, dir string, mode differentialMode) {
	a := &arena{t: t, mode: mode, d: d, dir: dir}
	defer func() { check(t, os.RemoveAll(dir)) }()
	check(t, os.MkdirAll(dir, 0o755))
	a.layers()
	a.mkdirs("u", "w", "m", "ku", "kw", "plain", "ru", "rw")
	// The plain directory starts as what the kernel shows.
	a.kernel(a.lowers, a.path("ru"), a.path("rw"), []string{"index=on"}, func(root string) {
		if out, err := exec.Command("cp", "-a", root+"/.", a.path("plain")).CombinedOutput(); err != nil {
			t.Fatalf("copy: %v: %s", err, out)
		}
	})
	volatile := rapid.Bool().Draw(t, "volatile")
	var want, last reply
	for range rapid.IntRange(1, 2).Draw(t, "mounts") {
		ops := mode.able(drawOps(t, 1, 40))
		want = d.ask(t, batchOf{Root: a.path("plain"), Ops: ops, List: true, Done: true})
		a.ours(volatile, func(root string) {
			a.goAhead(root)
			last = d.ask(t, batchOf{Root: root, Ops: ops, List: true, Done: true})
			a.same("ours against a plain directory", ops, want, last)
			a.counted(ops)
		})
		a.kernel(a.lowers, a.path("ku"), a.path("kw"), []string{"index=on", "redirect_dir=on"}, func(root string) {
			k := d.ask(t, batchOf{Root: root, Ops: ops, List: true, Done: true})
			if diff := unequal(k.Tree, last.Tree); len(diff) > 0 {
				t.Logf("the kernel differs from both:\n%s", strings.Join(diff, "\n"))
			}
		})
	}
	a.ours(volatile, func(root string) {
		again := d.ask(t, batchOf{Root: root, List: true})
		a.same("after a remount", nil, reply{Tree: want.Tree}, again)
		for p, ino := range last.Inos {
			if again.Inos[p] != ino && !a.mayChange(want.Tree[p]) {
				t.Errorf("%q: inode number %d, after a remount %d", p, ino, again.Inos[p])
			}
		}
	})
	if mode.foreign {
		return
	}
	a.kernel(a.lowers, a.path("u"), a.path("w"), append([]string{"index=on"}, mode.kernel...), func(root string) {
		k := d.ask(t, batchOf{Root: root, List: true})
		k.Trouble = nil // the kernel's own
		a.same("our upper through the kernel", nil, reply{Tree: want.Tree}, k)
	})
}

// mayChange tells whether the inode number of a file that is described so may be
// another after a remount: a user's symlinks and special files have no origin record.
func (a *arena) mayChange(about string) bool {
	var mode uint32
	_, err := fmt.Sscanf(about, "%o", &mode)
	return a.mode.user && err == nil && mode&unix.S_IFMT != unix.S_IFREG && mode&unix.S_IFMT != unix.S_IFDIR
}

// differentialMode is a set of options.
type differentialMode struct {
	config func(c *MountConfig)
	kernel []string // what the kernel needs to read such an upper
	// foreign: the kernel cannot.
	foreign bool
	// nested: the upper is on another mount of ours.
	nested bool
	// sizes: truncate(2) to the size that a file has may keep its time.
	sizes bool
	// bounded: what the upper holds is counted.
	bounded bool
	// user: all is in a user namespace, so that marks are user.overlay.*.
	user bool
}

// able returns ops without what the mode cannot do as others do: a truncation
// goes through another size.
func (m differentialMode) able(ops []op) []op {
	if !m.sizes {
		return ops
	}
	var able []op
	for _, o := range ops {
		if o.Do == "truncate" {
			other := o
			other.N++
			able = append(able, other)
		}
		able = append(able, o)
	}
	return able
}

func differentialModes() map[string]differentialMode {
	return map[string]differentialMode{
		"default":   {},
		"redirects": {config: func(c *MountConfig) { c.Redirects = true }, kernel: []string{"redirect_dir=on"}},
		"metacopy": {config: func(c *MountConfig) { c.Redirects, c.Metacopy = true, true },
			kernel: []string{"redirect_dir=on", "metacopy=on"}},
		"passthrough": {config: func(c *MountConfig) { c.Passthrough = PassthroughOnly }},
		"passthrough-metacopy": {config: func(c *MountConfig) { c.Redirects, c.Metacopy, c.Passthrough = true, true, PassthroughOnly },
			kernel: []string{"redirect_dir=on", "metacopy=on"}},
		"writeback": {config: func(c *MountConfig) { c.Writeback = true }, sizes: true},
		"bounded":   {config: func(c *MountConfig) { c.MaxBytes, c.MaxFiles = 1<<50, 1<<40 }, bounded: true},
		"go-fuse":   {config: func(c *MountConfig) { c.GoFuse = true }},
		"mapped": {config: func(c *MountConfig) {
			c.UIDs = []idmap.Range{{Size: 500}, {ContainerID: 500, HostID: 500, Size: 1 << 20}}
			c.GIDs, c.SingleThread = c.UIDs, true
		}},
		"aside":            {config: func(c *MountConfig) { c.Aside = AsideSecurity }, foreign: true},
		"nested":           {nested: true, foreign: true},
		"nested-redirects": {config: func(c *MountConfig) { c.Redirects, c.Metacopy = true, true }, nested: true, foreign: true},
	}
}

// TestDifferential does the same random things to ours, to the kernel's
// overlay and to a plain directory; all three are equal afterwards, ours also
// after a remount, and seen by the kernel. PLYFS_LONG=1 does it a hundred times as
// often.
func TestDifferential(t *testing.T) {
	t.Parallel()
	needRoot(t)
	eachDifferential(t, differentialModes())
}

// eachDifferential runs all modes: 50 sequences in each, or 5,000.
func eachDifferential(t *testing.T, modes map[string]differentialMode) {
	rounds, most := 1, 50
	if os.Getenv("PLYFS_LONG") != "" {
		rounds, most = 50, math.MaxInt
	}
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			run := atMost(most, cases(t, mode))
			for range rounds {
				rapid.Check(t, run)
			}
		})
	}
}

// atMost is run for so many cases of rapid.Check (which makes 100, unless it is told
// otherwise for all tests at once), and does nothing after them; but when one has
// failed it runs whatever rapid makes of it.
func atMost(most int, run func(*rapid.T)) func(*rapid.T) {
	failed := false
	return func(t *rapid.T) {
		if most == 0 && !failed {
			return
		}
		most = max(most-1, 0)
		before := failed
		failed = true // and stays so where run does not return
		run(t)
		failed = before || t.Failed()
	}
}

// inUser is set in the environment of what runs in the user namespace.
const inUser = "DIFFERENTIAL_IN_USER"

// TestDifferentialAsUser is TestDifferential in a user namespace with subordinate
// IDs, as an ordinary user's podman has it.
func TestDifferentialAsUser(t *testing.T) {
	t.Parallel()
	r := fusetest.AsUser(t, fusetest.User{Env: []string{inUser + "=1"}},
		`export TMPDIR=$HOME; exec unshare -U --map-auto --map-root-user -m "$1" -test.run '^TestDifferentialInUser$' -test.v -rapid.nofailfile`, fusetest.Exe(t))
	if r.Status != 0 || strings.Count(r.Out, "--- PASS:") != 4 {
		t.Errorf("status %d\n%s%s", r.Status, r.Out, r.Err)
	}
}

// TestDifferentialInUser is the child of TestDifferentialAsUser.
func TestDifferentialInUser(t *testing.T) {
	if os.Getenv(inUser) == "" {
		t.Skip("runs as a child of TestDifferentialAsUser")
	}
	eachDifferential(t, map[string]differentialMode{
		"default":   {user: true},
		"writeback": {user: true, sizes: true, config: func(c *MountConfig) { c.Writeback = true }},
		"redirects": {user: true, foreign: true, config: func(c *MountConfig) { c.Redirects = true }},
	})
}

// FuzzDifferential lets the fuzzer choose.
func FuzzDifferential(f *testing.F) {
	needRoot(f)
	seed(f)
	f.Fuzz(rapid.MakeFuzz(cases(f, differentialMode{})))
}

// FuzzDifferentialMetacopy is the same with redirects and metadata-only copies.
func FuzzDifferentialMetacopy(f *testing.F) {
	needRoot(f)
	seed(f)
	f.Fuzz(rapid.MakeFuzz(cases(f, differentialModes()["metacopy"])))
}

// FuzzDifferentialPassthrough is the same in passthrough mode.
func FuzzDifferentialPassthrough(f *testing.F) {
	needRoot(f)
	seed(f)
	f.Fuzz(rapid.MakeFuzz(cases(f, differentialModes()["passthrough-metacopy"])))
}

// seed gives the fuzzer inputs that last for whole cases: what it makes of
// nothing ends in the middle of the first layer.
func seed(f *testing.F) {
	f.Helper()
	for i := range 16 {
		b := make([]byte, 64<<10)
		_, err := rand.NewChaCha8([32]byte{byte(i)}).Read(b)
		check(f, err)
		f.Add(b)
	}
}

// cases returns what runs one case after the other with one driver.
func cases(t testing.TB, mode differentialMode) func(*rapid.T) {
	t.Helper()
	d := startDriver(t)
	base := t.TempDir()
	n := 0
	return func(t *rapid.T) {
		n++
		differential(t, d, filepath.Join(base, fmt.Sprint(n)), mode)
	}
}
