package drivers_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
)

// du is the oracle: bytes and inodes below dir.
func du(t *testing.T, dir string) drivers.Usage {
	t.Helper()
	var u drivers.Usage
	for option, into := range map[string]*int64{"--block-size=1": &u.Bytes, "--inodes": &u.Inodes} {
		out, err := exec.Command("du", "-s", "-x", option, dir).Output()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscan(string(out), into); err != nil {
			t.Fatal(err)
		}
	}
	return u
}

func TestUsageBelow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := `set -e; cd "$1"; mkdir -p d/e/f; seq 100000 > d/n; ln d/n d/e/again; ln -s n d/s; ln -s /etc out
truncate -s 10M sparse; echo x >> sparse; mkfifo p; : > empty; ln p d/p2`
	if out, err := exec.Command("sh", "-c", script, "sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got, err := drivers.UsageBelow(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := du(t, dir); got != want {
		t.Errorf("%+v, du says %+v", got, want)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := drivers.UsageBelow(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// Trees deeper than any program can name end the walk, not the descriptors.
func TestUsageOfDeepTrees(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := `cd "$1"; i=0; while [ $i -lt 1200 ]; do mkdir d && cd -P d || exit 1; i=$((i+1)); done`
	if out, err := exec.Command("sh", "-c", script, "sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := drivers.UsageBelow(context.Background(), dir); !errors.Is(err, errno.ErrTooLarge) || !strings.Contains(err.Error(), "deeper") {
		t.Errorf("a tree of 1,200 levels: %v", err)
	}
	if _, err := drivers.UsageBelow(context.Background(), filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}
