package store

import (
	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/internal/errno"
)

// Find resolves a reference to an object of any kind: layers come first, then
// images, then containers, as the peers have it. ErrUnknown when no kind knows
// it, or when it is the beginning of several IDs of the first kind that has
// one; see Resolve.
func (t *Tx) Find(ref string) (Kind, string, error) {
	return t.findIn(ref, KindLayer, KindImage, KindContainer)
}

// findIn tries whole IDs and names of every kind before beginnings of IDs.
func (t *Tx) findIn(ref string, kinds ...Kind) (Kind, string, error) {
	for _, k := range kinds {
		if t.st.of(k).anyOf(ref) != nil || t.st.of(k).ownerOf(ref) != nil {
			id, err := t.Resolve(k, ref)
			return k, id, err
		}
	}
	for _, k := range kinds {
		if ref != "" && len(t.st.of(k).withPrefix(ref, 1)) > 0 {
			id, err := t.Resolve(k, ref)
			return k, id, err
		}
	}
	return 0, "", errno.New(errno.ErrUnknown, "%q is not known in %s: no layer, image or container has it as ID, name or beginning of an ID", short(ref), t.s.opts.GraphRoot)
}

// Exists tells whether ref refers to an object of kind k; see Resolve.
func (t *Tx) Exists(k Kind, ref string) bool {
	_, err := t.Resolve(k, ref)
	return err == nil
}

// Metadata returns the metadata of the object with exactly this ID; false when
// there is none.
func (t *Tx) Metadata(k Kind, id string) (string, bool) {
	switch k {
	case KindLayer:
		if l := t.LayerByID(id); l != nil {
			return l.Metadata, true
		}
	case KindImage:
		if i := t.ImageByID(id); i != nil {
			return i.Metadata, true
		}
	case KindContainer:
		if c := t.ContainerByID(id); c != nil {
			return c.Metadata, true
		}
	}
	return "", false
}

// LayersByCompressedDigest returns the layers whose stream, as it was applied,
// has the digest d.
func (t *Tx) LayersByCompressedDigest(d digest.Digest) []*Layer {
	return t.layersWith(d, func(l *Layer) digest.Digest { return l.CompressedDigest })
}

// LayersByUncompressedDigest returns the layers whose tar has the digest d.
func (t *Tx) LayersByUncompressedDigest(d digest.Digest) []*Layer {
	return t.layersWith(d, func(l *Layer) digest.Digest { return l.DiffDigest })
}

// LayersByTOCDigest returns the layers whose stream had a table of contents
// with the digest d.
func (t *Tx) LayersByTOCDigest(d digest.Digest) []*Layer {
	return t.layersWith(d, func(l *Layer) digest.Digest { return l.TOCDigest })
}

func (t *Tx) layersWith(d digest.Digest, of func(*Layer) digest.Digest) []*Layer {
	var out []*Layer
	for _, l := range t.LayersByDigest(d) {
		if of(l) == d {
			out = append(out, l)
		}
	}
	return out
}

// Mounted says where the layer is mounted that ref refers to, as Mount takes
// it (a container's, a layer, an image's, or the path of a mount), and how
// many users the mount has: zero when it is not mounted. ErrUnknown.
func (t *Tx) Mounted(ref string) (Mountpoint, error) {
	id, err := t.mountedLayer(ref)
	if err != nil {
		return Mountpoint{}, err
	}
	m, _ := t.Mountpoint(id)
	return m, nil
}

// Mounts returns where each mounted layer is mounted, by its ID. The map is
// the caller's.
func (t *Tx) Mounts() map[string]Mountpoint {
	out := make(map[string]Mountpoint, len(t.st.mounts.table))
	for id, m := range t.st.mounts.table {
		out[id] = m
	}
	return out
}
