package layertar

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/spill"
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
	// OverrideStat takes owners, what devices are, and set-ID bits for others
	// than root from the attribute user.containers.override_stat where a file has
	// it. Else modes are the files' own, which have them as well, and change with chmod.
	OverrideStat bool
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

// event is one step of a walk over a difference, in the order of the stream:
// a file that is there, a name that is gone, or an opaque directory.
type event struct {
	path string // relative to the root
	kind ChangeKind
	what eventKind
	// quiet events belong to the stream and not to the changes.
	quiet bool
	// ent, of u and in dir, or of a native walk over low (see parts), is the
	// file of a present event; of a gone one it carries the mark's time.
	u   *union
	dir *udir
	low *below
	ent *uentry
}

type eventKind uint8

const (
	present eventKind = iota
	gone
	opaqueDir
)

// walkSource yields the events of a source, with what is asked for, or more.
// With fork, which may be nil, parts of the walk may be made ahead (ahead.go).
func walkSource(ctx context.Context, s *Source, ask asked, yield func(*event) error, fork func(*room) fork) (err error) {
	if s.Upper != "" {
		return walkNative(ctx, s, ask, yield, fork)
	}
	return walkUnions(ctx, s, yield)
}

// Changes yields the differences, each directory's after its own, in the
// order of names. An error of yield ends it.
//
// Of a native source everything in the upper is a difference, except a
// directory that is below with the same owner, mode and time and under which
// nothing was added or deleted; an opaque directory is an Add. Of two unions a
// directory is one when its owner, mode or attributes differ or when anything
// in it does. The root is never listed.
func Changes(ctx context.Context, s Source, yield func(Change) error) error {
	c := changes{yield: yield}
	return walkSource(ctx, &s, askKinds|askShown, c.event, c.fork)
}

// changes yields what a walk finds.
type changes struct {
	yield func(Change) error
	quiet []string // directories on the way down that were not yielded
}

func (c *changes) event(e *event) error {
	if e.what == opaqueDir {
		return nil
	}
	return c.take(e.path, e.kind, e.quiet)
}

func (c *changes) take(path string, kind ChangeKind, quiet bool) error {
	for len(c.quiet) > 0 && !leadsTo(c.quiet[len(c.quiet)-1], path) {
		c.quiet = c.quiet[:len(c.quiet)-1]
	}
	if quiet {
		c.quiet = append(c.quiet, path)
		return nil
	}
	if kind != Modify {
		for _, dir := range c.quiet {
			if err := c.yield(Change{"/" + dir, Modify}); err != nil {
				return err
			}
		}
		c.quiet = c.quiet[:0]
	}
	return c.yield(Change{"/" + path, kind})
}

// leadsTo tells whether a directory is above a path.
func leadsTo(dir, path string) bool {
	return len(path) > len(dir) && path[len(dir)] == '/' && path[:len(dir)] == dir
}

// Size returns the bytes of content that the difference holds: the apparent
// sizes of all files that are no directories, each hard-linked one once. Where
// New is Old with one directory on top, that one is all that is read.
func Size(ctx context.Context, s Source) (int64, error) {
	if s.Upper == "" && len(s.New) > 1 && slices.Equal(s.New[1:], s.Old) {
		s.Upper, s.Lowers = s.New[0], s.Old
	}
	c := sizes{links: spill.NewLinks()}
	err := walkSource(ctx, &s, askFiles, c.event, c.fork)
	return c.total, errors.Join(err, c.links.Close())
}

// sizes adds up what a walk finds.
type sizes struct {
	total int64
	links *spill.Links
}

func (c *sizes) event(e *event) error {
	if e.what != present || e.ent.st.IsDir() {
		return nil
	}
	if e.ent.st.Nlink > 1 {
		if _, again, err := c.links.First(e.ent.st.Dev, e.ent.st.Ino, ""); again || err != nil {
			return err
		}
	}
	c.total += int64(e.ent.st.Size)
	return nil
}

// Generate writes the difference as a tar stream: the same bytes for the same
// directories. Names have no leading `./`, directories end in `/`, sockets
// are left out, and marks are `.wh.NAME` and `.wh..wh..opq`.
func Generate(ctx context.Context, w io.Writer, s Source) error {
	g := newGenerator(w, &s)
	err := walkSource(ctx, &s, askDirs|askSpecial, g.event, g.fork)
	if err == nil {
		err = g.end()
	}
	return errors.Join(err, g.links.Close())
}

// joinBytes is join for a name that is used again.
func joinBytes(dir string, name []byte) string {
	if dir == "" {
		return string(name)
	}
	return dir + "/" + string(name)
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// closing joins the error of a close to *err.
func closing(err *error, closeIt func() error) { *err = errors.Join(*err, closeIt()) }
