package fuseoverlay

import (
	"strings"
	"sync/atomic"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/inomap"
	"github.com/plyfs/plyfs/internal/safefs"
	"github.com/plyfs/plyfs/internal/vnode"
)

// MaxLayers is how many layers a tree can have: as many lower ones as the
// kernel's overlay takes (500, its OVL_MAX_STACK), and one on top.
const MaxLayers = 501

// LayerXattr is answered by getxattr on files and directories, with the name
// of the layer that they come from, and never listed.
const LayerXattr = "user.plyfs.layer"

// Layer is one directory of the union.
type Layer struct {
	// Name is what LayerXattr answers.
	Name string
	// Dir is the layer's directory; symlinks in this path are followed. It is
	// opened when first needed.
	Dir string
	// Volatile says that others write to the layer while the tree lives: what
	// depends on it is told with ValidNone and ValidCall, the rest with ValidForever.
	Volatile bool
	// Owners, when set, are the maps from a container's IDs to the owners of
	// the layer's files: nodes then show the container's (owners.go).
	Owners *idmap.Maps
}

// Format is a set of ways in which marks are written.
type Format uint8

const (
	// Trusted is the kernel's format as root: trusted.overlay.*.
	Trusted Format = 1 << iota
	// User is the kernel's format with the option userxattr: user.overlay.*.
	User
	// Files is `.wh.NAME` and `.wh..wh..opq`, as in the layers of images.
	Files
	// Fuse is user.fuseoverlayfs.* (opaque), written by fuse-overlayfs.
	Fuse
	// Override reads owners and modes from *.override_stat attributes
	// (user.containers, user.fuseoverlayfs, security.fuseoverlayfs). It is
	// part of no default: whoever may set user.* would choose what is shown.
	Override
)

// AllMarks is every format of marks. A whiteout that is a character device 0:0
// belongs to all of them.
const AllMarks = Trusted | User | Files | Fuse

// Config says what a tree is made of.
type Config struct {
	// Key makes the tree's inode numbers its own; the same key and layers
	// give the same numbers at every mount.
	Key string
	// Layers are the union's layers, top first: 1 to MaxLayers.
	Layers []Layer
	// Formats are the marks that are understood, and hidden; 0 is AllMarks.
	Formats Format
	// Recorded shows, of layers with Owners, the owners that override_stat
	// attributes tell: those of whoever could not give files away.
	Recorded bool
	// Cache bounds the open descriptors; nil gives the tree one of its own.
	Cache *Cache
}

// Tree is a read-only union. Its methods and its nodes' may be called from
// many goroutines.
type Tree struct {
	layers   []*layer
	formats  Format
	space    inomap.Space
	cache    *Cache
	root     *dirNode
	loans    *lending // of the upper; nil: nothing is lent
	moved    *moved
	closed   atomic.Bool
	recorded bool
	// writable: layer 0 is an Overlay's upper, whose directories it moves.
	writable bool
	// often is how many look-ups in vain make a place be listed, 0: any number;
	// see absences. dotWh: the writable layer's whiteouts are `.wh.` files. written
	// are the upper and the work directory. Set before there are requests.
	often   uint32
	dotWh   bool
	written []fileID
	// pinned: the layers' roots stay open. clones closes what they were opened through.
	pinned bool
	clones *dropping
}

// layer is a Layer with its number, 0 for the top one.
type layer struct {
	Layer
	index int
	// root is the layer's directory as a place.
	root *place
	// known and rootFacts are set under Cache.mu by the first opening, before
	// anyone is given a descriptor in the layer, and never again.
	known bool
	rootFacts
	// attrWhiteouts: any directory may hold whiteouts that are files with an
	// attribute; set before there are requests.
	attrWhiteouts bool
	// opened, if not nil, is the layer's directory; set before there are requests.
	opened *safefs.Dir
}

// Open makes a tree. It reads nothing yet: a layer that is not there shows
// when it is needed.
func Open(c Config) (*Tree, error) {
	if n := len(c.Layers); n == 0 || n > MaxLayers {
		return nil, errno.New(errno.ErrBadValue, "a merged tree has 1 to %d layers, not %d: flatten the image or leave layers out", MaxLayers, n)
	}
	t := &Tree{formats: c.Formats, space: inomap.New("fuse-overlay\x00" + c.Key), cache: c.Cache, recorded: c.Recorded, moved: &moved{}}
	if t.formats&AllMarks == 0 {
		t.formats |= AllMarks
	}
	if t.cache == nil {
		t.cache = NewCache(DefaultDescriptors)
	}
	stack := make([]*place, 0, len(c.Layers))
	for i, l := range c.Layers {
		if l.Dir == "" || strings.IndexByte(l.Dir, 0) >= 0 {
			return nil, errno.New(errno.ErrBadValue, "layer %q has no directory", l.Name)
		}
		in := &layer{Layer: l, index: i}
		in.root = &place{tree: t, layer: in}
		t.layers = append(t.layers, in)
		stack = append(stack, in.root)
	}
	t.root = &dirNode{base{tree: t, ino: t.space.Number(^uint64(0), 0, 0)}}
	t.root.where = newWhere(&position{spot: stack[0].spot(), stack: stack})
	return t, nil
}

// Root returns the root directory's node.
func (t *Tree) Root() vnode.Node { return t.root }

// Close gives back the descriptors. Later calls of nodes fail with ESTALE;
// handles that are open stay good until their Release.
func (t *Tree) Close() error {
	t.closed.Store(true)
	return t.cache.dropTree(t)
}

// last tells whether no layer lies below p's.
func (t *Tree) last(p *place) bool { return p.layer.index == len(t.layers)-1 }
