package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/store"
)

func (a *app) imageVerbs() []*verb {
	return []*verb{a.createImage(), a.images(), a.image(), a.imagesByDigest()}
}

// metadataFlags give metadata as text or as a file, which wins.
type metadataFlags struct{ text, file string }

func (m *metadataFlags) addTo(f *pflag.FlagSet) {
	f.StringVarP(&m.text, "metadata", "m", "", "metadata as `TEXT`")
	f.StringVarP(&m.file, "metadata-file", "f", "", "metadata from `FILE`")
}

func (m *metadataFlags) value() (string, error) {
	if m.file == "" {
		return m.text, nil
	}
	b, err := os.ReadFile(m.file)
	return string(b), err
}

func (a *app) createImage() *verb {
	var spec store.ImageSpec
	var md metadataFlags
	var dig string
	return &verb{
		name: "create-image", aliases: []string{"createimage"}, args: "topLayerNameOrID", most: 1, json: true,
		short: "Create a new image using layers",
		long: `Makes an image of a layer and those below it, or of none, and prints its ID and
below it its names. podman refuses to list a store that has an image without a
data item "manifest": add one with set-image-data.`,
		example: `  containers-storage create-image --name app:latest base-layer
  containers-storage create-image --id scratch --metadata '{}'`,
		flags: func(f *pflag.FlagSet) {
			f.StringVarP(&spec.ID, "id", "i", "", "`ID` of the image; without it a random one")
			f.StringArrayVarP(&spec.Names, "name", "n", nil, "`NAME` of the image, again for more")
			f.StringVarP(&dig, "digest", "d", "", "`DIGEST` of the image; without it that of the item manifest")
			md.addTo(f)
		},
		complete: []completer{layerRefs},
		run: func(ctx context.Context, args []string) (err error) {
			spec.Digest = digest.Digest(dig)
			if dig != "" && spec.Digest.Validate() != nil {
				return fmt.Errorf("validating image digest %q: invalid checksum digest format: write it as sha256: and 64 hex digits", dig)
			}
			if spec.Metadata, err = md.value(); err != nil {
				return err
			}
			if spec.Layer, err = a.layerID(ctx, first(args)); err != nil {
				return err
			}
			img, err := a.st.CreateImage(ctx, spec)
			if err != nil {
				return a.aboutNew(ctx, store.KindImage, spec.ID, err)
			}
			return a.print(img, idLines(img.ID, img.Names))
		},
	}
}

// first is the first argument, or "".
func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// layerID resolves a layer; "" stays "".
func (a *app) layerID(ctx context.Context, ref string) (id string, err error) {
	if ref == "" {
		return "", nil
	}
	err = a.view(ctx, func(t *store.Tx) error {
		id, err = t.Resolve(store.KindLayer, ref)
		return about(store.KindLayer, err)
	})
	return id, err
}

func (a *app) images() *verb {
	var quiet bool
	return &verb{
		name: "images", most: many, json: true,
		short: "List images",
		long:  `Prints the ID of each image, and below it its names, digests and data items.`,
		example: `  containers-storage images
  containers-storage images --format '{{join "," .Names}} {{.Digest}}'`,
		flags: func(f *pflag.FlagSet) { f.BoolVarP(&quiet, "quiet", "q", false, "print IDs alone") },
		run: func(ctx context.Context, _ []string) error {
			return a.view(ctx, func(t *store.Tx) error { return a.printImages(slices.Collect(t.Images()), quiet) })
		},
	}
}

func (a *app) imagesByDigest() *verb {
	var quiet bool
	return &verb{
		name: "images-by-digest", args: "DIGEST", least: 1, most: many, json: true,
		short:    "List images by digest",
		long:     `Prints the images that have the digest, or one of whose manifests has it, as "images" does.`,
		example:  `  containers-storage images-by-digest "$(containers-storage get-image-data-digest app:latest manifest)"`,
		flags:    func(f *pflag.FlagSet) { f.BoolVarP(&quiet, "quiet", "q", false, "print IDs alone") },
		complete: []completer{digests},
		run: func(ctx context.Context, args []string) error {
			d := digest.Digest(args[0])
			if d.Validate() != nil {
				return fmt.Errorf("%s: invalid checksum digest format: write it as sha256: and 64 hex digits", args[0])
			}
			return a.view(ctx, func(t *store.Tx) error {
				return a.printImages(append([]*store.Image{}, t.ImagesByDigest(d)...), quiet)
			})
		},
	}
}

// printImages prints images; an empty list may be nil, for which JSON has null,
// as the peers have it of "images".
func (a *app) printImages(all []*store.Image, quiet bool) error {
	return a.print(all, func(w *bufio.Writer) {
		for _, i := range all {
			fmt.Fprintln(w, i.ID)
			if quiet {
				continue
			}
			indented(w, "name", i.Names)
			indented(w, "digest", i.Digests())
			indented(w, "data", i.BigDataNames)
		}
	})
}

func (a *app) image() *verb {
	return &verb{
		name: "image", args: "imageNameOrID [...]", least: 1, most: many, json: true,
		short:    "Examine an image",
		long:     `Prints what is known of each image, and its size in bytes.`,
		example:  "  containers-storage image app:latest",
		complete: []completer{imageRefs},
		run: func(ctx context.Context, args []string) error {
			return examineAll(ctx, a, args, func(t *store.Tx, ref string) (*store.Image, error) {
				i, err := t.Image(ref)
				return i, about(store.KindImage, err)
			}, a.printImageDetails)
		},
	}
}

func (a *app) printImageDetails(ctx context.Context, i *store.Image) error {
	size, err := a.st.ImageSize(ctx, i.ID)
	if err != nil {
		a.say(err)
		err = failed
	}
	perr := a.print(nil, func(w *bufio.Writer) {
		fmt.Fprintf(w, "ID: %s\n", i.ID)
		for _, n := range i.Names {
			fmt.Fprintf(w, "Name: %s\n", n)
		}
		fmt.Fprintf(w, "Top Layer: %s\n", i.TopLayer)
		for _, l := range i.MappedLayers {
			fmt.Fprintf(w, "Top Layer: %s\n", l)
		}
		for _, d := range i.Digests() {
			fmt.Fprintf(w, "Digest: %s\n", d)
		}
		for _, k := range i.BigDataNames {
			fmt.Fprintf(w, "Data: %s\n", k)
		}
		if err == nil {
			fmt.Fprintf(w, "Size: %d\n", size)
		}
		if i.ReadOnly {
			fmt.Fprintln(w, "Read Only: true")
		}
	})
	return errors.Join(perr, err)
}
