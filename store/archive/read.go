package archive

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/plyfs/plyfs/internal/errno"
)

const (
	// maxImages is how many images one archive may have.
	maxImages = 256
	// maxNesting is how deep indexes may refer to indexes.
	maxNesting = 4
	// namesKey is the annotation of ours for all names of an image, one a line;
	// idKey that for an ID that is not the configuration's digest.
	namesKey = "io.plyfs.names"
	idKey    = "io.plyfs.id"
	// containerdName is where others keep a full name.
	containerdName = "io.containerd.image.name"
)

// image is one image of an archive, read and checked.
type image struct {
	id       string
	names    []string
	created  time.Time
	config   []byte
	manifest []byte
	layers   []layer // base first
}

// layer is one layer: diff is the digest of its tar, packed that of the file
// as it is stored ("" if not promised).
type layer struct {
	diff, packed digest.Digest
	file         string
}

func decode(what string, v []byte, into any) error {
	if err := json.Unmarshal(v, into); err != nil {
		return errno.New(errno.ErrBadStream, "%s is not the JSON it should be: %w", clip(what), err)
	}
	return nil
}

// read finds all images of a source.
func read(s source) ([]image, error) {
	switch {
	case s.has("manifest.json"):
		return readDocker(s)
	case s.has("index.json"):
		return readLayout(s)
	}
	return nil, errno.New(errno.ErrBadStream, "there is neither an index.json (OCI layout) nor a manifest.json (docker-save): it is no archive of images, or not whole")
}

func readLayout(s source) ([]image, error) {
	v, err := document(s, "index.json")
	if err != nil {
		return nil, err
	}
	var index v1.Index
	if err := decode("index.json", v, &index); err != nil {
		return nil, err
	}
	if len(index.Manifests) == 0 || len(index.Manifests) > maxImages {
		return nil, errno.New(errno.ErrBadStream, "index.json names %d images: from 1 to %d can be imported", len(index.Manifests), maxImages)
	}
	var images []image
	for _, d := range index.Manifests {
		i, err := readDescriptor(s, d, 0)
		if err != nil {
			return nil, err
		}
		i.names = namesOf(d.Annotations)
		if id := d.Annotations[idKey]; id != "" {
			i.id = id
		}
		images = append(images, i)
	}
	return images, nil
}

// readDescriptor reads a manifest, or of an index the one for this machine.
func readDescriptor(s source, d v1.Descriptor, depth int) (image, error) {
	v, err := verified(s, d.Digest, d.Size)
	if err != nil {
		return image{}, err
	}
	var both struct {
		v1.Manifest
		Manifests []v1.Descriptor `json:"manifests"`
	}
	if err := decode(string(d.Digest), v, &both); err != nil {
		return image{}, err
	}
	if both.Manifests == nil {
		return readManifest(s, v, both.Manifest)
	}
	if depth == maxNesting {
		return image{}, errno.New(errno.ErrBadStream, "its indexes are nested deeper than %d", maxNesting)
	}
	for _, m := range both.Manifests {
		if p := m.Platform; p == nil && len(both.Manifests) == 1 || p != nil && p.OS == "linux" && p.Architecture == runtime.GOARCH {
			return readDescriptor(s, m, depth+1)
		}
	}
	return image{}, errno.New(errno.ErrBadStream, "%s has no image for linux on %s", d.Digest, runtime.GOARCH)
}

func readManifest(s source, text []byte, m v1.Manifest) (image, error) {
	i := image{manifest: text}
	var err error
	if i.config, err = verified(s, m.Config.Digest, m.Config.Size); err != nil {
		return i, err
	}
	i.id = m.Config.Digest.Encoded()
	diffs, err := i.readConfig()
	if err != nil {
		return i, err
	}
	if len(diffs) != len(m.Layers) {
		return i, errno.New(errno.ErrBadStream, "the image %s has %d layers by its manifest and %d by its configuration", i.id, len(m.Layers), len(diffs))
	}
	for n, l := range m.Layers {
		if l.Digest.Validate() != nil || !s.has(blob(l.Digest)) {
			return i, missing("blobs/" + strings.ReplaceAll(string(l.Digest), ":", "/"))
		}
		i.layers = append(i.layers, layer{diff: diffs[n], packed: l.Digest, file: blob(l.Digest)})
	}
	return i, nil
}

// readConfig takes what is needed of the configuration.
func (i *image) readConfig() ([]digest.Digest, error) {
	var c v1.Image
	if err := decode("the configuration", i.config, &c); err != nil {
		return nil, err
	}
	for _, d := range c.RootFS.DiffIDs {
		if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
			return nil, errno.New(errno.ErrBadStream, "the image %s names a layer by %q, which is no SHA-256 digest", i.id, clip(string(d)))
		}
	}
	if c.Created != nil {
		i.created = *c.Created
	}
	return c.RootFS.DiffIDs, nil
}

// namesOf are the names that annotations give.
func namesOf(a map[string]string) []string {
	if all := a[namesKey]; all != "" {
		return strings.Split(all, "\n")
	}
	for _, key := range []string{containerdName, v1.AnnotationRefName} {
		// A bare tag, as some write it, is no name.
		if n := a[key]; strings.ContainsAny(n, ":/") {
			return []string{withHost(n, "localhost")}
		}
	}
	return nil
}

// withHost completes a name that has no host, as podman does.
func withHost(name, host string) string {
	first, _, several := strings.Cut(name, "/")
	if several && (strings.ContainsAny(first, ".:") || first == "localhost") {
		return name
	}
	if !several && host == "docker.io" {
		return "docker.io/library/" + name
	}
	return host + "/" + name
}

// dockerImage is an element of manifest.json.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func readDocker(s source) ([]image, error) {
	v, err := document(s, "manifest.json")
	if err != nil {
		return nil, err
	}
	var list []dockerImage
	if err := decode("manifest.json", v, &list); err != nil {
		return nil, err
	}
	if len(list) == 0 || len(list) > maxImages {
		return nil, errno.New(errno.ErrBadStream, "manifest.json names %d images: from 1 to %d can be imported", len(list), maxImages)
	}
	var images []image
	for _, d := range list {
		i, err := readDockerImage(s, d)
		if err != nil {
			return nil, err
		}
		images = append(images, i)
	}
	return images, nil
}

func readDockerImage(s source, d dockerImage) (i image, err error) {
	if i.config, err = document(s, d.Config); err != nil {
		return i, err
	}
	config := digest.FromBytes(i.config)
	i.id = config.Encoded()
	diffs, err := i.readConfig()
	if err != nil {
		return i, err
	}
	if len(diffs) != len(d.Layers) {
		return i, errno.New(errno.ErrBadStream, "the image %s has %d layers by manifest.json and %d by its configuration", i.id, len(d.Layers), len(diffs))
	}
	for n, file := range d.Layers {
		if !s.has(file) {
			return i, missing(file)
		}
		i.layers = append(i.layers, layer{diff: diffs[n], file: file})
	}
	for _, n := range d.RepoTags {
		i.names = append(i.names, withHost(n, "docker.io"))
	}
	return i, nil
}

// manifestOf makes the manifest of an image whose layers are plain tars of
// these sizes.
func manifestOf(config []byte, diffs []digest.Digest, sizes []int64, annotations map[string]string) ([]byte, error) {
	m := v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))},
		Layers: []v1.Descriptor{}, Annotations: annotations,
	}
	for n, d := range diffs {
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: d, Size: sizes[n]})
	}
	v, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("make a manifest: %w", err)
	}
	return v, nil
}
