package store

import (
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/internal/errno"
)

// Tx is a consistent snapshot of the store. It may be kept after View returns:
// it never changes and holds no lock; that of a brief store as long as the
// store is open. (Inside Update it shows what was changed
// so far, and ends with it.)
type Tx struct {
	s  *Store
	st *state
}

// Generation numbers the state: it grows with every difference that is loaded
// or made, and starts at 1 when the store is opened.
func (t *Tx) Generation() uint64 { return t.st.gen }

// Layers iterates over the layers in the order of their records.
func (t *Tx) Layers() iter.Seq[*Layer] { return slices.Values(t.st.layers.records().list) }

// Images iterates over the images in the order of their records.
func (t *Tx) Images() iter.Seq[*Image] { return slices.Values(t.st.images.records().list) }

// Containers iterates over the containers in the order of their records.
func (t *Tx) Containers() iter.Seq[*Container] { return slices.Values(t.st.containers.records().list) }

// Len returns how many objects of kind k there are.
func (t *Tx) Len(k Kind) int { return t.st.of(k).len() }

// IDs returns the IDs of kind k, sorted; the caller must not change the slice.
func (t *Tx) IDs(k Kind) []string { return t.st.of(k).sortedIDs() }

// Names returns the names of an object, newest first; false when there is none.
func (t *Tx) Names(k Kind, id string) ([]string, bool) {
	if o := t.st.of(k).anyOf(id); o != nil {
		return o.names(), true
	}
	return nil, false
}

// LayerByID returns the layer with exactly this ID, or nil.
func (t *Tx) LayerByID(id string) *Layer { return t.st.layers.records().byID[id] }

// ImageByID returns the image with exactly this ID, or nil.
func (t *Tx) ImageByID(id string) *Image { return t.st.images.records().byID[id] }

// ContainerByID returns the container with exactly this ID, or nil.
func (t *Tx) ContainerByID(id string) *Container { return t.st.containers.records().byID[id] }

// ByName returns the ID of the object that has exactly this name.
func (t *Tx) ByName(k Kind, name string) (id string, ok bool) {
	if o := t.st.of(k).ownerOf(name); o != nil {
		return o.id(), true
	}
	return "", false
}

// Layer returns the layer that ref refers to; see Resolve.
func (t *Tx) Layer(ref string) (*Layer, error) {
	id, err := t.Resolve(KindLayer, ref)
	return t.st.layers.records().byID[id], err
}

// Image returns the image that ref refers to; see Resolve.
func (t *Tx) Image(ref string) (*Image, error) {
	id, err := t.Resolve(KindImage, ref)
	return t.st.images.records().byID[id], err
}

// Container returns the container that ref refers to; see Resolve.
func (t *Tx) Container(ref string) (*Container, error) {
	id, err := t.Resolve(KindContainer, ref)
	return t.st.containers.records().byID[id], err
}

// Resolve turns a reference into an ID: an ID itself, else a name, else the
// beginning of exactly one ID. ErrUnknown tells what is wrong with it.
func (t *Tx) Resolve(k Kind, ref string) (id string, err error) {
	objs := t.st.of(k)
	if o := objs.anyOf(ref); o != nil {
		return ref, nil
	}
	if o := objs.ownerOf(ref); o != nil {
		return o.id(), nil
	}
	if ref == "" {
		return "", errno.New(errno.ErrUnknown, "an empty reference names no %s; give an ID or a name", k)
	}
	const shown = 3
	found := objs.withPrefix(ref, shown+1)
	switch len(found) {
	case 0:
		return "", errno.New(errno.ErrUnknown, "%s %q is not known: no ID, name or beginning of an ID in %s", k, short(ref), t.s.opts.GraphRoot)
	case 1:
		return found[0], nil
	}
	more := ""
	if len(found) > shown {
		found, more = found[:shown], ", …"
	}
	return "", errno.New(errno.ErrUnknown, "%q is the beginning of several %s IDs (%s%s); give more of it", short(ref), k, strings.Join(found, ", "), more)
}

// short keeps a sentence readable when what it names is not.
func short(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// unknown is the error for an ID that kind k does not have.
func (t *Tx) unknown(k Kind, id string) error {
	return errno.New(errno.ErrUnknown, "%s %q is not known in %s", k, short(id), t.s.opts.GraphRoot)
}

// Children returns the layers whose parent is layerID.
func (t *Tx) Children(layerID string) []*Layer {
	return t.st.layers.records().related(relParent, layerID)
}

// ImagesOn returns the images whose top layer is layerID.
func (t *Tx) ImagesOn(layerID string) []*Image {
	return t.st.images.records().related(relTop, layerID)
}

// MappedBy returns the images that have layerID among their mapped layers.
func (t *Tx) MappedBy(layerID string) []*Image {
	return t.st.images.records().related(relMapped, layerID)
}

// ContainersOf returns the containers made from an image.
func (t *Tx) ContainersOf(imageID string) []*Container {
	return t.st.containers.records().related(relImage, imageID)
}

// ContainersOnLayer returns the containers whose own layer is layerID.
func (t *Tx) ContainersOnLayer(layerID string) []*Container {
	return t.st.containers.records().related(relLayer, layerID)
}

// LayersByDigest returns the layers with d as compressed, uncompressed or
// table-of-contents digest.
func (t *Tx) LayersByDigest(d digest.Digest) []*Layer {
	return t.st.layers.records().related(relDigest, string(d))
}

// ImagesByDigest returns the images with d as digest or as that of one of
// their manifests.
func (t *Tx) ImagesByDigest(d digest.Digest) []*Image {
	return t.st.images.records().related(relDigest, string(d))
}

// Chain returns a layer and those below it, top first. It ends where a parent
// is missing or comes a second time; nil when there is no such layer.
func (t *Tx) Chain(layerID string) []*Layer {
	var chain []*Layer
	seen := make(map[string]bool)
	for l := range t.Down(layerID) {
		if seen[l.ID] {
			break
		}
		seen[l.ID] = true
		chain = append(chain, l)
	}
	return chain
}

// Down goes from a layer to its base as Chain does. Where damaged records make a
// ring of parents, it goes round as often as there are layers.
func (t *Tx) Down(layerID string) iter.Seq[*Layer] {
	return func(yield func(*Layer) bool) {
		left := len(t.st.layers.records().byID)
		for l := t.LayerByID(layerID); l != nil && left > 0 && yield(l); l = t.LayerByID(l.Parent) {
			left--
		}
	}
}

// Mountpoint says where a layer is mounted, by the shared table; false when
// it is not.
func (t *Tx) Mountpoint(layerID string) (Mountpoint, bool) {
	m, ok := t.st.mounts.table[layerID]
	return m, ok
}

// Modified returns when the set of objects or names of a kind last changed,
// as far as it is known.
func (t *Tx) Modified(k Kind) time.Time { return t.st.part(k).modified() }

// ModTime returns when a record last changed: when a change was last seen,
// else when the object was created. Zero when there is no such object.
func (t *Tx) ModTime(k Kind, id string) time.Time {
	o := t.st.of(k).anyOf(id)
	if o == nil {
		return time.Time{}
	}
	switch r := o.(type) {
	case *Layer:
		return r.changedOr(r.Created)
	case *Image:
		return r.changedOr(r.Created)
	case *Container:
		return r.changedOr(r.Created)
	}
	return time.Time{}
}
