package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

func (s sandbox) load(uid int, f Flags, env ...string) *Config {
	s.t.Helper()
	c, err := Load(s.machine(uid, env...), f)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// show is every setting with its origin, the sandbox's folder as @.
func (s sandbox) show(c *Config) string {
	var lines []string
	for _, set := range c.Settings() {
		for _, v := range set.Values {
			lines = append(lines, fmt.Sprintf("%s.%s=%s (%s)", strings.TrimPrefix(set.Table, "storage"), set.Key, v.Text, v.From))
		}
	}
	return strings.ReplaceAll(strings.Join(lines, "\n"), s.dir, "@")
}

// TestEveryKeyIsKept: each key of the manual page that has an effect comes out
// with its value and the line that it is from.
func TestEveryKeyIsKept(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	s.file("subuid", "bob:100000:1000\nbob:5000:10\neve:7:7\nbob:junk:1\n")
	s.file("subgid", "grp:300000:5\n")
	s.file("usr/storage.conf", `[storage]
driver = "overlay"
graphroot = "$HOME/g"
runroot = "/run/$UID"
rootless_storage_path = "$HOME/s"
transient_store = false
driver_priority = ["vfs", "overlay"]
[storage.options]
additionalimagestores = ["@/ro"]
remap-uids = "0:7:5"
remap-user = "bob"
remap-group = "grp"
root-auto-userns-user = "autos"
auto-userns-min-size = 10
auto-userns-max-size = "20"
disable-volatile = true
pull_options = {enable_partial_images = "true", use_hard_links = "false"}
size = "10G"
ignore_chown_errors = true
[storage.options.overlay]
mountopt = "nodev"
force_mask = "shared"
[storage.options.thinpool]
fs = "xfs"
use_deferred_removal = "true"
[storage.options.aufs]
mountopt = "x"
`)
	c := s.load(0, Flags{}, "HOME=@/h")
	want := `.driver=overlay (@/usr/storage.conf:2)
.graphroot=@/h/g (@/usr/storage.conf:3)
.runroot=/run/0 (@/usr/storage.conf:4)
.rootless_storage_path=$HOME/s (@/usr/storage.conf:5)
.transient_store=false (@/usr/storage.conf:6)
.driver_priority=vfs (@/usr/storage.conf:7)
.driver_priority=overlay (@/usr/storage.conf:7)
.options.additionalimagestores=@/ro (@/usr/storage.conf:9)
.options.remap-uids=0:7:5 (@/usr/storage.conf:10)
.options.remap-user=bob (@/usr/storage.conf:11)
.options.remap-group=grp (@/usr/storage.conf:12)
.options.root-auto-userns-user=autos (@/usr/storage.conf:13)
.options.auto-userns-min-size=10 (@/usr/storage.conf:14)
.options.auto-userns-max-size=20 (@/usr/storage.conf:15)
.options.disable-volatile=true (@/usr/storage.conf:16)
.options.pull_options.enable_partial_images=true (@/usr/storage.conf:17)
.options.pull_options.use_hard_links=false (@/usr/storage.conf:17)
.options.overlay.mountopt=nodev (@/usr/storage.conf:21)
.options.overlay.ignore_chown_errors=true (@/usr/storage.conf:19)
.options.overlay.force_mask=shared (@/usr/storage.conf:22)
.options.overlay.size=10G (@/usr/storage.conf:18)`
	if d := cmp.Diff(want, s.show(c)); d != "" {
		t.Error(d)
	}
	if got, want := fmt.Sprint(c.Remap.Maps), "{[0:7:5] [0:300000:5]}"; got != want {
		t.Errorf("maps %s, want %s", got, want)
	}
	if len(c.Warnings) > 0 {
		t.Error(c.Warnings)
	}
	o := c.StoreOptions(nil, 0, nil)
	if d := cmp.Diff(c.Remap.Maps, o.Maps); d != "" || !o.DisableVolatile || len(o.ImageStores) != 1 || len(o.DriverOptions) != 4 {
		t.Errorf("the store's options are %+v", o)
	}
	if d := cmp.Diff(store.AutoMaps{User: "autos", MinSize: 10, MaxSize: 20}, o.Auto); d != "" {
		t.Error(d)
	}
}

// TestSubordinateRanges: the lowest range comes first, and the group of a user
// without one is of the same name.
func TestSubordinateRanges(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	s.file("subuid", "bob:100000:1000\nbob:5000:10\neve:7:7\n")
	s.file("subgid", "bob:200000:3\n")
	s.file("usr/storage.conf", "[storage.options]\nremap-user = 'bob'\n")
	c := s.load(0, Flags{})
	if got, want := fmt.Sprint(c.Remap.Maps), "{[0:5000:10 10:100000:1000] [0:200000:3]}"; got != want {
		t.Errorf("maps %s, want %s", got, want)
	}
}

// TestDropIns is the manual page's own example 2, with keys of storage.conf,
// and what else it says.
func TestDropIns(t *testing.T) {
	t.Parallel()
	table := func(lines ...string) string { return "[storage]\n" + strings.Join(lines, "\n") + "\n" }
	files := map[string]string{
		"usr/storage.conf":                                   table("driver='btrfs'"),
		"etc/storage.conf":                                   table("driver='vfs'"),
		"usr/storage.conf.d/10-vendor.conf":                  table("runroot='/c'"),
		"usr/storage.conf.d/99-important.conf":               table("graphroot='/d'"),
		"usr/storage.conf.d/ignored.txt":                     "junk",
		"usr/storage.conf.d/folder.conf/x.conf":              "junk",
		"usr/storage.rootless.conf.d/50-my.conf":             "[storage.options]\nremap-uids='0:1:2'\n",
		"usr/storage.rootless.conf.d/1000/51-you.conf":       "[storage.options]\nremap-gids='0:3:4'\n",
		"usr/storage.rootful.conf.d/50-root.conf":            "[storage.options]\ndisable-volatile='true'\n",
		"h/.config/containers/storage.conf.d/10-vendor.conf": "# empty\n",
		"h/.config/containers/storage.conf.d/33-opt.conf":    table("graphroot='/user'", "runroot='/f'"),
	}
	for _, c := range []struct {
		name string
		uid  int
		env  []string
		want string
	}{
		{"user", 1000, nil, `.driver=vfs (@/etc/storage.conf:2)
.graphroot=/d (@/usr/storage.conf.d/99-important.conf:2)
.runroot=/f (@/h/.config/containers/storage.conf.d/33-opt.conf:3)
.options.remap-uids=0:1:2 (@/usr/storage.rootless.conf.d/50-my.conf:2)
.options.remap-gids=0:3:4 (@/usr/storage.rootless.conf.d/1000/51-you.conf:2)`},
		{"another user", 1001, nil, `.driver=vfs (@/etc/storage.conf:2)
.graphroot=/d (@/usr/storage.conf.d/99-important.conf:2)
.runroot=/f (@/h/.config/containers/storage.conf.d/33-opt.conf:3)
.options.remap-uids=0:1:2 (@/usr/storage.rootless.conf.d/50-my.conf:2)`},
		{"root", 0, nil, `.driver=vfs (@/etc/storage.conf:2)
.graphroot=/d (@/usr/storage.conf.d/99-important.conf:2)
.runroot=/c (@/usr/storage.conf.d/10-vendor.conf:2)
.options.disable-volatile=true (@/usr/storage.rootful.conf.d/50-root.conf:2)`},
		{"the variable alone", 0, []string{"CONTAINERS_STORAGE_CONF=@/usr/storage.conf"}, `.driver=btrfs (@/usr/storage.conf:2)
.graphroot=@/var (default)
.runroot=@/varrun (default)`},
		{"an override comes last", 0, []string{"CONTAINERS_STORAGE_CONF_OVERRIDE=@/usr/storage.conf"}, `.driver=btrfs (@/usr/storage.conf:2)
.graphroot=/d (@/usr/storage.conf.d/99-important.conf:2)
.runroot=/c (@/usr/storage.conf.d/10-vendor.conf:2)
.options.disable-volatile=true (@/usr/storage.rootful.conf.d/50-root.conf:2)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t)
			for path, text := range files {
				s.file(path, text)
			}
			got := s.load(c.uid, Flags{}, append([]string{"HOME=@/h"}, c.env...)...)
			if d := cmp.Diff(c.want, s.show(got)); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestListsOfDropIns: a list replaces the one before, unless it says that it
// is added.
func TestListsOfDropIns(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	list := func(elements string) string {
		return "[storage.options]\nadditionalimagestores = [" + elements + "]\n"
	}
	s.file("etc/storage.conf", list("'/a'"))
	s.file("etc/storage.conf.d/1.conf", list("'/b', {append=true}"))
	if got := fmt.Sprint(s.load(0, Flags{}).Lines()); got != "[overlay.imagestore=/a overlay.imagestore=/b]" {
		t.Error(got)
	}
	s.file("etc/storage.conf.d/2.conf", list("'/c', {append=false}"))
	if got := fmt.Sprint(s.load(0, Flags{}).Lines()); got != "[overlay.imagestore=/c]" {
		t.Error(got)
	}
}

// TestWarningsOfDropIns: each says its own file, and a strict caller refuses.
func TestWarningsOfDropIns(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	s.file("etc/storage.conf", "[storage.options]\nostree_repo = '/x'\n")
	c := s.load(0, Flags{})
	if err := c.Strict(); err != nil || len(c.Warnings) != 1 {
		t.Errorf("%v, %v: a key without effect is known", err, c.Warnings)
	}
	s.file("etc/storage.conf.d/1.conf", "\n[storage]\ngraphrot = '/x'\n")
	c = s.load(0, Flags{})
	want := s.dir + `/etc/storage.conf.d/1.conf:3: the key "storage.graphrot" is not known`
	if err := c.Strict(); !errors.Is(err, errno.ErrBadValue) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	if len(c.Warnings) != 2 {
		t.Error(c.Warnings)
	}
}

// TestDriverOfANewStore: the first of driver_priority that can be used, then
// the first of all; a store that is there decides before.
func TestDriverOfANewStore(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	s.file("usr/storage.conf", "[storage]\ndriver_priority = ['zfs', 'btrfs']\n")
	for _, c := range []struct {
		usable, want string
	}{
		{"overlay vfs btrfs", "btrfs (" + s.dir + "/usr/storage.conf:2)"},
		{"overlay vfs", "overlay (default)"},
		{"vfs", "vfs (default)"},
	} {
		m := s.machine(0)
		m.Usable = func(driver, _ string) bool { return slices.Contains(strings.Fields(c.usable), driver) }
		got, err := Load(m, Flags{})
		if err != nil {
			t.Fatal(err)
		}
		if got := got.Driver.Text + " (" + got.Driver.From + ")"; got != c.want {
			t.Errorf("with %s: %s, want %s", c.usable, got, c.want)
		}
	}
	s.file("var/vfs-layers/layers.json", "[]")
	if c := s.load(0, Flags{}); c.Driver.Text != "vfs" {
		t.Errorf("%+v though a store of vfs is there", c.Driver)
	}
}

// TestProber makes the driver where the store will be and leaves nothing.
func TestProber(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var seen string
	probe := Prober(func(name string) (func(drivers.Config) (drivers.Driver, error), error) {
		if name == "none" {
			return nil, errno.ErrNotSupported
		}
		return func(c drivers.Config) (drivers.Driver, error) {
			seen = filepath.Dir(c.Root)
			if name == "bad" {
				return nil, errno.ErrNotSupported
			}
			return nil, os.WriteFile(filepath.Join(c.Root, "x"), nil, 0o600)
		}, nil
	})
	root := filepath.Join(dir, "not", "yet")
	if !probe("good", root) || seen != dir {
		t.Errorf("good is refused, or was tried in %q", seen)
	}
	if probe("bad", root) || probe("none", root) {
		t.Error("what cannot be made is usable")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left %v, %v", entries, err)
	}
}

// TestTransient: written as a boolean or a string, or by the flag; another
// store that --root names is not made transient by a file.
func TestTransient(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		value string
		flags Flags
		want  bool
		from  string
	}{
		{"true", Flags{}, true, "/usr/storage.conf:2"},
		{`"true"`, Flags{}, true, "/usr/storage.conf:2"},
		{"false", Flags{}, false, "/usr/storage.conf:2"},
		{`""`, Flags{}, false, ""},
		{"true", Flags{Root: "/other"}, false, ""},
		{"false", Flags{Root: "/other", TransientStore: true}, true, "--transient-store"},
	} {
		s := newSandbox(t)
		s.file("usr/storage.conf", "[storage]\ntransient_store = "+c.value+"\n")
		got := s.load(0, c.flags)
		if o := got.StoreOptions(nil, 0, nil); o.Transient != c.want {
			t.Errorf("%s, %+v: transient is %v", c.value, c.flags, o.Transient)
		}
		if from := strings.TrimPrefix(got.TransientStore.From, s.dir); from != c.from {
			t.Errorf("%s, %+v: from %q, want %q", c.value, c.flags, from, c.from)
		}
	}
}
