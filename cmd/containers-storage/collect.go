package main

import (
	"iter"
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
