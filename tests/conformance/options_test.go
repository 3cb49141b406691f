package conformance

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// optionWorlds are ours with options that change how things are done, and not
// what is seen.
func optionWorlds(t *testing.T) []world {
	t.Helper()
	ps := programs(t)
	p := ps[len(ps)-1]
	var ws []world
	for _, o := range []struct {
		name, options string
		layers        int
		known         map[string]string
	}{
		{"redirects", "redirect_dir=on,metacopy=on", 1, nil},
		{"redirects", "redirect_dir=on,metacopy=on", manyLayers, nil},
		{"aside-security", "xattr_permissions=1", 1, knownAside},
		{"aside-user", "xattr_permissions=2", 1, knownAside},
		{"writeback", "writeback=1", 1, knownWriteback},
		{"passthrough", "passthrough,strict", 1, nil},
		{"passthrough", "passthrough,strict,redirect_dir=on,metacopy=on", manyLayers, nil},
		{"passthrough-aside", "passthrough,strict,xattr_permissions=2", 1, knownAside},
		{"one-thread", "threaded=0", 1, nil},
	} {
		known := maps.Clone(p.known)
		maps.Copy(known, o.known)
		ws = append(ws, world{
			name: o.name + "-" + map[bool]string{true: "1", false: "9"}[o.layers == 1], layers: o.layers, known: known,
			mount: func(e *env) func() { return p.mountWith(e, o.options) },
		})
	}
	known := maps.Clone(p.known)
	maps.Copy(known, knownMapped)
	ws = append(ws, world{name: "mapped-1", layers: 1, known: known, prepared: shiftOwners, mount: func(e *env) func() {
		return p.mountWith(e, fmt.Sprintf("uidmapping=%[1]d:0:65536,gidmapping=%[1]d:0:65536", idShift))
	}})
	return append(ws, world{name: "no-xattrs-1", layers: 1, mount: p.mount, noXattrs: true, lowers: onRamfs, known: knownRamfs, prepared: readOnly})
}

// idShift is by how much owners in the layers differ from those that are shown.
const idShift = 100000

// shiftOwners gives all that the layers hold, and the upper's root, the owners
// that the map shows as those that they have.
func shiftOwners(e *env) {
	e.Helper()
	seen := map[[2]uint64]bool{}
	for _, dir := range append([]string{e.upper}, e.dirs...) {
		e.ok(filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			st := e.stat(p)
			key := [2]uint64{st.Dev, st.Ino}
			if seen[key] {
				return nil
			}
			seen[key] = true
			caps, cerr := getx(p, capability)
			if err := os.Lchown(p, int(st.Uid)+idShift, int(st.Gid)+idShift); err != nil {
				return err
			}
			if cerr == nil {
				e.setx(p, capability, caps)
			}
			if st.Mode&0o6000 != 0 && st.Mode&unix.S_IFMT != unix.S_IFLNK {
				return unix.Chmod(p, st.Mode&0o7777)
			}
			return nil
		}))
	}
}

// onRamfs makes a folder on a filesystem that has no extended attributes and no
// file handles.
func onRamfs(e *env) string {
	e.Helper()
	dir := filepath.Join(e.dir, "ramfs")
	e.ok(os.Mkdir(dir, 0o755))
	if err := unix.Mount("ramfs", dir, "ramfs", 0, "mode=755"); err != nil {
		e.Skipf("no ramfs here: %v", err)
	}
	e.Cleanup(func() { unmount(e.T, dir) })
	return dir
}

// readOnly makes the lower layers' filesystem read-only. A child that another test
// starts has our files, open for writing, until it runs its program.
func readOnly(e *env) {
	e.Helper()
	var err error
	for range 200 {
		if err = unix.Mount("", filepath.Dir(e.lower), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	e.ok(err)
}

// TestHugeDirectory lists a directory of a million entries, half of them in a
// lower layer (of 20,000, unless there is time), changes it and lists it again;
// the server's memory is bounded, and is given back.
func TestHugeDirectory(t *testing.T) {
	need(t)
	t.Parallel()
	half, most := 10000, 256<<10 // KiB
	if os.Getenv("PLYFS_LONG") != "" {
		half, most = 500000, 1<<20
	}
	ps := programs(t)
	e := newEnv(t, world{name: "huge", layers: 2, mount: ps[len(ps)-1].mount})
	for _, d := range e.dirs {
		e.ok(unix.Mount("tmpfs", d, "tmpfs", 0, "mode=755,nr_inodes=0"))
		t.Cleanup(func() { unmount(t, d) })
	}
	for i, d := range e.dirs {
		e.ok(os.Mkdir(d+"/d", 0o755))
		for k := range half {
			e.ok(unix.Mknod(fmt.Sprintf("%s/d/file-%d-%d", d, i, k), unix.S_IFREG|0o644, 0))
		}
	}
	t.Cleanup(e.unmount)
	e.mount()
	s := serverOf(t, e.root)
	count := func(want int) {
		t.Helper()
		if got := len(e.dirents(e.p("d"), 1<<16)) - 2; got != want {
			t.Errorf("%d entries, want %d", got, want)
		}
	}
	count(2 * half)
	e.ok(os.Remove(e.p("d/file-0-7")))
	e.put(e.p("d/new"), "x")
	count(2 * half)
	if out, err := exec.Command("find", e.p("d"), "-size", "+0", "-name", "n*").CombinedOutput(); err != nil || strings.Count(string(out), "\n") != 1 {
		t.Errorf("find: %v: %.300s", err, out)
	}
	if kib := s.memory(t); kib > most {
		t.Errorf("the server uses %d KiB for %d entries", kib, 2*half)
	} else {
		t.Logf("%d KiB for %d entries that were all looked at", kib, 2*half)
	}
	e.remount()
	count(2 * half)
}

// TestManyLayers has 500 lower layers and an upper, which is as many as the
// kernel's overlay takes, and then what podman mounts to take the diff of such a
// layer: all of them, read-only.
func TestManyLayers(t *testing.T) {
	need(t)
	t.Parallel()
	ps := programs(t)
	p := ps[len(ps)-1]
	e := newEnv(t, world{name: "layers", layers: 500, mount: p.mount})
	for i, d := range e.dirs {
		e.put(fmt.Sprintf("%s/d/%d", d, i), "x")
		e.put(d+"/d/same", fmt.Sprint(i))
	}
	t.Cleanup(e.unmount)
	e.mount()
	if got := len(e.dirents(e.p("d"), 1<<16)) - 2; got != 501 {
		t.Errorf("%d entries", got)
	}
	e.want(e.p("d/same"), "0")
	e.want(e.p("d/499"), "x")
	e.put(e.p("d/499"), "new")
	e.ok(os.Remove(e.p("d/same")))
	e.remount()
	e.want(e.p("d/499"), "new")
	e.gone(e.p("d/same"))
	e.unmount()
	e.dirs, e.upper = append([]string{e.upper}, e.dirs...), ""
	e.mount()
	e.want(e.p("d/499"), "new")
	e.want(e.p("d/498"), "x")
	e.gone(e.p("d/same"))
}

// TestOptions runs the suite with each set of options.
func TestOptions(t *testing.T) {
	need(t)
	for _, w := range optionWorlds(t) {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			runSuite(t, w)
		})
	}
}

// knownAside is what differs where owners and modes are kept in an attribute.
var knownAside = map[string]string{
	"acl-copied-up":                 "there are no ACLs",
	"acl-mask-follows-chmod":        "there are no ACLs",
	"acl-default-with-umask":        "there are no ACLs",
	"acl-grants":                    "there are no ACLs",
	"bug-default-acl-not-inherited": "there are no ACLs",
	"bug-setfacl-not-supported":     "there are no ACLs",
	"root-attributes":               "the upper's root has the mode in an attribute",
}

// knownWriteback is what differs where the kernel gathers writes.
var knownWriteback = map[string]string{
	"seek-in-lower":         "holes that the kernel has not written yet cannot be told",
	"truncate-to-same-size": "the kernel keeps the time that it has",
}

// knownMapped is what differs with owners mapped.
var knownMapped = map[string]string{"acl-default-with-umask": "the case puts an ACL of a user into the layer that the map does not have"}

// knownRamfs is what a lower layer without attributes, file handles and holes
// cannot have.
var knownRamfs = map[string]string{
	"link-pair-written":                         "no handles, so no index: a copy-up splits hard links",
	"link-pair-by-the-other-name-after-remount": "no handles, so no index: a copy-up splits hard links",
	"link-pair-chmod":                           "no handles, so no index: a copy-up splits hard links",
	"link-pair-removed":                         "no handles, so no index: the other name shows the lower file's count, as in the kernel",
	"link-pair-removed-nlink-after-remount":     "no handles, so no index: a copy-up splits hard links",
	"inode-numbers-over-copy-up":                "no handles, so no origin",
	"tree-persists":                             "no handles, so no origin",
	"seek-in-lower":                             "no holes",
	"sparse-copy-up":                            "no holes",
	"over-4-gib":                                "no holes",
}
