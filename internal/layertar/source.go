package layertar

import (
	"context"
	"io"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// Source is what a generated diff is made from: an overlay upper and the
// layers below it (Upper set: native), or two unions that are compared.
type Source struct {
	// Upper is the layer's own directory, with marks of UpperStyle.
	Upper      string
	UpperStyle whiteout.Style
	// Lowers are the directories below Upper, top first.
	Lowers []string
	// New and Old are unions of directories, top first, whose marks have
	// UpperStyle; with an empty Old everything is added. Used when Upper is "".
	New, Old []string
	// Maps translate the directories' owners (host IDs) back to the
	// container's; OldMaps those of Old.
	Maps, OldMaps idmap.Maps
}

// ChangeKind says what happened to a path. The numbers are those of the
// peers' JSON output.
type ChangeKind int

// The kinds of changes.
const (
	Modify ChangeKind = iota
	Add
	Delete
)

// String returns the word that `changes` prints.
func (k ChangeKind) String() string {
	switch k {
	case Modify:
		return "Modify"
	case Add:
		return "Add"
	case Delete:
		return "Delete"
	}
	return "Unknown"
}

// Change is one difference. Path is absolute within the tree.
type Change struct {
	Path string
	Kind ChangeKind
}

// Changes yields the differences in the peers' order, comparing what is seen
// of the two trees (a directory whose times changed is a Modify, the root is
// never listed). An error of yield ends it.
func Changes(ctx context.Context, s Source, yield func(Change) error) error {
	return errno.New(errno.ErrNotSupported, "changes: not supported")
}

// Generate writes the difference as a tar stream.
func Generate(ctx context.Context, w io.Writer, s Source) error {
	return errno.New(errno.ErrNotSupported, "diff: not supported")
}

// Size returns the bytes of content that the difference holds, counted as the
// peers' diffsize does.
func Size(ctx context.Context, s Source) (int64, error) {
	return 0, errno.New(errno.ErrNotSupported, "diff size: not supported")
}
