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
	"github.com/spf13/cobra"

	"github.com/plyfs/plyfs/cmd/manual"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store/config"
)

// stdio is what a command reads and prints to.
type stdio struct {
	in       io.Reader
	out, err *os.File
}

// app is one run of the program: its global flags and streams.
type app struct {
	stdio
	flags    config.Flags
	logFile  string
	logLevel string
	log      *logrus.Entry
	closeLog func() error
	// inner is set in a process in a user namespace of ours.
	inner *inner
	// device is the connection that an inner process was given.
	device *os.File
	// pidFile is --pid-file, absolute; pidWritten that this process made it.
	pidFile    string
	pidWritten bool
	// args are the program's arguments as they came, for the background.
	args []string
	// to is standard output for what withTree runs (pipes.go).
	to io.Writer
	// create is --create of the verbs that make something without a mount.
	create bool
}

// exitStatus ends the program with a status and no further words.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// run runs the program and returns its exit status. An error is one line on
// standard error.
func run(args []string, std stdio) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	a := &app{stdio: std, args: args, closeLog: func() error { return nil }}
	cmd := a.root()
	cmd.SetArgs(args)
	err := errors.Join(cmd.ExecuteContext(ctx), a.closeLog())
	var status exitStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	}
	fmt.Fprintf(std.err, "plyfs: %s\n", sentence(err))
	var cannot cannotList
	if errors.As(err, &cannot) {
		return 2
	}
	return 1
}

// cannotList is that ls cannot show an argument: its status is 2, as the other
// ls ends in the mount.
type cannotList struct{ error }

func (c cannotList) Unwrap() error { return c.error }

// refuseEmpty refuses an empty name of the store: most likely a variable that
// was not set, which must not mean the machine's own.
func refuseEmpty(cmd *cobra.Command) error {
	for _, name := range []string{"root", "runroot", "graph", "run", "storage-driver"} {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed && f.Value.String() == "" {
			return errno.New(errno.ErrBadValue, "--%s is given an empty value: name a %s, or leave the flag out", name, emptyKind(name))
		}
	}
	return nil
}

func emptyKind(flag string) string {
	if flag == "storage-driver" {
		return "driver"
	}
	return "directory"
}

// mountPoint makes the argument an absolute path.
func mountPoint(arg string) (string, error) {
	if arg == "" {
		return "", errno.New(errno.ErrBadValue, "the mount point is an empty name: name a directory")
	}
	dir, err := filepath.Abs(arg)
	if err != nil {
		return "", fmt.Errorf("the mount point %s: %w", arg, err)
	}
	return dir, nil
}

// sentence puts an error on one line.
func sentence(err error) string {
	if errors.Is(err, context.Canceled) {
		return "interrupted"
	}
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
}

// root returns the command tree.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "plyfs",
		Short: "a container store as a control filesystem",
		Long: `plyfs shows a container store - the layers, images and containers that podman,
buildah and skopeo keep - as a tree of files. "plyfs mount" mounts it; "plyfs ls"
and its like walk the same tree without a mount.

Without --root it opens the store that podman of this user would use, as
storage.conf and the environment say (containers-storage.conf(5)).`,
		Example: `  plyfs mount /mnt            # the store of podman of this user
  ls /mnt/images
  plyfs umount /mnt
  plyfs ls images             # the same without a mount`,
		SilenceErrors: true, SilenceUsage: true,
		Version: version,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) (err error) {
			if a.inner, err = insideHere(); err != nil {
				return err
			}
			if err := refuseEmpty(cmd); err != nil {
				return err
			}
			return a.openLog()
		},
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetVersionTemplate("plyfs {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return errno.New(errno.ErrBadValue, "%w: see %s --help", err, cmd.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVar(&a.flags.Root, "root", "", "graph root `DIR` of the store")
	f.StringVar(&a.flags.RunRoot, "runroot", "", "run root `DIR` of the store")
	f.StringVarP(&a.flags.Driver, "storage-driver", "s", "", "storage `DRIVER`: overlay or vfs")
	f.StringArrayVar(&a.flags.Options, "storage-opt", nil, "storage driver option `KEY=VALUE`, again for more; replaces those of storage.conf")
	f.StringVarP(&a.flags.Root, "graph", "g", "", "")
	f.StringVarP(&a.flags.RunRoot, "run", "R", "", "")
	for _, old := range []string{"graph", "run"} {
		f.Lookup(old).Hidden = true
	}
	f.StringVar(&a.logFile, "log-file", "", "append the log to `FILE` instead of standard error")
	f.StringVar(&a.logLevel, "log-level", "warning", "log from `LEVEL` on: error, warning, info, debug or trace")
	root.AddCommand(a.mountCommand(), a.umountCommand(), a.versionCommand(), a.demoCommand(), a.doctorCommand())
	root.AddCommand(a.treeCommands()...)
	root.InitDefaultVersionFlag()
	manual.Add(root, "PLYFS")
	return root
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "print the version", Example: "  plyfs version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(a.out, "plyfs %s\n", version)
			return err
		},
	}
}

// openLog makes the logger that the flags ask for.
func (a *app) openLog() error {
	level, err := logrus.ParseLevel(a.logLevel)
	if err != nil || level < logrus.ErrorLevel {
		return errno.New(errno.ErrBadValue, "--log-level %q: use error, warning, info, debug or trace", a.logLevel)
	}
	l := logrus.New()
	l.SetLevel(level)
	l.SetOutput(a.err)
	l.SetFormatter(&logrus.TextFormatter{FullTimestamp: true, DisableColors: true})
	if a.logFile != "" {
		f, err := os.OpenFile(a.logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return fmt.Errorf("open the log: %w", err)
		}
		l.SetOutput(f)
		a.closeLog = f.Close
	}
	a.log = logrus.NewEntry(l)
	return nil
}

// oneArg and its like say in one sentence what is missing.
func wantArgs(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			return errno.New(errno.ErrBadValue, "%s wants %s: see %s --help", cmd.CommandPath(), what, cmd.CommandPath())
		}
		return nil
	}
}
