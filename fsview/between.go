package fsview

import (
	"context"
	"io"
	"strconv"
	"strings"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
)

// betweenRows are the rows of diff/: what differs between any two objects.
func betweenRows() []Row {
	const gen = vnode.ValidStore
	const dir = "/diff/<a>..<b>"
	return []Row{
		{Path: "/diff", Kind: Dir, Mode: modeDir, Valid: vnode.ValidForever, Doc: "Differences between any two objects, by name; lists nothing.",
			rowOps: rowOps{find: findPair}},
		{Path: dir, Kind: Dir, Mode: modeDir, Valid: gen, Doc: "From a to b: each is an ID, or `layer:NAME`, `image:NAME` or `container:NAME`, encoded as entries are, with `..` in a name as `%2E%2E`. An image without layers is an empty tree."},
		{Path: dir + "/changes", Kind: Stream, Mode: modeOwn, Valid: gen, Listed: Sized, Doc: "`Add`, `Modify` or `Delete` and a quoted path a line: what leads from a's tree to b's.",
			rowOps: rowOps{exports: true, blob: pairBlob(changesBetween)}},
		{Path: dir + "/tar", Kind: Stream, Mode: modeOwn, Valid: gen, Listed: Sized, Doc: "The same as a layer's tar archive, with whiteouts; where a is b's parent it is b's diff.tar.",
			rowOps: rowOps{exports: true, size: pairTarSize, blob: pairBlob(tarBetween)}},
		{Path: dir + "/size", Kind: Stream, Mode: modeRead, Valid: gen, Listed: Sized, Doc: "How many bytes the files hold that are new or changed in b, as containers-storage diffsize counts.",
			rowOps: rowOps{blob: pairBlob(sizeBetween)}},
	}
}

func findPair(_ context.Context, p place, name string) (entry, error) {
	if _, _, err := p.pair(name); err != nil {
		return entry{}, err
	}
	return entry{name, where{row: p.row.child("<a>..<b>"), id: name}}, nil
}

// pair resolves `a..b` to two layers, or store.Nothing for what has none.
func (p place) pair(name string) (from, to string, err error) {
	i := strings.Index(name, "..")
	if i <= 0 || i+2 == len(name) || strings.Contains(name[i+1:], "..") {
		return "", "", errno.New(errno.ErrBadValue, "%q is not a pair: write A..B, each an ID or layer:NAME, image:NAME or container:NAME, and two dots in a name as %%2E%%2E", clip(name))
	}
	if from, err = p.pairLayer(name[:i]); err != nil {
		return "", "", err
	}
	to, err = p.pairLayer(name[i+2:])
	return from, to, err
}

// pairLayer returns the layer that one half of a pair means: an image's top
// layer, a container's own; store.Nothing for an image of none.
func (p place) pairLayer(ref string) (string, error) {
	plain, err := Decode(ref)
	if err != nil {
		return "", err
	}
	kind, id, err := p.pairObject(plain)
	if err != nil {
		return "", err
	}
	q := p.at(p.fs.paths["/"+kind.Plural()+"/<"+kind.String()+">"], id, "")
	layer, ok := q.layerID()
	switch {
	case ok:
		return layer, nil
	case kind == store.KindImage:
		return store.Nothing, nil
	}
	return "", errno.New(errno.ErrBadValue, "the %s %s has no layer, and so nothing that could be compared", kind, clip(plain))
}

// pairObject finds what one half means: an ID of any kind, or a name or ID of
// the kind before its colon. Beginnings of IDs mean nothing here: they are
// resolved below by-id/ only.
func (p place) pairObject(ref string) (store.Kind, string, error) {
	for kind := store.KindLayer; kind <= store.KindContainer; kind++ {
		name, prefixed := strings.CutPrefix(ref, kind.String()+":")
		if !prefixed {
			if _, ok := p.tx.Names(kind, ref); ok {
				return kind, ref, nil
			}
			continue
		}
		if id, ok := p.tx.ByName(kind, name); ok {
			return kind, id, nil
		}
		if _, ok := p.tx.Names(kind, name); ok {
			return kind, name, nil
		}
		return 0, "", unknown("no %s is called %q", kind, clip(name))
	}
	return 0, "", unknown("nothing has the ID %q: write a name as layer:NAME, image:NAME or container:NAME", clip(ref))
}

// pairBlob gives a maker of content the two layers of the place's pair.
func pairBlob(open func(ctx context.Context, p place, from, to string) (blob, error)) func(context.Context, place) (blob, error) {
	return func(ctx context.Context, p place) (blob, error) {
		from, to, err := p.pair(p.id)
		if err != nil {
			return nil, err
		}
		return open(ctx, p, from, to)
	}
}

func changesBetween(_ context.Context, p place, from, to string) (blob, error) {
	return changesBlob(p.fs.store, from, to), nil
}

// isParent tells whether the difference is b's own diff.
func (p place) isParent(from, to string) bool {
	l := p.tx.LayerByID(to)
	return l != nil && (l.Parent == from || l.Parent == "" && from == store.Nothing)
}

func pairTarSize(ctx context.Context, p place) (int64, bool) {
	from, to, err := p.pair(p.id)
	if err != nil || !p.isParent(from, to) {
		return 0, false
	}
	return p.fs.sizes.ofLayer(ctx, p.fs.store, p.tx.LayerByID(to))
}

func tarBetween(ctx context.Context, p place, from, to string) (blob, error) {
	if p.isParent(from, to) {
		return tarBlob(ctx, p.fs.store, to)
	}
	src, err := p.fs.store.Diff(ctx, from, to)
	if err != nil {
		return nil, err
	}
	return newGenerated(func(ctx context.Context, w io.Writer) error { return layertar.Generate(ctx, w, src) }, nothing), nil
}

func sizeBetween(_ context.Context, p place, from, to string) (blob, error) {
	s := p.fs.store
	return newGenerated(func(ctx context.Context, w io.Writer) error {
		n, err := s.DiffSize(ctx, from, to)
		if err != nil {
			return err
		}
		_, err = w.Write(line(strconv.FormatInt(n, 10)))
		return err
	}, nothing), nil
}

func nothing() error { return nil }
