package interop

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestContainerLife makes a container with mkdir, works in it, compares its
// diff with the peer's, and removes it; podman works on after every step.
func TestContainerLife(t *testing.T) {
	for _, driver := range []string{"overlay", "vfs"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, driver, "buildah", "skopeo", "podman", "runc", "setfattr", "setfacl")
			e.makeApp()
			mnt := e.mount()
			check := func(step string) {
				t.Helper()
				if out := e.podman("images", "--no-trunc"); !strings.Contains(out, "localhost/app") {
					t.Errorf("%s: podman images: %s", step, out)
				}
				e.podman("ps", "-a", "--external")
				if out := e.podmanRun(app, "/bin/busybox", "cat", "/top"); out != "top\n" {
					t.Errorf("%s: podman run: %q", step, out)
				}
			}
			check("mounted")
			img := filepath.Join(mnt, "images", appDir)
			e.mustSh(mnt, `set -e; mkdir $M/images/`+appDir+`/containers/web; cat $M/containers/web/id >/dev/null`)
			web := filepath.Join(mnt, "containers/web")
			id := e.line(web, "id")
			if !strings.Contains(e.cs("container", "web"), id) {
				t.Errorf("containers-storage does not know container %s", id)
			}
			if out := e.podman("ps", "-a", "--external", "--no-trunc"); !strings.Contains(out, id) {
				t.Errorf("podman ps -a --external does not list %s:\n%s", id, out)
			}
			if got, want := e.line(web, "image/id"), e.line(img, "id"); got != want {
				t.Errorf("image is %s, want %s", got, want)
			}
			check("created")
			e.mustSh(mnt, `set -e; cd $M/containers/web/merged
echo new > new; mkdir -p d/e; echo f > d/e/f; rm data/sub/a; rm -r opaque; chmod 700 etc; echo more >> etc/passwd
ln new hard; ln -s new soft; mkfifo pipe; setfattr -n user.x -v y new; truncate -s 5000 "d/big"; mv top top2; cp -a bin/busybox d/`)
			check("written")
			e.sameDiff(web, "web")
			err := syscall.Rmdir(web)
			if !errors.Is(err, syscall.EBUSY) {
				t.Errorf("rmdir of a mounted container: %v, want EBUSY", err)
			}
			if s := e.read(web, "error"); !strings.Contains(s, "mounted") {
				t.Errorf("error says %q", s)
			}
			check("refused")
			e.mustSh(mnt, `echo umount > $M/containers/web/ctl`)
			check("unmounted")
			e.sameDiff(web, "web")
			layer := e.line(web, "layer/id")
			if !strings.Contains(e.cs("layers"), layer) {
				t.Errorf("containers-storage does not list the container's layer %s", layer)
			}
			e.mustSh(mnt, `rmdir $M/containers/web`)
			if r := e.tryCS("exists", "-c", "web"); r.code == 0 {
				t.Errorf("containers-storage still has web: %s", r.out)
			}
			if got := e.ls(mnt, "containers"); slices.Contains(got, "web") {
				t.Errorf("containers/ lists %q", got)
			}
			if strings.Contains(e.cs("layers"), layer) || slices.Contains(e.ls(mnt, "layers"), layer) {
				t.Errorf("the container's layer is left")
			}
			if out := e.podman("ps", "-a", "--external", "--no-trunc"); strings.Contains(out, id) {
				t.Errorf("podman ps -a --external lists the removed container:\n%s", out)
			}
			check("removed")
		})
	}
}

// sameDiff compares our diff.tar and changes of a container with the peer's.
func (e *env) sameDiff(web, name string) {
	e.Helper()
	layer := e.line(web, "layer/id")
	ours := tarEntries(e, strings.NewReader(e.read(web, "diff.tar")))
	theirs := tarEntries(e, strings.NewReader(e.cs("diff", "-u", layer)))
	if !slices.Equal(ours, theirs) {
		e.Errorf("diff.tar of %s:\n%s\ncontainers-storage diff:\n%s", name, strings.Join(ours, "\n"), strings.Join(theirs, "\n"))
	}
	got, want := strings.Split(e.line(web, "changes"), "\n"), strings.Split(trim(e.cs("changes", layer)), "\n")
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		e.Errorf("changes:\n%s\ncontainers-storage changes:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// tarEntries lists a tar's entries sorted by name. Times of generated
// whiteouts are the moment of generation and left out.
func tarEntries(t testing.TB, r io.Reader) []string {
	t.Helper()
	var lines []string
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("tar: %v", err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatalf("tar %s: %v", h.Name, err)
		}
		base := filepath.Base(h.Name)
		if strings.HasPrefix(base, ".wh.") {
			lines = append(lines, fmt.Sprintf("%q whiteout", h.Name))
			continue
		}
		var pax []string
		for k, v := range h.PAXRecords {
			if k != "mtime" && k != "atime" && k != "ctime" {
				pax = append(pax, k+"="+v)
			}
		}
		slices.Sort(pax)
		lines = append(lines, fmt.Sprintf("%q %c %o %d:%d link=%q size=%d dev=%d,%d mtime=%d pax=%q content=%q",
			h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, h.Size, h.Devmajor, h.Devminor, h.ModTime.Unix(), pax, short(data)))
	}
	slices.Sort(lines)
	return lines
}

func short(b []byte) string {
	if len(b) > 64 {
		return fmt.Sprintf("%d bytes %x", len(b), b[:32])
	}
	return string(b)
}

// TestForeignChanges makes changes with the peers and looks for them in the
// mount and in events, without mounting again.
func TestForeignChanges(t *testing.T) {
	t.Parallel()
	e := newEnv(t, "vfs")
	e.cs("layers")
	mnt := e.mount()
	id := strings.Fields(e.cs("create-layer", "-n", "one"))[0]
	if got := e.line(mnt, "layers/one/id"); got != id {
		t.Errorf("layers/one/id = %q, want %q", got, id)
	}
	e.cs("create-image", "-n", "img", id)
	e.cs("create-container", "-n", "con", "img")
	if got := e.ls(mnt, "layers/one/images"); len(got) != 1 {
		t.Errorf("layers/one/images lists %q", got)
	}
	if got := e.line(mnt, "containers/con/image/layer/id"); got != id {
		t.Errorf("the container's image's layer is %q", got)
	}
	e.cs("set-metadata", "-m", `{"a":1}`, "con")
	if got := e.read(mnt, "containers/con/metadata"); got != `{"a":1}` {
		t.Errorf("metadata = %q", got)
	}
	e.cs("delete-container", "con")
	// What the kernel holds of the name goes before events show the deletion.
	for end := time.Now().Add(20 * time.Second); !strings.Contains(e.read(mnt, "events"), `"delete"`) && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := os.Stat(filepath.Join(mnt, "containers/con")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the deleted container is still there: %v", err)
	}
	events := e.read(mnt, "events")
	for _, want := range []string{`"create"`, `"delete"`, id, `"con"`} {
		if !strings.Contains(events, want) {
			t.Errorf("events lack %s:\n%s", want, events)
		}
	}
}
