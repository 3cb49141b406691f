package durable_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/plyfs/plyfs/internal/durable"
)

const childEnv = "PLYFS_DURABLE_TEST_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		writeForever(path)
	}
	os.Exit(m.Run())
}

// writeForever replaces path by 64 KiB of one letter, over and over.
func writeForever(path string) {
	for i := 0; ; i++ {
		b := bytes.Repeat([]byte{byte('a' + i%26)}, 64<<10)
		err := durable.WriteFile(path, 0o600, func(w io.Writer) error {
			for len(b) > 0 {
				if _, err := w.Write(b[:4096]); err != nil {
					return err
				}
				b = b[4096:]
			}
			return nil
		})
		if err != nil {
			os.Exit(3)
		}
	}
}

func TestWriteFileModeAndContent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f.json")
	for _, perm := range []os.FileMode{0o600, 0o666, 0o444} {
		if err := durable.WriteFile(path, perm, func(w io.Writer) error { _, err := w.Write([]byte(perm.String())); return err }); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(path)
		if err != nil || fi.Mode().Perm() != perm {
			t.Fatalf("mode %v, %v, want %v", fi.Mode(), err, perm)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != perm.String() {
			t.Fatalf("content %q, %v", b, err)
		}
	}
	onlyFile(t, dir, "f.json")
}

func TestWriteFileFailureChangesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	mine := errors.New("mine")
	err := durable.WriteFile(path, 0o600, func(w io.Writer) error {
		if _, err := w.Write([]byte("new")); err != nil {
			return err
		}
		return mine
	})
	if !errors.Is(err, mine) {
		t.Fatalf("error %v, want the writer's own", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "old" {
		t.Fatalf("content %q, %v", b, err)
	}
	onlyFile(t, dir, "f")
	if err := durable.WriteFile(filepath.Join(dir, "no", "f"), 0o600, func(io.Writer) error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("missing directory: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(filepath.Join(dir, "d"), 0o600, func(io.Writer) error { return nil }); err == nil {
		t.Fatal("a directory was replaced")
	}
}

// TestKillLeavesOldOrNew kills a writer at random moments; the file must be
// whole each time, and Sweep must leave it alone.
func TestKillLeavesOldOrNew(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for round := range 12 {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), childEnv+"="+path)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		for _, err := os.Stat(path); err != nil; _, err = os.Stat(path) {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Duration(round*1300) * time.Microsecond)
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(); err == nil || c.ProcessState.ExitCode() == 3 {
			t.Fatalf("child: %v", err)
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) != 64<<10 || len(bytes.Trim(b, string(b[:1]))) != 0 {
			t.Fatalf("torn content: %d bytes, %v", len(b), err)
		}
	}
	if err := durable.Sweep(dir, "f"); err != nil {
		t.Fatal(err)
	}
	onlyFile(t, dir, "f")
}

func TestSweepIsExact(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	names := []string{".tmp-f12", ".tmp-f", ".tmp-fx1", ".tmp-ff9", "f", ".tmp-g1"}
	for _, n := range names {
		if err := os.WriteFile(filepath.Join(dir, n), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.Sweep(dir, "f"); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != len(names)-1 {
		t.Fatalf("left %v, %v", entries, err)
	}
	if _, err := os.Stat(filepath.Join(dir, ".tmp-f12")); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("temporary file not swept: %v", err)
	}
	if err := durable.Sweep(filepath.Join(dir, "none"), "f"); err != nil {
		t.Fatalf("missing directory: %v", err)
	}
}

func TestRenameRemoveMkdir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	if err := durable.Mkdir(a, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := durable.Mkdir(a, 0o755); !errors.Is(err, os.ErrExist) {
		t.Fatalf("second mkdir: %v", err)
	}
	if err := durable.Mkdir(b, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.Rename(a, filepath.Join(b, "a")); err != nil {
		t.Fatal(err)
	}
	if err := durable.Rename(a, b); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("rename of nothing: %v", err)
	}
	for range 2 {
		if err := durable.Remove(filepath.Join(b, "a")); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzIsTemp(f *testing.F) {
	f.Add(".tmp-layers.json123")
	f.Add("layers.json")
	f.Fuzz(func(t *testing.T, name string) {
		if durable.IsTemp(name) && !strings.HasPrefix(name, durable.TempPrefix) {
			t.Fatal(name)
		}
		if !durable.IsTemp(durable.TempPrefix + name + "0") {
			t.Fatalf("temporary name of %q not known as one", name)
		}
	})
}

func onlyFile(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != name {
		t.Fatalf("directory holds %v, %v; want only %s", entries, err, name)
	}
}
