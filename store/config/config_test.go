package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/internal/errno"
)

// sandbox is a machine whose files are all below one folder. In texts, @ is
// that folder.
type sandbox struct {
	t   *testing.T
	dir string
}

// newSandbox makes one with a short path: podman refuses run roots of more
// than 50 bytes, and image stores with a comma in their path.
func newSandbox(t *testing.T) sandbox {
	t.Helper()
	dir, err := os.MkdirTemp("", "c")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return sandbox{t, dir}
}

func (s sandbox) fill(text string) string { return strings.ReplaceAll(text, "@", s.dir) }

func (s sandbox) file(path, text string) string {
	s.t.Helper()
	path = filepath.Join(s.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(s.fill(text)), 0o644); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func (s sandbox) machine(uid int, env ...string) Machine {
	vars := map[string]string{}
	for _, e := range env {
		k, v, _ := strings.Cut(s.fill(e), "=")
		vars[k] = v
	}
	return Machine{
		Getenv: func(k string) string { return vars[k] }, UID: uid, Dir: s.dir,
		System: []string{filepath.Join(s.dir, "etc/storage.conf"), filepath.Join(s.dir, "usr/storage.conf")},
		SubUID: filepath.Join(s.dir, "subuid"), SubGID: filepath.Join(s.dir, "subgid"),
		UserRun: filepath.Join(s.dir, "run/user"), GraphRoot: filepath.Join(s.dir, "var"), RunRoot: filepath.Join(s.dir, "varrun"),
	}
}

const full = `[storage]
driver = "overlay"
graphroot = "@/graph"
runroot = "@/run"
[storage.options]
additionalimagestores = ["@/ro1", "@/ro2"]
size = "10G"
mountopt = "nosuid"
ignore_chown_errors = true
[storage.options.overlay]
mountopt = "nodev"
inodes = 7
[storage.options.vfs]
ignore_chown_errors = "true"
`

func TestLoad(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		files map[string]string
		uid   int
		env   []string
		flags Flags
		want  string // "graph run driver options…", each setting with its origin
	}{
		{"nothing is there", nil, 0, nil, Flags{},
			"@/var (default) @/varrun (default) overlay (default)"},
		{"flags", map[string]string{"usr/storage.conf": full}, 0, nil,
			Flags{Root: "g", RunRoot: "@/r", Driver: "vfs", Options: []string{"vfs.x=1", ".y=a,b", "z=", "vfs.imagestore=@/ro"}},
			"@/g (--root) @/r (--runroot) vfs (--storage-driver) vfs.imagestore=@/ro vfs.x=1 vfs.y=a,b vfs.z="},
		{"a file", map[string]string{"usr/storage.conf": full}, 0, nil, Flags{},
			"@/graph (@/usr/storage.conf:3) @/run (@/usr/storage.conf:4) overlay (@/usr/storage.conf:2) " +
				"overlay.imagestore=@/ro1 overlay.imagestore=@/ro2 overlay.mountopt=nodev overlay.ignore_chown_errors=true overlay.size=10G overlay.inodes=7"},
		{"etc before usr, not merged", map[string]string{"usr/storage.conf": full, "etc/storage.conf": "[storage]\ndriver='vfs'\n"}, 0, nil, Flags{},
			"@/var (default) @/varrun (default) vfs (@/etc/storage.conf:2)"},
		{"options of the chosen driver", map[string]string{"usr/storage.conf": full}, 0, []string{"STORAGE_DRIVER=vfs"}, Flags{},
			"@/graph (@/usr/storage.conf:3) @/run (@/usr/storage.conf:4) vfs ($STORAGE_DRIVER) vfs.imagestore=@/ro1 vfs.imagestore=@/ro2 vfs.ignore_chown_errors=true"},
		{"STORAGE_OPTS replaces the file's", map[string]string{"usr/storage.conf": full}, 0, []string{"STORAGE_OPTS=overlay.a=1,overlay.b=2"}, Flags{},
			"@/graph (@/usr/storage.conf:3) @/run (@/usr/storage.conf:4) overlay (@/usr/storage.conf:2) overlay.a=1 overlay.b=2"},
		{"--root drops the file's options", map[string]string{"usr/storage.conf": full}, 0, []string{"STORAGE_OPTS=overlay.a=1"}, Flags{Root: "@/other"},
			"@/other (--root) @/run (@/usr/storage.conf:4) overlay (@/usr/storage.conf:2)"},
		{"CONTAINERS_STORAGE_CONF alone", map[string]string{"usr/storage.conf": full, "mine": "[storage]\nrunroot = \"$HOME/r\"\n"}, 0,
			[]string{"CONTAINERS_STORAGE_CONF=@/mine", "HOME=@/h"}, Flags{},
			"@/var (default) @/h/r (@/mine:2) overlay (default)"},
		{"root's XDG_CONFIG_HOME", map[string]string{"usr/storage.conf": full, "cfg/containers/storage.conf": "[storage]\ngraphroot='@/mine'"}, 0,
			[]string{"XDG_CONFIG_HOME=@/cfg"}, Flags{},
			"@/mine (@/cfg/containers/storage.conf:2) @/varrun (default) overlay (default)"},
		{"root's ~/.config is not read", map[string]string{"h/.config/containers/storage.conf": full}, 0, []string{"HOME=@/h"}, Flags{},
			"@/var (default) @/varrun (default) overlay (default)"},
		{"user, nothing there", nil, 1234, []string{"HOME=@/h", "XDG_RUNTIME_DIR=@/x"}, Flags{},
			"@/h/.local/share/containers/storage (default) @/x/containers ($XDG_RUNTIME_DIR) overlay (default)"},
		{"user, XDG_DATA_HOME", nil, 1234, []string{"HOME=@/h", "XDG_DATA_HOME=@/d", "XDG_RUNTIME_DIR=@/x"}, Flags{},
			"@/d/containers/storage ($XDG_DATA_HOME) @/x/containers ($XDG_RUNTIME_DIR) overlay (default)"},
		{"user, the system's file says little", map[string]string{"usr/storage.conf": strings.Replace(full, `"overlay"`, `"vfs"`, 1) + "[storage.options.zfs]\n"}, 1234,
			[]string{"HOME=@/h", "XDG_RUNTIME_DIR=@/x"}, Flags{},
			"@/h/.local/share/containers/storage (default) @/x/containers ($XDG_RUNTIME_DIR) vfs (@/usr/storage.conf:2)"},
		{"user, rootless_storage_path", map[string]string{"usr/storage.conf": "[storage]\nrootless_storage_path = '$HOME/s/$UID'\n"}, 1234,
			[]string{"HOME=@/h", "XDG_RUNTIME_DIR=@/x"}, Flags{},
			"@/h/s/1234 (@/usr/storage.conf:2) @/x/containers ($XDG_RUNTIME_DIR) overlay (default)"},
		{"user, a file of their own", map[string]string{"usr/storage.conf": "[storage]\nrootless_storage_path = '$HOME/s/$UID'\n", "h/.config/containers/storage.conf": full}, 1234,
			[]string{"HOME=@/h", "XDG_RUNTIME_DIR=@/x"}, Flags{},
			"@/graph (@/h/.config/containers/storage.conf:3) @/run (@/h/.config/containers/storage.conf:4) overlay (@/h/.config/containers/storage.conf:2) " +
				"overlay.imagestore=@/ro1 overlay.imagestore=@/ro2 overlay.mountopt=nodev overlay.ignore_chown_errors=true overlay.size=10G overlay.inodes=7"},
		{"user, no run folder", nil, 1234, []string{"HOME=@/h"}, Flags{},
			"@/h/.local/share/containers/storage (default) " + filepath.Join(os.TempDir(), "podman-run-1234/containers") + " (default) overlay (default)"},
		{"driver of the store", map[string]string{"graph/vfs-layers/layers.json": "[]"}, 0, nil, Flags{Root: "@/graph"},
			"@/graph (--root) @/varrun (default) vfs (the store in @/graph)"},
		{"overlay before vfs", map[string]string{"graph/vfs-layers/layers.json": "[]", "graph/overlay-layers/layers.json": "[]"}, 0, nil, Flags{Root: "@/graph"},
			"@/graph (--root) @/varrun (default) overlay (the store in @/graph)"},
		{"Docker's name", nil, 0, nil, Flags{Driver: "overlay2"},
			"@/var (default) @/varrun (default) overlay (--storage-driver)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t)
			for path, text := range c.files {
				s.file(path, text)
			}
			for _, p := range []*string{&c.flags.Root, &c.flags.RunRoot} {
				*p = s.fill(*p)
			}
			for i, o := range c.flags.Options {
				c.flags.Options[i] = s.fill(o)
			}
			got, err := Load(s.machine(c.uid, c.env...), c.flags)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Warnings) > 0 {
				t.Errorf("warnings: %v", got.Warnings)
			}
			show := func(v Value) string { return v.Text + " (" + v.From + ")" }
			line := strings.Join(append([]string{show(got.GraphRoot), show(got.RunRoot), show(got.Driver)}, got.Lines()...), " ")
			if want := s.fill(c.want); line != want {
				t.Errorf("\ngot  %s\nwant %s", line, want)
			}
		})
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		conf  string
		env   []string
		flags Flags
		want  string
	}{
		{conf: "[storage\n", want: "@/usr/storage.conf:2: this is not TOML"},
		{conf: "[storage]\ndriver = 'nope'\n", want: `@/usr/storage.conf:2: there is no storage driver "nope": use overlay, vfs, btrfs or zfs`},
		{conf: "[storage]\ndriver = ['vfs']\n", want: `@/usr/storage.conf:2: the key "storage.driver" wants a string, not [vfs]`},
		{conf: "[storage.options]\nadditionalimagestores = 'x'\n", want: `@/usr/storage.conf:2: the key "storage.options.additionalimagestores" wants a list of strings, not x`},
		{conf: "[storage.options]\nadditionalimagestores = ['x']\n", want: `@/usr/storage.conf:2: the image store "x" is not an absolute path`},
		{conf: "[storage]\ngraphroot = 'rel'\n", want: `@/usr/storage.conf:2: "rel" is not an absolute path`},
		{conf: "[storage]\ngraphroot = '@/g'\nimagestore = '@/g/'\n", want: "@/usr/storage.conf:3: the image store is the graph root @/g itself"},
		{conf: "[storage]\ntransient_store = 'maybe'\n", want: `@/usr/storage.conf:2: the key "storage.transient_store" wants true or false, or "true" or "false", not maybe`},
		{conf: "[storage]\ndriver_priority = ['vfs', 'nope']\n", want: `@/usr/storage.conf:2: there is no storage driver "nope"`},
		{conf: "[storage]\ndriver = 'devmapper'\n[storage.options.thinpool]\nfs = 'xfs'\n", want: "@/usr/storage.conf:2: stores of the driver devmapper cannot be opened, as no tool keeps them any more"},
		{conf: "[storage.options]\nauto-userns-min-size = -1\n", want: `@/usr/storage.conf:2: the key "storage.options.auto-userns-min-size" wants a number from 0 on, not -1`},
		{conf: "[storage.options]\nremap-uids = 'junk'\n", want: `@/usr/storage.conf:2: the key "remap-uids": `},
		{conf: "[storage.options]\nremap-user = 'who'\n", want: `@/usr/storage.conf:2: "who" has no subordinate IDs in @/subuid: add a line who:FIRST:COUNT`},
		{conf: "[storage.options]\nadditionalimagestores = [{append = 1}]\n", want: `@/usr/storage.conf:2: the key "storage.options.additionalimagestores" wants a list of strings`},
		{env: []string{"STORAGE_DRIVER=aufs"}, want: `$STORAGE_DRIVER: stores of the driver aufs cannot be opened`},
		{env: []string{"CONTAINERS_STORAGE_CONF_OVERRIDE=@/no"}, want: "$CONTAINERS_STORAGE_CONF_OVERRIDE names @/no, which does not exist"},
		{env: []string{"STORAGE_OPTS=overlay.mountopt=nodev,nosuid"}, want: `$STORAGE_OPTS "nosuid": write an option as key=value`},
		{env: []string{"CONTAINERS_STORAGE_CONF=@/no"}, want: "$CONTAINERS_STORAGE_CONF names @/no, which does not exist"},
		{flags: Flags{Driver: "devmapper"}, want: `--storage-driver: stores of the driver devmapper cannot be opened`},
		{flags: Flags{Options: []string{"vfs.a=b"}}, want: `--storage-opt "vfs.a=b": an option for the driver "vfs", but the store's driver is overlay`},
		{flags: Flags{Options: []string{"=b"}}, want: `--storage-opt "=b": write an option as key=value`},
		{flags: Flags{Options: []string{"overlay.=b"}}, want: `--storage-opt "overlay.=b": the option has no name`},
		{flags: Flags{Root: "a\x00b"}, want: `--root: a path cannot hold a zero byte`},
	} {
		t.Run(c.want, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t)
			if c.conf != "" {
				s.file("usr/storage.conf", c.conf)
			}
			got, err := Load(s.machine(0, c.env...), c.flags)
			if err == nil || !strings.HasPrefix(err.Error(), s.fill(c.want)) {
				t.Errorf("got %v, %v; want error %q", got, err, s.fill(c.want))
			}
			if errno.Of(err) == 5 {
				t.Errorf("%v has no errno of its own", err)
			}
		})
	}
}

func TestLoadWarns(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	s.file("usr/storage.conf", `top = 1
[storage]
driver = "overlay"
bogus = "x"
[storage.options]
ostree_repo = "/x"
remap-user = ""
pull_options = {enable_partial_images = "false", anything = "goes"}
"quoted" = 1
[storage.options.overlay]
nope = "1"
[storage.options.nodriver]
a = "b"
[storage.options.thinpool]
fs = "xfs"
[other]
`)
	got, err := Load(s.machine(0), Flags{})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, w := range got.Warnings {
		lines = append(lines, strings.TrimPrefix(w.String(), s.dir+"/usr/storage.conf:"))
	}
	hint := " is not known: is it spelled as in containers-storage.conf(5)?"
	want := []string{
		`1: the key "top"` + hint,
		`4: the key "storage.bogus"` + hint,
		`6: the key "storage.options.ostree_repo" has no effect here`,
		`9: the key "storage.options.quoted"` + hint,
		`11: the key "storage.options.overlay.nope"` + hint,
		`13: the key "storage.options.nodriver.a"` + hint,
		`16: the key "other"` + hint,
	}
	if d := cmp.Diff(want, lines); d != "" {
		t.Error(d)
	}
}

// What TOML prints is a storage.conf that means the same store.
func TestTOMLIsAccepted(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	s.file("usr/storage.conf", strings.Replace(full, "nodev", `no\"d\\e\u0001v`, 1))
	first, err := Load(s.machine(0), Flags{})
	if err != nil {
		t.Fatal(err)
	}
	s.file("etc/storage.conf", string(first.TOML()))
	second, err := Load(s.machine(0), Flags{})
	if err != nil {
		t.Fatalf("%v in\n%s", err, first.TOML())
	}
	if d := cmp.Diff(first.Lines(), second.Lines()); d != "" {
		t.Error(d)
	}
	if first.GraphRoot.Text != second.GraphRoot.Text || first.RunRoot.Text != second.RunRoot.Text || first.Driver.Text != second.Driver.Text {
		t.Errorf("%+v became %+v", first, second)
	}
	if len(second.Warnings) > 0 {
		t.Error(second.Warnings)
	}
}

func FuzzReadFile(f *testing.F) {
	f.Add(full)
	f.Add("[storage]\ndriver=\"x\"\n[[storage.options]]\n")
	f.Add("storage = 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "storage.conf")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		conf, err := readFile(path)
		if err != nil {
			return
		}
		c := &Config{Driver: Value{Text: "overlay"}}
		all := settings{}
		all.add(conf, nil)
		if err := all.options(c); err != nil {
			return
		}
		for _, w := range conf.warnings {
			if w.Line < 0 || w.Line > strings.Count(text, "\n")+1 {
				t.Errorf("warning %v beyond the file", w)
			}
		}
	})
}

func FuzzBolt(f *testing.F) {
	f.Add(make([]byte, 8192))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := boltBucket(strings.NewReader(string(data)), "runtime-config"); err == nil && len(data) == 0 {
			t.Error("an empty file is no database")
		}
	})
}
