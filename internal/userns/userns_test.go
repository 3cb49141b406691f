package userns

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/fusetest"
)

func TestMain(m *testing.M) { os.Exit(fusetest.Main(m)) }

// TestEnterChild runs $SCRIPT in the namespace that Prepare finds.
func TestEnterChild(t *testing.T) {
	script := os.Getenv("SCRIPT")
	if script == "" {
		t.Skip("runs as a child of the other tests")
	}
	p, err := Prepare()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{w}
	fmt.Printf("kind %s %s\n", p.Kind, p.Why)
	if err := p.Start(context.Background(), cmd); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil || string(b) != "inherited\n" {
		t.Errorf("through the inherited descriptor: %q %v", b, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

const inside = `echo inherited >&3; exec 3>&-; id -u; grep -c . /proc/self/uid_map; grep CapEff /proc/self/status; [ ! -e /proc/self/fd/4 ] && echo closed; mount -t tmpfs tmpfs /mnt && echo mounts; touch $HOME/f; chown 5:6 $HOME/f; stat -c %u:%g $HOME/f`

func enter(t *testing.T, u fusetest.User, before, script string) string {
	t.Helper()
	u.Env = append(u.Env, "SCRIPT="+script)
	r := fusetest.AsUser(t, u, before+`
		"$1" -test.run '^TestEnterChild$' -test.v; echo status $?; stat -c 'outside %u:%g' $HOME/f`, fusetest.Exe(t))
	if !strings.Contains(r.Out, "status 0") {
		t.Errorf("out %s\nerr %s", r.Out, r.Err)
	}
	return r.Out + r.Err
}

func want(t *testing.T, got string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(got, w) {
			t.Errorf("no %q in:\n%s", w, got)
		}
	}
}

func TestMapped(t *testing.T) {
	t.Parallel()
	got := enter(t, fusetest.User{}, "", inside)
	want(t, got, "kind map \n0\n2\n", "closed\nmounts\n5:6\n", "outside 100004:100005")
	if strings.Contains(got, "CapEff:\t0000000000000000") {
		t.Errorf("no capabilities:\n%s", got)
	}
}

func TestSingle(t *testing.T) {
	t.Parallel()
	got := enter(t, fusetest.User{NoSubIDs: true}, "", inside)
	want(t, got, "kind single the user has no subordinate IDs", "\n0\n1\n", "closed\nmounts\n", "Invalid argument", "outside 1000:1000")
}

func TestJoinsPodmansNamespace(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("podman is not installed")
	}
	got := enter(t, fusetest.User{}, `podman --cgroup-manager cgroupfs ps >/dev/null 2>$HOME/err || cat $HOME/err
		test -e $XDG_RUNTIME_DIR/libpod/tmp/pause.pid && echo paused
		podman unshare mount -t tmpfs -o size=80k tmpfs /mnt
		podman unshare readlink /proc/self/ns/user`, inside+`; readlink /proc/self/ns/user; grep -c size=80k /proc/mounts`)
	if !strings.Contains(got, "paused") {
		t.Skipf("podman left no pause process here:\n%s", got)
	}
	want(t, got, "kind join", "\n0\n2\n", "mounts\n5:6\n", "outside 100004:100005")
	var ns []string
	for _, l := range strings.Split(got, "\n") {
		if strings.HasPrefix(l, "user:[") {
			ns = append(ns, l)
		}
	}
	if len(ns) != 2 || ns[0] != ns[1] {
		t.Errorf("podman's namespace and ours: %v", ns)
	}
}

// A pause.pid that names nobody, or somebody else, is not believed.
func TestStalePause(t *testing.T) {
	t.Parallel()
	got := enter(t, fusetest.User{}, `mkdir -p $XDG_RUNTIME_DIR/libpod/tmp; echo 99999 > $XDG_RUNTIME_DIR/libpod/tmp/pause.pid`, inside)
	want(t, got, "kind map")
	got = enter(t, fusetest.User{}, `mkdir -p $XDG_RUNTIME_DIR/libpod/tmp; echo $$ > $XDG_RUNTIME_DIR/libpod/tmp/pause.pid`, inside)
	want(t, got, "kind map")
}

// FromParent undoes ToParent wherever an ID is mapped.
func TestTranslation(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var m Maps
		inside, outside := uint32(0), uint32(1000)
		for i := 0; i < rapid.IntRange(1, 5).Draw(t, "ranges"); i++ {
			size := rapid.Uint32Range(1, 70000).Draw(t, "size")
			m.UIDs = append(m.UIDs, Range{inside, outside, size})
			inside += size
			outside += size + rapid.Uint32Range(0, 9).Draw(t, "gap")
		}
		m.GIDs = m.UIDs
		id := rapid.Uint32Range(0, inside+10).Draw(t, "id")
		u, g := m.ToParent(id, id)
		if u != g {
			t.Fatalf("%d became %d and %d", id, u, g)
		}
		if id >= inside {
			if u != overflow {
				t.Fatalf("unmapped %d became %d", id, u)
			}
			return
		}
		if back, _ := m.FromParent(u, g); back != id {
			t.Fatalf("%d became %d became %d", id, u, back)
		}
	})
	if u, g := (Maps{}).FromParent(^uint32(0), 5); u != ^uint32(0) || g != Unmapped {
		t.Errorf("no change became %d, unmapped became %d", u, g)
	}
}

func FuzzParseMap(f *testing.F) {
	f.Add("         0       1000          1\n         1     100000      65536\n")
	f.Fuzz(func(t *testing.T, s string) {
		rs, err := parseMap(strings.NewReader(s))
		if err != nil {
			return
		}
		again, err := parseMap(strings.NewReader(text(rs)))
		if err != nil || len(again) != len(rs) {
			t.Errorf("%q: %v, written and read again %v (%v)", s, rs, again, err)
		}
	})
}
