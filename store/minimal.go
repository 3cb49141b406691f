package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
)

// CreateMinimalImage makes an image with the smallest OCI config and manifest
// that podman accepts, stored under the keys that podman uses; podman refuses
// a whole store for one image without, or with a layer whose digests are not
// known: such layers are sealed first (see Seal). spec.BigData may hold further
// items, but no manifest. Without spec.ID the ID is the config's digest, as
// podman's are.
func (s *Store) CreateMinimalImage(ctx context.Context, spec ImageSpec) (*Image, error) {
	for _, item := range spec.BigData {
		if item.Key == manifestKey {
			return nil, errno.New(errno.ErrBadValue, "image %s is given a manifest and would get a minimal one", spec.ID)
		}
	}
	spec.Created = orNow(spec.Created)
	chain, err := s.sealedChain(ctx, spec.Layer)
	if err != nil {
		return nil, err
	}
	config, items, err := minimalBigData(chain, spec.Created)
	if err != nil {
		return nil, err
	}
	spec.BigData = append(slices.Clone(spec.BigData), items...)
	if spec.ID != "" {
		return s.CreateImage(ctx, spec)
	}
	spec.ID = config.Encoded()
	img, err := s.CreateImage(ctx, spec)
	if errors.Is(err, errno.ErrDuplicate) { // the ID, or a name: then again so
		spec.ID = ""
		return s.CreateImage(ctx, spec)
	}
	return img, err
}

// sealedChain returns a layer and those below, top first, all with digests.
func (s *Store) sealedChain(ctx context.Context, id string) (chain []*Layer, err error) {
	err = s.View(ctx, func(t *Tx) error {
		if id != "" && t.LayerByID(id) == nil {
			return errno.New(errno.ErrUnknown, "layer %s is not known, so no image can be made of it", id)
		}
		chain = slices.Clone(t.Chain(id))
		return nil
	})
	for i, l := range chain {
		if err == nil && l.DiffDigest == "" && !l.ReadOnly {
			chain[i], err = s.Seal(ctx, l.ID)
		}
	}
	return chain, err
}

// minimalBigData makes config and manifest for a chain of layers (top first).
func minimalBigData(chain []*Layer, created time.Time) (digest.Digest, []BigDataItem, error) {
	img := v1.Image{Created: &created, Platform: v1.Platform{Architecture: runtime.GOARCH, OS: runtime.GOOS}}
	img.RootFS = v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	manifest := v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Layers:    []v1.Descriptor{},
	}
	for _, l := range slices.Backward(chain) {
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, l.DiffDigest)
		manifest.Layers = append(manifest.Layers, layerDescriptor(l))
		img.History = append(img.History, v1.History{Created: &l.Created, CreatedBy: "plyfs"})
	}
	config, err := encodeJSON(img)
	if err != nil {
		return "", nil, fmt.Errorf("make an image config: %w", err)
	}
	id := digest.FromBytes(config)
	manifest.Config = v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: id, Size: int64(len(config))}
	text, err := encodeJSON(manifest)
	if err != nil {
		return "", nil, fmt.Errorf("make an image manifest: %w", err)
	}
	return id, []BigDataItem{
		{Key: id.String(), Data: config},
		{Key: "manifest-" + digest.FromBytes(text).String(), Data: text},
		{Key: manifestKey, Data: text},
	}, nil
}

// encodeJSON is json.Marshal without the escaping meant for web pages, so that
// what is written reads as it was given.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// layerDescriptor names the layer as it was imported when OCI has a media type
// for that compression, else its plain tar.
func layerDescriptor(l *Layer) v1.Descriptor {
	switch {
	case l.Compression == layertar.Gzip && l.CompressedDigest != "":
		return v1.Descriptor{MediaType: v1.MediaTypeImageLayerGzip, Digest: l.CompressedDigest, Size: l.CompressedSize}
	case l.Compression == layertar.Zstd && l.CompressedDigest != "":
		return v1.Descriptor{MediaType: v1.MediaTypeImageLayerZstd, Digest: l.CompressedDigest, Size: l.CompressedSize}
	}
	return v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: l.DiffDigest, Size: l.DiffSize}
}
