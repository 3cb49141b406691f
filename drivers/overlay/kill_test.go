package overlay_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/drivers/drivertest"
	"github.com/plyfs/plyfs/drivers/overlay"
	"github.com/plyfs/plyfs/internal/mounts"
)

// victimEnv makes the test binary do one step of a layer's life and end, so
// that it can be killed in the middle: "OPERATION ROOT RUNROOT STAGE".
const victimEnv = "PLYFS_TEST_VICTIM"

func TestMain(m *testing.M) {
	if job := os.Getenv(victimEnv); job != "" {
		if err := victim(strings.Fields(job)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func victim(job []string) error {
	bare, err := mounts.OpenBare(job[1])
	if err != nil {
		return err
	}
	d, err := overlay.New(drivers.Config{Root: job[1], RunRoot: job[2], Bare: bare})
	if err != nil {
		return err
	}
	switch job[0] {
	case "publish":
		return d.Publish(job[3], "x")
	case "retire":
		return d.Retire(job[3], "x")
	case "exchange":
		return d.Exchange(job[3], "x")
	case "create":
		_, err = d.Create(context.Background(), job[3], drivers.LayerSpec{ID: "x", Parent: "base"})
		return err
	}
	return fmt.Errorf("unknown operation %q", job[0])
}

// A process that is killed at the entry of any system call that changes the
// disk leaves what Retire and a new life of the same ID can work with, and no
// link to nowhere.
func TestKilledAtEachStep(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts")
	}
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("needs strace, which kills at a chosen system call: ", err)
	}
	for _, op := range []string{"create", "publish", "exchange", "retire"} {
		for _, call := range []string{"mkdirat", "renameat2", "symlinkat", "unlinkat", "fsync"} {
			t.Run(op+"/"+call, func(t *testing.T) {
				t.Parallel()
				kills := 0
				for killOnce(t, op, call, kills+1) {
					kills++
				}
				if kills == 0 && mustHit(op, call) {
					t.Errorf("%s makes no call of %s: this test kills nothing", op, call)
				}
			})
		}
	}
}

func mustHit(op, call string) bool {
	switch op {
	case "create":
		return call == "mkdirat"
	case "publish":
		return call == "renameat2" || call == "symlinkat" || call == "fsync"
	case "exchange":
		return call == "renameat2" || call == "fsync"
	}
	return call == "unlinkat" || call == "renameat2" || call == "fsync"
}

// killOnce prepares a store, kills op at its when'th call, and checks what is
// left. It tells whether the process was killed.
func killOnce(t *testing.T, op, call string, when int) bool {
	t.Helper()
	s := drivertest.Open(t, kernel(), "root")
	s.Layer("base", "", func(p drivers.Private) { put(t, filepath.Join(p.Dir, "f"), "1") })
	stage := s.Stage()
	switch op {
	case "publish":
		stage = s.Create(drivers.LayerSpec{ID: "x", Parent: "base"}, nil)
	case "retire":
		s.Layer("x", "base", nil)
	case "exchange":
		s.Layer("x", "base", func(p drivers.Private) { put(t, filepath.Join(p.Dir, "own"), "1") })
		stage = s.Create(drivers.LayerSpec{ID: "x", Parent: "base", From: "x"}, nil)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace="+call,
		"-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, when), self)
	cmd.Env = append(os.Environ(), victimEnv+"="+strings.Join([]string{op, s.Config.Root, s.Config.RunRoot, stage}, " "))
	out, err := cmd.CombinedOutput()
	if err != nil && strings.TrimSpace(string(out)) != "" {
		t.Fatalf("%v: %s", err, out)
	}
	checkAfterKill(t, s, op)
	return err != nil
}

func checkAfterKill(t *testing.T, s *drivertest.Store, op string) {
	t.Helper()
	has, err := s.Driver.Has("x")
	if err != nil {
		t.Errorf("a part of a layer is in the home: %v", err)
	}
	if has {
		dir, unmount := s.Mount("x", drivers.MountOptions{})
		want(t, filepath.Join(dir, "f"), "1")
		if op == "exchange" {
			want(t, filepath.Join(dir, "own"), "1")
		}
		unmount()
	}
	if op == "exchange" && !has {
		t.Error("the published layer is gone")
	}
	if err := s.Driver.Retire(s.Stage(), "x"); err != nil {
		t.Error(err)
	}
	links, err := os.ReadDir(filepath.Join(s.Config.Root, "overlay", "l"))
	if err != nil || len(links) != 1 {
		t.Errorf("%d links left, want that of base alone (%v)", len(links), err)
	}
	s.Layer("x", "base", nil)
}
