package store

import (
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/internal/layertar"
)

// object is what the three records have in common.
type object interface {
	id() string
	names() []string
	m() *meta
	// fields gives access to what is set the same way for every kind; only
	// for records that nobody else sees yet.
	fields() fields
}

// fields points into a record. history is nil for all but images.
type fields struct {
	names    *[]string
	history  *[]string
	metadata *string
	flags    *map[string]any
}

// record is an object as sets hold it.
type record[R any] interface {
	comparable
	object
	// clone returns a copy that shares nothing that is ever changed in place.
	clone() R
	// index calls yield for every key that the record is found under.
	index(yield func(indexKey))
	// append appends the record as text to b.
	append(b []byte) ([]byte, error)
	// settle notes which file the record comes from.
	settle(from origin)
}

// relation is what a secondary index answers.
type relation uint8

const (
	relParent     relation = iota // layers by parent
	relDigest                     // layers and images by digest
	relTop                        // images by top layer
	relMapped                     // images by mapped layer
	relImage                      // containers by image
	relLayer                      // containers by layer
	relIncomplete                 // records flagged incomplete, key ""
)

// indexKey is one key of a secondary index.
type indexKey struct {
	rel relation
	key string
}

const flagIncomplete = "incomplete"

// flagSealed marks a layer that is not written to once it is made. It is
// plyfs's own; the peers keep flags that they do not know.
const flagSealed = "plyfs-read-only"

func indexFlags(flags map[string]any, yield func(indexKey)) {
	if on, ok := flags[flagIncomplete].(bool); ok && on {
		yield(indexKey{relIncomplete, ""})
	}
}

// Layers.

func (l *Layer) id() string      { return l.ID }
func (l *Layer) names() []string { return l.Names }
func (l *Layer) m() *meta        { return &l.meta }
func (l *Layer) fields() fields {
	return fields{names: &l.Names, metadata: &l.Metadata, flags: &l.Flags}
}

func (l *Layer) clone() *Layer {
	c := *l
	c.Names = slices.Clone(l.Names)
	c.UIDs, c.GIDs = slices.Clone(l.UIDs), slices.Clone(l.GIDs)
	c.Maps.UIDs, c.Maps.GIDs = slices.Clone(l.Maps.UIDs), slices.Clone(l.Maps.GIDs)
	c.BigDataNames = slices.Clone(l.BigDataNames)
	c.Flags = maps.Clone(l.Flags)
	return &c
}

func (l *Layer) index(yield func(indexKey)) {
	if l.Parent != "" {
		yield(indexKey{relParent, l.Parent})
	}
	seen := [...]digest.Digest{l.CompressedDigest, l.DiffDigest, l.TOCDigest}
	for i, d := range seen {
		if d != "" && !slices.Contains(seen[:i], d) {
			yield(indexKey{relDigest, string(d)})
		}
	}
	indexFlags(l.Flags, yield)
}

func decodeLayer(p *scanner) (*Layer, error) {
	l := new(Layer)
	err := decodeRecord(p, &l.meta, l.decodeMember)
	return l, err
}

func (l *Layer) decodeMember(d *decoder, key, v string) bool {
	switch key {
	case "id":
		d.str(key, v, &l.ID)
	case "names":
		d.strs(key, v, &l.Names)
	case "parent":
		d.str(key, v, &l.Parent)
	case "metadata":
		d.str(key, v, &l.Metadata)
	case "mountlabel":
		d.str(key, v, &l.MountLabel)
	case "created":
		d.time(key, v, &l.Created)
	case "big-data-names":
		d.strs(key, v, &l.BigDataNames)
	case "flags":
		d.flagsOf(key, v, &l.Flags)
	default:
		return l.decodeDiff(d, key, v)
	}
	return true
}

// decodeDiff decodes the members that tell of the layer's content.
func (l *Layer) decodeDiff(d *decoder, key, v string) bool {
	switch key {
	case "compressed-diff-digest":
		d.digest(key, v, &l.CompressedDigest)
	case "compressed-size":
		d.int64(key, v, &l.CompressedSize)
	case "diff-digest":
		d.digest(key, v, &l.DiffDigest)
	case "diff-size":
		d.int64(key, v, &l.DiffSize)
	case "toc-digest":
		d.digest(key, v, &l.TOCDigest)
	case "compression":
		var n int64
		d.int64(key, v, &n)
		l.Compression = layertar.Compression(n)
	case "uidset":
		d.ids(key, v, &l.UIDs)
	case "gidset":
		d.ids(key, v, &l.GIDs)
	case "uidmap":
		d.ranges(key, v, &l.Maps.UIDs)
	case "gidmap":
		d.ranges(key, v, &l.Maps.GIDs)
	default:
		return false
	}
	return true
}

// append writes the members in the peers' order (observed, 1.43).
func (l *Layer) append(b []byte) ([]byte, error) {
	e := encoder{b: append(b, '{')}
	e.always("id", l.ID)
	e.strs("names", l.Names)
	e.str("parent", l.Parent)
	e.str("metadata", l.Metadata)
	e.str("mountlabel", l.MountLabel)
	e.time("created", l.Created)
	e.str("compressed-diff-digest", string(l.CompressedDigest))
	e.int("compressed-size", l.CompressedSize)
	e.str("diff-digest", string(l.DiffDigest))
	e.int("diff-size", l.DiffSize)
	e.str("toc-digest", string(l.TOCDigest))
	e.int("compression", int64(l.Compression))
	e.ids("uidset", l.UIDs)
	e.ids("gidset", l.GIDs)
	if err := e.flags("flags", l.Flags); err != nil {
		return b, err
	}
	e.ranges(&l.meta, "uidmap", l.Maps.UIDs)
	e.ranges(&l.meta, "gidmap", l.Maps.GIDs)
	e.strs("big-data-names", l.BigDataNames)
	return e.finish(&l.meta), nil
}

// Images.

func (i *Image) id() string      { return i.ID }
func (i *Image) names() []string { return i.Names }
func (i *Image) m() *meta        { return &i.meta }
func (i *Image) fields() fields {
	return fields{names: &i.Names, history: &i.NamesHistory, metadata: &i.Metadata, flags: &i.Flags}
}

func (i *Image) clone() *Image {
	c := *i
	c.Names, c.NamesHistory = slices.Clone(i.Names), slices.Clone(i.NamesHistory)
	c.MappedLayers = slices.Clone(i.MappedLayers)
	c.BigDataNames = slices.Clone(i.BigDataNames)
	c.BigDataSizes, c.BigDataDigests = maps.Clone(i.BigDataSizes), maps.Clone(i.BigDataDigests)
	c.Flags = maps.Clone(i.Flags)
	return &c
}

func (i *Image) index(yield func(indexKey)) {
	if i.TopLayer != "" {
		yield(indexKey{relTop, i.TopLayer})
	}
	for n, id := range i.MappedLayers {
		if !slices.Contains(i.MappedLayers[:n], id) {
			yield(indexKey{relMapped, id})
		}
	}
	for _, d := range i.Digests() {
		yield(indexKey{relDigest, string(d)})
	}
	indexFlags(i.Flags, yield)
}

func decodeImage(p *scanner) (*Image, error) {
	i := new(Image)
	err := decodeRecord(p, &i.meta, i.decodeMember)
	return i, err
}

func (i *Image) decodeMember(d *decoder, key, v string) bool {
	switch key {
	case "id":
		d.str(key, v, &i.ID)
	case "digest":
		d.digest(key, v, &i.Digest)
	case "names":
		d.strs(key, v, &i.Names)
	case "names-history":
		d.strs(key, v, &i.NamesHistory)
	case "layer":
		d.str(key, v, &i.TopLayer)
	case "mapped-layers":
		d.strs(key, v, &i.MappedLayers)
	case "metadata":
		d.str(key, v, &i.Metadata)
	case "big-data-names":
		d.strs(key, v, &i.BigDataNames)
	case "big-data-sizes":
		d.sizes(key, v, &i.BigDataSizes)
	case "big-data-digests":
		d.digests(key, v, &i.BigDataDigests)
	case "created":
		d.time(key, v, &i.Created)
	case "flags":
		d.flagsOf(key, v, &i.Flags)
	default:
		return false
	}
	return true
}

// append writes the members in the peers' order (observed, 1.43).
func (i *Image) append(b []byte) ([]byte, error) {
	e := encoder{b: append(b, '{')}
	e.always("id", i.ID)
	e.str("digest", string(i.Digest))
	e.strs("names", i.Names)
	e.strs("names-history", i.NamesHistory)
	e.str("layer", i.TopLayer)
	e.strs("mapped-layers", i.MappedLayers)
	e.str("metadata", i.Metadata)
	e.strs("big-data-names", i.BigDataNames)
	pairs(&e, "big-data-sizes", i.BigDataSizes, appendInt)
	pairs(&e, "big-data-digests", i.BigDataDigests, appendDigest)
	e.time("created", i.Created)
	if err := e.flags("flags", i.Flags); err != nil {
		return b, err
	}
	return e.finish(&i.meta), nil
}

// Containers.

func (c *Container) id() string      { return c.ID }
func (c *Container) names() []string { return c.Names }
func (c *Container) m() *meta        { return &c.meta }
func (c *Container) fields() fields {
	return fields{names: &c.Names, metadata: &c.Metadata, flags: &c.Flags}
}

func (c *Container) clone() *Container {
	d := *c
	d.Names = slices.Clone(c.Names)
	d.BigDataNames = slices.Clone(c.BigDataNames)
	d.BigDataSizes, d.BigDataDigests = maps.Clone(c.BigDataSizes), maps.Clone(c.BigDataDigests)
	d.Maps.UIDs, d.Maps.GIDs = slices.Clone(c.Maps.UIDs), slices.Clone(c.Maps.GIDs)
	d.Flags = maps.Clone(c.Flags)
	return &d
}

func (c *Container) index(yield func(indexKey)) {
	if c.Image != "" {
		yield(indexKey{relImage, c.Image})
	}
	if c.Layer != "" {
		yield(indexKey{relLayer, c.Layer})
	}
	indexFlags(c.Flags, yield)
}

func decodeContainer(p *scanner) (*Container, error) {
	c := new(Container)
	err := decodeRecord(p, &c.meta, c.decodeMember)
	if on, ok := c.Flags["Volatile"].(bool); ok && on {
		c.Volatile = true
	}
	return c, err
}

func (c *Container) decodeMember(d *decoder, key, v string) bool {
	switch key {
	case "id":
		d.str(key, v, &c.ID)
	case "names":
		d.strs(key, v, &c.Names)
	case "image":
		d.str(key, v, &c.Image)
	case "layer":
		d.str(key, v, &c.Layer)
	case "metadata":
		d.str(key, v, &c.Metadata)
	case "big-data-names":
		d.strs(key, v, &c.BigDataNames)
	case "big-data-sizes":
		d.sizes(key, v, &c.BigDataSizes)
	case "big-data-digests":
		d.digests(key, v, &c.BigDataDigests)
	case "created":
		d.time(key, v, &c.Created)
	case "uidmap":
		d.ranges(key, v, &c.Maps.UIDs)
	case "gidmap":
		d.ranges(key, v, &c.Maps.GIDs)
	case "flags":
		d.flagsOf(key, v, &c.Flags)
	default:
		return false
	}
	return true
}

// append writes the members in the peers' order (observed, 1.43).
func (c *Container) append(b []byte) ([]byte, error) {
	e := encoder{b: append(b, '{')}
	e.always("id", c.ID)
	e.strs("names", c.Names)
	e.always("image", c.Image) // the peers write both, also when empty
	e.always("layer", c.Layer)
	e.str("metadata", c.Metadata)
	e.strs("big-data-names", c.BigDataNames)
	pairs(&e, "big-data-sizes", c.BigDataSizes, appendInt)
	pairs(&e, "big-data-digests", c.BigDataDigests, appendDigest)
	e.time("created", c.Created)
	e.ranges(&c.meta, "uidmap", c.Maps.UIDs)
	e.ranges(&c.meta, "gidmap", c.Maps.GIDs)
	if err := e.flags("flags", c.Flags); err != nil {
		return b, err
	}
	return e.finish(&c.meta), nil
}

// Digests returns every digest that the image is known by, without repeats:
// its own and those of its items `manifest` and `manifest-…`.
func (i *Image) Digests() []digest.Digest {
	var out []digest.Digest
	add := func(d digest.Digest) {
		if d != "" && !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	add(i.Digest)
	for _, key := range i.BigDataNames {
		if isManifestKey(key) {
			add(i.BigDataDigests[key])
		}
	}
	return out
}

func isManifestKey(key string) bool {
	return key == "manifest" || len(key) > 9 && key[:9] == "manifest-"
}

// changedOr returns when a change of the record was last seen, or created.
func (m *meta) changedOr(created time.Time) time.Time {
	if m.changed.IsZero() {
		return created
	}
	return m.changed
}
