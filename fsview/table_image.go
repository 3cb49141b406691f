package fsview

import (
	"context"
	"slices"
	"strconv"

	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
)

func withImage(get func(i *store.Image) []byte) func(place) ([]byte, error) {
	return func(p place) ([]byte, error) {
		i, err := p.image()
		if err != nil {
			return nil, err
		}
		return get(i), nil
	}
}

func imageRows() []Row {
	const gen = vnode.ValidStore
	const dir = "/images/<image>"
	text := func(path, doc string, get func(i *store.Image) []byte) Row {
		return Row{Path: dir + path, Kind: Text, Mode: modeRead, Valid: gen, Doc: doc, rowOps: rowOps{get: withImage(get)}}
	}
	item := func(path, doc string, key func(p place) (string, bool)) Row {
		ops := itemOps(key)
		return Row{Path: dir + path, Kind: Raw, Mode: modeRead, Valid: gen, Doc: doc, rowOps: ops}
	}
	rows := kindRows(store.KindImage, mkdirImage)
	rows = append(rows, Row{Path: dir, Kind: Dir, Mode: modeDir, Valid: gen, Doc: "One image."})
	rows = append(rows, objectRows(store.KindImage, dir)...)
	rows = append(rows,
		Row{Path: dir + "/layer", Kind: Link, Mode: modeLink, Valid: gen, Doc: "The top layer; absent for an image without layers.",
			rowOps: rowOps{has: hasLayer, target: targetLayer}},
		Row{Path: dir + "/layers", Kind: Links, Mode: modeDir, Valid: gen, Doc: "The layers, numbered from the base.",
			rowOps: rowOps{list: listNumbered, find: findNumbered}},
		Row{Path: dir + "/layers/<NN>", Kind: Link, Mode: modeLink, Valid: gen, Doc: "One layer of the image; 00 is the base.",
			rowOps: rowOps{target: targetNumbered}},
	)
	rows = append(rows, linksRows(dir+"/mapped-layers", store.KindLayer, "Copies of the top layer with other ID maps.", "A copy of the top layer.",
		nil, func(p place) []string {
			if i := p.tx.ImageByID(p.id); i != nil {
				return i.MappedLayers
			}
			return nil
		})...)
	rows = append(rows,
		text("/digest", "The image's digest (of its manifest), or empty.", func(i *store.Image) []byte { return line(string(i.Digest)) }),
		Row{Path: dir + "/digests", Kind: Text, Mode: modeRead, Valid: gen, Doc: "Every digest that the image is found by, one a line.",
			rowOps: rowOps{get: func(p place) ([]byte, error) { return lines(digestsOf(p.tx, store.KindImage, p.id)), nil }}},
		text("/names-history", "Every name that the image had, one a line, oldest first.", func(i *store.Image) []byte {
			shown := make([]string, len(i.NamesHistory))
			for n, name := range i.NamesHistory {
				shown[n] = showName(name)
			}
			return lines(shown)
		}),
		text("/readonly", "Whether the image is in an additional, read-only store: true or false.", func(i *store.Image) []byte { return boolText(i.ReadOnly) }),
		item("/manifest", "The manifest, byte for byte; absent when there is none.", keyManifest),
		item("/config", "The configuration, byte for byte; absent when there is none.", keyConfig),
		Row{Path: dir + "/history", Kind: Text, Mode: modeRead, Valid: gen, Doc: "How the image was made, from its configuration: time, `layer` or `empty`, command; a line a step. Absent without a configuration.",
			rowOps: rowOps{has: func(p place) bool { _, ok := keyConfig(p); return ok }, get: historyText}},
	)
	rows = append(rows, linksRows(dir+"/containers", store.KindContainer, "The containers of this image; mkdir makes one.", "A container of this image.",
		mkdirContainerOf, func(p place) []string { return idsOf(p.tx.ContainersOf(p.id), containerID) })...)
	rows = append(rows, exportRows(dir)...)
	return append(rows, treeRows(dir, false)...)
}

func targetLayer(p place) (string, bool) {
	id, ok := p.layerID()
	if !ok {
		return "", false
	}
	return p.index().up(2, store.KindLayer, id)
}

// chain returns the image's layers, base first.
func (p place) chain() []*store.Layer {
	id, ok := p.layerID()
	if !ok {
		return nil
	}
	chain := slices.Clone(p.tx.Chain(id))
	slices.Reverse(chain)
	return chain
}

func listNumbered(p place) []entry {
	chain, row := p.chain(), p.row.child("<NN>")
	list := make([]entry, len(chain))
	for i := range chain {
		nn := ordinal(i, len(chain))
		list[i] = entry{nn, where{row, p.id, nn}}
	}
	return list
}

func findNumbered(_ context.Context, p place, name string) (entry, error) {
	e := entry{name, where{p.row.child("<NN>"), p.id, name}}
	if _, ok := targetNumbered(p.at(e.row, e.id, e.arg)); !ok {
		return entry{}, unknown("the image has no layer %q: they are numbered from 00, the base", clip(name))
	}
	return e, nil
}

func targetNumbered(p place) (string, bool) {
	chain := p.chain()
	i, err := strconv.Atoi(p.arg)
	if err != nil || i < 0 || i >= len(chain) || ordinal(i, len(chain)) != p.arg {
		return "", false
	}
	return p.index().up(3, store.KindLayer, chain[i].ID)
}
