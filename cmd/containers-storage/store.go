package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/cmd/opening"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

func (a *app) storeVerbs() []*verb {
	return []*verb{
		a.check(), a.gc(), a.dedup(), a.storageLayers(), a.statusVerb(), a.configVerb(), a.shutdown(), a.wipe(), a.unshareVerb(), a.version(),
	}
}

// describe is what status says: the store, and with driver what the driver says.
func (a *app) describe(driver bool) [][2]string {
	out := [][2]string{
		{"Root", a.st.GraphRoot()},
		{"Run Root", a.st.RunRoot()},
		{"Driver Name", a.st.DriverName()},
		{"Driver Options", fmt.Sprint(a.conf.Lines())},
	}
	if driver {
		out = append(out, a.st.Driver().Status()...)
	}
	return out
}

func (a *app) statusVerb() *verb {
	return &verb{
		name: "status", most: many, json: true,
		short:   "Check on graph driver status",
		long:    `Says on standard error where the store is, and what its driver has found.`,
		example: "  containers-storage status --json",
		run: func(context.Context, []string) error {
			pairs := a.describe(true)
			if a.output.plain() {
				for _, p := range pairs {
					fmt.Fprintf(a.err, "%s: %s\n", p[0], p[1])
				}
				return nil
			}
			return a.print(pairs, nil)
		},
	}
}

func (a *app) version() *verb {
	return &verb{
		name: "version", most: many, json: true, bare: true,
		short:   "Return containers-storage version information",
		example: "  containers-storage version",
		run: func(context.Context, []string) error {
			return a.print([][2]string{{"Version", version}}, func(w *bufio.Writer) { fmt.Fprintf(w, "Version: %s\n", version) })
		},
	}
}

// oneError ends a verb whose JSON is an error's text, "" for success.
func (a *app) oneError(err error) error {
	if a.output.plain() {
		return err
	}
	text := ""
	var status error
	if err != nil {
		text, status = sentence(err), failed
	}
	return errors.Join(a.print(text, nil), status)
}

func (a *app) wipe() *verb {
	return &verb{
		name: "wipe", most: many, json: true,
		short:   "Wipe all layers, images, and containers",
		long:    `Deletes everything in the store, mounted or not; additional stores stay as they are.`,
		example: "  containers-storage --graph ./scratch --run ./scratch.run wipe",
		run:     func(ctx context.Context, _ []string) error { return a.oneError(a.st.Wipe(ctx, nil)) },
	}
}

func (a *app) shutdown() *verb {
	var force bool
	return &verb{
		name: "shutdown", most: many, json: true,
		short:   "Shut down layer storage",
		long:    `Puts away what the store keeps mounted beside its layers, unless a layer is mounted.`,
		example: "  containers-storage shutdown --force",
		flags:   func(f *pflag.FlagSet) { f.BoolVarP(&force, "force", "f", false, "unmount mounted layers first") },
		run: func(ctx context.Context, _ []string) error {
			_, err := a.st.Shutdown(ctx, force, nil)
			if errors.Is(err, errno.ErrInUse) {
				err = withWords("a layer is mounted: layer is in use by a container", err)
			}
			if err != nil && a.output.plain() {
				err = withWords("shutdown", err)
			}
			return a.oneError(err)
		},
	}
}

func (a *app) storageLayers() *verb {
	return &verb{
		name: "storage-layers", aliases: []string{"storagelayers"}, most: many, json: true,
		short:   "List storage layers",
		long:    `Prints the IDs of the layers that the driver has, with or without a record.`,
		example: "  containers-storage storage-layers",
		run: func(context.Context, []string) error {
			ids, err := a.st.Driver().List()
			if errors.Is(err, errno.ErrNotSupported) {
				err = withWords("driver not supported", err)
			}
			if err != nil {
				return err
			}
			return a.printStrings(append([]string{}, ids...))
		},
	}
}

func (a *app) createStorageLayer() *verb {
	var flags layerFlags
	return &verb{
		name: "create-storage-layer", aliases: []string{"createstoragelayer"}, args: "[parentLayerNameOrID]", most: 1, json: true,
		short: "Create a new layer only in the storage driver",
		long: `Makes the directories of a layer, but no record, and prints its ID: a damage for
check to find. Its parent may be such a layer, by its ID.`,
		example:  "  containers-storage create-storage-layer --id stray",
		flags:    func(f *pflag.FlagSet) { flags.addTo(f, false) },
		complete: []completer{layerRefs, nothing},
		run: func(ctx context.Context, args []string) error {
			spec, err := flags.resolved(ctx, a, nil)
			if err != nil {
				return err
			}
			if spec.Parent, err = a.driverLayer(ctx, first(args)); err != nil {
				return err
			}
			id, err := a.st.CreateStorageLayer(ctx, spec)
			if err != nil {
				return a.aboutNew(ctx, store.KindLayer, spec.ID, err)
			}
			value := struct {
				ID string `json:"id"`
			}{id}
			return a.print(value, idLines(id, nil))
		},
	}
}

// driverLayer resolves a layer that may have no record.
func (a *app) driverLayer(ctx context.Context, ref string) (string, error) {
	id, err := a.layerID(ctx, ref)
	if err == nil || !errors.Is(err, errno.ErrUnknown) {
		return id, err
	}
	if has, herr := a.st.Driver().Has(ref); herr == nil && has {
		return ref, nil
	}
	return "", err
}

func (a *app) gc() *verb {
	return &verb{
		name: "gc", most: many,
		short:   "Garbage collect leftovers from partial layers",
		long:    `Removes what killed programs left half made.`,
		example: "  containers-storage gc",
		run: func(ctx context.Context, _ []string) error {
			_, err := a.st.GarbageCollect(ctx, nil)
			return err
		},
	}
}

// shownConfig is what config prints.
type shownConfig struct {
	RunRoot             string            `json:"runroot"`
	Root                string            `json:"root"`
	RootlessStoragePath string            `json:"RootlessStoragePath"`
	Driver              string            `json:"driver"`
	Options             []string          `json:"driver-options"`
	PullOptions         map[string]string `json:"PullOptions"`
}

func (a *app) configVerb() *verb {
	return &verb{
		name: "config", args: "[storage.conf]", most: 1, bare: true,
		short:    "Print storage library configuration as JSON",
		long:     `Prints which store would be opened, by the usual rules or by the file named. Nothing is opened.`,
		example:  "  containers-storage config\n  containers-storage config ./storage.conf",
		complete: []completer{nil, nothing},
		run: func(_ context.Context, args []string) error {
			o := a.opening()
			o.File = first(args)
			conf, err := opening.Config(o)
			if err != nil {
				return err
			}
			shown := shownConfig{
				RunRoot: conf.RunRoot.Text, Root: conf.GraphRoot.Text, Driver: conf.Driver.Text,
				Options: append([]string{}, conf.Lines()...), PullOptions: map[string]string{},
			}
			for _, s := range conf.Settings() {
				if s.Table == "storage" && s.Key == "rootless_storage_path" && len(s.Values) > 0 {
					shown.RootlessStoragePath = s.Values[0].Text
				}
			}
			for _, p := range conf.PullOptions {
				shown.PullOptions[p.Key] = p.Text
			}
			b, err := marshal(shown)
			if err != nil {
				return err
			}
			_, err = a.out.Write(b)
			return err
		},
	}
}

func (a *app) unshareVerb() *verb {
	return &verb{
		name: "unshare", args: "[command [...]]", most: many, bare: true,
		short: "Run a command in a user namespace",
		long: `Runs a command, or a shell, in the user namespace in which this user's stores are
read and written, and ends as it does. Root needs none, so that the command
just runs. Flags of the command come after "--".`,
		example:  "  containers-storage unshare -- ls -ln /proc/self",
		complete: []completer{nil},
		run: func(ctx context.Context, args []string) error {
			if len(args) == 0 {
				shell := os.Getenv("SHELL")
				if shell == "" {
					shell = "/bin/sh"
				}
				args = []string{shell}
			}
			cmd := exec.CommandContext(ctx, args[0], args[1:]...)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.out, a.err
			return ended(cmd.Run())
		},
	}
}

// ended turns another program's end into ours; it has said why.
func ended(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return exitStatus(exit.ExitCode())
	}
	return err
}
