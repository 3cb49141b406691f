package main

import (
	"bufio"
	"context"
	"fmt"

	"github.com/plyfs/plyfs/store"
)

// owners are those of the directories above a mount point.
type owners struct {
	ID   string
	UIDs []int
	GIDs []int
}

func (a *app) layerParentOwners() *verb {
	return a.parentOwners(store.KindLayer, "Compute the set of unmapped parent UIDs and GIDs of the layer")
}

func (a *app) containerParentOwners() *verb {
	return a.parentOwners(store.KindContainer, "Compute the set of unmapped parent UIDs and GIDs of the container")
}

func (a *app) parentOwners(k store.Kind, short string) *verb {
	name := k.String() + "-parent-owners"
	return &verb{
		name: name, args: k.String() + "NameOrID [...]", least: 1, most: many, json: true,
		short: short,
		long: `Prints the owners of the directories above the mount point that the ID maps have
no ID for: who runs there needs a way through them. There are none while
nothing is mounted.`,
		example:  fmt.Sprintf("  %s %s %s", program, name, sample(k)),
		complete: []completer{refsOf(k)},
		run: func(ctx context.Context, args []string) error {
			var status error
			for _, ref := range args {
				o, err := a.ownersOf(ctx, k, ref)
				if err != nil {
					a.say(err)
					status = failed
					continue
				}
				err = a.print(o, func(w *bufio.Writer) {
					fmt.Fprintf(w, "ID: %s\n", o.ID)
					if k == store.KindContainer || len(o.UIDs) > 0 {
						fmt.Fprintf(w, "UIDs: %v\n", o.UIDs)
					}
					if k == store.KindContainer || len(o.GIDs) > 0 {
						fmt.Fprintf(w, "GIDs: %v\n", o.GIDs)
					}
				})
				if err != nil {
					return err
				}
			}
			return status
		},
	}
}

func (a *app) ownersOf(ctx context.Context, k store.Kind, ref string) (owners, error) {
	id, err := a.resolve(ctx, k, ref)
	if err != nil {
		return owners{}, err
	}
	uids, gids, err := a.st.ParentOwners(ctx, id)
	return owners{id, uids, gids}, err
}
