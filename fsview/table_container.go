package fsview

import (
	"context"

	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
)

func withContainer(get func(c *store.Container) []byte) func(place) ([]byte, error) {
	return func(p place) ([]byte, error) {
		c, err := p.container()
		if err != nil {
			return nil, err
		}
		return get(c), nil
	}
}

func containerRows() []Row {
	const gen = vnode.ValidStore
	const dir = "/containers/<container>"
	text := func(path, doc string, get func(c *store.Container) []byte) Row {
		return Row{Path: dir + path, Kind: Text, Mode: modeRead, Valid: gen, Doc: doc, rowOps: rowOps{get: withContainer(get)}}
	}
	rows := kindRows(store.KindContainer, mkdirContainer)
	rows = append(rows, Row{Path: dir, Kind: Dir, Mode: modeDir, Valid: gen, Doc: "One container."})
	rows = append(rows, objectRows(store.KindContainer, dir)...)
	rows = append(rows,
		Row{Path: dir + "/image", Kind: Link, Mode: modeLink, Valid: gen, Doc: "The image that it was made from; absent if there was none.",
			rowOps: rowOps{has: func(p place) bool { _, ok := targetImage(p); return ok }, target: targetImage}},
		Row{Path: dir + "/layer", Kind: Link, Mode: modeLink, Valid: gen, Doc: "Its own writable layer.",
			rowOps: rowOps{has: hasLayer, target: targetLayer}},
		text("/label", "The SELinux label for mounts, or empty.", func(c *store.Container) []byte { return line(flagString(c.Flags, "MountLabel")) }),
		text("/volatile", "Whether it is not meant to outlive a crash: true or false.", func(c *store.Container) []byte { return boolText(c.Volatile) }),
		Row{Path: dir + "/idmap", Kind: Dir, Mode: modeDir, Valid: gen, Doc: "The container's ID maps, `CONTAINER HOST SIZE` a line; empty means that IDs are the same."},
		text("/idmap/uid", "Of users.", func(c *store.Container) []byte { return showIDMap(c.Maps.UIDs) }),
		text("/idmap/gid", "Of groups.", func(c *store.Container) []byte { return showIDMap(c.Maps.GIDs) }),
	)
	rows = append(rows, quotaRows(dir)...)
	for _, d := range []struct {
		name, doc string
		window    func(context.Context, place, bool) (string, error)
	}{
		{"dir", "Files of whoever made the container, gone with it, to read and write; naming it makes it.", userDirOf(false)},
		{"rundir", "The same in the run root, which a restart of the machine empties.", userDirOf(true)},
	} {
		rows = append(rows, Row{Path: dir + "/" + d.name, Kind: Subtree, Mode: modeMake, Valid: vnode.ValidNone, Listed: Asked, Doc: d.doc,
			rowOps: rowOps{window: d.window}})
	}
	rows = append(rows, treeRows(dir, true)...)
	return append(rows, mountRows(dir)...)
}

func targetImage(p place) (string, bool) {
	c := p.tx.ContainerByID(p.id)
	if c == nil || c.Image == "" {
		return "", false
	}
	return p.index().up(2, store.KindImage, c.Image)
}

// flagString returns a record's flag if it is a string.
func flagString(flags map[string]any, name string) string {
	s, _ := flags[name].(string)
	return oneLine(s)
}
