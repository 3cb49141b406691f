package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/plyfs/plyfs/store"
)

// collect makes a list of a sequence, never nil: JSON has [] for it.
func collect[T any](seq iter.Seq[T]) []T {
	out := []T{}
	for v := range seq {
		out = append(out, v)
	}
	return out
}

// examine looks up each reference. Failures are told one by one, and the
// others go on; the error is the status then.
func examine[T any](a *app, refs []string, find func(ref string) (T, error)) (found []T, err error) {
	found = []T{}
	for _, ref := range refs {
		v, ferr := find(ref)
		if ferr != nil {
			a.say(ferr)
			err = failed
			continue
		}
		found = append(found, v)
	}
	return found, err
}

// examineAll prints what find finds for each reference: as a list, where a
// format was asked for, else each by details, in order.
func examineAll[T any](ctx context.Context, a *app, refs []string, find func(*store.Tx, string) (T, error), details func(context.Context, T) error) error {
	var found []T
	var status error
	err := a.view(ctx, func(t *store.Tx) error {
		found, status = examine(a, refs, func(ref string) (T, error) { return find(t, ref) })
		return nil
	})
	if err != nil {
		return err
	}
	if !a.output.plain() {
		return errors.Join(a.print(found, nil), status)
	}
	for _, v := range found {
		if err := details(ctx, v); err != nil {
			return err
		}
	}
	return status
}

// indented prints a line for each value of a list.
func indented[T ~string](w *bufio.Writer, what string, values []T) {
	for _, v := range values {
		fmt.Fprintf(w, "\t%s: %s\n", what, v)
	}
}
