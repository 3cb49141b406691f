package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// podmanInfo is the part of `podman info` that says which store it uses.
type podmanInfo struct {
	Store struct {
		GraphRoot       string            `json:"graphRoot"`
		RunRoot         string            `json:"runRoot"`
		GraphDriverName string            `json:"graphDriverName"`
		GraphOptions    map[string]string `json:"graphOptions"`
	} `json:"store"`
}

// oracle asks podman, in a mount namespace of its own where the system's
// storage.conf is ours, as the user uid, with this environment alone.
func oracle(t *testing.T, s sandbox, uid int, env, args []string) string {
	t.Helper()
	script := `set -e
conf=$1 uid=$2; shift 2
mount --make-rprivate /
if [ -e "$conf" ]; then mount --bind "$conf" /usr/share/containers/storage.conf; fi
exec setpriv --reuid "$uid" --regid "$uid" --clear-groups env -i "$@"`
	// In a process namespace of its own, so that podman's pause process ends too.
	all := append([]string{"--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", script, "sh", filepath.Join(s.dir, "usr/storage.conf"), fmt.Sprint(uid), "PATH=" + os.Getenv("PATH")}, env...)
	all = append(append(append(all, "podman", "--events-backend=file", "--cgroup-manager=cgroupfs"), args...), "info", "--format", "json")
	cmd := exec.Command("unshare", all...)
	cmd.Dir = s.dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("podman info: %v\n%s", err, stderr.String())
	}
	var info podmanInfo
	if err := json.Unmarshal(out, &info); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(info.Store.GraphRoot, " ", info.Store.RunRoot, " ", info.Store.GraphDriverName, " ", info.Store.GraphOptions)
}

func ours(t *testing.T, s sandbox, uid int, env []string, f Flags) string {
	t.Helper()
	c, err := Load(s.machine(uid, env...), f)
	if err != nil {
		t.Fatal(err)
	}
	opts := map[string]string{}
	for _, line := range c.Lines() {
		k, v, _ := strings.Cut(line, "=")
		opts[k] = v
	}
	return fmt.Sprint(c.GraphRoot.Text, " ", c.RunRoot.Text, " ", c.Driver.Text, " ", opts)
}

// TestAsPodman compares with `podman info`, for root and for an ordinary user.
func TestAsPodman(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root: the system's storage.conf is replaced in a mount namespace")
	}
	for _, program := range []string{"podman", "unshare", "setpriv"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s: apt-get install podman util-linux", program)
		}
	}
	const user = 54321
	base := "[storage]\ndriver=\"overlay\"\ngraphroot=\"@/graph\"\nrunroot=\"@/run\"\n"
	for _, c := range []struct {
		name  string
		uid   int
		files map[string]string
		env   []string
		flags []string
	}{
		{"root, the system's file", 0, map[string]string{"usr/storage.conf": base + "[storage.options]\nmountopt='nosuid'\n[storage.options.overlay]\nmountopt='nodev'\nignore_chown_errors='false'\n"}, nil, nil},
		{"root, CONTAINERS_STORAGE_CONF", 0, map[string]string{"mine": base + "[storage.options]\nadditionalimagestores=['@/ro']\n"}, []string{"CONTAINERS_STORAGE_CONF=@/mine"}, nil},
		{"root, driver and options by variables", 0, map[string]string{"usr/storage.conf": base + "[storage.options.overlay]\nmountopt='nodev'\n"}, []string{"STORAGE_DRIVER=vfs", "STORAGE_OPTS=vfs.ignore_chown_errors=true"}, nil},
		{"root, options by flags", 0, map[string]string{"usr/storage.conf": base + "[storage.options.overlay]\nmountopt='nodev'\n"}, nil, []string{"--storage-opt", "overlay.ignore_chown_errors=true"}},
		{"root, --root", 0, map[string]string{"usr/storage.conf": base + "[storage.options.overlay]\nmountopt='nodev'\n"}, nil, []string{"--root", "@/other", "--runroot", "@/otherrun"}},
		{"root, XDG_CONFIG_HOME", 0, map[string]string{"cfg/containers/storage.conf": base}, []string{"XDG_CONFIG_HOME=@/cfg"}, nil},
		{"user, defaults", user, map[string]string{"usr/storage.conf": base + "[storage.options.overlay]\nmountopt='nodev'\n"}, nil, nil},
		{"user, rootless_storage_path", user, map[string]string{"usr/storage.conf": base + "rootless_storage_path='$HOME/s/$UID'\n"}, nil, nil},
		{"user, the system's driver", user, map[string]string{"usr/storage.conf": strings.Replace(base, "overlay", "vfs", 1)}, nil, nil},
		{"user, a file of their own", user, map[string]string{"home/.config/containers/storage.conf": "[storage]\ndriver='overlay'\ngraphroot='$HOME/gr'\nrunroot='$HOME/rr$UID'\n[storage.options.overlay]\nmountopt='nodev'\n"}, nil, nil},
		{"user, XDG_DATA_HOME", user, nil, []string{"XDG_DATA_HOME=@/home/data"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t)
			s.file("usr/storage.conf", "[storage]\ndriver='overlay'\nrunroot='@/run'\ngraphroot='@/graph'\n")
			for path, text := range c.files {
				s.file(path, text)
			}
			for _, dir := range []string{"home", "rt", "ro"} {
				if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			giveTo(t, s.dir, c.uid)
			env := append([]string{"HOME=" + s.dir + "/home", "XDG_RUNTIME_DIR=" + s.dir + "/rt"}, c.env...)
			var f Flags
			args := make([]string, 0, len(c.flags))
			for i, a := range c.flags {
				args = append(args, s.fill(a))
				switch {
				case i == 0:
				case c.flags[i-1] == "--root":
					f.Root = args[i]
				case c.flags[i-1] == "--runroot":
					f.RunRoot = args[i]
				case c.flags[i-1] == "--storage-opt":
					f.Options = append(f.Options, args[i])
				}
			}
			for i := range env {
				env[i] = s.fill(env[i])
			}
			// Ours first, on a machine where podman was not; then again, with
			// the database that podman made.
			before := ours(t, s, c.uid, env, f)
			want := oracle(t, s, c.uid, env, args)
			if before != want {
				t.Errorf("\nours   %s\npodman %s", before, want)
			}
			if after := ours(t, s, c.uid, env, f); after != want {
				t.Errorf("with podman's database:\nours   %s\npodman %s", after, want)
			}
		})
	}
}

// TestPodmansDatabaseWins: podman obeys what its database remembers, even
// when storage.conf has changed.
func TestPodmansDatabaseWins(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root: the system's storage.conf is replaced in a mount namespace")
	}
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("needs podman: apt-get install podman")
	}
	s := newSandbox(t)
	conf := func(driver, run string) string {
		return "[storage]\ndriver='" + driver + "'\ngraphroot='@/graph'\nrunroot='@/" + run + "'\n"
	}
	env := []string{"HOME=" + s.dir, "XDG_RUNTIME_DIR=" + s.dir}
	s.file("usr/storage.conf", conf("vfs", "run"))
	first := oracle(t, s, 0, env, nil)
	s.file("usr/storage.conf", conf("overlay", "elsewhere"))
	second := oracle(t, s, 0, env, nil)
	if first != second {
		t.Fatalf("podman changed its mind: %s, then %s", first, second)
	}
	if got := ours(t, s, 0, env, Flags{}); got != second {
		t.Errorf("ours %s, podman %s", got, second)
	}
	c, err := Load(s.machine(0, env...), Flags{})
	if err != nil || c.Driver.From != s.dir+"/graph/libpod/bolt_state.db" {
		t.Errorf("driver %+v, %v", c.Driver, err)
	}
	if len(c.Warnings) > 0 {
		t.Error(c.Warnings)
	}
}

// giveTo hands a folder and all in it to a user.
func giveTo(t *testing.T, dir string, uid int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	})
	if err != nil {
		t.Fatal(err)
	}
	for d := filepath.Dir(dir); d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAsContainersStorage compares with the defaults that containers-storage
// shows of its flags under the same file. It has no more of the file than that.
func TestAsContainersStorage(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("containers-storage"); err != nil {
		t.Skip("needs containers-storage: apt-get install containers-storage")
	}
	const roots = "[storage]\ngraphroot='@/graph'\nrunroot='@/run'\n"
	for _, c := range []struct{ name, conf, but string }{
		{"overlay", roots + "driver='overlay'\n[storage.options]\nmountopt='nosuid'\nskip_mount_home='true'\n[storage.options.overlay]\nmountopt='nodev,metacopy=on'\n", ""},
		{"the general table", roots + "driver='overlay'\n[storage.options]\nsize='10G'\nignore_chown_errors='true'\nmount_program='/bin/true'\n", ""},
		{"all of overlay", roots + "driver='overlay'\n[storage.options.overlay]\nmount_program='/bin/true'\nmountopt='nodev'\nignore_chown_errors='true'\nforce_mask='shared'\nskip_mount_home='true'\nsize='1G'\ninodes='7'\n", ""},
		{"image stores", roots + "driver='overlay'\n[storage.options]\nadditionalimagestores=['@/ro1','@/ro2']\n", ""},
		{"vfs", roots + "driver='vfs'\n[storage.options]\nmountopt='nosuid'\n[storage.options.vfs]\nignore_chown_errors='true'\n[storage.options.overlay]\nmountopt='nodev'\n", "vfs.mountopt"}, // ours hands vfs nothing that it ignores
		{"btrfs", roots + "driver='btrfs'\n[storage.options.btrfs]\nmin_space='1G'\nsize='2G'\n", "btrfs.size"},                                                                                 // 1.43 forgets it
		{"zfs", roots + "driver='zfs'\n[storage.options.zfs]\nfsname='tank'\nmountopt='nodev'\nsize='2G'\n", ""},
		{"thinpool's table beside overlay", roots + "driver='overlay'\n[storage.options.thinpool]\nfs='xfs'\nbasesize='1G'\n", ""},
		{"variables in paths", "[storage]\ndriver='overlay'\ngraphroot='$HOME/g'\nrunroot='$HOME/r'\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t)
			env := []string{"CONTAINERS_STORAGE_CONF=" + s.file("mine", c.conf), "HOME=" + s.dir}
			cmd := exec.Command("containers-storage", "status", "--help")
			cmd.Env = append(env, "PATH="+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			var status *exec.ExitError
			if err != nil && !errors.As(err, &status) {
				t.Fatal(err)
			}
			shown := strings.ReplaceAll(string(out), "=~/", "="+s.dir+"/")
			got, err := Load(s.machine(os.Getuid(), env...), Flags{})
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range []string{"--graph, -g=" + got.GraphRoot.Text, "--run, -R=" + got.RunRoot.Text, "--storage-driver, -s=" + got.Driver.Text} {
				if !strings.Contains(shown, line+" ") {
					t.Errorf("%q is not in\n%s", line, shown)
				}
			}
			_, list, _ := strings.Cut(shown, "--storage-opt=[")
			list, _, ok := strings.Cut(list, "]")
			if !ok {
				t.Fatalf("no options in\n%s", shown)
			}
			if d := cmp.Diff(lastOnes(strings.Fields(list)), lastOnes(got.Lines()), cmpopts.IgnoreMapEntries(func(key string, _ []string) bool {
				return key == c.but
			})); d != "" {
				t.Errorf("options differ: %s", d)
			}
		})
	}
}

// lastOnes are the values that count of "key=value": the last, or all of image
// stores.
func lastOnes(lines []string) map[string][]string {
	out := map[string][]string{}
	for _, line := range lines {
		k, v, _ := strings.Cut(line, "=")
		if !strings.HasSuffix(k, ".imagestore") {
			out[k] = nil
		}
		out[k] = append(out[k], v)
	}
	return out
}
