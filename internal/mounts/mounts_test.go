package mounts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/errno"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts")
	}
}

// layers makes n lowers, an upper and a work directory below a folder called
// name, each lower with a file of its own.
func layers(t *testing.T, name string, n int) Plan {
	t.Helper()
	base := filepath.Join(t.TempDir(), name)
	p := Plan{Type: "overlay", Target: filepath.Join(base, "merged"), Upper: filepath.Join(base, "up"), Work: filepath.Join(base, "work"), Dir: base}
	for i := range n {
		dir := filepath.Join(base, fmt.Sprintf("lower%03d", i))
		p.Lowers = append(p.Lowers, dir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%03d", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{p.Target, p.Upper, p.Work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func check(t *testing.T, p Plan) {
	t.Helper()
	defer func() {
		if err := Unmount(context.Background(), p.Target, true); err != nil {
			t.Error(err)
		}
	}()
	entries, err := os.ReadDir(p.Target)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(p.Lowers) {
		t.Errorf("%d names through the mount, want %d", len(entries), len(p.Lowers))
	}
	if err := os.WriteFile(filepath.Join(p.Target, "new"), nil, 0o600); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(p.Upper, "new")); err != nil {
		t.Error(err)
	}
}

// Every way of mounting shows the same, at any depth and below any name.
func TestWays(t *testing.T) {
	needRoot(t)
	ways := map[string]func(Plan) error{
		"descriptors": mountByDescriptors, "string": mountByString, "numbers": mountByNumbers,
	}
	for name, way := range ways {
		for _, folder := range []string{"plain", `a,b:c\d`, strings.Repeat("long", 60)} {
			for _, n := range []int{1, 2, 200, 500} {
				if name == "descriptors" && n*len(folder) > maxShown {
					continue // Do mounts these by numbers; the table of mounts would hurt others
				}
				t.Run(fmt.Sprintf("%s/%.8s/%d", name, folder, n), func(t *testing.T) {
					t.Parallel()
					p := layers(t, folder, n)
					if err := way(p); err != nil {
						t.Fatal(err)
					}
					check(t, p)
				})
			}
		}
	}
}

// A deep mount below a long path leaves the table of mounts readable for
// programs with buffers of 64 KiB a line.
func TestTableStaysReadable(t *testing.T) {
	needRoot(t)
	p := layers(t, strings.Repeat("long", 60), 500)
	if err := Do(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	defer check(t, p)
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, p.Target) && len(line) > 32<<10 {
			t.Errorf("the mount's line has %d bytes", len(line))
		}
	}
	below, err := Below(p.Dir)
	if err != nil || !slices.Equal(below, []string{p.Target}) {
		t.Errorf("Below: %q, %v", below, err)
	}
}

func TestNumbersLeaveWorkingDirectory(t *testing.T) {
	needRoot(t)
	before, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	p := layers(t, "plain", 300)
	if err := mountByNumbers(p); err != nil {
		t.Fatal(err)
	}
	check(t, p)
	after, err := os.Getwd()
	if err != nil || after != before {
		t.Fatalf("working directory %q became %q (%v)", before, after, err)
	}
}

func TestRefusalsSayWhy(t *testing.T) {
	needRoot(t)
	p := layers(t, "plain", 1)
	p.Options = []string{"nonsense=1"}
	err := Do(context.Background(), p)
	if err == nil || !strings.Contains(err.Error(), "nonsense") || !strings.Contains(err.Error(), p.Target) {
		t.Errorf("unknown option: %v", err)
	}
	p = layers(t, "plain", 1)
	p.Lowers = append(p.Lowers, p.Dir+"/absent")
	if err := Do(context.Background(), p); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "absent") {
		t.Errorf("missing layer: %v", err)
	}
	p = layers(t, "plain", 1)
	p.Target += "/absent"
	if err := Do(context.Background(), p); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing target: %v", err)
	}
	p = layers(t, "plain", 1)
	p.Type = "ext4"
	if err := Do(context.Background(), p); !errors.Is(err, errno.ErrNotSupported) {
		t.Errorf("other type: %v", err)
	}
	if is, err := IsMountPoint(p.Target); is || err != nil {
		t.Errorf("something is mounted: %v, %v", is, err)
	}
}

func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestProgramErrors(t *testing.T) {
	needRoot(t)
	for _, c := range []struct{ name, text, want string }{
		{"fails", "echo the reason >&2; exit 3", "the reason"},
		{"silent", "exit 3", "no reason"},
		{"mounts nothing", "echo hm >&2; exit 0", "mounted nothing: hm"},
		{"arguments", `echo "$PWD|$1|$2|$3" >&2; exit 1`, "|-o|lowerdir="},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := layers(t, "plain", 2)
			p.Program = script(t, c.text)
			err := Do(context.Background(), p)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want %q in %v", c.want, err)
			}
		})
	}
}

// A program that never detaches ends with its context.
func TestProgramHonoursContext(t *testing.T) {
	needRoot(t)
	p := layers(t, "plain", 1)
	p.Program = script(t, "exec sleep 1000")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := Do(ctx, p); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("want a passed deadline, have %v", err)
	}
}

// A daemon that keeps its stderr open makes nobody wait.
func TestProgramKeepsStderr(t *testing.T) {
	needRoot(t)
	p := layers(t, "plain", 1)
	pidFile := filepath.Join(t.TempDir(), "pid")
	p.Program = script(t, fmt.Sprintf("mount --bind %q %q\nsleep 1000 >/dev/null & echo $! > %q\nexit 0\n", p.Lowers[0], p.Target, pidFile))
	if err := Do(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := Unmount(context.Background(), p.Target, false); err != nil {
			t.Error(err)
		}
	}()
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("kill", strings.TrimSpace(string(pid))).CombinedOutput(); err != nil {
		t.Fatalf("the daemon was gone: %v %s", err, out)
	}
}

// A mount program that died leaves a mount that answers ENOTCONN.
func TestDeadProgram(t *testing.T) {
	needRoot(t)
	const program = "/usr/bin/fuse-overlayfs"
	if _, err := os.Stat(program); err != nil {
		t.Skip("needs fuse-overlayfs: ", err)
	}
	p := layers(t, "plain", 1)
	pidFile := filepath.Join(t.TempDir(), "pid")
	p.Program = script(t, fmt.Sprintf("%s -f \"$@\" >/dev/null 2>&1 & echo $! > %q\nwhile ! mountpoint -q \"$3\"; do sleep 0.01; done", program, pidFile))
	if err := Do(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("kill", "-9", strings.TrimSpace(string(pid))).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	var st unix.Statfs_t // stat(2) may be answered from the kernel's cache
	for !errors.Is(unix.Statfs(p.Target, &st), unix.ENOTCONN) {
		time.Sleep(time.Millisecond)
	}
	if is, err := IsMountPoint(p.Target); !is || err != nil {
		t.Errorf("IsMountPoint: %v, %v", is, err)
	}
	if err := Unmount(context.Background(), p.Target, true); err != nil {
		t.Errorf("Unmount: %v", err)
	}
	if is, err := IsMountPoint(p.Target); is || err != nil {
		t.Errorf("still mounted: %v, %v", is, err)
	}
}

func TestBindPrivate(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	done := make(chan error)
	for range 8 {
		go func() { done <- BindPrivate(dir) }()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := BindPrivate(sub); err != nil {
		t.Fatal(err)
	}
	if err := UnbindPrivate(dir); !errors.Is(err, errno.ErrInUse) {
		t.Errorf("with a mount below: want ErrInUse, have %v", err)
	}
	if err := errors.Join(UnbindPrivate(sub), UnbindPrivate(dir), UnbindPrivate(dir)); err != nil {
		t.Error(err)
	}
	// Eight callers made one mount: one unmount ended it.
	if is, err := IsMountPoint(dir); is || err != nil {
		t.Errorf("still mounted: %v, %v", is, err)
	}
}

// While a peer has a folder bound on itself, a plain rename into it is EXDEV
// and one through the bare root is not.
func TestBareRoot(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	home := filepath.Join(root, "overlay")
	for _, dir := range []string{"overlay", "stage/x", "stage/y"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := BindPrivate(home); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := UnbindPrivate(home); err != nil {
			t.Error(err)
		}
	}()
	bare, err := OpenBare(root)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := bare.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := os.Rename(filepath.Join(root, "stage/x"), filepath.Join(home, "x")); !errors.Is(err, unix.EXDEV) {
		t.Fatalf("this test needs EXDEV, have %v", err)
	}
	if err := Rename(bare, "stage/x", "overlay/x"); err != nil {
		t.Fatal(err)
	}
	if err := Rename(bare, "stage/y", "overlay/x"); !errors.Is(err, errno.ErrDuplicate) {
		t.Errorf("onto an existing one: want ErrDuplicate, have %v", err)
	}
	if err := os.WriteFile(filepath.Join(home, "x", "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Exchange(bare, "stage/y", "overlay/x"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "stage/y/f")); err != nil {
		t.Error(err)
	}
	if err := renameChecked(bare, "stage/y", "overlay/x"); !errors.Is(err, unix.EEXIST) {
		t.Errorf("without NOREPLACE: %v", err)
	}
	if err := renameChecked(bare, "stage/y", "overlay/y"); err != nil {
		t.Errorf("without NOREPLACE: %v", err)
	}
}

func TestSplitOptions(t *testing.T) {
	flags, data := SplitOptions([]string{`nodev,metacopy=on,,ro,context="a:b:c0,c1"`, "rw,noatime", "volatile"})
	if flags != unix.MS_NODEV|unix.MS_NOATIME || !slices.Equal(data, []string{"metacopy=on", `context="a:b:c0,c1"`, "volatile"}) {
		t.Errorf("%x %q", flags, data)
	}
}

// What escape does, taking the backslashes off undoes, and no special byte is
// left bare.
func TestEscapeLaw(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		in := rapid.StringOf(rapid.SampledFrom([]rune(`ab/:,\ "=é`))).Draw(rt, "path")
		var out strings.Builder
		escaped := escape(in, ":,")
		for i := 0; i < len(escaped); i++ {
			switch escaped[i] {
			case '\\':
				i++
			case ':', ',':
				rt.Fatalf("%q has a bare special byte", escaped)
			}
			out.WriteByte(escaped[i])
		}
		if out.String() != in {
			rt.Fatalf("%q became %q", in, out.String())
		}
	})
}

// TestUnmountBesideStarts: descriptors that children hold while they are being
// started, closed by this process already, do not make a mount busy.
func TestUnmountBesideStarts(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				_ = exec.Command("true").Run() // it is its start that counts
			}
		}
	}()
	for range 200 {
		if err := unix.Mount("none", dir, "tmpfs", 0, "size=64k"); err != nil {
			t.Fatal(err)
		}
		var open []*os.File
		for i := range 20 {
			f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, f)
		}
		for _, f := range open {
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := Unmount(context.Background(), dir, false); err != nil {
			t.Error(err)
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	<-ended
}
