// Package durable writes files so that a kill or a power loss leaves either
// the old content or the new, whole.
//
// WriteFile's steps, and what a kill after each leaves:
//
//  1. `.tmp-<base><digits>` is created O_EXCL in the same directory, with the
//     digit 0 or, where that is taken, random ones: an empty temporary file that
//     no reader opens; Sweep removes it later.
//  2. The content is written to it: as after step 1.
//  3. It is synced and closed: as after step 1.
//  4. It is renamed over the target: readers see the new content. After a
//     power loss (not a kill) the old content may be back.
//  5. The directory is synced: the new content is there for good.
//
// The temporary name is the one that the containers tools use, so that their
// habit of ignoring such names covers ours. A failure before step 4 removes
// the temporary file and leaves the target alone. The package holds no state
// and no lock; two writers of one path must be kept apart by their caller
// (the later rename wins, nothing is mixed).
package durable
