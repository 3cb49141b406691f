package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/tests/internal/timing"
)

// storage is a store for one of the two programs.
type storage struct {
	program, dir string
	driver       string   // "" is overlay
	options      []string // of the driver
}

func (b *bench) newStore(program, name string) (*storage, error) {
	s := &storage{program: program, dir: filepath.Join(b.dir, name)}
	return s, s.make()
}

func (s *storage) make() error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	return timing.Tool(s.args("layers")...)
}

func (s *storage) args(args ...string) []string {
	driver := s.driver
	if driver == "" {
		driver = "overlay"
	}
	all := []string{s.program, "-s", driver, "-g", s.dir + "/g", "-R", s.dir + "/r"}
	for _, o := range s.options {
		all = append(all, "--storage-opt", o)
	}
	return append(all, args...)
}

// remove unmounts what the store mounted and removes it.
func (s *storage) remove() error {
	var err error
	for {
		if uerr := unix.Unmount(s.dir+"/g/overlay", unix.MNT_DETACH); uerr != nil {
			if !errors.Is(uerr, unix.EINVAL) && !errors.Is(uerr, unix.ENOENT) {
				err = uerr
			}
			break
		}
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// sources makes the streams of the tree S (about 8,000 files of the Go
// source) and returns their paths.
func (b *bench) sources() (plain, gz, zst string, err error) {
	src := filepath.Join(runtime.GOROOT(), "src") //nolint:staticcheck // the tree that is measured
	plain, gz, zst = b.dir+"/s.tar", b.dir+"/s.tar.gz", b.dir+"/s.tar.zst"
	if _, err := os.Stat(zst); err == nil {
		return plain, gz, zst, nil
	}
	err = timing.Tool("tar", "cf", plain, "-C", src, "cmd", "net", "runtime", "crypto")
	if err == nil {
		err = timing.Tool("sh", "-c", fmt.Sprintf("gzip -1c %[1]s >%[2]s && zstd -qc %[1]s >%[3]s", plain, gz, zst))
	}
	return plain, gz, zst, err
}

func (b *bench) apply() error {
	plain, gz, zst, err := b.sources()
	if err != nil {
		return err
	}
	for _, l := range []struct{ name, file, flag string }{{"a plain tar", plain, "-xf"}, {"gzip -1", gz, "-xzf"}, {"zstd", zst, "--zstd"}} {
		var cs []contestant
		for _, p := range []struct{ name, program string }{{"ours", b.ours}, {"containers-storage", b.peer}} {
			cs = append(cs, b.applying(p.name, p.program, l.file))
		}
		dir := b.dir + "/x"
		untar := []string{"tar", l.flag, l.file, "-C", dir}
		if l.flag == "--zstd" {
			untar = []string{"tar", "--zstd", "-xf", l.file, "-C", dir}
		}
		cs = append(cs, contestant{
			name: "tar x", command: untar,
			before: func() error { return os.Mkdir(dir, 0o755) },
			after:  func() error { return os.RemoveAll(dir) },
		})
		if err := b.compare("apply "+l.name, cs...); err != nil {
			return err
		}
	}
	return nil
}

// applying imports a file into a fresh store that is there already.
func (b *bench) applying(name, program, file string) contestant {
	s := &storage{}
	return contestant{
		name: name, command: (&storage{program: program, dir: b.dir + "/" + name}).args("import-layer", "-f", file),
		before: func() (err error) {
			s, err = b.newStore(program, name)
			return err
		},
		after: func() error { return s.remove() },
	}
}

func (b *bench) export() (err error) {
	plain, _, _, err := b.sources()
	if err != nil {
		return err
	}
	s, err := b.newStore(b.peer, "export")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.remove()) }()
	if err := timing.Tool(s.args("create-layer", "-i", "base")...); err != nil {
		return err
	}
	if err := timing.Tool(s.args("applydiff", "-f", plain, "base")...); err != nil {
		return err
	}
	ours := storage{program: b.ours, dir: s.dir}
	tree := s.dir + "/g/overlay/base/diff"
	return b.compare("export an unchanged layer",
		contestant{name: "ours", command: piped(ours.args("diff", "-u", "base"))},
		contestant{name: "containers-storage", command: piped(s.args("diff", "-u", "base"))},
		contestant{name: "tar c", command: piped([]string{"tar", "cf", "-", "-C", tree, "."})},
		contestant{name: "cat", command: piped([]string{"cat", plain})},
	)
}

// piped sends a command's output through cat.
func piped(args []string) []string {
	return []string{"bash", "-o", "pipefail", "-c", strings.Join(args, " ") + " | cat"}
}

// changes measures what is read off an upper directory, and what both learn by
// comparing trees.
func (b *bench) changes() error {
	return errors.Join(b.changesIn(storage{}), b.changesIn(storage{driver: "vfs"}))
}

// program measures the same where the peer compares two mounts of a mount program.
func (b *bench) program() error {
	if _, err := os.Stat("/usr/bin/fuse-overlayfs"); err != nil {
		fmt.Println("\nno fuse-overlayfs here: its lines are left out")
		return nil
	}
	return b.changesIn(storage{options: []string{"overlay.mount_program=/usr/bin/fuse-overlayfs"}})
}

func (b *bench) changesIn(s storage) error {
	s.dir, s.program = b.dir+"/changes", b.peer
	return errors.Join(b.changesOn(&s), s.remove())
}

func (b *bench) changesOn(s *storage) error {
	if err := errors.Join(s.make(), b.changed(s)); err != nil {
		return err
	}
	ours := *s
	ours.program = b.ours
	what := "(" + strings.Join(append([]string{s.args()[2]}, s.options...), ", ") + ")"
	for _, verb := range []string{"changes", "diffsize", "diff"} {
		if err := b.compare(fmt.Sprintf("%s of a container with 100 changes on %d files %s", verb, b.image, what),
			contestant{name: "ours", command: ours.args(verb, "top")},
			contestant{name: "containers-storage", command: s.args(verb, "top")},
		); err != nil {
			return err
		}
	}
	return s.library()
}

// changed makes an image's layer of b.image files and a layer with 100
// changes on it.
func (b *bench) changed(s *storage) error {
	file := b.dir + "/image.tar"
	if err := writeStream(file, b.image, 100); err != nil {
		return err
	}
	if err := timing.Tool(s.args("import-layer", "-i", "base", "-f", file)...); err != nil {
		return err
	}
	if err := timing.Tool(s.args("create-layer", "-i", "top", "base")...); err != nil {
		return err
	}
	edit := `d=$(` + strings.Join(s.args("mount", "top"), " ") + `) && cd $d && for i in $(seq 0 39); do echo new >d$i/f$i; echo more >d$i/new; done &&
		for i in $(seq 40 59); do rm d$i/f$i; done && cd / && ` + strings.Join(s.args("unmount", "top"), " ")
	return errors.Join(timing.Tool("sh", "-ec", edit), os.Remove(file))
}
