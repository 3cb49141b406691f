package fsview

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/store"
)

// minimalImage makes the least that the OCI image specification asks for: a
// configuration that names the layers' archives, and a manifest. They are
// stored under the keys that podman and skopeo use.
func (p place) minimalImage(ctx context.Context, spec store.ImageSpec) ([]store.BigDataItem, error) {
	var chain []*store.Layer
	if spec.Layer != "" {
		chain = slices.Clone(p.tx.Chain(spec.Layer))
		slices.Reverse(chain)
	}
	created := spec.Created
	if created.IsZero() {
		created = time.Now().UTC()
	}
	config := v1.Image{
		Created:  &created,
		Platform: v1.Platform{Architecture: runtime.GOARCH, OS: "linux"},
		RootFS:   v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{}},
	}
	layers := []v1.Descriptor{}
	for _, l := range chain {
		d, size, err := p.fs.digestOfDiff(ctx, l)
		if err != nil {
			return nil, err
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, d)
		config.History = append(config.History, v1.History{Created: &l.Created, CreatedBy: "plyfs: layer " + short(l.ID)})
		layers = append(layers, describe(l, d, size))
	}
	rawConfig, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("encoding the image's configuration: %w", err)
	}
	manifest := v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config:    v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: digest.FromBytes(rawConfig), Size: int64(len(rawConfig))},
		Layers:    layers,
	}
	rawManifest, err := json.Marshal(manifest)
	if err != nil {
		return nil, fmt.Errorf("encoding the image's manifest: %w", err)
	}
	return []store.BigDataItem{
		{Key: manifest.Config.Digest.String(), Data: rawConfig},
		{Key: "manifest-" + digest.FromBytes(rawManifest).String(), Data: rawManifest},
		{Key: manifestKey, Data: rawManifest},
	}, nil
}

// describe names a layer's archive as it was applied, where that is a form
// that the specification has a media type for, else uncompressed.
func describe(l *store.Layer, diff digest.Digest, size int64) v1.Descriptor {
	d := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: diff, Size: size}
	if l.CompressedDigest == "" || l.CompressedSize <= 0 {
		return d
	}
	switch l.Compression {
	case layertar.Gzip:
		d.MediaType = v1.MediaTypeImageLayerGzip
	case layertar.Zstd:
		d.MediaType = v1.MediaTypeImageLayerZstd
	default:
		return d
	}
	d.Digest, d.Size = l.CompressedDigest, l.CompressedSize
	return d
}
