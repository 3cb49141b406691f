package interop

import (
	"debug/elf"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// staticBinary is the program, linked statically, so that a container with
// nothing in it can run it.
func staticBinary(t *testing.T) string {
	t.Helper()
	bin, err := plyfsBinary()
	if err != nil {
		t.Fatal(err)
	}
	if f, err := elf.Open(bin); err != nil {
		t.Fatal(err)
	} else if libs, err := f.ImportedLibraries(); err != nil || f.Close() != nil || len(libs) > 0 {
		t.Skipf("%s needs the libraries %q (%v), which the container does not have: build it with CGO_ENABLED=0", bin, libs, err)
	}
	return bin
}

// TestInsideContainer runs the program, which is linked statically, in a
// container that has /dev/fuse and may mount: a store made there is shown
// there, and outside it is the peers' as well.
func TestInsideContainer(t *testing.T) {
	t.Parallel()
	e := newEnv(t, "overlay", "buildah", "skopeo", "podman", "runc", "setfattr", "setfacl")
	e.makeApp()
	bin := staticBinary(t)
	inner := filepath.Join(e.dir, "inner")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	const script = `set -e; cd /s
/plyfs mount --create --root /s/root --runroot /s/run --storage-driver vfs /tmp
/bin/busybox mkdir /tmp/layers/base
/bin/busybox mkdir /tmp/layers/base/images/app
echo text > /tmp/images/app/metadata
/bin/busybox cat /tmp/images/app/metadata
/plyfs umount /tmp`
	out := e.podman("run", "--rm", "--network=none", "--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096",
		"--device", "/dev/fuse", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
		"-v", bin+":/plyfs:ro", "-v", inner+":/s", app, "/bin/busybox", "sh", "-c", script)
	if !strings.Contains(out, "text\n") {
		t.Errorf("in the container: %q", out)
	}
	list := e.run("containers-storage", "--graph", inner+"/root", "--run", inner+"/run", "--storage-driver", "vfs", "images")
	if !strings.Contains(list, "name: app") {
		t.Errorf("the peers see %q", list)
	}
}

// userImage makes a directory tree for containers: a user 1000 with subordinate
// IDs, and the machine's own programs, or busybox alone.
const userImage = `set -e; cd $1; mkdir -p i/etc i/s i/tmp i/proc i/dev i/sys i/usr; chmod 1777 i/tmp
echo user:x:1000:1000::/tmp:/bin/sh > i/etc/passwd; echo user:x:1000: > i/etc/group
if [ "$2" = busybox ]; then
	mkdir i/bin; cp "$(command -v busybox)" i/bin/busybox; ln i/bin/busybox i/bin/sh
else
	for d in bin sbin lib lib64; do ln -s usr/$d i/$d; done
	for f in subuid subgid; do echo user:100000:65536 > i/etc/$f; done
fi
tar c -C i . > $2.tar; rm -rf i`

// insideScript mounts a store of its own, and uses it.
const insideScript = `b=/bin/busybox; [ -e $b ] || b=; cd /s; export HOME=/s; $b mkdir -p m
/plyfs mount --create --root /s/r --runroot /s/x --storage-driver vfs m; echo "mounted $?"
if [ -e m/version ]; then
	$b mkdir m/layers/base m/containers/web; echo text > m/containers/web/merged/f; $b cat m/containers/web/tree/f
	$b chown 9 m/containers/web/merged/f 2>/dev/null; $b chown 100009 m/containers/web/merged/f 2>/dev/null
	$b stat -c 'owner %u' m/containers/web/merged/f
	/plyfs umount m; echo "unmounted $?"
else
	/plyfs mkdir --create --root /s/r --runroot /s/x --storage-driver vfs containers/alone; echo "made $?"
fi
/plyfs ls --root /s/r --runroot /s/x --storage-driver vfs containers; echo "listed $?"`

// TestInsideContainerAsUser: a user in a container that has /dev/fuse mounts
// there where fusermount3 is there and has the capability; what is missing is
// said, with what to do.
func TestInsideContainerAsUser(t *testing.T) {
	t.Parallel()
	e := newEnv(t, "overlay", "podman", "runc", "busybox", "fusermount3", "newuidmap")
	bin := staticBinary(t)
	device := filepath.Join(e.dir, "fuse")
	if err := unix.Mknod(device, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 229))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(device, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"busybox", "full"} {
		e.run("sh", "-c", userImage, "sh", e.dir, kind)
		e.podman("import", "--quiet", filepath.Join(e.dir, kind+".tar"), kind+":1")
	}
	for _, c := range []struct {
		name, image string
		opts        []string
		want        []string
	}{
		{"nothing", "busybox", nil, []string{"mounted 1\n", "there is no fusermount3, which mounts for ordinary users: install the package fuse3, or in a container be its root (`--cap-add SYS_ADMIN`); `plyfs ls` and its like need no mount\n"}},
		{"no capability", "full", []string{"-v", "/usr:/usr:ro,suid"}, []string{"mounted 1\n", "the subordinate IDs of /etc/subuid and /etc/subgid cannot be had here (newuidmap: write to uid_map failed: Operation not permitted): in a container, start that with `--cap-add SYS_ADMIN`, or take the user's lines out"}},
		{"all", "full", []string{"-v", "/usr:/usr:ro,suid", "--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined"}, []string{"mounted 0\ntext\nowner 100009\nunmounted 0\n", "web\nlisted 0\n"}},
	} {
		s, err := os.MkdirTemp(e.dir, "s-")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(s, 0o777); err != nil {
			t.Fatal(err)
		}
		args := append([]string{"run", "--rm", "--network=none", "--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096",
			"--user", "1000", "--device", device + ":/dev/fuse", "-v", bin + ":/plyfs:ro", "-v", s + ":/s"}, c.opts...)
		r := e.try(nil, "podman", append(append(e.podmanArgs(), args...), c.image+":1", "/bin/sh", "-c", insideScript)...)
		for _, w := range c.want {
			if !strings.Contains(r.out+r.err, w) {
				t.Errorf("%s: %q is missing:\n%s%s", c.name, w, r.out, r.err)
			}
		}
	}
}

// TestInsideContainerOfUser: the same in a container that an ordinary user's
// podman runs; the user's own plyfs reads the store afterwards.
func TestInsideContainerOfUser(t *testing.T) {
	t.Parallel()
	e := newEnv(t, "overlay", "podman", "runc", "busybox")
	bin := staticBinary(t)
	e.run("sh", "-c", userImage, "sh", e.dir, "busybox")
	if err := os.Chmod(e.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r := fusetest.AsUser(t, fusetest.User{}, `
mkdir s
export TMPDIR=$PWD # the one of the tests is not this user's
p="podman --cgroup-manager=cgroupfs --events-backend=file --runtime runc"
$p import --quiet $2 busybox:1 || exit
for o in "" "--cap-add=SYS_ADMIN"; do
	$p run --rm --network=none --ulimit nofile=1024:1024 --device /dev/fuse $o -v $1:/plyfs:ro -v $PWD/s:/s busybox:1 /bin/sh -c "$3"
done 2>&1
$1 ls --root $PWD/s/r --runroot $PWD/s/x --storage-driver vfs containers
$1 ls -l --root $PWD/s/r --runroot $PWD/s/x --storage-driver vfs containers/web/diff | cut -d' ' -f3
$p unshare rm -rf s .local/share/containers 2>/dev/null
`, bin, filepath.Join(e.dir, "busybox.tar"), insideScript)
	rest := r.Out
	for _, w := range []string{
		"this root lacks CAP_SYS_ADMIN (start the container with `--cap-add SYS_ADMIN`, or work in `unshare -Urm`)\n", "mounted 1\n", "made 0\n", "alone\n", "listed 0\n",
		"mounted 0\ntext\nowner 9\nunmounted 0\n", "alone\n", "web\nlisted 0\n", "web\n", "100008\n",
	} {
		_, after, ok := strings.Cut(rest, w)
		if !ok {
			t.Fatalf("%q is missing in order:\n%s\n%s", w, r.Out, r.Err)
		}
		rest = after
	}
}
