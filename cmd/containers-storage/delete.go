package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

func (a *app) deleteVerbs() []*verb {
	return []*verb{a.delete(), a.deleteLayer(), a.deleteImage(), a.deleteContainer()}
}

// each does something to every object named, tells which failed and why, and
// prints, for --json, an object of names and errors ("" for none).
func (a *app) each(refs []string, do func(ref string) error) error {
	results := map[string]string{}
	var status error
	for _, ref := range refs {
		err := do(ref)
		results[ref] = ""
		if err == nil {
			continue
		}
		results[ref] = sentence(err)
		status = failed
		if a.output.plain() {
			a.say(withWords(ref, err))
		}
	}
	return errors.Join(a.print(results, func(*bufio.Writer) {}), status)
}

func (a *app) delete() *verb {
	return &verb{
		name: "delete", args: "[LayerOrImageOrContainerNameOrID [...]]", least: 1, most: many, json: true,
		short: "Delete a layer or image or container, with no safety checks",
		long: `Deletes each object, whatever refers to it: layers keep a parent that is gone,
and mounts are detached. Prefer delete-layer, delete-image and delete-container,
which look first.`,
		example:  "  containers-storage delete web",
		complete: []completer{anyRefs},
		run: func(ctx context.Context, args []string) error {
			return a.each(args, func(ref string) error { return about(store.KindLayer, a.st.Delete(ctx, ref)) })
		},
	}
}

func (a *app) deleteLayer() *verb {
	return &verb{
		name: "delete-layer", aliases: []string{"deletelayer"}, args: "[LayerNameOrID [...]]", least: 1, most: many, json: true,
		short:    "Delete a layer, with safety checks",
		long:     `Deletes each layer, unless another layer, an image, a container or a mount needs it.`,
		example:  "  containers-storage delete-layer base-layer",
		complete: []completer{layerRefs},
		run: func(ctx context.Context, args []string) error {
			return a.each(args, func(ref string) error {
				return a.usedLayer(ctx, ref, a.st.DeleteLayer(ctx, ref))
			})
		},
	}
}

// usedLayer explains why a layer is not deleted.
func (a *app) usedLayer(ctx context.Context, ref string, err error) error {
	switch {
	case errors.Is(err, errno.ErrUnknown):
		return withWords("identifier is not a layer", err)
	case errors.Is(err, errno.ErrHasChildren):
		return withWords("layer has children", err)
	case !errors.Is(err, errno.ErrInUse):
		return err
	}
	words := "layer is mounted"
	verr := a.view(ctx, func(t *store.Tx) error {
		l, err := t.Layer(ref)
		switch {
		case err != nil:
		case len(imagesOf(t, l.ID)) > 0:
			words = "layer is in use by an image"
		case len(t.ContainersOnLayer(l.ID)) > 0:
			words = "layer is in use by a container"
		}
		return err
	})
	return errors.Join(withWords(words, err), verr)
}

// deletedImage is what delete-image --json says of one image.
type deletedImage struct {
	DeletedLayers []string `json:"deleted-layers,omitempty"`
	Error         string   `json:"error,omitempty"`
}

func (a *app) deleteImage() *verb {
	var test bool
	return &verb{
		name: "delete-image", aliases: []string{"deleteimage"}, args: "[ImageNameOrID [...]]", least: 1, most: many, json: true,
		short: "Delete an image, with safety checks",
		long: `Deletes each image, unless a container was made of it, and those of its layers
that nothing else needs, which are told on standard error.`,
		example: `  containers-storage delete-image --test app:latest
  containers-storage delete-image app:latest`,
		flags: func(f *pflag.FlagSet) {
			f.BoolVarP(&test, "test", "t", false, "only find out whether it can be deleted, and what would go with it")
		},
		complete: []completer{imageRefs},
		run: func(ctx context.Context, args []string) error {
			results := map[string]deletedImage{}
			var status error
			for _, ref := range args {
				layers, err := a.deleteOrTest(ctx, ref, test)
				r := deletedImage{DeletedLayers: layers}
				if err != nil {
					r.Error = sentence(err)
					status = failed
				}
				results[ref] = r
				if a.output.plain() {
					a.sayDeleted(ref, layers, err)
				}
			}
			return errors.Join(a.print(results, func(*bufio.Writer) {}), status)
		},
	}
}

func (a *app) deleteOrTest(ctx context.Context, ref string, test bool) (layers []string, err error) {
	if test {
		err = a.view(ctx, func(t *store.Tx) error {
			layers, err = t.Deletable(ref)
			return err
		})
	} else {
		layers, err = a.st.DeleteImage(ctx, ref)
	}
	switch {
	case errors.Is(err, errno.ErrUnknown):
		err = withWords("identifier is not an image", err)
	case errors.Is(err, errno.ErrInUse):
		err = withWords("image is in use by a container", err)
	}
	return layers, err
}

func (a *app) sayDeleted(ref string, layers []string, err error) {
	for _, id := range layers {
		fmt.Fprintf(a.err, "%s: %s\n", ref, id)
	}
	if err != nil {
		a.say(withWords(ref, err))
	}
}

func (a *app) deleteContainer() *verb {
	return &verb{
		name: "delete-container", aliases: []string{"deletecontainer"}, args: "[ContainerNameOrID [...]]", least: 1, most: many, json: true,
		short:    "Delete a container, with safety checks",
		long:     `Deletes each container with its layer and its directories, unless it is mounted.`,
		example:  "  containers-storage delete-container web",
		complete: []completer{containerRefs},
		run: func(ctx context.Context, args []string) error {
			return a.each(args, func(ref string) error {
				err := a.st.DeleteContainer(ctx, ref)
				if errors.Is(err, errno.ErrUnknown) {
					err = withWords("identifier is not a container", err)
				}
				return err
			})
		},
	}
}
