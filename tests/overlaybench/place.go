package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/spread"
	"github.com/plyfs/plyfs/tests/internal/timing"
)

// The filesystems that -on names.
const (
	onTmpfs = "tmpfs"
	onExt4  = "ext4"
	onLoop  = "ext4-loop"
)

// makePlace makes a new directory, b.dir, on the filesystem that is measured:
// for ext4 that of top where it is one, else one of its own. The returned
// function takes all away.
func (b *bench) makePlace(kind, top string) (undo func() error, err error) {
	if top, err = os.MkdirTemp(top, "overlaybench-"); err != nil {
		return nil, err
	}
	if err := os.Chmod(top, 0o755); err != nil {
		return nil, err
	}
	b.dir = filepath.Join(top, "fs")
	if err := os.Mkdir(b.dir, 0o755); err != nil {
		return nil, err
	}
	switch kind {
	case onTmpfs:
		b.place = "a tmpfs"
		err = unix.Mount("overlaybench", b.dir, "tmpfs", 0, "size=90%,nr_inodes=0,mode=755")
	case onExt4:
		var fs unix.Statfs_t
		if err = unix.Statfs(top, &fs); err == nil && fs.Type == unix.EXT4_SUPER_MAGIC {
			b.place = "the machine's own disk"
			// So that inodes freed by whoever used this part of the disk before do not slow
			// one side down and not another: see putAway.
			if err := spread.Dirs(b.dir); err != nil {
				return nil, errors.Join(err, os.RemoveAll(top))
			}
			if b.keep {
				return func() error { return nil }, nil
			}
			return func() error { return os.RemoveAll(top) }, nil
		}
		err = errors.Join(err, b.loop(top))
	case onLoop:
		err = b.loop(top)
	default:
		err = fmt.Errorf("-on %s: it is tmpfs, ext4 or ext4-loop", kind)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(top))
	}
	return func() error {
		err := unix.Unmount(b.dir, 0)
		if err != nil {
			return fmt.Errorf("unmount %s: %w", b.dir, err)
		}
		return os.RemoveAll(top)
	}, nil
}

// loop mounts an ext4 of the program's own, on a file in top.
func (b *bench) loop(top string) error {
	b.place = "a loop file"
	image := filepath.Join(top, "image")
	err := errors.Join(
		timing.Tool("truncate", "-s", "24G", image),
		timing.Tool("mkfs.ext4", "-qF", "-N", "3000000", "-E", "lazy_itable_init=0,lazy_journal_init=0", image))
	if err != nil {
		return err
	}
	return timing.Tool("mount", "-o", "loop", image, b.dir)
}

// A layers names what lies under a line; each is made once a run.
type layers string

const (
	none   layers = ""       // an empty layer
	treeS  layers = "S"      // cmd, net, runtime and crypto of the Go source
	merged layers = "merged" // two layers that share a directory of 20,000 files
	blobs  layers = "blobs"  // files of 1 and of 4 GiB
	small  layers = "small"  // 1,000 files of 8 KiB
	many   layers = "many"   // files for the walk
	rooted layers = "rooted" // a root directory with an empty dpkg database
)

// lower makes the layers, top first, and returns their directories.
func (b *bench) lower(l layers) ([]string, error) {
	d := filepath.Join(b.dir, "lower-"+string(l))
	dirs := []string{d}
	if l == merged {
		dirs = []string{d, d + "-2"}
	}
	if _, err := os.Stat(d); err == nil {
		return dirs, nil
	}
	for _, x := range dirs {
		if err := os.MkdirAll(x, 0o755); err != nil {
			return nil, err
		}
	}
	return dirs, b.fill(l, dirs)
}

func (b *bench) fill(l layers, dirs []string) error {
	switch l {
	case treeS:
		tar, err := b.sources("S")
		if err != nil {
			return err
		}
		return timing.ToolIn(dirs[0], "tar", "xf", tar)
	case merged:
		return errors.Join(files(dirs[0]+"/d", 0, 10_000, 64), files(dirs[1]+"/d", 10_000, 20_000, 64))
	case blobs:
		return errors.Join(blob(dirs[0]+"/1g", 1<<30), blob(dirs[0]+"/4g", 4<<30))
	case small:
		return files(dirs[0]+"/d", 0, 1000, 8192)
	case many:
		for at := 0; at < b.many; at += 1000 {
			if err := files(fmt.Sprintf("%s/%d/%d", dirs[0], at/100_000, at/1000), at, min(at+1000, b.many), 0); err != nil {
				return err
			}
		}
	case rooted:
		for _, d := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates", "var/log", "usr/share", "tmp"} {
			if err := os.MkdirAll(filepath.Join(dirs[0], d), 0o755); err != nil {
				return err
			}
		}
		return os.WriteFile(dirs[0]+"/var/lib/dpkg/status", nil, 0o644)
	}
	return nil
}

// files makes the files f[from] to f[to-1], of size bytes, in a new dir.
func files(dir string, from, to, size int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i := from; i < to; i++ {
		if err := os.WriteFile(fmt.Sprintf("%s/f%d", dir, i), pattern(size), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func pattern(size int) []byte {
	p := make([]byte, size)
	for i := range p {
		p[i] = byte(i * 7 >> 3)
	}
	return p
}

func blob(path string, size int64) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	p := pattern(1 << 20)
	for at := int64(0); at < size; at += int64(len(p)) {
		if _, err := f.Write(p); err != nil {
			return err
		}
	}
	return nil
}

// goroot is where the trees that are measured are.
func goroot() string { return runtime.GOROOT() } //nolint:staticcheck // the tree that is measured, not the one that built this

// sources makes the tar of S or L, and returns its path.
func (b *bench) sources(which string) (string, error) {
	path := filepath.Join(b.dir, which+".tar")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if which == "S" {
		return path, timing.Tool("tar", "cf", path, "-C", goroot()+"/src", "cmd", "net", "runtime", "crypto")
	}
	return path, timing.Tool("tar", "cf", path, "-C", goroot(), ".")
}

// packages returns ten packages without maintainers' scripts.
func (b *bench) packages() (string, error) {
	if b.debs != "" {
		return b.debs, nil
	}
	dir := filepath.Join(b.dir, "debs")
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.Mkdir(dir, 0o777); err != nil {
		return "", err
	}
	names := strings.Fields("git-man iso-codes libc-dev-bin libsqlite3-dev libssl-dev libxml2-dev linux-libc-dev perl-modules-5.36 python3-pip-whl zlib1g-dev")
	return dir, timing.ToolIn(dir, append([]string{"apt-get", "-q", "download"}, names...)...)
}

// dropCaches makes the kernel forget pages, names and inodes.
func dropCaches() error {
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}
