package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/store"
)

func (a *app) containerVerbs() []*verb {
	return []*verb{a.createContainer(), a.containers(), a.container(), a.containerParentOwners()}
}

func (a *app) createContainer() *verb {
	var spec store.ContainerSpec
	var maps mapFlags
	var md metadataFlags
	return &verb{
		name: "create-container", aliases: []string{"createcontainer"}, args: "parentImageNameOrID", least: 1, most: 1, json: true,
		short: "Create a new container from an image",
		long: `Makes a container with a layer of its own over that of the image, and prints its
ID and below it its names. "" as image means none. Without flags that map IDs,
the container's are the host's.`,
		example: `  containers-storage create-container --name web app:latest
  containers-storage create-container --volatile --id scratch ""`,
		flags: func(f *pflag.FlagSet) {
			f.StringVarP(&spec.ID, "id", "i", "", "`ID` of the container; without it a random one")
			f.StringArrayVarP(&spec.Names, "name", "n", nil, "`NAME` of the container, again for more")
			f.BoolVar(&spec.Volatile, "volatile", false, "the container need not survive a crash of the machine: nothing is synced for it")
			md.addTo(f)
			maps.addTo(f)
		},
		complete: []completer{imageRefs},
		run: func(ctx context.Context, args []string) (err error) {
			if spec.Metadata, err = md.value(); err != nil {
				return err
			}
			if spec.Maps, err = maps.maps(idmap.Maps{}); err != nil {
				return err
			}
			if args[0] != "" {
				err = a.view(ctx, func(t *store.Tx) error {
					spec.Image, err = t.Resolve(store.KindImage, args[0])
					return about(store.KindImage, err)
				})
				if err != nil {
					return err
				}
			}
			c, err := a.st.CreateContainer(ctx, spec)
			if err != nil {
				return a.aboutNew(ctx, store.KindContainer, spec.ID, err)
			}
			return a.print(c, idLines(c.ID, c.Names))
		},
	}
}

func (a *app) containers() *verb {
	return &verb{
		name: "containers", most: many, json: true,
		short:   "List containers",
		long:    `Prints the ID of each container, and below it its names and data items.`,
		example: "  containers-storage containers\n  containers-storage containers --format '{{.ID}} {{.Image}}'",
		run: func(ctx context.Context, _ []string) error {
			return a.view(ctx, func(t *store.Tx) error {
				all := collect(t.Containers())
				return a.print(all, func(w *bufio.Writer) {
					for _, c := range all {
						fmt.Fprintln(w, c.ID)
						indented(w, "name", c.Names)
						indented(w, "data", c.BigDataNames)
					}
				})
			})
		},
	}
}

func (a *app) container() *verb {
	return &verb{
		name: "container", args: "containerNameOrID [...]", least: 1, most: many, json: true,
		short:    "Examine a container",
		long:     `Prints what is known of each container, and its size in bytes.`,
		example:  "  containers-storage container web",
		complete: []completer{containerRefs},
		run: func(ctx context.Context, args []string) error {
			names := map[string][]string{}
			return examineAll(ctx, a, args, func(t *store.Tx, ref string) (*store.Container, error) {
				c, err := t.Container(ref)
				if err == nil {
					names[c.Image], _ = t.Names(store.KindImage, c.Image)
				}
				return c, about(store.KindContainer, err)
			}, func(ctx context.Context, c *store.Container) error {
				return a.printContainerDetails(ctx, c, names[c.Image])
			})
		},
	}
}

func (a *app) printContainerDetails(ctx context.Context, c *store.Container, imageNames []string) error {
	size, err := a.st.ContainerSize(ctx, c.ID)
	if err != nil {
		a.say(err)
		err = failed
	}
	perr := a.print(nil, func(w *bufio.Writer) {
		fmt.Fprintf(w, "ID: %s\n", c.ID)
		for _, n := range c.Names {
			fmt.Fprintf(w, "Name: %s\n", n)
		}
		fmt.Fprintf(w, "Image: %s\n", c.Image)
		for _, n := range imageNames {
			fmt.Fprintf(w, "Image name: %s\n", n)
		}
		if err == nil {
			fmt.Fprintf(w, "Size: %d\n", size)
		}
		fmt.Fprintf(w, "Layer: %s\n", c.Layer)
		for _, k := range c.BigDataNames {
			fmt.Fprintf(w, "Data: %s\n", k)
		}
	})
	return errors.Join(perr, err)
}
