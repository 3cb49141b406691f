package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/store"
)

func (a *app) nameVerbs() []*verb {
	return []*verb{
		a.exists(), a.metadata(), a.setMetadata(), a.getNames(),
		a.changeNames("add-names", "Add layer, image, or container name or names",
			`Puts names in front of those that the object has.`, (*store.WriteTx).AddNames),
		a.changeNames("set-names", "Set layer, image, or container name or names",
			`Replaces the names of the object; without --name it has none afterwards.`, (*store.WriteTx).SetNames),
		a.changeNames("remove-names", "Remove layer, image, or container name or names",
			`Takes names from the object. Those that it has not got are no error.`, (*store.WriteTx).RemoveNames),
	}
}

func (a *app) exists() *verb {
	var quiet, layer, image, container bool
	return &verb{
		name: "exists", args: "[LayerOrImageOrContainerNameOrID [...]]", least: 1, most: many, json: true,
		short: "Check if a layer or image or container exists",
		long:  `Succeeds when all objects exist, and are of each kind that a flag names.`,
		example: `  containers-storage exists app:latest
  containers-storage exists --quiet --container web || echo no container web`,
		flags: func(f *pflag.FlagSet) {
			f.BoolVarP(&quiet, "quiet", "q", false, "print nothing")
			f.BoolVarP(&layer, "layer", "l", false, "only layers count")
			f.BoolVarP(&image, "image", "i", false, "only images count")
			f.BoolVarP(&container, "container", "c", false, "only containers count")
		},
		complete: []completer{anyRefs},
		run: func(ctx context.Context, args []string) error {
			found := map[string]bool{}
			var status error
			err := a.view(ctx, func(t *store.Tx) error {
				for _, ref := range args {
					l, i, c := t.Exists(store.KindLayer, ref), t.Exists(store.KindImage, ref), t.Exists(store.KindContainer, ref)
					found[ref] = l || i || c
					if !found[ref] || layer && !l || image && !i || container && !c {
						status = failed
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
			perr := a.print(found, func(w *bufio.Writer) {
				for _, ref := range args {
					if !quiet {
						fmt.Fprintf(w, "%s: %t\n", ref, found[ref])
					}
				}
			})
			return errors.Join(perr, status)
		},
	}
}

func (a *app) metadata() *verb {
	var quiet bool
	return &verb{
		name: "metadata", args: "[LayerOrImageOrContainerNameOrID [...]]", least: 1, most: many, json: true,
		short:    "Retrieve layer, image, or container metadata",
		long:     `Prints each object's metadata after its name, and a newline where it does not end with one.`,
		example:  "  containers-storage metadata --quiet app:latest",
		flags:    func(f *pflag.FlagSet) { f.BoolVarP(&quiet, "quiet", "q", false, "print no names") },
		complete: []completer{anyRefs},
		run: func(ctx context.Context, args []string) error {
			known := map[string]string{}
			var status error
			err := a.view(ctx, func(t *store.Tx) error {
				for _, ref := range args {
					k, id, err := t.Find(ref)
					if err != nil {
						a.say(unknownObject(err))
						status = failed
						continue
					}
					known[ref], _ = t.Metadata(k, id)
				}
				return nil
			})
			if err != nil {
				return err
			}
			perr := a.print(known, func(w *bufio.Writer) {
				for _, ref := range args {
					if !quiet {
						fmt.Fprintf(w, "%s: ", ref)
					}
					fmt.Fprintln(w, strings.TrimSuffix(known[ref], "\n"))
				}
			})
			return errors.Join(perr, status)
		},
	}
}

// unknownObject are the words for what is of no kind.
func unknownObject(err error) error {
	return withWords("identifier is not a layer, image, or container", err)
}

func (a *app) setMetadata() *verb {
	var md metadataFlags
	return &verb{
		name: "set-metadata", aliases: []string{"setmetadata"}, args: "layerOrImageOrContainerNameOrID", least: 1, most: 1,
		short:    "Set layer, image, or container metadata",
		long:     `Replaces the metadata of an object.`,
		example:  `  containers-storage set-metadata --metadata '{"purpose":"test"}' app:latest`,
		flags:    md.addTo,
		complete: []completer{anyRefs, nothing},
		run: func(ctx context.Context, args []string) error {
			if md == (metadataFlags{}) {
				return errors.New("no new metadata provided: give --metadata or --metadata-file")
			}
			text, err := md.value()
			if err != nil {
				return err
			}
			return a.st.Update(ctx, func(w *store.WriteTx) error {
				k, id, err := w.Find(args[0])
				if err != nil {
					return unknownObject(err)
				}
				return w.SetMetadata(k, id, text)
			})
		},
	}
}

func (a *app) getNames() *verb {
	return &verb{
		name: "get-names", aliases: undashed("get-names"), args: "layerOrImageOrContainerNameOrID", least: 1, most: many, json: true,
		short:    "Get layer, image, or container name or names",
		long:     `Prints the object's names, one a line.`,
		example:  "  containers-storage get-names app:latest",
		complete: []completer{anyRefs, nothing},
		run: func(ctx context.Context, args []string) error {
			return a.view(ctx, func(t *store.Tx) error {
				k, id, err := t.Find(args[0])
				if err != nil {
					return about(store.KindLayer, err)
				}
				names, _ := t.Names(k, id)
				return a.printStrings(append([]string{}, names...))
			})
		},
	}
}

// changeNames is a verb that changes the names of an object.
func (a *app) changeNames(name, short, long string, change func(*store.WriteTx, store.Kind, string, ...string) error) *verb {
	var names []string
	return &verb{
		name: name, aliases: undashed(name), args: "layerOrImageOrContainerNameOrID", least: 1, most: many, json: true,
		short:    short,
		long:     long + ` A name that another object of that kind has is taken from it.`,
		example:  fmt.Sprintf("  %s %s --name app:1.0 app:latest", program, name),
		flags:    func(f *pflag.FlagSet) { f.StringArrayVarP(&names, "name", "n", nil, "`NAME`, again for more") },
		complete: []completer{anyRefs, nothing},
		run: func(ctx context.Context, args []string) error {
			var now []string
			err := a.st.Update(ctx, func(w *store.WriteTx) error {
				k, id, err := w.Find(args[0])
				if err != nil {
					return about(store.KindLayer, err)
				}
				if err := change(w, k, id, names...); err != nil {
					return err
				}
				now, _ = w.Names(k, id)
				return nil
			})
			if err != nil || a.output.plain() {
				return err
			}
			return a.printStrings(now)
		},
	}
}
