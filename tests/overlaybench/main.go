package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
)

func main() {
	if err := start(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "overlaybench:", err)
		os.Exit(1)
	}
}

func start(args []string) error {
	if len(args) > 1 && args[0] == "work" {
		return work(args[1], args[2:])
	}
	if len(args) == 3 && args[0] == "floor" {
		return serveFloor(args[1], args[2])
	}
	var b bench
	fs := flag.NewFlagSet("overlaybench", flag.ContinueOnError)
	fs.StringVar(&b.ours, "ours", "bin/fuse-overlay", "our program")
	fs.StringVar(&b.options, "o", "", "mount options for ours beside the directories: volatile, …")
	fs.IntVar(&b.rounds, "rounds", 5, "rounds of every line")
	fs.IntVar(&b.mounts, "mounts", 20, "mounts a round of the line mount")
	on := fs.String("on", "tmpfs,ext4", "where the layers are: tmpfs, ext4 (the filesystem of -dir if it is one, else a loop file), ext4-loop")
	dir := fs.String("dir", "/var/tmp", "where the layers, or their mounts, are made")
	only := fs.String("only", "", "lines to measure, by the names that -list prints; empty: all")
	skip := fs.String("skip", "", "lines to leave out")
	with := fs.String("with", "", "sides to measure: native,kernel,floor,fuse-overlayfs,ours, names of OVERLAY_PEERS; empty: all")
	fs.StringVar(&b.debs, "debs", "", "directory of ten packages for dpkg; empty: they are downloaded")
	fs.IntVar(&b.many, "many", 1_000_000, "files of the walk for the memory line")
	fs.StringVar(&b.doc, "write", "", "document whose marked tables are replaced")
	fs.StringVar(&b.record, "results", "", "file of results: those of earlier runs of other lines are taken from it, and these added")
	fs.UintVar(&b.user, "user", 0, "ID of an ordinary user who owns all files, mounts and works; the kernel's overlay is mounted by root")
	fs.BoolVar(&b.keep, "keep", false, "do not remove what was made on an ext4 that was there before: a run soon after is then not slowed down by it")
	list := fs.Bool("list", false, "print the names of the lines")
	if err := fs.Parse(args); err != nil {
		return err
	}
	b.only, b.skip, b.with = words(*only), words(*skip), words(*with)
	if *list {
		for _, l := range b.lines() {
			fmt.Println(l.name)
		}
		return nil
	}
	for _, kind := range words(*on) {
		if err := b.run(kind, *dir); err != nil {
			return fmt.Errorf("on %s: %w", kind, err)
		}
	}
	return nil
}

func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
}

// bench is the run of the program; what is below dir belongs to one run on one
// filesystem.
type bench struct {
	ours, options, debs, doc, record string
	rounds, many, mounts             int
	keep                             bool
	user                             uint // 0: root
	only, skip, with                 []string

	self    string // this program
	dir     string // on the filesystem that is measured
	kind    string // of filesystem
	place   string // what of that kind it is, for the reader
	away    int    // rounds whose trees are there
	stopped atomic.Bool
	results []result
}

func (b *bench) run(kind, top string) (err error) {
	if err := b.check(); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(stop)
	go func() {
		for range stop {
			b.stopped.Store(true)
		}
	}()
	b.kind = kind
	if err := b.recall(); err != nil {
		return err
	}
	undo, err := b.makePlace(kind, top)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, undo()) }()
	sides, err := b.sides()
	if err != nil {
		return err
	}
	if b.user != 0 {
		b.place += fmt.Sprintf(", as user %d", b.user)
	}
	fmt.Printf("\n%s (%s), medians of %d rounds: ms (ratio to kernel) daemon's CPU s\n", kind, b.place, b.rounds)
	for _, s := range sides {
		fmt.Printf("  %-16s %s\n", s.name, s.what)
	}
	for _, l := range b.lines() {
		if len(b.only) > 0 && !slices.Contains(b.only, l.name) || slices.Contains(b.skip, l.name) {
			continue
		}
		if err := b.measure(l, sides); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		if err := b.remember(); err != nil {
			return err
		}
	}
	b.summary(os.Stdout, sides)
	if b.doc != "" {
		return b.write(sides)
	}
	return nil
}

// check makes paths absolute and tells what is missing.
func (b *bench) check() (err error) {
	if os.Geteuid() != 0 {
		return errors.New("this needs root: filesystems are mounted and caches dropped")
	}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	for _, p := range []*string{&b.ours, &b.debs} {
		if *p == "" {
			continue
		}
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	return nil
}
