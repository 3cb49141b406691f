package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// A script that was written for the peers looks for their words in an error;
// a person wants ours, which name the object and what to do. So an error has
// both: theirs, a colon, ours.

// withWords puts the peers' words in front of an error.
func withWords(words string, err error) error { return fmt.Errorf("%s: %w", words, err) }

// notKnown are the words for an object that is not there.
func notKnown(k store.Kind) string { return k.String() + " not known" }

// about explains an error that came of an object of kind k.
func about(k store.Kind, err error) error {
	if errors.Is(err, errno.ErrUnknown) {
		return withWords(notKnown(k), err)
	}
	return err
}

// aboutNew explains an error in making an object that was to have this ID.
func (a *app) aboutNew(ctx context.Context, k store.Kind, id string, err error) error {
	if !errors.Is(err, errno.ErrDuplicate) {
		return err
	}
	words := "that name is already in use"
	verr := a.view(ctx, func(t *store.Tx) error {
		if _, taken := t.Names(k, id); taken {
			words = "that ID is already in use"
		}
		return nil
	})
	return errors.Join(withWords(words, err), verr)
}
