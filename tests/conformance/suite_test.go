package conformance

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// cases are all cases, in the order of their files.
func cases() []c {
	return slices.Concat(renameCases(), linkCases(), descriptorCases(), dataCases(), ownerCases(), xattrCases(), timeCases(), dirCases(), otherCases(), bugCases(), programBugCases(), posixCases())
}

func TestNamesAreUnique(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, x := range cases() {
		if seen[x.name] || strings.ContainsAny(x.name, " /") {
			t.Errorf("the name %q is taken or holds a blank", x.name)
		}
		seen[x.name] = true
	}
	for _, known := range []map[string]string{knownKernel, knownKernelUser, knownFusermount, knownPeer, knownOurs, knownAside, knownWriteback, knownMapped, knownRamfs} {
		for name := range known {
			if !seen[name] {
				t.Errorf("%q is known to fail, but is no case", name)
			}
		}
	}
}

// TestSuite runs every case in every world of root's.
func TestSuite(t *testing.T) {
	need(t)
	for _, w := range rootWorlds(t) {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			runSuite(t, w)
		})
	}
}

// runSuite runs the cases in a world, a case at a time.
func runSuite(t *testing.T, w world) {
	for _, x := range cases() {
		if why, known := w.known[x.name]; known {
			t.Run(x.name, func(t *testing.T) { knownToFail(t, w, x, why) })
			continue
		}
		t.Run(x.name, func(t *testing.T) { runCase(t, w, x) })
	}
}

func runCase(t *testing.T, w world, x c) {
	if why := w.skip(x); why != "" {
		t.Skip(why)
	}
	if x.url != "" {
		t.Logf("%s", x.url)
	}
	e := newEnv(t, w)
	if x.lower != nil {
		x.lower(e)
	}
	t.Cleanup(e.unmount)
	e.mount()
	x.run(e)
}

// knownToFail runs a case that has to fail in a child, where its failure is
// none of this test's.
func knownToFail(t *testing.T, w world, x c, why string) {
	if w.skip(x) != "" {
		t.Skip(w.skip(x))
	}
	if x.long && os.Getenv("PLYFS_LONG") == "" {
		t.Skipf("known to fail here (%s), at a cost: set PLYFS_LONG=1 to see it fail", why)
	}
	r := fusetest.Child(t, "TestOneCase", "CASE="+x.name, "WORLD="+w.name, "PLYFS_FUSE_OVERLAY="+must(ours()))
	switch {
	case strings.Contains(r.Out, "--- SKIP: TestOneCase"):
		t.Skip("skipped")
	case strings.Contains(r.Out, "no case "+x.name):
		t.Fatalf("%s", r.Out)
	case r.Status == 0:
		t.Errorf("%s passes in %s, where it is listed as known to fail (%s): take it off the list", x.name, w.name, why)
	}
}

// TestOneCase is the child of knownToFail; CASE and WORLD by hand run one.
func TestOneCase(t *testing.T) {
	name, where := os.Getenv("CASE"), os.Getenv("WORLD")
	if name == "" {
		t.Skip("runs as a child of TestSuite")
	}
	for _, w := range slices.Concat(rootWorlds(t), optionWorlds(t), userWorlds(t, os.Getenv("HOW"))) {
		for _, x := range cases() {
			if w.name == where && x.name == name {
				runCase(t, w, x)
				return
			}
		}
	}
	t.Fatalf("there is no case %s in a world %s", name, where)
}

// uneventful are the lines of a child's report that say nothing of a failure:
// those of cases that passed, with what these logged, and of skipped ones.
var uneventful = regexp.MustCompile(`(?m)^(=== .*|PASS)\n|^ +--- (PASS|SKIP): .*\n|^ +suite_test\.go:.*\n`)

// reportChild fails t with what failed in a child.
func reportChild(t *testing.T, r fusetest.Result) {
	t.Helper()
	passed, skipped := strings.Count(r.Out, "--- PASS:"), strings.Count(r.Out, "--- SKIP:")
	t.Logf("%d passed, %d skipped", passed, skipped)
	if r.Status != 0 || passed < len(cases())/2 {
		t.Errorf("status %d:\n%s%s", r.Status, uneventful.ReplaceAllString(r.Out, ""), r.Err)
	}
}

func must(s string, err error) string {
	if err != nil {
		return "/no/program: " + err.Error()
	}
	return s
}
