package mounts

import "github.com/plyfs/plyfs/internal/idmap"

// Plan says what to mount, as data. A driver returns one; Do acts on it.
//
// With Type empty there is nothing to mount: Target is a directory that holds
// the tree already (vfs, btrfs).
type Plan struct {
	// Target is the path to hand to the caller, and where Do mounts.
	Target string
	// Type is the filesystem type: "overlay" or "".
	Type string
	// Lowers are the read-only layers, top first; Upper and Work are empty
	// for a read-only mount. All are absolute paths.
	Lowers      []string
	Upper, Work string
	// Options are further options, each "word" or "key=value", for the
	// filesystem or, with Program set, for that program.
	Options []string
	// Flags are the MS_* flags of mount(2).
	Flags uintptr
	// Program is the path of a mount program that is run in place of
	// mount(2), as podman runs fuse-overlayfs; empty for the kernel.
	Program string
	// Dir is the working directory of Program and the base that shortens
	// Lowers (the driver's home).
	Dir string
	// Home, when set, is a directory that Do first makes a private mount
	// point of its own (BindPrivate), as the peers do: a peer that bind-mounts
	// it later would hide a mount that was made below it before.
	Home string
	// Mapped are copies of directories' mounts, seen through ID maps, that are
	// there while Do mounts, for paths of Lowers below them; all have the same
	// maps.
	Mapped []Mapping
}

// Mapping is a mount of directory From on the existing directory At, with the
// owners of its files translated: what container ID n owns in From belongs to
// the host ID that Maps give n.
type Mapping struct {
	From, At string
	Maps     idmap.Maps
}
