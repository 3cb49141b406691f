package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/fuse-overlay/internal/options"
	fuseoverlay "github.com/plyfs/plyfs/fuse-overlay"
	"github.com/plyfs/plyfs/internal/detach"
	"github.com/plyfs/plyfs/internal/errno"
)

// stdio is what the program prints to.
type stdio struct{ out, err *os.File }

// run runs the program and returns its exit status. An error is one line on
// standard error.
func run(args, environ []string, std stdio) int {
	if done, err := documents(args); done {
		return std.status(err)
	}
	o, err := options.Parse(args, environ)
	if f := fork(); f.second > 0 { // which has said what is to be said of err
		status, err := f.ends(o.Foreground)
		return max(status, std.status(err))
	}
	switch {
	case err != nil:
		return std.status(err)
	case o.Help:
		_, err = fmt.Fprint(std.out, help)
		return std.status(err)
	case o.Completion != "":
		return std.status(completion(std.out, o.Completion))
	case o.Version:
		_, err = fmt.Fprintf(std.out, "fuse-overlay: version %s\nusing FUSE kernel interface version %s\n", version, interfaceVersion)
		return std.status(err)
	}
	status, err := mount(o, args, std)
	if err != nil {
		return std.status(err)
	}
	return status
}

// interfaceVersion is the newest one that go-fuse speaks.
const interfaceVersion = "7.40"

// status prints err and turns it into an exit status.
func (s stdio) status(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(s.err, "fuse-overlay: %s\n", sentence(err))
	return 1
}

// sentence puts an error on one line.
func sentence(err error) string {
	if errors.Is(err, context.Canceled) {
		return "interrupted"
	}
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
}

// mount mounts in this process, or starts one in the background that does.
func mount(o *options.Options, args []string, std stdio) (int, error) {
	background, err := behind(o)
	if err != nil {
		return 1, err
	}
	if err := absolute(o); err != nil {
		return 1, err
	}
	if err := errors.Join(checkMountPoint(o.Target), checkStats(o.Stats)); err != nil {
		return 1, err
	}
	if !o.Foreground && background == nil && !o.Fake {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
		defer stop()
		return detach.Start(ctx, args[1:], std.err)
	}
	sigs := hear()
	to := &diary{stderr: std.err}
	log := newLog(to, o.Debug)
	c, warnings, err := config(o, log)
	if err != nil {
		return 1, err
	}
	if s := o.UnknownSentence(); s != "" {
		warnings = append([]string{s + " ignored"}, warnings...)
	}
	for _, w := range warnings {
		log.Warn(w)
	}
	if o.Fake {
		return 0, nil
	}
	if o.Foreground || background == nil {
		return 0, serve(sigs, c, o, to, func() error { return background.Ready(false) })
	}
	return 0, serveBehind(sigs, c, o, to, background)
}

// behind is this process's end of the pipe to one that waits for it; nil: none does.
func behind(o *options.Options) (*detach.Process, error) {
	f := fork()
	if !f.behind || o.Fake {
		return detach.Here()
	}
	if o.Foreground {
		return nil, nil // the other waits for the end
	}
	return f.background()
}

// serveBehind serves in the background, for the process that waits behind p.
func serveBehind(sigs *signals, c fuseoverlay.MountConfig, o *options.Options, to *diary, p *detach.Process) error {
	if o.Work != "" {
		to.keep(o.Work)
	}
	err := serve(sigs, c, o, to, func() error {
		to.leave()
		return p.Ready(true)
	})
	if err != nil && to.left() {
		c.Log.Error(sentence(err))
	}
	return errors.Join(err, to.close())
}

// absolute makes the paths independent of the working directory, which the
// server leaves.
func absolute(o *options.Options) error {
	for _, p := range []*string{&o.Upper, &o.Work, &o.Target, &o.Stats} {
		if err := toAbsolute(p); err != nil {
			return err
		}
	}
	for i := range o.Lower {
		if err := toAbsolute(&o.Lower[i]); err != nil {
			return err
		}
	}
	return nil
}

func toAbsolute(p *string) error {
	if *p == "" {
		return nil
	}
	abs, err := filepath.Abs(*p)
	if err != nil {
		return fmt.Errorf("the directory %s: %w", *p, err)
	}
	*p = abs
	return nil
}

// checkMountPoint refuses what cannot be mounted on, before anything is
// opened.
func checkMountPoint(dir string) error {
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, syscall.ENOTCONN):
		return errno.New(errno.ErrInUse, "%s is a mount whose server has died: run `fusermount3 -u %s` (as root: umount) first", dir, dir)
	case errors.Is(err, os.ErrNotExist):
		return errno.New(errno.ErrUnknown, "the mount point %s does not exist: make the directory first", dir)
	case err != nil:
		return fmt.Errorf("look at the mount point %s: %w", dir, err)
	case !st.IsDir():
		return errno.New(errno.ErrNotDir, "the mount point %s is not a directory", dir)
	}
	return nil
}

// checkStats refuses a file for numbers whose folder takes none.
func checkStats(file string) error {
	if file == "" {
		return nil
	}
	dir := filepath.Dir(file)
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return errno.New(errno.ErrBadValue, "the option stats names a file in %s, where none can be made: %w", dir, err)
	}
	return nil
}

// newLog logs lines that begin like the program's errors.
func newLog(to io.Writer, debug bool) *logrus.Entry {
	l := logrus.New()
	l.SetOutput(to)
	l.SetFormatter(plain{})
	if debug {
		l.SetLevel(logrus.DebugLevel)
	}
	return logrus.NewEntry(l)
}

// plain is a line of a log as podman shows it to people.
type plain struct{}

// Format writes the level, unless it is information, and the message.
func (plain) Format(e *logrus.Entry) ([]byte, error) {
	var b strings.Builder
	b.WriteString("fuse-overlay: ")
	if e.Level != logrus.InfoLevel {
		b.WriteString(e.Level.String() + ": ")
	}
	b.WriteString(strings.ReplaceAll(e.Message, "\n", "\n\t"))
	for k, v := range e.Data {
		fmt.Fprintf(&b, " %s=%v", k, v)
	}
	b.WriteByte('\n')
	return []byte(b.String()), nil
}
