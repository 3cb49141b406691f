package fsview

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
)

// NodeKind is what sort of node a row makes.
type NodeKind uint8

// The kinds of nodes.
const (
	// Dir has the rows below it as entries.
	Dir NodeKind = iota
	// Objects is a directory of objects, or of what is named like them.
	Objects
	// Links is a directory of symlinks to objects.
	Links
	// Link is a symlink.
	Link
	// Text is a file of values, a line each.
	Text
	// Ctl is a text file whose lines are verbs.
	Ctl
	// Raw is a file of bytes.
	Raw
	// Stream is a file that is made while it is read, or taken while it is written.
	Stream
	// Subtree is the root of another tree.
	Subtree
)

// String returns the word that docs/controlfs.md uses.
func (k NodeKind) String() string {
	return [...]string{"dir", "objects", "links", "link", "text", "ctl", "raw", "stream", "tree"}[k]
}

func (k NodeKind) isDir() bool { return k <= Links || k == Subtree }

// Listed says when an entry shows in its directory.
type Listed uint8

// The answers.
const (
	// Always: whenever it is there.
	Always Listed = iota
	// Never: reachable by name only.
	Never
	// Sized: while its size is known beforehand, or with ShowStreams.
	Sized
	// Held: while this control tree holds the layer's mount.
	Held
	// Asked: while it is there, with ShowDirs.
	Asked
)

// String returns the word that docs/controlfs.md uses.
func (l Listed) String() string {
	return [...]string{"yes", "no", "if its size is known", "while mounted here", "with show=dirs"}[l]
}

// Row is one line of the table that the tree is.
type Row struct {
	// Path is the pattern; a component <x> stands for many names.
	Path string
	Kind NodeKind
	// Mode holds the permission bits where the tree may be written.
	Mode uint32
	// Valid is how long what is known of it may be believed.
	Valid  vnode.Validity
	Listed Listed
	// Doc is one sentence.
	Doc string

	rowOps

	name   string // last component of Path
	parent *Row
	kids   []*Row
	obj    objKind
}

// rowOps is what a row does; what is nil it cannot do. Each is called with the
// node's place in one state of the store.
type rowOps struct {
	// has tells whether the file is there; nil means always.
	has func(p place) bool
	// hideable entries go with Options.HideTrees.
	hideable bool
	// exports files hold what tree/ may refuse: only who may read all of it there
	// may read them.
	exports bool
	// adopts files can be written for an image of an additional store, too.
	adopts bool
	// own narrows a Subtree to the layer's own files.
	own bool
	// window is the host directory that a Subtree of Listed Asked shows; with
	// make it is made when it is not there. "" without error: it is not there.
	window func(ctx context.Context, p place, make bool) (string, error)
	// born says that the value never changes after the object's creation.
	born bool

	get    func(p place) ([]byte, error)                                       // Text, Ctl, Raw: the value
	put    func(ctx context.Context, p place, v []byte) error                  // Text, Raw: take a value; Ctl: run one verb
	add    func(ctx context.Context, p place, v []byte) error                  // Text: take what was appended
	check  func(p place) error                                                 // whether it may be written at all, asked at open
	blob   func(ctx context.Context, p place) (blob, error)                    // Raw, Stream: the content
	size   func(ctx context.Context, p place) (int64, bool)                    // Stream, Raw: size, and whether it is known
	sink   func(ctx context.Context, p place) (sink, error)                    // Stream: where writes go
	take   func(ctx context.Context, p place, flags int) (vnode.Handle, error) // Stream: a handle of its own for writes
	target func(p place) (string, bool)                                        // Link
	mtime  func(p place) time.Time                                             // when the value or set last changed, else the object's time

	list    func(p place) []entry
	dirs    func(p place) int // how many directories list returns; nil means none
	find    func(ctx context.Context, p place, name string) (entry, error)
	mkdir   func(ctx context.Context, p place, name string) (entry, error)
	rmdir   func(ctx context.Context, p place, name string) error
	create  func(ctx context.Context, p place, name string) (entry, error)
	symlink func(ctx context.Context, p place, name, target string) (entry, error)
	unlink  func(ctx context.Context, p place, name string) error
	rename  func(ctx context.Context, p place, name string, to where, newName string) error
}

// objKind is what the place of a row belongs to.
type objKind uint8

const (
	objNone objKind = iota
	objLayer
	objImage
	objContainer
	objDraft
)

func (o objKind) kind() (store.Kind, bool) {
	switch o {
	case objLayer:
		return store.KindLayer, true
	case objImage:
		return store.KindImage, true
	case objContainer:
		return store.KindContainer, true
	}
	return 0, false
}

func objOf(k store.Kind) objKind { return objLayer + objKind(k) }

// where is a node's identity: a row, the object it belongs to, and what
// further names it needs (a big data key, a folder of by-name).
type where struct {
	row *Row
	id  string
	arg string
}

// place is a node in one state of the store.
type place struct {
	where
	fs *FS
	tx *store.Tx
}

func (p place) at(row *Row, id, arg string) place {
	p.where = where{row, id, arg}
	return p
}

// entry is one name in a directory. dangling is only set by find: the name is
// known to be nothing, and that may be remembered.
type entry struct {
	name string
	where
}

// child returns the row below r whose last component is name, or nil.
func (r *Row) child(name string) *Row {
	for _, k := range r.kids {
		if k.name == name {
			return k
		}
	}
	return nil
}

func (r *Row) dynamic() bool { return strings.HasPrefix(r.name, "<") }

// plant links rows into a trie and returns the root's. A row whose parent is
// missing is a mistake in the table.
func plant(rows []Row) (*Row, map[string]*Row, error) {
	byPath := make(map[string]*Row, len(rows))
	var root *Row
	for i := range rows {
		r := &rows[i]
		if byPath[r.Path] != nil {
			return nil, nil, fmt.Errorf("the table has two rows %s", r.Path)
		}
		byPath[r.Path] = r
		if r.Path == "/" {
			root = r
			continue
		}
		cut := strings.LastIndexByte(r.Path, '/')
		r.name = r.Path[cut+1:]
		r.parent = byPath["/"+strings.TrimPrefix(r.Path[:cut], "/")]
		if r.parent == nil {
			return nil, nil, fmt.Errorf("the table has no row above %s", r.Path)
		}
		r.parent.kids = append(r.parent.kids, r)
		r.obj = objectOf(r)
	}
	return root, byPath, nil
}

func objectOf(r *Row) objKind {
	switch {
	case strings.HasPrefix(r.Path, "/layers/<layer>"):
		return objLayer
	case strings.HasPrefix(r.Path, "/images/<image>"):
		return objImage
	case strings.HasPrefix(r.Path, "/containers/<container>"):
		return objContainer
	case strings.HasPrefix(r.Path, "/drafts/<draft>"):
		return objDraft
	}
	return objNone
}

// layer returns the record of the place's layer.
func (p place) layer() (*store.Layer, error) {
	if l := p.tx.LayerByID(p.id); l != nil {
		return l, nil
	}
	return nil, p.gone()
}

func (p place) image() (*store.Image, error) {
	if i := p.tx.ImageByID(p.id); i != nil {
		return i, nil
	}
	return nil, p.gone()
}

func (p place) container() (*store.Container, error) {
	if c := p.tx.ContainerByID(p.id); c != nil {
		return c, nil
	}
	return nil, p.gone()
}

func (p place) gone() error {
	kind, _ := p.row.obj.kind()
	return errno.New(errno.ErrUnknown, "%s %s is not known any more: it was removed meanwhile", kind, short(p.id))
}

// short is an ID as sentences quote it.
func short(id string) string {
	if isID(id) {
		return id[:12]
	}
	return clip(id)
}

// names returns the place's object's names, and whether it exists.
func (p place) names() ([]string, bool) {
	kind, ok := p.row.obj.kind()
	if !ok {
		return nil, false
	}
	return p.tx.Names(kind, p.id)
}

// exists tells whether the object that the place belongs to is there.
func (p place) exists() bool {
	if p.row.obj == objDraft {
		return p.fs.draft(p.id) != nil
	}
	if p.row.obj == objNone {
		return true
	}
	_, ok := p.names()
	return ok
}
