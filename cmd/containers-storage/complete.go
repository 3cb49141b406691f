package main

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/plyfs/plyfs/cmd/opening"
	"github.com/plyfs/plyfs/store"
)

// completer yields what an argument can be, each with a tab and a description;
// args are those before. A nil one leaves it to the shell, which offers paths.
type completer func(t *store.Tx, args []string) []string

func nothing(*store.Tx, []string) []string           { return nil }
func layerRefs(t *store.Tx, _ []string) []string     { return refs(t, store.KindLayer) }
func imageRefs(t *store.Tx, _ []string) []string     { return refs(t, store.KindImage) }
func containerRefs(t *store.Tx, _ []string) []string { return refs(t, store.KindContainer) }
func anyRefs(t *store.Tx, _ []string) []string {
	return slices.Concat(refs(t, store.KindContainer), refs(t, store.KindImage), refs(t, store.KindLayer))
}

// refs are the names and IDs of the objects of a kind.
func refs(t *store.Tx, k store.Kind) []string {
	var out []string
	for _, id := range t.IDs(k) {
		names, _ := t.Names(k, id)
		for _, n := range names {
			out = append(out, n+"\t"+k.String())
		}
		out = append(out, id+"\t"+k.String()+" "+strings.Join(names, " "))
	}
	return out
}

// mountedRefs are what unmount can be given.
func mountedRefs(t *store.Tx, _ []string) []string {
	var out []string
	for id := range t.Mounts() {
		out = append(out, id+"\tlayer")
		for _, c := range t.ContainersOnLayer(id) {
			for _, n := range append(slices.Clone(c.Names), c.ID) {
				out = append(out, n+"\tcontainer")
			}
		}
		for _, i := range imagesOf(t, id) {
			for _, n := range append(slices.Clone(i.Names), i.ID) {
				out = append(out, n+"\timage")
			}
		}
	}
	slices.Sort(out)
	return out
}

func digests(t *store.Tx, _ []string) []string {
	var out []string
	for i := range t.Images() {
		for _, d := range i.Digests() {
			out = append(out, string(d)+"\t"+strings.Join(i.Names, " "))
		}
	}
	return out
}

// keysOf completes the keys of the object before.
func keysOf(k store.Kind) completer {
	return func(t *store.Tx, args []string) []string {
		if len(args) == 0 {
			return nil
		}
		keys, err := t.BigDataKeys(k, args[len(args)-1])
		if err != nil {
			return nil
		}
		return keys
	}
}

// completion is the function that cobra asks for a verb's arguments.
func (a *app) completion(v *verb) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(v.complete) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c := v.complete[min(len(args), len(v.complete)-1)]
		if c == nil {
			return nil, cobra.ShellCompDirectiveDefault
		}
		words, err := a.words(cmd.Context(), c, args)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		words = slices.DeleteFunc(words, func(w string) bool { return !strings.HasPrefix(w, prefix) })
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

// words asks the store, in which nothing is changed, and which is not waited
// for long.
func (a *app) words(ctx context.Context, c completer, args []string) (words []string, err error) {
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	st, _, err := opening.Store(ctx, opening.Options{
		Flags: a.flags, LockTimeout: 2 * time.Second, ReadOnly: true, Brief: true, RootFlag: "--graph", Log: logrus.NewEntry(quiet),
	})
	if err != nil {
		return nil, err
	}
	err = st.View(ctx, func(t *store.Tx) error {
		words = c(t, args)
		return nil
	})
	return words, errors.Join(err, st.Close())
}

// completeFlags sets what global flags are completed with.
func (a *app) completeFlags(root *cobra.Command) {
	dirs := func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	for _, name := range []string{"graph", "run", "image-store"} {
		a.completeFlag(root, name, dirs)
	}
	a.completeFlag(root, "storage-driver", cobra.FixedCompletions([]string{"overlay", "vfs"}, cobra.ShellCompDirectiveNoFileComp))
}

// completeValues completes a flag of a verb from a list.
func (a *app) completeValues(cmd *cobra.Command, values map[string][]string) {
	for name, list := range values {
		a.completeFlag(cmd, name, cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp))
	}
}

// completeFlag fails only for a flag that is not there, which a test would see.
func (a *app) completeFlag(cmd *cobra.Command, name string, fn cobra.CompletionFunc) {
	_ = cmd.RegisterFlagCompletionFunc(name, fn)
}
