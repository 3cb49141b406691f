package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/cmd/manual"
	"github.com/plyfs/plyfs/cmd/opening"
	"github.com/plyfs/plyfs/store"
	"github.com/plyfs/plyfs/store/config"
)

// program is how the command is called in its own texts.
const program = "containers-storage"

// stdio is what a command reads and prints to.
type stdio struct{ in, out, err *os.File }

// app is one run of the program: its global flags, its streams, its store.
type app struct {
	stdio
	flags   config.Flags
	debug   bool
	timeout time.Duration
	unshare bool
	log     *logrus.Entry
	warned  []string // of record files that can be read only in part
	// ephemeral tells that mounts made here end with this process.
	ephemeral bool
	// args are the program's arguments as they came, for another start of it
	// in a user namespace.
	args []string
	// output is what the verb's --json and --format say.
	output output
	st     *store.Store
	conf   *config.Config
}

// exitStatus ends the program with a status; what there is to say was said.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// failed is the end of a verb that has told each failure where it happened.
const failed = exitStatus(1)

// run runs the program and returns its exit status.
func run(args []string, std stdio) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	a := &app{stdio: std, args: args}
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	root := a.root()
	root.SetArgs(args)
	done := make(chan error, 1)
	go func() {
		err := root.ExecuteContext(ctx)
		if a.st != nil {
			err = errors.Join(err, a.st.Close())
		}
		done <- err
	}()
	select {
	case err := <-done:
		return a.status(err)
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return a.status(err)
	case <-time.After(patience): // it waits for who reads what it writes
		return a.status(context.Cause(ctx))
	}
}

// patience is how long what is under way may take to end after a signal. What it
// leaves then is what a kill leaves, and swept by whoever opens the store next.
const patience = 3 * time.Second

// status says what went wrong, if something did, and returns the exit status.
func (a *app) status(err error) int {
	var status exitStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	}
	fmt.Fprintln(a.err, sentence(err))
	return 1
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
		Use:   program,
		Short: "manage the layers, images and containers of a store",
		Long: `containers-storage looks at a container store and changes it: the layers, images
and containers that podman, buildah, skopeo and CRI-O keep, in their own files,
beside them, at the same time.

Without --graph it works on the store that podman of this user would use, as
storage.conf and the environment say (containers-storage.conf(5)). Flags may be
given before the verb, after it and between its arguments.

An object is named by its ID, one of its names, or the beginning of an ID that
no other has.`,
		Example: `  containers-storage layers --tree
  containers-storage create-layer --id base
  containers-storage create-image --name app base`,
		SilenceErrors: true, SilenceUsage: true,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				fmt.Fprintf(a.out, "%s: unrecognized command.\n", args[0])
				return failed
			}
			a.usage(cmd)
			return failed
		},
		PersistentPreRunE: func(*cobra.Command, []string) error { a.openLog(); return nil },
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { a.help(cmd) })
	root.SetFlagErrorFunc(a.flagError)
	// "help" is no verb here.
	root.SetHelpCommand(&cobra.Command{Use: "no-help", Hidden: true, RunE: func(*cobra.Command, []string) error {
		fmt.Fprintln(a.out, "no-help: unrecognized command.")
		return failed
	}})
	a.globalFlags(root.PersistentFlags())
	for _, v := range a.verbs() {
		root.AddCommand(a.command(v))
	}
	a.completeFlags(root)
	manual.Add(root, "CONTAINERS-STORAGE")
	return root
}

// globalFlags are those of every verb. Each may come again; the last counts.
func (a *app) globalFlags(f *pflag.FlagSet) {
	f.SortFlags = true
	f.BoolVarP(&a.debug, "debug", "D", false, "log what is done to standard error")
	f.StringVarP(&a.flags.Root, "graph", "g", "", "graph root `DIR` of the store")
	f.StringVarP(&a.flags.RunRoot, "run", "R", "", "run root `DIR` of the store")
	f.StringVarP(&a.flags.Driver, "storage-driver", "s", "", "storage `DRIVER`: overlay or vfs ($STORAGE_DRIVER)")
	f.StringArrayVar(&a.flags.Options, "storage-opt", nil, "storage driver option `KEY=VALUE`, again for more ($STORAGE_OPTS)")
	f.StringVar(&a.flags.ImageStore, "image-store", "", "graph root `DIR` for images and their layers, apart from --graph")
	f.BoolVar(&a.flags.TransientStore, "transient-store", false, "keep records of containers in the run root, which a restart empties")
	f.BoolVarP(&a.unshare, "unshare", "U", false, "run in a user namespace with this user's subordinate IDs, when not root")
	f.DurationVar(&a.timeout, "timeout", store.DefaultLockTimeout, "wait at most so long (as in 500ms, 30s, 2m) for a lock that another process holds")
}

// openLog makes the logger: warnings, or everything with --debug.
func (a *app) openLog() {
	l := logrus.New()
	l.SetOutput(a.err)
	l.SetLevel(logrus.WarnLevel)
	if a.debug {
		l.SetLevel(logrus.DebugLevel)
	}
	a.log = logrus.NewEntry(l)
}

func (a *app) opening() opening.Options {
	return opening.Options{
		Flags: a.flags, LockTimeout: a.timeout, Create: true, Brief: true, RootFlag: "--graph", Log: a.log,
	}
}

// open opens the store; run closes it.
func (a *app) open(ctx context.Context) error {
	if a.timeout <= 0 {
		return errors.New("--timeout wants a time above zero, as in 500ms, 30s or 2m")
	}
	st, conf, err := opening.Store(ctx, a.opening())
	if err != nil {
		return err
	}
	a.st, a.conf = st, conf
	for _, p := range a.describe(false) {
		a.log.Debugf("%s: %s", p[0], p[1])
	}
	return nil
}

// view is Store.View, for one question. It warns, once each, of record files
// that can be read only in part, since what they hold is missing in the answer;
// of those that the question did not need, it does not know.
func (a *app) view(ctx context.Context, fn func(*store.Tx) error) error {
	var unreadable []error
	err := a.st.View(ctx, func(t *store.Tx) error {
		err := fn(t)
		unreadable = t.Unreadable()
		return err
	})
	for _, w := range unreadable {
		if text := sentence(w); !slices.Contains(a.warned, text) {
			a.warned = append(a.warned, text)
			a.log.Warn(text)
		}
	}
	return err
}
