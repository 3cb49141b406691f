// Package treecopy copies a directory tree exactly: by reflink where the
// filesystem can, else by data extents (holes stay holes), with hard links,
// extended attributes, owners, modes, times and special files.
//
// Everything is reached by directory descriptor and name, without following
// symlinks, so no link in the tree leads out of either. The destination is
// private to the caller: a kill or an error leaves a part of it, for the
// caller to remove as a whole. Nothing is synced.
//
// Order for each file: data, owner (clears set-user-ID and capabilities),
// extended attributes, mode, times; for a directory the same after its
// entries. One descriptor pair is held for each level of depth.
package treecopy
