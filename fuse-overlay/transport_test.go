package fuseoverlay

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/plyfs/plyfs/internal/fusetest"
	"github.com/plyfs/plyfs/internal/fusewire"
)

// hung is a filesystem with a directory "slow", which never says whether there
// is a "hang" in it. It is another process: whoever waits for it is free when
// that is killed.
type hung struct {
	fuse.RawFileSystem
	once sync.Once
}

func (h *hung) String() string { return "hung" }

func (h *hung) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	switch {
	case in.NodeId == rootID && name == "slow":
		out.NodeId, out.Ino, out.Mode, out.Nlink = 2, 2, syscall.S_IFDIR|0o755, 2
		return fuse.OK
	case name == "hang":
		h.once.Do(func() { fmt.Println("asked") })
		select {}
	}
	return fuse.ENOENT
}

func (h *hung) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.Ino, out.Mode, out.Nlink = in.NodeId, syscall.S_IFDIR|0o755, 2
	return fuse.OK
}

func (h *hung) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.OK }

func (h *hung) ReadDir(<-chan struct{}, *fuse.ReadIn, *fuse.DirEntryList) fuse.Status { return fuse.OK }

func (h *hung) ReadDirPlus(<-chan struct{}, *fuse.ReadIn, *fuse.DirEntryList) fuse.Status {
	return fuse.OK
}

func (h *hung) StatFs(<-chan struct{}, *fuse.InHeader, *fuse.StatfsOut) fuse.Status { return fuse.OK }

// TestHungChild is the child of TestHungLayer.
func TestHungChild(t *testing.T) {
	dir := os.Getenv("HUNG")
	if dir == "" {
		t.Skip("runs as a child of TestHungLayer")
	}
	s, err := fuse.NewServer(&hung{RawFileSystem: fuse.NewDefaultRawFileSystem()}, dir, &fuse.MountOptions{DirectMountStrict: true, Name: "hung"})
	check(t, err)
	fmt.Println("mounted")
	s.Serve()
}

// hungLayer mounts a hung until free is called. asked waits until it hangs.
func hungLayer(t *testing.T) (dir string, asked, free func()) {
	t.Helper()
	dir = t.TempDir()
	cmd := exec.Command(fusetest.Exe(t), "-test.run=^TestHungChild$")
	cmd.Env = append(os.Environ(), "PLYFS_TEST_CHILD=1", "HUNG="+dir)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	free = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		fusetest.Script(t, "umount -l $1", dir)
	})
	t.Cleanup(free)
	lines := bufio.NewScanner(out)
	wait := func(word string) {
		for lines.Scan() {
			if lines.Text() == word {
				return
			}
		}
		t.Fatalf("the layer that hangs has ended before %q", word)
	}
	wait("mounted")
	return dir, func() { wait("asked") }, free
}

// A layer that does not answer stops whoever needs it, and nobody else.
func TestHungLayer(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("mount(2) needs root")
	}
	layer, asked, free := hungLayer(t)
	r := newRig(t, "mkdir d; for i in $(seq 40); do echo $i > d/$i; done", "")
	r.config.Lower = append(r.config.Lower, layer)
	r.start()
	t.Cleanup(free) // before the mount's end
	// What is asked for in a row has a dialogue begin, in which the next is asked.
	cmd := exec.Command("sh", "-c", `cd "$1" && i=0; while [ $i -lt 400 ]; do [ ! -e none$i ]; i=$((i+1)); done; [ -e slow/hang ]`, "sh", r.mount)
	check(t, cmd.Start())
	asked()
	fusetest.Must(t, `cd $1; cat d/* > sum; echo more >> d/3; for i in $(seq 300); do [ ! -e other$i ]; done
		for p in 1 2 3 4; do ( mkdir p$p; for i in $(seq 50); do echo $i > p$p/$i; done ) & done; wait
		test $(ls p? | grep -c '[0-9]$') = 200; test $(wc -l < sum) = 40; rm -r p? d/4; test ! -e d/4`, r.mount)
	free()
	_ = cmd.Wait() // the layer is gone
	if cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("the one who asked the layer: %v", cmd.ProcessState)
	}
}

// Both ways to read requests are had as they are asked for.
func TestTransports(t *testing.T) {
	t.Parallel()
	for name, old := range map[string]bool{"auto": false, "go-fuse": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "echo text > f")
			r.config.GoFuse = old
			r.start()
			// A program that is started meanwhile does not keep the connection.
			if out := fusetest.Script(t, "exec ls -l /proc/self/fd"); strings.Contains(out.Out, "/dev/fuse") || !strings.Contains(out.Out, "->") {
				t.Errorf("a child has %+v", out)
			}
			r.do("test $(cat f) = text; echo new > f; ls -l; test $(cat f) = new")
			_, ours := r.server.fuse.(*fusewire.Server)
			if want := !old && fusewire.Able(r.server.options()); ours != want {
				t.Errorf("our own reader: %v, want %v", ours, want)
			}
			if out := fusetest.Must(t, `grep " $1 " /proc/mounts | cut -d' ' -f3`, filepath.Clean(r.mount)); out != "fuse."+Subtype+"\n" {
				t.Errorf("the mount is of type %q", out)
			}
		})
	}
}
