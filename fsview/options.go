package fsview

import (
	"time"

	"github.com/sirupsen/logrus"

	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
)

// The defaults of Options.
const (
	// DefaultBigDataLimit bounds one raw file, in bytes.
	DefaultBigDataLimit = 16 << 20
	// textLimit bounds a text file, in bytes.
	textLimit = 64 << 10
)

// TreeLayer is one directory of a union.
type TreeLayer struct {
	// ID is what getxattr of user.plyfs.layer answers.
	ID string
	// Dir is the absolute path of the layer's directory on the host.
	Dir string
	// Volatile layers may change while the tree is shown (they are mounted or
	// can be written); the others never do.
	Volatile bool
	// Owners, when set, makes the files be shown with the owners that they
	// have in a container: these are the maps from there to the files' own.
	Owners *idmap.Maps
}

// Trees makes the trees below tree/, diff/ and merged/. It is filled in by the
// program, so that this package and the overlay engine do not know each other.
type Trees interface {
	// Union returns the root of the read-only union of layers, top first. Its
	// nodes answer getxattr user.plyfs.layer. The key names the tree: two
	// trees of different keys share no inode number, and one key gives the
	// same inode numbers at every mount. When the root is forgotten
	// (vnode.Forgetter), what the tree holds is given back.
	Union(key string, layers []TreeLayer) (vnode.Node, error)
	// Window returns the root of a read-write view of the host directory at
	// path. The key is as for Union, owners as for TreeLayer: what is made and
	// given away by a container's IDs belongs to those that they are mapped to.
	Window(key, path string, owners *idmap.Maps) (vnode.Node, error)
}

// Config is what config/ shows of the settings that the store was opened with.
type Config struct {
	// Options are the storage options, "key=value" each.
	Options []string
	// StorageConf is the effective configuration in the form of storage.conf.
	StorageConf []byte
}

// RequestCount is how many requests of a kind a server answered, how long that
// took it in all, and the longest.
type RequestCount struct {
	Kind           string
	Count          uint64
	Total, Longest time.Duration
}

// Options are the settings of a control tree.
type Options struct {
	// Store is the store to show; it stays the caller's.
	Store  *store.Store
	Config Config
	// Trees makes tree/, diff/ and merged/; with nil they are not supported.
	Trees Trees
	// Version is the program's version.
	Version string
	// MountPoint is where the tree is mounted, or empty: to tell who uses it.
	MountPoint string
	// Log is where warnings go; nil means nowhere.
	Log *logrus.Entry
	// Requests, when set, returns what stats/requests shows of the server: a
	// line for each kind, always the same ones.
	Requests func() []RequestCount
	// HideTrees leaves tree/, diff/ and diff.tar out of listings.
	HideTrees bool
	// ShowStreams lists files whose size is not known beforehand too.
	ShowStreams bool
	// ShowDirs lists dir/ and rundir/ of containers where they are there.
	ShowDirs bool
	// KeepDrafts keeps drafts on disk for the next who asks for it: commands
	// without a mount. Those that are older than a day are dropped.
	KeepDrafts bool
	// ContainerOwners shows what is in tree/, diff/ and merged/ with the owners
	// that containers see.
	ContainerOwners bool
	// ReadOnly refuses every change.
	ReadOnly bool
	// BigDataLimit bounds a raw file (big data, metadata) in bytes; 0 is
	// DefaultBigDataLimit.
	BigDataLimit int64
	// UID and GID own the control files.
	UID, GID uint32
	// Delegated says that UID is not who this process runs as, and so may not
	// read all that it can: the files that hold whole trees (diff.tar, oci.tar, …)
	// are then nobody's to read but root's.
	Delegated bool
	// Umask are permission bits that the control files lack.
	Umask uint32
}
