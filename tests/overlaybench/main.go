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
	b, err := parse(args)
	if err != nil {
		return err
	}
	if b.list {
		for _, l := range b.lines() {
			fmt.Println(l.name)
		}
		return nil
	}
	for _, kind := range b.on {
		if err := b.run(kind); err != nil {
			return fmt.Errorf("on %s: %w", kind, err)
		}
	}
	return nil
}

// document is where the tables go, and nowhere is no document.
const (
	document = "docs/benchmarks.md"
	nowhere  = "none"
)

// parse reads the command line.
func parse(args []string) (*bench, error) {
	b := &bench{}
	fs := flag.NewFlagSet("overlaybench", flag.ContinueOnError)
	fs.StringVar(&b.ours, "ours", "bin/fuse-overlay", "our program")
	fs.StringVar(&b.options, "o", "", "mount options for ours beside the directories: volatile, …")
	fs.IntVar(&b.rounds, "rounds", ofAll, "rounds of every line")
	fs.IntVar(&b.mounts, "mounts", 20, "mounts a round of the line mount")
	on := fs.String("on", "tmpfs,ext4", "where the layers are: tmpfs, ext4 (the filesystem of -dir if it is one, else a loop file), ext4-loop")
	fs.StringVar(&b.top, "dir", "/var/tmp", "where the layers, or their mounts, are made")
	only := fs.String("only", "", "lines to measure, by the names that -list prints; empty: all")
	skip := fs.String("skip", "", "lines to leave out")
	with := fs.String("with", "", "sides to measure: native,kernel,floor,fuse-overlayfs,ours, names of OVERLAY_PEERS; empty: all")
	fs.StringVar(&b.debs, "debs", "", "directory of ten packages for dpkg; empty: they are downloaded")
	fs.IntVar(&b.many, "many", 1_000_000, "files of the walk for the memory line")
	fs.StringVar(&b.doc, "write", "", "document whose marked tables are replaced; empty: "+document+" by a run of all lines and sides, of at least five rounds, else none, as with \""+nowhere+"\"")
	fs.StringVar(&b.record, "results", "", "file of results: those of earlier runs of other lines are taken from it, and these added")
	fs.UintVar(&b.user, "user", 0, "ID of an ordinary user who owns all files, mounts and works; the kernel's overlay is mounted by root")
	fs.BoolVar(&b.keep, "keep", false, "do not remove what was made on an ext4 that was there before: a run soon after is then not slowed down by it")
	fs.BoolVar(&b.list, "list", false, "print the names of the lines")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("%q is no flag: see -help", fs.Arg(0))
	}
	if b.rounds < 1 {
		return nil, fmt.Errorf("-rounds %d: one is the least", b.rounds)
	}
	b.on, b.only, b.skip, b.with = words(*on), words(*only), words(*skip), words(*with)
	switch {
	case b.doc == nowhere:
		b.doc = ""
	case b.doc == "" && b.whole():
		b.doc = document
	}
	return b, b.known()
}

// ofAll is how many rounds a table is made of.
const ofAll = 5

// whole tells whether all is measured, as it is by default.
func (b *bench) whole() bool {
	return len(b.only)+len(b.skip)+len(b.with) == 0 && b.options == "" && b.user == 0 && b.rounds >= ofAll
}

// known refuses lines that there are none of: a run that measures nothing would
// look like one that found nothing.
func (b *bench) known() error {
	lines := b.lines()
	for _, name := range slices.Concat(b.only, b.skip) {
		if !slices.ContainsFunc(lines, func(l line) bool { return l.name == name }) {
			return fmt.Errorf("there is no line %q: see -list", name)
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
	ours, options, debs, doc, record, top string
	rounds, many, mounts                  int
	keep, list                            bool
	user                                  uint // 0: root
	on, only, skip, with                  []string

	self    string // this program
	dir     string // on the filesystem that is measured
	kind    string // of filesystem
	place   string // what of that kind it is, for the reader
	away    int    // rounds whose trees are there
	stopped atomic.Bool
	results []result
}

func (b *bench) run(kind string) (err error) {
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
	if b.doc != "" { // at the end it would be too late to say so
		if _, _, err := b.around(); err != nil {
			return err
		}
	}
	undo, err := b.makePlace(kind, b.top)
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
	if err := b.all(sides); err != nil {
		return err
	}
	b.summary(os.Stdout, sides)
	if b.doc != "" {
		return b.write(sides)
	}
	return nil
}

// all measures the lines that are wanted.
func (b *bench) all(sides []side) error {
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
