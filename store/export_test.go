package store

import "context"

// WithFailpoint has fn called at each numbered step of an operation.
func WithFailpoint(o Options, fn func(step string)) Options {
	o.failpoint = fn
	return o
}

// WithSubIDFiles has subordinate IDs read from other files.
func WithSubIDFiles(o Options, uids, gids string) Options {
	o.subIDFiles = [2]string{uids, gids}
	return o
}

// RemoveTree is removeTree.
func RemoveTree(ctx context.Context, path string) error { return removeTree(ctx, path) }

// KindDir is the directory of a kind's records and data.
func (s *Store) KindDir(k Kind) string { return s.kindDir(k) }
