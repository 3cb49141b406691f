package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/internal/fusetest"
	"github.com/plyfs/plyfs/tests/internal/timing"
)

// The binary of these tests is what the lines run as a child, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && (os.Args[1] == "work" || os.Args[1] == "floor") {
		if err := start(os.Args[1:]); err != nil {
			_, _ = os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(fusetest.Main(m))
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestDefaults: five rounds of all on both filesystems, which are written down.
func TestDefaults(t *testing.T) {
	t.Parallel()
	b, err := parse(nil)
	ok(t, err)
	if b.rounds != 5 || b.doc != "docs/benchmarks.md" || b.options != "" || !slices.Equal(b.on, []string{onTmpfs, onExt4}) {
		t.Errorf("the default is %+v", b)
	}
	for _, args := range [][]string{{"-only", "find"}, {"-skip", "find"}, {"-with", "ours"}, {"-o", "volatile"}, {"-user", "7"}, {"-rounds", "4"}, {"-write", "none"}} {
		if b, err = parse(args); err != nil || b.doc != "" {
			t.Errorf("with %q %q is written: %v", args, b.doc, err)
		}
	}
	if b, err = parse([]string{"-only", "find", "-write", "x"}); err != nil || b.doc != "x" {
		t.Errorf("-write x writes %q: %v", b.doc, err)
	}
	for _, args := range [][]string{{"-only", "nothing"}, {"-skip", "nothing"}, {"-rounds", "0"}, {"find"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}

// TestLines: each has a name of its own, and a tree that is compared, unless there
// is none to compare; caches are dropped where that is said.
func TestLines(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, l := range (&bench{}).lines() {
		if seen[l.name] || len(l.steps) == 0 {
			t.Errorf("the name %q is taken, or has no steps", l.name)
		}
		seen[l.name] = true
		if timed := !l.mounting && !l.steps[0].memory; timed != (l.compared != "") {
			t.Errorf("%s: of the tree %q is compared", l.name, l.compared)
		}
		for _, st := range l.steps {
			if strings.Contains(st.name, "cold") != st.cold {
				t.Errorf("%q drops caches: %v", st.name, st.cold)
			}
		}
	}
	for _, name := range strings.Fields(`mount find missing ls grep open untar untar-L cp git go-build dpkg rm-new rename mixed
		chmod chown append rewrite rm-lower beside sequential fio-buffered-1 fio-buffered-8 fio-direct-1 fio-direct-8 mmap memory`) {
		if !seen[name] {
			t.Errorf("there is no line %s", name)
		}
	}
}

// TestHash: whatever a program may do wrong to a tree shows in its hash.
func TestHash(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: owners are changed")
	}
	const plain = `mkdir -p d/e; echo 1 >d/f; echo 2 >d/index; ln -s f d/l; chmod 640 d/f`
	hash := func(script string) string {
		dir := t.TempDir()
		ok(t, timing.ToolIn(dir, sh(plain+"\n"+script)...))
		sum, err := treeHash(dir, []string{"index"})
		ok(t, err)
		return sum
	}
	want := hash("")
	for _, same := range []string{"", "touch -d @7 d/f", "echo 3 >d/index"} {
		if hash(same) != want {
			t.Errorf("after %q the tree is another", same)
		}
	}
	for _, other := range []string{"rm d/f", "mv d/f d/g", "chmod 600 d/f", "chown 7 d/f", "chgrp 7 d/e", "echo 3 >d/f", "truncate -s 9 d/f", "ln -sf e d/l", "chown -h 7 d/l",
		"rm d/f; mkfifo -m 640 d/f", "rmdir d/e", "rm d/index", "chmod 600 d/index"} {
		if hash(other) == want {
			t.Errorf("after %q the tree is the same", other)
		}
	}
}

// place is a bench on a tmpfs, of a plain directory and the kernel's overlay.
func place(t *testing.T, args ...string) (*bench, []side) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: filesystems are mounted")
	}
	b, err := parse(append([]string{"-with", "native,kernel", "-dir", t.TempDir()}, args...))
	ok(t, err)
	b.kind = onTmpfs
	ok(t, b.check())
	undo, err := b.makePlace(b.kind, b.top)
	ok(t, err)
	t.Cleanup(func() {
		if err := undo(); err != nil {
			t.Error(err)
		}
	})
	sides, err := b.sides()
	ok(t, err)
	if len(sides) != 2 {
		t.Fatalf("the sides are %+v", sides)
	}
	return b, sides
}

// TestRounds: each side runs each step as often as there are rounds, in an order
// that turns, in a new upper directory, over the same layers.
func TestRounds(t *testing.T) {
	t.Parallel()
	b, sides := place(t, "-rounds", "3")
	log := filepath.Join(t.TempDir(), "log")
	l := line{name: "x", lower: small, writes: true, compared: ".", prepare: sh("test ! -e new; echo 1 >new"), steps: []step{
		{name: "first", args: sh("test -e d/f999; stat -f -c %T . >>" + log)}, {name: "second", args: sh("test $(cat new) = 1; echo 2 >new")},
	}}
	got, err := b.rounded(&l, sides)
	ok(t, err)
	for _, s := range sides {
		if len(got[s.name]) != 3 {
			t.Fatalf("%s has %d rounds", s.name, len(got[s.name]))
		}
		for _, figures := range got[s.name] {
			if len(figures) != 2 || figures[0].Value <= 0 || figures[1].Value <= 0 {
				t.Errorf("%s has the figures %+v", s.name, figures)
			}
		}
	}
	text, err := os.ReadFile(log)
	ok(t, err)
	if order := strings.Fields(strings.ReplaceAll(string(text), "overlayfs", "overlay")); !slices.Equal(order, []string{"tmpfs", "overlay", "overlay", "tmpfs", "tmpfs", "overlay"}) {
		t.Errorf("the order is %q", order)
	}
	if left, err := os.ReadDir(filepath.Join(b.dir, "round")); err == nil {
		t.Errorf("%d entries are left of a round", len(left))
	}
}

// TestFloor: the floor shows what is below it, also when there are more files than
// descriptors, and forgets them.
func TestFloor(t *testing.T) {
	t.Parallel()
	b, _ := place(t)
	top := filepath.Join(b.dir, "floor")
	ok(t, timing.Tool(sh(`mkdir -p `+top+`/l/d `+top+`/m; cd `+top+`/l; for i in $(seq 1200); do echo $i >d/$i; done; ln -s d e`)...))
	cmd := exec.Command("/bin/sh", "-c", `ulimit -n 900; exec "$0" floor "$1" "$2"`, b.self, top+"/l", top+"/m")
	m := &mounted{top: top, mnt: top + "/m", proc: cmd}
	cmd.Stderr = &m.text
	ok(t, cmd.Start())
	ok(t, m.wait())
	want, err := treeHash(top+"/l", nil)
	ok(t, err)
	for range 2 {
		got, err := b.do("/", []string{b.self, "work", "hash", top + "/m"})
		if err != nil || string(got) != want {
			t.Errorf("the floor has %s, not %s: %v", got, want, err)
		}
	}
	if _, err := b.do(top+"/m", sh("for i in $(seq 1200); do echo new >n$i; done; cat n* | sort -u | grep -qx new; rm n*")); err != nil {
		t.Error(err)
	}
	if err := m.end(); err != nil {
		t.Error(err)
	}
}

// TestOtherTree: no time counts when one side's tree is not the others', and none
// when a step fails.
func TestOtherTree(t *testing.T) {
	t.Parallel()
	b, sides := place(t, "-rounds", "1")
	before := len(b.results)
	for _, l := range []line{
		{name: "x", compared: ".", writes: true, steps: []step{{name: "x", args: sh("stat -f -c %T . >f")}}},
		{name: "x", compared: "f", writes: true, steps: []step{{name: "x", args: sh("stat -f -c %T . >f")}}},
	} {
		if err := b.measure(l, sides); err == nil || !strings.Contains(err.Error(), "another tree") {
			t.Errorf("two trees are one: %v", err)
		}
	}
	if err := b.measure(line{name: "x", writes: true, steps: []step{{name: "x", args: sh("stat -f -c %T . | grep tmpfs")}}}, sides); err == nil {
		t.Error("a step that fails on one side counts")
	}
	if len(b.results) != before {
		t.Errorf("there are results: %+v", b.results)
	}
}

// TestFio: what is written at random is the same each time, by several jobs too,
// and whether something is lacking shows.
func TestFio(t *testing.T) {
	t.Parallel()
	if err := timing.Tool("fio", "--version"); err != nil {
		t.Skipf("no fio here: %v", err)
	}
	sum := func(mib int) string {
		dir := t.TempDir()
		ok(t, timing.ToolIn(dir, "truncate", "-s", "256M", "f"))
		ok(t, timing.ToolIn(dir, fio("randwrite", "psync", 8, mib)...))
		h, err := treeHash(filepath.Join(dir, "f"), nil)
		ok(t, err)
		return h
	}
	want := sum(8)
	if again := sum(8); again != want {
		t.Errorf("the second time it is %s, not %s", again, want)
	}
	if other := sum(4); other == want {
		t.Error("half of it is the same")
	}
}

// TestReport: medians, ratios and options are in the table, which takes the place
// of the last one in the document, and nothing else.
func TestReport(t *testing.T) {
	t.Parallel()
	if m := timing.Median([]float64{9, 1, 5, 2, 7}); m != 5 {
		t.Errorf("the median is %v", m)
	}
	doc := filepath.Join(t.TempDir(), "doc.md")
	ok(t, os.WriteFile(doc, []byte("before\n<!-- overlay tmpfs -->\nold\n<!-- end -->\nbetween\n<!-- overlay ext4 -->\nother\n<!-- end -->\n"), 0o600))
	b := &bench{doc: doc, kind: onTmpfs, place: "a tmpfs"}
	b.results = []result{
		{Line: "x", Step: "x S", Rounds: 5, By: map[string]figure{kernel: {Value: 100}, floor: {200, 0.5}, peer: {400, 0.25}, "other": {300, 0.5}, ours: {150, 0.125}}},
		{Line: "mount", Step: "begin", Rounds: 5, Part: true, By: map[string]figure{kernel: {Value: 1}, ours: {3, 0.0046}}},
		{Line: "y", Step: "y S", Rounds: 5, By: map[string]figure{kernel: {Value: 100}, ours: {Value: 600}}},
		{Line: "memory", Step: "MiB", Rounds: 5, Memory: true, By: map[string]figure{kernel: {}, peer: {Value: 284}, ours: {Value: 71}}},
	}
	sides := []side{{kernel, "mount -t overlay", nil}, {floor, "loopback", nil}, {peer, "fuse-overlayfs -o a", nil}, {"other", "other -o b", nil}, {ours, "fuse-overlay -o c", nil}}
	ok(t, b.write(sides))
	text, err := os.ReadFile(doc)
	ok(t, err)
	got := string(text)
	for _, want := range []string{
		"| line | rounds | kernel | floor | fuse-overlayfs | other | ours | ours to best peer, floor |\n",
		"| x S | 5 | 100 (1.00) | 200 (2.00) 0.50s | 400 (4.00) 0.25s | 300 (3.00) 0.50s | 150 (1.50) 0.12s | 0.50, 0.75 |\n",
		"| y S | 5 | 100 (1.00) | – | – | – | 600 (6.00) | – |\n",
		"| begin | 5 | 1.00 (1.00) | – | – | – | 3.00 (3.00) 0.0046s | – |\n",
		"| MiB | 5 | 0.00 | – | 284 | – | 71 | 0.25, – |\n",
		"- ours: `fuse-overlay -o c`\n", "- other: `other -o b`\n",
		"- geometric mean to kernel of 2 lines: ours 3.00\n",
		"- geometric mean of ours to the best peer of each of 1 lines: 0.50\n",
		"- geometric mean of ours to the floor of 1 lines: 0.75\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the document lacks %q:\n%s", want, got)
		}
	}
	if !strings.HasPrefix(got, "before\n<!-- overlay tmpfs -->\nOn a tmpfs") || !strings.HasSuffix(got, "<!-- end -->\nbetween\n<!-- overlay ext4 -->\nother\n<!-- end -->\n") {
		t.Errorf("more than the table was replaced:\n%s", got)
	}
	b.kind = "zfs"
	if err := b.write(sides); err == nil {
		t.Error("a document without a place for it is written")
	}
}
