package demo

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Name is the image's name.
const Name = "localhost/hello:latest"

// Greeting is what the image's program prints.
const Greeting = "Hello from a container that plyfs keeps.\n"

// Layer is one layer of the image.
type Layer struct {
	// ID is the layer's ID in a store: the hex digits of its chain's digest.
	ID string
	// Tar is the layer's diff, uncompressed, and Digest its digest.
	Tar    []byte
	Digest digest.Digest
	// About is a few words for a tour.
	About string
}

// Image is the whole image. Its bytes are the caller's.
type Image struct {
	// ID is the hex digits of the configuration's digest.
	ID      string
	Created time.Time
	// Layers has the base first.
	Layers           []Layer
	Config, Manifest []byte
}

// Items returns the image's big data as tools of the containers family keep
// it: the configuration under its digest, and the manifest under two keys.
func (i Image) Items() map[string][]byte {
	return map[string][]byte{
		digest.FromBytes(i.Config).String(): i.Config,
		"manifest":                          i.Manifest,
		"manifest-" + digest.FromBytes(i.Manifest).String(): i.Manifest,
	}
}

// born is the time of every file and of the image.
func born() time.Time { return time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC) }

// Build makes the image for an architecture, as runtime.GOARCH spells it.
func Build(arch string) (Image, error) {
	hello, err := program(arch, Greeting)
	if err != nil {
		return Image{}, err
	}
	img := Image{Created: born()}
	for _, l := range []struct {
		about string
		files []tar.Header
		data  map[string]string
	}{{"base", baseFiles(), baseData(string(hello))}, {"change", changeFiles(), changeData()}} {
		text, err := archive(l.files, l.data)
		if err != nil {
			return Image{}, fmt.Errorf("make the demo layer %q: %w", l.about, err)
		}
		img.Layers = append(img.Layers, Layer{Tar: text, Digest: digest.FromBytes(text), About: l.about})
	}
	chain := img.Layers[0].Digest
	img.Layers[0].ID = chain.Encoded()
	for n := 1; n < len(img.Layers); n++ {
		chain = digest.FromString(chain.String() + " " + img.Layers[n].Digest.String())
		img.Layers[n].ID = chain.Encoded()
	}
	return img, img.describe(arch)
}

func baseFiles() []tar.Header {
	return []tar.Header{
		{Name: "bin/", Mode: 0o755},
		{Name: "bin/hello", Mode: 0o755},
		{Name: "bin/hi", Linkname: "bin/hello", Typeflag: tar.TypeLink, Mode: 0o755},
		{Name: "etc/", Mode: 0o755},
		{Name: "etc/draft", Mode: 0o644},
		{Name: "etc/greeting", Mode: 0o644},
		{Name: "etc/group", Mode: 0o644},
		{Name: "etc/motd", Linkname: "greeting", Typeflag: tar.TypeSymlink, Mode: 0o777},
		{Name: "etc/os-release", Mode: 0o644},
		{Name: "etc/passwd", Mode: 0o644},
		{Name: "tmp/", Mode: 0o1777},
	}
}

func baseData(hello string) map[string]string {
	return map[string]string{
		"bin/hello":      hello,
		"etc/draft":      "The upper layer removes this file.\n",
		"etc/greeting":   "Hello.\n",
		"etc/group":      "root:x:0:\n",
		"etc/os-release": "ID=plyfs-demo\nNAME=\"plyfs demo\"\nVERSION_ID=1\n",
		"etc/passwd":     "root:x:0:0:root:/:/bin/hello\n",
	}
}

func changeFiles() []tar.Header {
	return []tar.Header{
		{Name: "etc/", Mode: 0o755},
		{Name: "etc/.wh.draft", Mode: 0o644},
		{Name: "etc/greeting", Mode: 0o644},
		{Name: "srv/", Mode: 0o755},
		{Name: "srv/notes", Mode: 0o640, Uid: 7, Gid: 8},
	}
}

func changeData() map[string]string {
	return map[string]string{
		"etc/greeting": "Hello from the upper layer.\n",
		"srv/notes":    "One layer over another.\n",
	}
}

// archive writes a tar in the oldest format that holds it, with times and
// owners that do not depend on the machine.
func archive(files []tar.Header, data map[string]string) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range files {
		h.Format, h.ModTime, h.Size = tar.FormatUSTAR, born(), int64(len(data[h.Name]))
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := w.Write([]byte(data[h.Name])); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// describe fills in the configuration, the manifest and the ID.
func (i *Image) describe(arch string) error {
	config := ocispec.Image{
		Created: &i.Created, Author: "plyfs",
		Platform: ocispec.Platform{Architecture: arch, OS: "linux"},
		Config:   ocispec.ImageConfig{Cmd: []string{"/bin/hello"}, Env: []string{"PATH=/bin"}, WorkingDir: "/"},
		RootFS:   ocispec.RootFS{Type: "layers"},
	}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, l := range i.Layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.Digest)
		config.History = append(config.History, ocispec.History{Created: &i.Created, CreatedBy: "plyfs demo: " + l.About})
		manifest.Layers = append(manifest.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: l.Digest, Size: int64(len(l.Tar))})
	}
	var err error
	if i.Config, err = json.Marshal(config); err != nil {
		return fmt.Errorf("describe the demo image: %w", err)
	}
	sum := digest.FromBytes(i.Config)
	i.ID = sum.Encoded()
	manifest.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: sum, Size: int64(len(i.Config))}
	if i.Manifest, err = json.Marshal(manifest); err != nil {
		return fmt.Errorf("describe the demo image: %w", err)
	}
	return nil
}
