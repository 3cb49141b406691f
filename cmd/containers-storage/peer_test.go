package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// The differential test runs a script of commands with the peers' program and
// with ours, each on a store of its own, and a third time in turns on one
// store, and compares what was printed, the exit status and the words of
// errors.
//
// In a script `<FILE` is standard input and `""` an empty argument. What
// follows ` # ` says how a line is compared:
//
//	sorted          the order of lines, and of lists in JSON, may differ
//	status          only the exit status is the same: reason
//	differs         nothing is the same: reason

// line is a command of the script.
type line struct {
	text   string
	args   []string
	stdin  string
	mode   string // "", "sorted", "status" or "differs"
	reason string
}

func parseScript(t *testing.T, script string) (lines []line) {
	t.Helper()
	for text := range strings.Lines(script) {
		text = strings.TrimSpace(text)
		if text == "" || text[0] == '#' {
			continue
		}
		command, note, _ := strings.Cut(text, " # ")
		l := line{text: command}
		l.mode, l.reason, _ = strings.Cut(note, ": ")
		if !slices.Contains([]string{"", "sorted", "status", "differs"}, l.mode) || l.mode >= "d" && l.mode != "sorted" && l.reason == "" {
			t.Fatalf("%q: a note is `sorted`, or `status: why`, or `differs: why`", text)
		}
		for _, w := range strings.Fields(command) {
			switch {
			case w == `""`:
				l.args = append(l.args, "")
			case w[0] == '<':
				l.stdin = w[1:]
			default:
				l.args = append(l.args, strings.Trim(w, `'`))
			}
		}
		lines = append(lines, l)
	}
	return lines
}

// place is a store with a working directory.
type place struct {
	t           *testing.T
	dir, driver string
	// ids are the random IDs that were seen, in their order.
	ids map[string]string
}

// newPlace makes one with the files that the scripts use.
func newPlace(t *testing.T, driver string) *place {
	t.Helper()
	p := &place{t: t, dir: t.TempDir(), driver: driver, ids: map[string]string{}}
	t.Cleanup(func() {
		if err := unmountBelow(p.dir); err != nil {
			t.Error(err)
		}
	})
	conf := fmt.Sprintf("[storage]\ndriver = %q\ngraphroot = %q\nrunroot = %q\n", driver, filepath.Join(p.dir, "root"), filepath.Join(p.dir, "run"))
	if err := os.WriteFile(filepath.Join(p.dir, "storage.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	script := `mkdir work && cd work &&
		mkdir -p tree/d && echo hi >tree/d/f && ln -s f tree/d/s && mkdir tree/d/sub &&
		tar --sort=name --mtime=@1700000000 --owner=0 --group=0 -C tree -cf a.tar ./d && gzip -nk a.tar && zstd -q a.tar && bzip2 -k a.tar && xz -k a.tar &&
		mkdir -p over/d && echo more >over/d/g && touch over/d/.wh.s && tar --sort=name --mtime=@1700000001 --owner=0 --group=0 -C over -cf b.tar d &&
		mkdir plain && echo p >plain/p && tar --sort=name --mtime=@1700000002 --owner=5 --group=6 -C plain -cf plain.tar p &&
		head -c 600 a.tar >short.tar && head -c 3000 /bin/sh >rubbish && gzip -nc a.tar | head -c 100 >short.gz &&
		printf meta >mf && echo some-data >dat && : >empty`
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = p.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("fixtures: %v\n%s", err, out)
	}
	return p
}

// outcome is what a command did.
type outcome struct {
	Out    string
	Status int
	err    string
}

// run runs a line with a program.
func (p *place) run(prog string, l line) outcome {
	p.t.Helper()
	cmd := exec.Command(prog, append([]string{"-g", filepath.Join(p.dir, "root"), "-R", filepath.Join(p.dir, "run"), "-s", p.driver}, l.args...)...)
	cmd.Dir = filepath.Join(p.dir, "work")
	cmd.Env = append(os.Environ(), "LC_ALL=C", "CONTAINERS_STORAGE_CONF="+filepath.Join(p.dir, "storage.conf"))
	if l.stdin != "" {
		f, err := os.Open(filepath.Join(cmd.Dir, l.stdin))
		if err != nil {
			p.t.Fatal(err)
		}
		defer f.Close() //nolint:errcheck // only read
		cmd.Stdin = f
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	return outcome{p.normal(stdout.String(), l), cmd.ProcessState.ExitCode(), stderr.String()}
}

var (
	hexID   = regexp.MustCompile(`[0-9a-f]{64}`)
	created = regexp.MustCompile(`"created":"[^"]*"`)
	usages  = regexp.MustCompile(`(?s)(^|\n)Usage: .*`)
)

// normal takes from a text what differs from run to run.
func (p *place) normal(out string, l line) string {
	out = strings.ReplaceAll(out, p.dir, "DIR")
	out = created.ReplaceAllString(out, `"created":"T"`)
	out = usages.ReplaceAllString(out, "${1}USAGE")
	out = strings.TrimSuffix(out, "\n")
	var v any
	if json.Unmarshal([]byte(out), &v) == nil {
		v = classified(v)
		if l.mode == "sorted" {
			sortLists(v)
		}
		b, err := json.Marshal(v)
		if err != nil {
			p.t.Fatal(err)
		}
		out = string(b)
	}
	if l.mode == "sorted" {
		lines := strings.Split(out, "\n")
		sort.Strings(lines)
		out = strings.Join(lines, "\n")
	}
	return hexID.ReplaceAllStringFunc(out, func(id string) string {
		if p.ids[id] == "" {
			p.ids[id] = fmt.Sprintf("ID%d", len(p.ids))
		}
		return p.ids[id]
	})
}

// classified replaces errors in a JSON value by their class: theirs have the
// class last, ours first, and then go on.
func classified(v any) any {
	switch v := v.(type) {
	case string:
		if c := class(v); c != "" {
			return c
		}
	case map[string]any:
		for k, e := range v {
			v[k] = classified(e)
		}
	case []any:
		for i, e := range v {
			v[i] = classified(e)
		}
	}
	return v
}

// sortLists sorts the lists of strings in a JSON value.
func sortLists(v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, e := range v {
			sortLists(e)
		}
	case []any:
		for _, e := range v {
			sortLists(e)
		}
		sort.SliceStable(v, func(i, j int) bool {
			return fmt.Sprint(v[i]) < fmt.Sprint(v[j])
		})
	}
}

// classes are the words of errors that scripts look for.
var classes = []string{
	"layer not known", "image not known", "container not known", "that ID is already in use", "that name is already in use",
	"layer has children", "layer is in use by an image", "image is in use by a container", "layer is in use by a container",
	"identifier is not a layer, image, or container", "identifier is not a layer", "identifier is not an image", "identifier is not a container",
	"file does not exist", "no such file or directory", "size is not known", "could not compute digest of item",
	"no new metadata provided", "unsupported compression format", "unexpected EOF", "invalid tar header", "invalid checksum digest format",
	"flag provided but not defined", "flag needs an argument", "invalid boolean value", "setting is malformed", "specified along with",
	"no subuid ranges found", "a layer is mounted", "cannot overwrite directory",
}

func class(stderr string) string {
	for _, c := range classes {
		if strings.Contains(stderr, c) {
			return c
		}
	}
	return ""
}

// compare tells how two outcomes of a line differ.
func compare(t *testing.T, l line, theirs, ours outcome) {
	t.Helper()
	if l.mode == "differs" {
		return
	}
	if l.mode == "status" {
		theirs.Out, ours.Out = "", ""
	}
	if d := cmp.Diff(theirs, ours, cmp.AllowUnexported(), cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "err" }, cmp.Ignore())); d != "" {
		t.Errorf("%s (- theirs, + ours; %q, %q):\n%s", l.text, theirs.err, ours.err, d)
	}
	if l.mode == "status" || theirs.Status == 0 && ours.Status == 0 {
		return
	}
	want := class(theirs.err)
	if want == "" && strings.TrimSpace(theirs.err) != "" && !strings.Contains(theirs.Out, "USAGE") {
		t.Errorf("%s: the words of the error %q are in no class", l.text, theirs.err)
	}
	if !strings.Contains(ours.err, want) {
		t.Errorf("%s: theirs says %q, ours says %q", l.text, theirs.err, ours.err)
	}
}

// peer is the path of the peers' program.
func peer(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes stores with files of several owners, and mounts")
	}
	path, err := exec.LookPath("containers-storage")
	if err != nil {
		t.Skipf("needs the peers' containers-storage: %v", err)
	}
	return path
}

func unmountBelow(dir string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	slices.Reverse(mounts)
	for _, m := range mounts {
		err = errors.Join(err, unix.Unmount(m.Mountpoint, unix.MNT_DETACH))
	}
	return err
}

// noMounts fails for what is mounted below dir, but for a driver's own folder.
func noMounts(t *testing.T, dir string) {
	t.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		if filepath.Base(m.Mountpoint) != "overlay" {
			t.Errorf("%s (%s) is still mounted", m.Mountpoint, m.FSType)
		}
	}
}

// TestSameAsPeer runs every line of the script with both programs.
func TestSameAsPeer(t *testing.T) {
	t.Parallel()
	theirs := peer(t)
	for _, driver := range []string{"overlay", "vfs"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			lines := parseScript(t, commonScript+map[string]string{"overlay": overlayScript, "vfs": vfsScript}[driver])
			a, b, both := newPlace(t, driver), newPlace(t, driver), newPlace(t, driver)
			turn := []string{theirs, ours}
			for i, l := range lines {
				want := a.run(theirs, l)
				compare(t, l, want, b.run(ours, l))
				got := both.run(turn[i%2], l)
				if l.mode != "differs" && l.mode != "status" && (got.Out != want.Out || got.Status != want.Status) {
					t.Errorf("in turns, %s (by %s): printed %q, status %d (%q); theirs alone %q, %d", l.text, turn[i%2], got.Out, got.Status, got.err, want.Out, want.Status)
				}
			}
			for _, p := range []*place{b, both} {
				noMounts(t, p.dir)
			}
		})
	}
}

// verbOf is the verb or alias of a command line.
func verbOf(args []string) string {
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case slices.Contains([]string{"-g", "-R", "-s", "--graph", "--run", "--storage-driver"}, a):
			i++
		case !strings.HasPrefix(a, "-"):
			return a
		}
	}
	return ""
}

// TestEveryVerbIsCompared: each verb and each alias has a line in the script,
// or, if the peers' program of 1.43 has none, in a script of tests/scripts.
func TestEveryVerbIsCompared(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, l := range parseScript(t, commonScript+overlayScript+vfsScript) {
		if l.mode != "differs" {
			seen[verbOf(l.args)] = true
		}
	}
	scripts, err := filepath.Glob("../../tests/scripts/storage-*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, s := range scripts {
		text, err := os.ReadFile(s)
		if err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(string(text)) {
			if _, rest, ok := strings.Cut(l, "exec "+program+" "); ok {
				seen[verbOf(strings.Fields(rest))] = true
			}
		}
	}
	for _, v := range (&app{}).verbs() {
		for _, name := range append(v.aliases, v.name) {
			if !seen[name] {
				t.Errorf("%s is run by no line of a script", name)
			}
		}
	}
}
