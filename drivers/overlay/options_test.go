package overlay_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/drivers/drivertest"
	"github.com/plyfs/plyfs/drivers/overlay"
	"github.com/plyfs/plyfs/internal/errno"
)

// Each refused option is named, with its kind.
func TestOptionsRefused(t *testing.T) {
	needRoot(t)
	s := drivertest.Open(t, kernel(), "root")
	for _, c := range []struct {
		key, value string
		kind       error
	}{
		{"size", "10G", errno.ErrNotSupported}, {"inodes", "5", errno.ErrNotSupported},
		{"use_composefs", "true", errno.ErrNotSupported}, {"blah", "", errno.ErrBadValue},
		{"", "", errno.ErrBadValue}, {"ignore_chown_errors", "yes", errno.ErrBadValue},
		{"force_mask", "shared", errno.ErrBadValue}, {"force_mask", "9", errno.ErrBadValue},
		{"mount_program", "/absent", errno.ErrBadValue}, {"mount_program", "/etc/passwd", errno.ErrBadValue},
		{"imagestore", "/absent", errno.ErrBadValue}, {"imagestore", "/etc/passwd", errno.ErrBadValue},
		{"mountopt", "nodev,upperdir=/etc", errno.ErrBadValue}, {"skip_mount_home", "", errno.ErrBadValue},
	} {
		cfg := s.Config
		cfg.Options = []drivers.Option{{Key: c.key, Value: c.value}}
		_, err := overlay.New(cfg)
		if !errors.Is(err, c.kind) {
			t.Errorf("%s=%s: want %v, have %v", c.key, c.value, c.kind, err)
		} else if !strings.Contains(err.Error(), c.key) && !strings.Contains(err.Error(), c.value) {
			t.Errorf("%s=%s is not named: %v", c.key, c.value, err)
		}
	}
}

// Options reach the plan.
func TestOptionsInPlan(t *testing.T) {
	needRoot(t)
	s := drivertest.Open(t, kernel(), "root", drivers.Option{Key: "mountopt", Value: "nodev,xino=off"}, drivers.Option{Key: "skip_mount_home", Value: "true"})
	s.Layer("a", "", nil)
	s.Layer("b", "a", nil)
	plan, err := s.Driver.Mount("b", drivers.MountOptions{Volatile: true, Label: "u:r:t:s0:c1,c2", Options: []string{"nosuid"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(plan.Options, " "); got != `xino=off volatile context="u:r:t:s0:c1,c2"` {
		t.Errorf("options %s", got)
	}
	if plan.Home != "" || plan.Flags == 0 {
		t.Errorf("home %q, flags %x", plan.Home, plan.Flags)
	}
	dir, _ := s.Mount("b", drivers.MountOptions{})
	put(t, dir+"/f", "1")
}

// Asking for the plan of a layer that is mounted volatile leaves its mark.
func TestPlanOfMountedKeepsVolatileMark(t *testing.T) {
	needRoot(t)
	s := drivertest.Open(t, kernel(), "root")
	s.Layer("a", "", nil)
	s.Layer("b", "a", nil)
	_, unmount := s.Mount("b", drivers.MountOptions{Volatile: true})
	mark := filepath.Join(s.Config.Root, "overlay", "b", "work", "work", "incompat", "volatile")
	if _, err := s.Driver.Mount("b", drivers.MountOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mark); err != nil {
		t.Error(err)
	}
	unmount()
	if _, err := s.Driver.Mount("b", drivers.MountOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mark); !os.IsNotExist(err) {
		t.Errorf("after the unmount the mark stays: %v", err)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts")
	}
}
