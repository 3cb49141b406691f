package store

import (
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/layertar"
)

// Kind is one of the three sorts of objects that a store holds.
type Kind uint8

// The kinds, in the order in which their locks are taken.
const (
	KindLayer Kind = iota
	KindImage
	KindContainer
	numKinds = 3
)

// String returns the kind in the singular: "layer", "image", "container".
func (k Kind) String() string {
	switch k {
	case KindLayer:
		return "layer"
	case KindImage:
		return "image"
	case KindContainer:
		return "container"
	}
	return "object"
}

// Plural returns the kind as directories and files spell it: "layers", …
func (k Kind) Plural() string { return k.String() + "s" }

// Layer is the record of a layer. What the store hands out is an immutable
// snapshot shared by everyone: nobody modifies it or what it refers to.
type Layer struct {
	// ID is 64 lower-case hex digits, or whatever its maker chose.
	ID string
	// Names are unique among layers; the newest comes first.
	Names []string
	// Parent is the ID of the layer below, or "".
	Parent string
	// Metadata is free text of the layer's user.
	Metadata string
	// MountLabel is the SELinux label for mounts, or "".
	MountLabel string
	Created    time.Time
	// CompressedDigest and CompressedSize (bytes) are of the stream as it was
	// applied; DiffDigest and DiffSize of the tar inside; empty until a diff
	// is applied. TOCDigest is that of a table of contents, if there was one.
	CompressedDigest, DiffDigest, TOCDigest digest.Digest
	CompressedSize, DiffSize                int64
	Compression                             layertar.Compression
	// UIDs and GIDs are the owners that the diff mentions.
	UIDs, GIDs   []uint32
	Maps         idmap.Maps
	BigDataNames []string
	// Flags holds the record's flags, numbers as json.Number.
	Flags map[string]any
	// ReadOnly layers come from an additional image store.
	ReadOnly bool
	// Volatile layers belong to volatile containers: their record is in
	// volatile-layers.json.
	Volatile bool

	meta
}

// Sealed tells whether the layer was made not to be written to.
func (l *Layer) Sealed() bool {
	on, ok := l.Flags[flagSealed].(bool)
	return ok && on
}

// Image is the record of an image. See Layer on sharing.
type Image struct {
	ID string
	// Digest is that of the big data item `manifest`, or the one given.
	Digest digest.Digest
	// Names are unique among images; the newest comes first. NamesHistory
	// holds every name that was ever set, the newest first; names given at
	// creation come into it with the first change.
	Names, NamesHistory []string
	// TopLayer is the ID of the image's layer, or "" for none; MappedLayers
	// are copies of it with other ID maps.
	TopLayer       string
	MappedLayers   []string
	Metadata       string
	BigDataNames   []string
	BigDataSizes   map[string]int64
	BigDataDigests map[string]digest.Digest
	Created        time.Time
	Flags          map[string]any
	// ReadOnly images come from an additional image store.
	ReadOnly bool

	meta
}

// Container is the record of a container. See Layer on sharing.
type Container struct {
	ID    string
	Names []string
	// Image is the ID of the image it was made from, or ""; Layer the ID of
	// its own writable layer.
	Image, Layer   string
	Metadata       string
	BigDataNames   []string
	BigDataSizes   map[string]int64
	BigDataDigests map[string]digest.Digest
	Created        time.Time
	Maps           idmap.Maps
	Flags          map[string]any
	// Volatile containers are not expected to outlive the machine's run.
	Volatile bool

	meta
}

// Mountpoint says where a layer is mounted and how many users the mount has.
type Mountpoint struct {
	Path  string
	Count int
	// extra are the members that we know nothing of, each with a comma before
	// it, kept for the next rewrite.
	extra string
}

// LayerSpec says what layer to make.
type LayerSpec struct {
	// ID is the wanted ID, or "" for a random one.
	ID string
	// Parent is a resolved layer ID, or "".
	Parent   string
	Names    []string
	Metadata string
	// Label is the SELinux mount label.
	Label string
	// ReadOnly says that it will not be mounted for writing; such layers go to
	// a separate image store, where there is one.
	ReadOnly bool
	// Seal records that: the layer is never mounted for writing, and takes no
	// further archive (a flag that the peers keep and do not know).
	Seal bool
	// BigData are the layer's data items.
	BigData []BigDataItem
	// Maps are the layer's owners' ID maps; without any it has its parent's,
	// or, with HostIDs, none. A driver that maps when it mounts records none.
	Maps     idmap.Maps
	HostIDs  bool
	Volatile bool
	// Limits bound what the layer takes; ErrNotSupported where none can be set.
	Limits drivers.Limits

	writable bool // a container's: the driver's own limits hold for it

	owner idmap.Maps // gives the root directory its owner, when Maps does not
	twin  string     // the layer that this one is a mapped copy of
}

// BigDataItem is one item of big data to put into a new image or container.
type BigDataItem struct {
	Key  string
	Data []byte
}

// ImageSpec says what image to make.
type ImageSpec struct {
	// ID is the wanted ID, or "" for a random one.
	ID string
	// Layer is a resolved layer ID, or "" for an image without one.
	Layer    string
	Names    []string
	Metadata string
	// Digest is the image's digest; empty means that of the item `manifest`.
	Digest digest.Digest
	// Created is the image's own time; zero means now.
	Created time.Time
	BigData []BigDataItem
}

// ContainerSpec says what container to make.
type ContainerSpec struct {
	// ID is the wanted ID, or "" for a random one.
	ID string
	// Image is a resolved image ID, or "".
	Image string
	// LayerID is the wanted ID of the container's layer, or "" for a random one.
	LayerID  string
	Names    []string
	Metadata string
	// Maps are the container's ID maps; none means the host's IDs. Where the
	// driver does not map when it mounts, the image gets a mapped copy of its
	// top layer, which later containers with the same maps share.
	Maps idmap.Maps
	// Auto, when set, has Maps chosen: IDs that no other container has.
	Auto       *AutoMaps
	MountLabel string
	Volatile   bool
	// Limits bound what the container's layer takes. Where one is 0 that of the
	// driver's options `size` and `inodes` holds.
	Limits  drivers.Limits
	BigData []BigDataItem
}

// Op is what happened to an object.
type Op string

// The operations that events tell.
const (
	OpCreate Op = "create"
	OpDelete Op = "delete"
	OpChange Op = "change"
	OpMount  Op = "mount"
	OpUmount Op = "umount"
)

// Event is one difference between two states that were loaded one after the
// other, by whichever process it was made.
type Event struct {
	// Generation is that of the later state; several events may share it.
	Generation uint64    `json:"generation"`
	Time       time.Time `json:"time"`
	Kind       Kind      `json:"kind"`
	Op         Op        `json:"op"`
	ID         string    `json:"id"`
	Names      []string  `json:"names,omitempty"`
	// Fields are the JSON names of the fields that a change touched, sorted.
	Fields []string `json:"fields,omitempty"`
}

// Broken is one thing that is wrong in the store, as Damaged lists it.
type Broken struct {
	Kind Kind
	// ID is the object's ID, or "" when the damage has none (a file that
	// cannot be read); it may be unfit for a path.
	ID string
	// Err wraps errno.ErrDamaged and is a sentence.
	Err error
}
