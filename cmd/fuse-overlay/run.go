package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/detach"

	fuseoverlay "github.com/plyfs/plyfs/fuse-overlay"
)

const usage = `usage: fuse-overlay [-f] [-d] -o lowerdir=A:B[,upperdir=U,workdir=W] MOUNTPOINT

  -o OPTIONS   lowerdir, upperdir, workdir, volatile, ro
  -f           stay in the foreground
  -d           log every request; implies -f
  --version    print the version
`

// command is a parsed command line.
type command struct {
	config     fuseoverlay.MountConfig
	dir        string
	foreground bool
	help, ver  bool
}

// parse reads the command line.
func parse(args []string) (command, error) {
	var c command
	for i := 0; i < len(args); i++ {
		a := args[i]
		if a == "-o" && i+1 < len(args) {
			i++
			c.options(args[i])
			continue
		}
		if err := c.word(a); err != nil {
			return c, err
		}
	}
	if c.dir == "" && !c.help && !c.ver {
		return c, errors.New("no mount point is given")
	}
	return c, nil
}

// word takes one argument that is not -o with a space behind it.
func (c *command) word(a string) error {
	switch {
	case a == "-f":
		c.foreground = true
	case a == "-d":
		c.foreground, c.config.Debug = true, true
	case a == "--help", a == "-h":
		c.help = true
	case a == "--version", a == "-V":
		c.ver = true
	case strings.HasPrefix(a, "-o") && len(a) > 2:
		c.options(a[2:])
	case strings.HasPrefix(a, "-"):
		return fmt.Errorf("unknown flag %s", a)
	case c.dir != "":
		return fmt.Errorf("more than one mount point: %s and %s", c.dir, a)
	default:
		c.dir = a
	}
	return nil
}

// options reads the words of one -o.
func (c *command) options(list string) {
	for word := range strings.SplitSeq(list, ",") {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "lowerdir":
			c.config.Lower = strings.Split(value, ":")
		case "upperdir":
			c.config.Upper = value
		case "workdir":
			c.config.Work = value
		case "volatile":
			c.config.Volatile = true
		case "ro":
			c.config.ReadOnly = true
		}
	}
}

// run is the program; it returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	c, err := parse(args)
	switch {
	case err != nil:
		fmt.Fprintf(stderr, "fuse-overlay: %v\n%s", err, usage)
		return 1
	case c.help:
		fmt.Fprint(stdout, usage)
		return 0
	case c.ver:
		fmt.Fprintf(stdout, "fuse-overlay %s\n", version)
		return 0
	}
	status, err := mount(c, args)
	if err != nil {
		fmt.Fprintf(stderr, "fuse-overlay: %v\n", err)
	}
	return status
}

// mount mounts and serves, in the background unless told otherwise.
func mount(c command, args []string) (int, error) {
	back, err := detach.Here()
	if err != nil {
		return 1, err
	}
	if back == nil && !c.foreground {
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
		defer stop()
		return detach.Start(ctx, args, os.Stderr)
	}
	raiseLimit()
	log := logrus.New()
	if c.config.Debug {
		log.SetLevel(logrus.DebugLevel)
	}
	c.config.Log = logrus.NewEntry(log)
	s, err := fuseoverlay.Mount(c.config, c.dir)
	if err != nil {
		return 1, err
	}
	quit := make(chan os.Signal, 1)
	signal.Notify(quit, unix.SIGINT, unix.SIGTERM)
	go func() {
		for range quit {
			if err := s.Unmount(); err != nil {
				log.Errorf("unmount %s: %v", c.dir, err)
			}
		}
	}()
	if err := back.Ready(true); err != nil {
		log.Warn(err)
	}
	if err := s.Serve(); err != nil {
		return 1, err
	}
	return 0, nil
}

// raiseLimit allows as many open files as may be: they are a cache.
func raiseLimit() {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return
	}
	if l.Cur = l.Max; unix.Setrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return // what there is has to do
	}
}
