package store

import (
	"time"

	"github.com/sirupsen/logrus"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
)

// DefaultLockTimeout bounds a wait for a lock when Options names no limit.
const DefaultLockTimeout = 60 * time.Second

// Options say which store to open and how.
type Options struct {
	// GraphRoot and RunRoot are absolute; they are made when missing.
	GraphRoot, RunRoot string
	// ImageStores are graph roots of additional read-only image stores.
	ImageStores []string
	// LayerStores are additional layer stores, in the order in which they are
	// asked; see LookupAdditionalLayer.
	LayerStores []LayerStore
	// ImageStore is the graph root of images and their layers, made when
	// missing; "" when they are in GraphRoot. Layers go there if they are made
	// read-only; GraphRoot's own images are then shown, and are read-only.
	ImageStore string
	// NewDriver makes the driver; with nil the store only has records, and
	// whatever needs a driver is not supported.
	NewDriver func(drivers.Config) (drivers.Driver, error)
	// DriverName is the driver's name as directories spell it ("overlay").
	DriverName    string
	DriverOptions []drivers.Option
	// Maps are the ID maps of new layers without a parent for which no others
	// are named (remap-uids and its like in storage.conf).
	Maps idmap.Maps
	// Auto is what ContainerSpec.Auto means where it leaves a user or a limit
	// open (root-auto-userns-user and its like in storage.conf); its Size is
	// not looked at.
	Auto AutoMaps
	// DisableVolatile mounts volatile containers as the others are.
	DisableVolatile bool
	// LockTimeout bounds each wait for a lock; 0 is DefaultLockTimeout.
	LockTimeout time.Duration
	// Log is where warnings go; nil means nowhere.
	Log *logrus.Entry
	// ReadOnly opens without making, changing or sweeping anything.
	ReadOnly bool
	// Transient keeps the records of containers, which are all volatile then,
	// and of their layers in the run root, so that a restart of the machine
	// forgets them; images stay in the graph root.
	Transient bool
	// MustExist refuses a graph root that is missing or holds no store.
	MustExist bool
	// Brief is for a process that does one thing and ends: nobody is told of
	// what others write, and each View compares tokens. Watching costs
	// milliseconds, most of them when it ends. Close removes what killed
	// processes left, however long that takes, instead of leaving the rest to
	// the next opening.
	Brief bool
	// RemoveWithin bounds how long an operation waits for the removal of the files
	// of what it deleted or replaced, when its change is made and durable: what
	// takes longer goes on in the background (Removals, WaitRemovals), until
	// Close stops it for the next opening to go on with. 0: it is waited for.
	RemoveWithin time.Duration
	// subIDFiles are those of users and of groups; tests only.
	subIDFiles [2]string
	// Sync says how what is extracted becomes durable before a layer is
	// published; "" is SyncFilesystem.
	Sync SyncPolicy
	// Dedup lets the files of a new layer share the blocks of equal files of
	// other layers before it is published, where the filesystem can (btrfs, xfs
	// with reflink); elsewhere it does nothing. Each layer then costs a look at
	// all files of the store, and a reading of those that have the size of one of
	// its own.
	Dedup bool
	// failpoint is called at each numbered step of an operation; tests only.
	failpoint func(step string)
}

// SyncPolicy says how extracted content becomes durable.
type SyncPolicy string

const (
	// SyncFilesystem syncs the whole filesystem once a layer: the quickest
	// safe way, unless others write much to it.
	SyncFilesystem SyncPolicy = "filesystem"
	// SyncFile syncs each file and directory of the layer and nothing else.
	SyncFile SyncPolicy = "file"
	// SyncNone leaves it to the kernel: after a power loss a layer that was
	// published in the last seconds may lack content. The records are synced.
	SyncNone SyncPolicy = "none"
)

func (p SyncPolicy) check() error {
	switch p {
	case "", SyncFilesystem, SyncFile, SyncNone:
		return nil
	}
	return errno.New(errno.ErrBadValue, "there is no way %q to sync layers: use none, filesystem or file", string(p))
}
