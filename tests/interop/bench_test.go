package interop

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// makeBig writes a vfs store of n layers and m images the way the peers do.
func (e *env) makeBig(n, m int) {
	e.Helper()
	id := func(kind string, i int) string {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", kind, i))
		return hex.EncodeToString(sum[:])
	}
	type rec map[string]any
	var layers, images []rec
	for i := range n {
		l := rec{"id": id("layer", i), "names": []string{fmt.Sprintf("layer-%04d", i)}, "created": "2026-01-02T03:04:05Z",
			"compressed-diff-digest": "sha256:" + id("c", i), "diff-digest": "sha256:" + id("d", i), "compressed-size": 10 + i, "diff-size": 20 + i, "compression": 2}
		if i%10 != 0 {
			l["parent"] = id("layer", i-1)
		}
		layers = append(layers, l)
		e.must(os.MkdirAll(filepath.Join(e.root, "vfs/dir", id("layer", i)), 0o755))
	}
	for i := range m {
		manifest := fmt.Sprintf(`{"schemaVersion":2,"n":%d}`, i)
		sum := sha256.Sum256([]byte(manifest))
		digest := "sha256:" + hex.EncodeToString(sum[:])
		images = append(images, rec{"id": id("image", i), "names": []string{fmt.Sprintf("localhost/image-%04d:latest", i)},
			"layer": id("layer", (i*n/m)/10*10+9), "created": "2026-01-02T03:04:05Z", "digest": digest, "big-data-names": []string{"manifest"},
			"big-data-sizes": rec{"manifest": len(manifest)}, "big-data-digests": rec{"manifest": digest}})
		e.must(os.MkdirAll(filepath.Join(e.root, "vfs-images", id("image", i)), 0o700))
		e.must(os.WriteFile(filepath.Join(e.root, "vfs-images", id("image", i), "manifest"), []byte(manifest), 0o600))
	}
	e.must(os.MkdirAll(filepath.Join(e.root, "vfs-layers"), 0o700))
	for file, recs := range map[string][]rec{"vfs-layers/layers.json": layers, "vfs-images/images.json": images} {
		data, err := json.Marshal(recs)
		e.must(err)
		e.must(os.WriteFile(filepath.Join(e.root, file), data, 0o600))
	}
}

func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

// BenchmarkBigStore mounts 2,000 layers and 500 images and times what users
// do, beside the peer's commands in the same run.
func BenchmarkBigStore(b *testing.B) {
	e := newEnv(b, "vfs")
	e.makeBig(2000, 500)
	mnt := e.mount()
	image := filepath.Join(mnt, "images/localhost%2Fimage-0123:latest/digest")
	buf := make([]byte, 4096)
	b.Run("attribute", func(b *testing.B) {
		path, err := unix.BytePtrFromString(image)
		e.must(err)
		for b.Loop() {
			if no := openReadClose(path, buf); no != 0 {
				b.Fatal(no)
			}
		}
	})
	command := func(name string, argv ...string) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				cmd := exec.Command(argv[0], argv[1:]...)
				if out, err := cmd.Output(); err != nil || len(out) == 0 {
					b.Fatalf("%v: %v", argv, err)
				}
			}
		})
	}
	command("ls-layers", "ls", filepath.Join(mnt, "layers"))
	command("ls-l-layers", "ls", "-l", filepath.Join(mnt, "layers"))
	command("ls-l-images", "ls", "-l", filepath.Join(mnt, "images"))
	command("cat-images-digest", "sh", "-c", "cat "+mnt+"/images/*/digest")
	command("peer-layers", append([]string{"containers-storage"}, append(e.csArgs(), "layers")...)...)
	command("peer-images", append([]string{"containers-storage"}, append(e.csArgs(), "images")...)...)
	b.Run("resident", func(b *testing.B) {
		for b.Loop() {
			b.ReportMetric(float64(e.residentKiB(mnt))/1024, "MiB")
		}
	})
}

// openReadClose is what a program in C does: the calls are made without telling
// Go's scheduler, whose hand-overs cost as much as the requests.
func openReadClose(path *byte, buf []byte) unix.Errno {
	at := unix.AT_FDCWD
	fd, _, no := unix.RawSyscall(unix.SYS_OPENAT, uintptr(at), uintptr(unsafe.Pointer(path)), unix.O_RDONLY)
	if no != 0 {
		return no
	}
	n, _, no := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
	if n == 0 && no == 0 {
		no = unix.ENODATA
	}
	if _, _, cerr := unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0); no == 0 {
		no = cerr
	}
	return no
}

// residentKiB is the resident memory of the server of mnt.
func (e *env) residentKiB(mnt string) int {
	e.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	e.must(err)
	for _, d := range dirs {
		cmd, err := os.ReadFile(filepath.Join(d, "cmdline"))
		if err != nil || !strings.Contains(string(cmd), mnt) || !strings.Contains(string(cmd), "plyfs") {
			continue
		}
		status, err := os.ReadFile(filepath.Join(d, "status"))
		e.must(err)
		for line := range strings.Lines(string(status)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
				n, err := strconv.Atoi(f[1])
				e.must(err)
				return n
			}
		}
	}
	e.Fatal("no server of " + mnt)
	return 0
}
