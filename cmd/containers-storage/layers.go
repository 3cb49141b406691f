package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/store"
)

func (a *app) layerVerbs() []*verb {
	return []*verb{a.createLayer(), a.importLayer(), a.createStorageLayer(), a.layers(), a.layer(), a.layerParentOwners()}
}

// layerFlags are those that say what layer to make.
type layerFlags struct {
	spec store.LayerSpec
	maps mapFlags
}

func (l *layerFlags) addTo(f *pflag.FlagSet, named bool) {
	f.StringVarP(&l.spec.ID, "id", "i", "", "`ID` of the layer; without it a random one")
	if named {
		f.StringArrayVarP(&l.spec.Names, "name", "n", nil, "`NAME` of the layer, again for more")
	}
	f.StringVarP(&l.spec.Label, "label", "l", "", "SELinux `LABEL` for mounts of the layer")
	f.BoolVarP(&l.spec.ReadOnly, "readonly", "r", false, "mark the layer as read-only")
	l.maps.addTo(f)
}

// resolved fills in the parent and the maps. A parent that is named "" is none.
func (l *layerFlags) resolved(ctx context.Context, a *app, args []string) (store.LayerSpec, error) {
	spec := l.spec
	var inherit idmap.Maps
	if len(args) > 0 && args[0] != "" {
		err := a.view(ctx, func(t *store.Tx) error {
			p, err := t.Layer(args[0])
			if err != nil {
				return about(store.KindLayer, err)
			}
			spec.Parent, inherit = p.ID, p.Maps
			return nil
		})
		if err != nil {
			return spec, err
		}
	}
	if !l.maps.given() {
		return spec, nil // the store knows what a layer inherits
	}
	var err error
	spec.Maps, err = l.maps.maps(inherit)
	spec.HostIDs = spec.Maps.Empty()
	return spec, err
}

// printLayer prints a new layer.
func (a *app) printLayer(l *store.Layer) error {
	if a.output.plain() {
		return a.print(l, idLines(l.ID, l.Names))
	}
	return a.print(l, nil)
}

func (a *app) createLayer() *verb {
	var flags layerFlags
	return &verb{
		name: "create-layer", aliases: []string{"createlayer"}, args: "[parentLayerNameOrID]", most: 1, json: true,
		short: "Create a new layer",
		long: `Makes an empty layer over its parent, or without one, and prints its ID and
below it its names. "" as parent means none.`,
		example: `  containers-storage create-layer --id base --name base-layer
  containers-storage create-layer --name top base-layer
  containers-storage create-layer --uidmap 0:100000:65536 --gidmap 0:100000:65536`,
		flags:    func(f *pflag.FlagSet) { flags.addTo(f, true) },
		complete: []completer{layerRefs},
		run: func(ctx context.Context, args []string) error {
			spec, err := flags.resolved(ctx, a, args)
			if err != nil {
				return err
			}
			l, err := a.st.CreateLayer(ctx, spec)
			if err != nil {
				return a.aboutNew(ctx, store.KindLayer, spec.ID, err)
			}
			return a.printLayer(l)
		},
	}
}

func (a *app) importLayer() *verb {
	var flags layerFlags
	var file, wanted, reference string
	return &verb{
		name: "import-layer", aliases: []string{"importlayer"}, args: "[parentLayerNameOrID]", most: 1, json: true,
		short: "Import a new layer",
		long: `Makes a layer over its parent, or without one, and extracts an archive into it:
a tar, plain or compressed with gzip, bzip2, xz or zstd, from standard input or
--file. Nobody sees the layer before it is whole.

With --digest the layer is taken from an additional layer store
(additionallayerstores in storage.conf) in place of an archive: the digest is
that of its compressed archive or of its table of contents, and --reference
names the image for which the store has it.`,
		example: `  tar -c -C rootfs . | containers-storage import-layer --name base
  containers-storage import-layer --file rootfs.tar --id one`,
		flags: func(f *pflag.FlagSet) {
			flags.addTo(f, true)
			f.StringVarP(&file, "file", "f", "", "read the archive from `FILE` instead of standard input")
			f.StringVar(&wanted, "digest", "", "take the layer of this `DIGEST` from an additional layer store")
			f.StringVar(&reference, "reference", "", "`IMAGE` that the layer store has it for")
		},
		complete: []completer{layerRefs},
		run: func(ctx context.Context, args []string) error {
			spec, err := flags.resolved(ctx, a, args)
			if err != nil {
				return err
			}
			var l *store.Layer
			if wanted != "" {
				l, err = a.takeLayer(ctx, spec, digest.Digest(wanted), reference)
			} else {
				l, err = a.importStream(ctx, spec, file)
			}
			if err != nil {
				return a.aboutNew(ctx, store.KindLayer, spec.ID, err)
			}
			return a.printLayer(l)
		},
	}
}

// takeLayer makes a layer of one that an additional layer store has.
func (a *app) takeLayer(ctx context.Context, spec store.LayerSpec, d digest.Digest, reference string) (*store.Layer, error) {
	from, err := a.st.LookupAdditionalLayer(ctx, d, reference)
	if err != nil {
		return nil, err
	}
	l, err := from.Put(ctx, spec)
	return l, errors.Join(err, from.Release())
}

func (a *app) importStream(ctx context.Context, spec store.LayerSpec, file string) (l *store.Layer, err error) {
	in, done, err := a.input(file, "importing")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	st, err := a.st.StageLayer(ctx, spec)
	if err != nil {
		return nil, err
	}
	return fill(ctx, st, in)
}

// fill extracts a stream into a staged layer and commits it.
func fill(ctx context.Context, st *store.StagedLayer, in io.Reader) (*store.Layer, error) {
	if _, err := st.Import(ctx, in); err != nil {
		return nil, errors.Join(err, st.Discard(context.WithoutCancel(ctx)))
	}
	return st.Commit(ctx)
}

func (a *app) layers() *verb {
	var tree, quick bool
	return &verb{
		name: "layers", args: "", most: many, json: true,
		short: "List layers",
		long: `Prints the ID of each layer, and below it its names, the images whose layer it
is and the container that writes to it, with their names.`,
		example: `  containers-storage layers
  containers-storage layers --tree
  containers-storage layers --format '{{.ID}} {{.DiffSize}}'`,
		flags: func(f *pflag.FlagSet) {
			f.BoolVarP(&tree, "tree", "t", false, "show the layers as a tree, children below their parents")
			f.BoolVarP(&quick, "quick", "q", false, "print IDs alone")
		},
		run: func(ctx context.Context, _ []string) error {
			return a.view(ctx, func(t *store.Tx) error {
				all := collect(t.Layers())
				return a.print(all, func(w *bufio.Writer) {
					switch {
					case tree && len(all) > 0:
						printTree(w, t, all)
					case tree:
					default:
						printLayers(w, t, all, quick)
					}
				})
			})
		},
	}
}

func printLayers(w *bufio.Writer, t *store.Tx, all []*store.Layer, quick bool) {
	for _, l := range all {
		fmt.Fprintln(w, l.ID)
		if quick {
			continue
		}
		for _, n := range l.Names {
			fmt.Fprintf(w, "\tname: %s\n", n)
		}
		for _, i := range imagesOf(t, l.ID) {
			fmt.Fprintf(w, "\timage: %s\n", i.ID)
			for _, n := range i.Names {
				fmt.Fprintf(w, "\t\tname: %s\n", n)
			}
		}
		for _, c := range t.ContainersOnLayer(l.ID) {
			fmt.Fprintf(w, "\tcontainer: %s\n", c.ID)
			for _, n := range c.Names {
				fmt.Fprintf(w, "\t\tname: %s\n", n)
			}
		}
	}
}

// imagesOf returns the images whose layer it is, also in another ID map.
func imagesOf(t *store.Tx, layerID string) []*store.Image {
	return append(t.ImagesOn(layerID), t.MappedBy(layerID)...)
}

func (a *app) layer() *verb {
	return &verb{
		name: "layer", args: "layerNameOrID [...]", least: 1, most: many, json: true,
		short:    "Examine a layer",
		long:     `Prints what is known of each layer.`,
		example:  "  containers-storage layer base-layer\n  containers-storage layer --json base-layer",
		complete: []completer{layerRefs},
		run: func(ctx context.Context, args []string) error {
			return a.view(ctx, func(t *store.Tx) error {
				found, err := examine(a, args, func(ref string) (*store.Layer, error) {
					l, err := t.Layer(ref)
					return l, about(store.KindLayer, err)
				})
				return errors.Join(a.print(found, func(w *bufio.Writer) {
					for _, l := range found {
						printLayerDetails(w, l)
					}
				}), err)
			})
		},
	}
}

func printLayerDetails(w *bufio.Writer, l *store.Layer) {
	fmt.Fprintf(w, "ID: %s\n", l.ID)
	for _, side := range []struct {
		kind   string
		ranges []idmap.Range
	}{{"UID", l.Maps.UIDs}, {"GID", l.Maps.GIDs}} {
		for _, r := range side.ranges {
			fmt.Fprintf(w, "%s mapping: (container=%d, host=%d, size=%d)\n", side.kind, r.ContainerID, r.HostID, r.Size)
		}
	}
	if l.Parent != "" {
		fmt.Fprintf(w, "Parent: %s\n", l.Parent)
	}
	for _, n := range l.Names {
		fmt.Fprintf(w, "Name: %s\n", n)
	}
	if l.ReadOnly {
		fmt.Fprintln(w, "Read Only: true")
	}
}
