package fsview_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/drivers/vfs"
	"github.com/plyfs/plyfs/fsview"
	"github.com/plyfs/plyfs/store"
)

func keyed(text string) map[string]string {
	m := map[string]string{}
	for l := range strings.Lines(text) {
		k, v, _ := strings.Cut(strings.TrimSpace(l), " ")
		m[k] = strings.TrimSpace(v)
	}
	return m
}

// TestLocks: who holds a lock, and who waits for it, with the kernel's words.
func TestLocks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	w.mkdir("layers/a")
	w.same(w.ls("locks"), []string{"containers", "images", "layers", "mountpoints", "userns"}, "ls locks")
	path := filepath.Join(w.root, "vfs-layers", "layers.lock")
	got := keyed(w.read("locks/layers"))
	w.same([]string{got["path"], got["held"], got["waiting-here"]}, []string{path, "false", "0"}, "a free lock")

	// An open file with a lock, which the kernel knows no process for, and a
	// peer that waits.
	fd, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close() //nolint:errcheck // a test file
	if err := unix.FcntlFlock(fd.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	waiter := exec.Command("containers-storage", "--graph", w.root, "--run", w.run, "--storage-driver", "vfs", "layers")
	if err := waiter.Start(); err != nil {
		t.Fatal(err)
	}
	pid := strconv.Itoa(waiter.Process.Pid)
	for range 500 {
		if got = keyed(w.read("locks/layers")); got["waiting"] != "" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.same([]string{got["held"], got["kind"], got["pid"], got["waiting"]}, []string{"true", "write", "", pid + " containers-stor"}, "a lock")
	if err := unix.FcntlFlock(fd.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK}); err != nil {
		t.Fatal(err)
	}
	if err := waiter.Wait(); err != nil {
		t.Error(err)
	}

	// Ours leave a record of what they do.
	err = w.store.Update(w.ctx, func(*store.WriteTx) error {
		got = keyed(w.read("locks/layers"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got["held"] != "true" || got["what"] == "" || got["since"] == "" || got["pid"] != strconv.Itoa(os.Getpid()) {
		t.Errorf("a lock of ours: %v", got)
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "vfs")
	got := keyed(w.read("stats/process"))
	w.same(got["pid"], strconv.Itoa(os.Getpid()), "pid")
	for _, k := range []string{"uptime", "goroutines", "heap-bytes", "resident-bytes", "descriptors"} {
		if n, err := strconv.ParseInt(got[k], 10, 64); err != nil || n == 0 && k != "uptime" {
			t.Errorf("%s %q", k, got[k])
		}
	}
	w.same(w.read("stats/errors"), "", "no errors")
	for range 3 {
		w.is(fsview.Rmdir(w.ctx, w.fs.Root(), "layers/by-id"), "EPERM", "rmdir")
	}
	w.same(keyed(w.read("stats/errors")), map[string]string{"EPERM": "3"}, "errors")
}

// with returns a world on the same store with an additional one beside it.
func (w *world) with(root string) *world {
	w.t.Helper()
	return w.reopened(store.Options{ImageStores: []string{root},
		NewDriver: func(c drivers.Config) (drivers.Driver, error) {
			c.Options = append(c.Options, drivers.Option{Key: "imagestore", Value: root})
			return vfs.New(c)
		}})
}

// reopened returns a world on the same store, opened with other options.
func (w *world) reopened(o store.Options) *world {
	w.t.Helper()
	o.GraphRoot, o.RunRoot, o.DriverName = w.root, w.run, "vfs"
	s, err := store.Open(w.ctx, o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			w.t.Error(err)
		}
	})
	two := *w
	two.store = s
	two.fs = two.newFS(fsview.Options{Store: s, Trees: dirTrees{}})
	return &two
}

// TestStores shows what comes from additional stores, which cannot be changed.
func TestStores(t *testing.T) {
	t.Parallel()
	other := newWorld(t, "vfs")
	other.mkdir("layers/theirs")
	if err := other.write("layers/theirs/diff.tar", string(tarOf(t, "f=from the other store"))); err != nil {
		t.Fatal(err)
	}
	other.mkdir("layers/theirs/images/base")
	w := newWorld(t, "vfs")
	w = w.with(other.root)
	w.same(w.ls("stores"), []string{"1"}, "ls stores")
	w.same(w.read("stores/1/graphroot"), other.root+"\n", "graphroot")
	w.same(w.ls("stores/1/images"), []string{"base"}, "its images")
	w.same(w.link("stores/1/layers/theirs"), "../../../layers/theirs", "a link")
	w.same(w.read("images/base/readonly"), "true\n", "readonly")
	w.same(w.read("images/base/state"), "read-only\n", "state")
	w.is(w.write("images/base/metadata", "mine"), "EROFS", "its metadata")
	w.is(w.write("layers/theirs/names", "mine\n"), "EROFS", "the names of a layer")
	w.is(fsview.Rmdir(w.ctx, w.fs.Root(), "images/base"), "EROFS", "rmdir")
	w.mkdir("images/base/containers/web")
	w.same(w.read("containers/web/tree/f"), "from the other store", "a container of it")
	w.same(strings.Contains(fmt.Sprint(w.ls("stores/1/layers")), strings.TrimSpace(w.read("containers/web/layer/id"))), false, "our layer is ours")
	// An image can be renamed in each of three ways: its record is then our own.
	for _, c := range []struct {
		what string
		do   func(w *world) error
		want string
	}{
		{"names", func(w *world) error { return w.write("images/base/names", "mine\nbase\n") }, "mine\nbase\n"},
		{"mv", func(w *world) error { return w.mv("images/base", "images/mine") }, "mine\n"},
		{"ln", func(w *world) error { return w.ln("base", "images/by-name/mine") }, "mine\nbase\n"},
	} {
		w := newWorld(t, "vfs").with(other.root)
		w.is(c.do(w), "OK", c.what)
		w.same(w.read("images/by-name/mine/names"), c.want, c.what)
		w.same(w.read("images/by-name/mine/readonly"), "false\n", c.what)
		w.rmdir(map[bool]string{true: "images/mine", false: "images/base"}[c.what == "mv"])
		w.same(other.read("images/base/names"), "base\n", "the additional store's")
		w.same(w.read("images/base/readonly"), "true\n", "after rmdir")
	}
	for _, n := range []string{"0", "2", "01", "x"} {
		_, err := fsview.Walk(w.ctx, w.fs.Root(), "stores/"+n, true)
		w.is(err, "ENOENT", "stores/"+n)
	}
}
