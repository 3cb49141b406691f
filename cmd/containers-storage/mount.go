package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

func (a *app) mountVerbs() []*verb {
	return []*verb{a.mount(), a.unmount(), a.mounted(), a.copy()}
}

// mountResult is what mount, unmount and mounted say with --json of one object.
type mountResult struct {
	ID         string  `json:"id"`
	Mountpoint *string `json:"mountpoint,omitempty"`
	Mounted    int     `json:"mounted,omitempty"`
	Error      string  `json:"error"`
}

// mountEach does something for every object named; show prints a result's own
// line, and failures are told with what was done.
func (a *app) mountEach(refs []string, doing string, do func(ref string, r *mountResult) error, show func(r mountResult, err error)) error {
	var results []mountResult
	var status error
	for _, ref := range refs {
		r := mountResult{ID: ref}
		err := do(ref, &r)
		if err != nil {
			r.Error, status = sentence(err), failed
		}
		results = append(results, r)
		if !a.output.plain() {
			continue
		}
		show(r, err)
		if err != nil {
			fmt.Fprintf(a.err, "%s %s %s\n", r.Error, doing, ref)
		}
	}
	return errors.Join(a.print(results, func(*bufio.Writer) {}), status)
}

func (a *app) mount() *verb {
	var label string
	var opts []string
	var ro bool
	return &verb{
		name: "mount", args: "LayerOrContainerNameOrID", least: 1, most: many, json: true,
		short: "Mount a layer or container",
		long: `Mounts each object, or counts one more user of the mount that is there, and
prints its path. An image is mounted for reading, with --ro. A layer that has
children, or that is an image's, is mounted for reading too: a change would show
in everything that stands on it.`,
		example: `  containers-storage mount web
  containers-storage mount --ro app:latest
  containers-storage unmount web app:latest`,
		flags: func(f *pflag.FlagSet) {
			f.StringArrayVarP(&opts, "opt", "o", nil, "mount `OPTION`, several separated by commas")
			f.StringVarP(&label, "label", "l", "", "SELinux `LABEL` of the mount")
			f.BoolVarP(&ro, "ro", "r", false, "mount for reading only")
			f.BoolVar(&ro, "read-only", false, "the same as --ro")
		},
		complete: []completer{anyRefs},
		run: func(ctx context.Context, args []string) error {
			if a.ephemeral && a.st.DriverName() != "vfs" {
				return errno.New(errno.ErrNotSupported, "a mount by an ordinary user would end with this command: run it, and what uses the mount, in %s unshare", program)
			}
			o := drivers.MountOptions{ReadOnly: ro, Label: label}
			for _, list := range opts {
				for item := range strings.SplitSeq(list, ",") {
					switch item {
					case "", "rw":
					case "ro":
						o.ReadOnly = true
					default:
						o.Options = append(o.Options, item)
					}
				}
			}
			return a.mountEach(args, "while mounting", func(ref string, r *mountResult) error {
				path, err := a.mountOne(ctx, ref, o)
				r.Mountpoint = &path
				return err
			}, func(r mountResult, _ error) { fmt.Fprintln(a.out, *r.Mountpoint) })
		},
	}
}

// mountOne mounts an object; a layer that others build on for reading.
func (a *app) mountOne(ctx context.Context, ref string, o drivers.MountOptions) (string, error) {
	path, err := a.st.Mount(ctx, ref, o)
	if errors.Is(err, errno.ErrReadOnly) && !o.ReadOnly {
		isLayer := false
		verr := a.view(ctx, func(t *store.Tx) error {
			isLayer = t.Exists(store.KindLayer, ref)
			return nil
		})
		switch {
		case verr != nil:
			return "", errors.Join(err, verr)
		case !isLayer:
			return "", withWords(notKnown(store.KindLayer), err)
		}
		a.log.Infof("%s is mounted for reading only: %v", ref, err)
		o.ReadOnly = true
		path, err = a.st.Mount(ctx, ref, o)
	}
	return path, about(store.KindLayer, err)
}

func (a *app) unmount() *verb {
	var force bool
	return &verb{
		name: "unmount", aliases: []string{"umount"}, args: "LayerOrContainerNameOrID", least: 1, most: many, json: true,
		short: "Unmount an image, layer or container",
		long: `Counts one user of each mount less, and unmounts for the last one, which is
told. What is not mounted is no error.`,
		example: "  containers-storage unmount web",
		flags: func(f *pflag.FlagSet) {
			f.BoolVarP(&force, "force", "f", false, "unmount whatever the count is, and when it is busy")
		},
		complete: []completer{mountedRefs},
		run: func(ctx context.Context, args []string) error {
			images := map[string]bool{}
			return a.mountEach(args, "while unmounting", func(ref string, r *mountResult) error {
				err := a.view(ctx, func(t *store.Tx) error {
					images[ref] = !t.Exists(store.KindLayer, ref) && !t.Exists(store.KindContainer, ref) && t.Exists(store.KindImage, ref)
					return nil
				})
				if err != nil {
					return err
				}
				r.Mounted, err = a.st.Unmount(ctx, ref, force)
				return about(store.KindLayer, err)
			}, func(r mountResult, err error) {
				if err == nil && r.Mounted == 0 && !images[r.ID] {
					fmt.Fprintf(a.out, "%s mountpoint unmounted\n", r.ID)
				}
			})
		},
	}
}

func (a *app) mounted() *verb {
	return &verb{
		name: "mounted", args: "LayerOrContainerNameOrID", least: 1, most: many, json: true,
		short:    "Check if a file system is mounted",
		long:     `Tells of each object whether it is mounted; with --json how many users the mount has.`,
		example:  "  containers-storage mounted web",
		complete: []completer{anyRefs},
		run: func(ctx context.Context, args []string) error {
			return a.mountEach(args, "checking whether it is mounted:", func(ref string, r *mountResult) error {
				return a.view(ctx, func(t *store.Tx) error {
					m, err := t.Mounted(ref)
					r.Mounted = m.Count
					return about(store.KindLayer, err)
				})
			}, func(r mountResult, err error) {
				if err == nil && r.Mounted > 0 {
					fmt.Fprintf(a.out, "%s mounted\n", r.ID)
				}
			})
		},
	}
}
