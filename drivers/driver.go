// Package drivers is the contract of copy-on-write drivers.
//
// # Vocabulary
//
// A driver keeps layers in its home, a folder of the graph root (`overlay/`,
// `vfs/`). A layer is a directory tree: its own changes over those of its
// parent. The stage is an entry of the store's extract area, `plyfs/` of the
// same graph root: a directory that belongs to one operation of one process,
// and that the next opener of the store sweeps when its owner is gone.
//
// # Life of a layer
//
//	Create   makes it in a stage, private and writable; no lock is held; slow work is here
//	(fill)   the store writes its content into Private.Dir
//	Publish  renames it into the home; the store holds the layers lock and has
//	         saved the record with the flag `incomplete`
//	Mount    says what to mount; the store counts, package mounts mounts
//	Retire   renames it out of the home into a stage; layers lock held; the
//	         store removes the stage later, with no lock
//
// A kill between any two of them leaves either a stage that its dead owner's
// lock betrays, or a record with `incomplete` that is swept with its
// directories. A driver holds no state that is not on disk, knows nothing of
// records, names, counts or locks, and never imports store.
//
// Methods may be called from several goroutines for different layers; the
// store serialises Publish, Retire and Exchange of one layer.
//
// Diff, usage, quota and the like are optional interfaces (differ.go and on),
// each behind a helper function that has a generic fallback.
package drivers

import (
	"context"
	"os"

	"github.com/sirupsen/logrus"

	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/mounts"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// Config is what every driver's constructor takes.
type Config struct {
	// Root and RunRoot are the absolute graph root and run root.
	Root, RunRoot string
	// Bare is a descriptor of the graph root without the mounts below it
	// (mounts.OpenBare); all renames between home and stage go through it,
	// since peers bind-mount `<root>/overlay` on itself. The store's.
	Bare *os.File
	// ImageStores are the graph roots of additional read-only stores.
	ImageStores []string
	// Options are the driver's options without its prefix: `mountopt`,
	// `mount_program`, … An unknown key is an ErrBadValue that names it.
	Options []Option
	Log     *logrus.Entry
}

// Option is one driver option.
type Option struct{ Key, Value string }

// LayerSpec says what layer Create makes.
type LayerSpec struct {
	ID string
	// Parent is the ID of a published layer, or "" for a base layer.
	Parent string
	// Root gives the root directory's owner as a host ID pair.
	RootUID, RootGID int
	// Maps is the layer's own ID map, if any.
	Maps idmap.Maps
	// From, when set, is a published layer with the same parent whose own
	// content the new one starts as a copy of (additive diffs); it then takes
	// From's place at Exchange and keeps its link.
	From string
	// Limits bound the new layer. Writable tells that it is to be written
	// through mounts; the driver's own limits (its options `size` and `inodes`)
	// then hold where Limits has none.
	Limits   Limits
	Writable bool
	// Twin, when set, is a published layer with the same parent of whose own
	// content the new one starts as a copy, to stand beside it.
	Twin string
}

// Source is the layer whose content the new one starts with, or "".
func (s LayerSpec) Source() string {
	if s.From != "" {
		return s.From
	}
	return s.Twin
}

// Private is a layer that only its maker sees.
type Private struct {
	// Dir is the absolute directory that content is written into.
	Dir string
	// Style is how whiteouts are written there.
	Style whiteout.Style
	// Parents are directories of the layers below, top first, for a Style
	// (Apply) or a hard link that needs them; may be empty.
	Parents []string
	// IgnoreChownErrors says that an owner which cannot be given is left.
	IgnoreChownErrors bool
	// ForceMask, when HasForceMask, is the mode that files and directories
	// get in place of their own, which goes into an xattr (`force_mask`).
	ForceMask    os.FileMode
	HasForceMask bool
}

// MountOptions are the caller's wishes for a mount.
type MountOptions struct {
	ReadOnly bool
	Volatile bool
	// Label is an SELinux mount label, or "".
	Label string
	// Options are further mount options ("nodev", …).
	Options []string
	// Maps are those that the owners of the layers below are seen through; a
	// driver that does not map at the mount (ShiftOf) is not given any.
	Maps idmap.Maps
}

// Driver keeps layers as directories. See the package comment for the
// lifecycle. stage is always a path relative to Config.Root.
type Driver interface {
	// Name is the name in directory names and records: "overlay", "vfs".
	Name() string
	// Create makes spec.ID under stage. ErrUnknown when the parent is not in
	// the home; ErrNotSupported when the chain is too deep for a mount. On
	// error it leaves what it made to whoever removes the stage.
	Create(ctx context.Context, stage string, spec LayerSpec) (Private, error)
	// Publish moves stage/id into the home and links it. ErrDuplicate when
	// the home has it.
	Publish(stage, id string) error
	// Exchange swaps the staged id (made with spec.From == id) for the
	// published one in one atomic rename; the old one is then in the stage.
	Exchange(stage, id string) error
	// Retire moves a layer from the home into the stage and drops its links.
	// A layer that is not (wholly) there is no error: what is there is moved.
	Retire(stage, id string) error
	// Has tells whether the home holds the layer, whole: false without error
	// when nothing is there, ErrDamaged with the reason when a part is.
	Has(id string) (bool, error)
	// List returns the IDs in the home, sorted.
	List() ([]string, error)
	// Dirs returns the directories whose union is the layer, its own first.
	// They are for reading only.
	Dirs(id string) ([]string, error)
	// Mount returns what to mount for id. Missing links are made again.
	Mount(id string, o MountOptions) (mounts.Plan, error)
	// Status returns what `containers-storage status` shows for the driver,
	// in its order.
	Status() [][2]string
}
