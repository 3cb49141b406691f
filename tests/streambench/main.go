package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

func main() {
	var b bench
	flag.StringVar(&b.ours, "ours", "bin/containers-storage", "our program")
	flag.StringVar(&b.peer, "peer", "containers-storage", "the peer's program")
	flag.IntVar(&b.rounds, "rounds", 5, "rounds of every line")
	flag.IntVar(&b.image, "image", 100_000, "files of the image below the changed container")
	flag.IntVar(&b.slopes, "slopes", 0, "measure the cost by size up to so many files (1000000)")
	only := flag.String("only", "apply,export,changes,program", "groups of lines to measure")
	dir := flag.String("dir", "/dev/shm", "where the stores are made, on tmpfs")
	flag.Parse()
	b.only = strings.Split(*only, ",")
	if err := b.run(*dir); err != nil {
		fmt.Fprintln(os.Stderr, "streambench:", err)
		os.Exit(1)
	}
}

// bench is a run.
type bench struct {
	ours, peer            string
	rounds, image, slopes int
	only                  []string
	dir                   string // of this run
}

func (b *bench) run(top string) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("this needs root: overlay stores are made and mounted")
	}
	if b.ours, err = filepath.Abs(b.ours); err != nil {
		return err
	}
	for _, p := range []string{b.ours, b.peer, "tar", "gzip", "zstd", "cat"} {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("%s is needed: %w", p, err)
		}
	}
	if b.dir, err = os.MkdirTemp(top, "streambench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	for _, g := range []struct {
		name string
		run  func() error
	}{{"apply", b.apply}, {"export", b.export}, {"changes", b.changes}, {"program", b.program}} {
		if !b.wants(g.name) {
			continue
		}
		if err := g.run(); err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
	}
	if b.slopes > 0 {
		return b.bySize()
	}
	return nil
}

func (b *bench) wants(group string) bool {
	for _, g := range b.only {
		if g == group {
			return true
		}
	}
	return false
}
