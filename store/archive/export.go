package archive

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// exported is an image on its way out.
type exported struct {
	s        *store.Store
	img      *store.Image
	layers   []*store.Layer // base first
	config   []byte
	manifest []byte // as an archive of plain tars has it
}

// OCI writes the image as the archive of an OCI layout.
func OCI(ctx context.Context, s *store.Store, id string, w io.Writer) error {
	e, err := gather(ctx, s, id)
	if err != nil {
		return err
	}
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []v1.Descriptor{{
		MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(e.manifest), Size: int64(len(e.manifest)), Annotations: e.annotations(),
	}}}
	indexText, err := json.Marshal(index)
	if err != nil {
		return fmt.Errorf("make an index: %w", err)
	}
	t := newOut(w)
	return errors.Join(
		t.text("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)),
		t.text("index.json", indexText),
		t.text(blob(digest.FromBytes(e.manifest)), e.manifest),
		t.text(blob(digest.FromBytes(e.config)), e.config),
		e.tars(ctx, t, blob),
		t.close())
}

// Docker writes the image in the form of docker-save.
func Docker(ctx context.Context, s *store.Store, id string, w io.Writer) error {
	e, err := gather(ctx, s, id)
	if err != nil {
		return err
	}
	file := func(d digest.Digest) string { return d.Encoded() + ".tar" }
	d := dockerImage{Config: digest.FromBytes(e.config).Encoded() + ".json", RepoTags: tagged(e.img.Names), Layers: []string{}}
	for _, l := range e.layers {
		d.Layers = append(d.Layers, file(l.DiffDigest))
	}
	text, err := json.Marshal([]dockerImage{d})
	if err != nil {
		return fmt.Errorf("make manifest.json: %w", err)
	}
	t := newOut(w)
	return errors.Join(t.text("manifest.json", text), t.text(d.Config, e.config), e.tars(ctx, t, file), t.close())
}

// tagged are the names that docker-save can hold: with a tag.
func tagged(names []string) []string {
	list := []string{}
	for _, n := range names {
		switch last := n[strings.LastIndexByte(n, '/')+1:]; {
		case strings.Contains(n, "@"):
		case strings.Contains(last, ":"):
			list = append(list, n)
		default:
			list = append(list, n+":latest")
		}
	}
	return list
}

// annotations name the image: for others by its oldest name, which its entry
// has, and for ourselves wholly.
func (e *exported) annotations() map[string]string {
	a := map[string]string{}
	if n := len(e.img.Names); n > 0 {
		a[v1.AnnotationRefName] = e.img.Names[n-1]
		a[namesKey] = strings.Join(e.img.Names, "\n")
	}
	if e.img.ID != digest.FromBytes(e.config).Encoded() {
		a[idKey] = e.img.ID
	}
	if len(a) == 0 {
		return nil
	}
	return a
}

// gather reads what an image is made of.
func gather(ctx context.Context, s *store.Store, id string) (*exported, error) {
	e := &exported{s: s}
	err := s.View(ctx, func(t *store.Tx) error {
		if e.img = t.ImageByID(id); e.img == nil {
			return errno.New(errno.ErrUnknown, "image %s is not known any more", id)
		}
		e.layers = slices.Clone(t.Chain(e.img.TopLayer))
		slices.Reverse(e.layers)
		return nil
	})
	if err != nil {
		return nil, err
	}
	own, err := e.item(ctx, "manifest")
	if err != nil {
		return nil, err
	}
	var m v1.Manifest
	if err := decode("the manifest", own, &m); err != nil {
		return nil, err
	}
	if m.Config.Digest == "" {
		return nil, errno.New(errno.ErrNotSupported, "image %s has a manifest of another kind, which names no configuration: it cannot be exported", id)
	}
	if e.config, err = e.item(ctx, m.Config.Digest.String()); err != nil {
		return nil, err
	}
	if got := m.Config.Digest.Algorithm().FromBytes(e.config); got != m.Config.Digest {
		return nil, errno.New(errno.ErrDamaged, "the configuration of image %s has the digest %s, its manifest names %s", id, got, m.Config.Digest)
	}
	return e, e.settle(own, m)
}

// settle checks that layers and configuration agree, and chooses the manifest.
func (e *exported) settle(own []byte, m v1.Manifest) error {
	i := image{id: e.img.ID, config: e.config}
	diffs, err := i.readConfig()
	if err != nil {
		return err
	}
	if len(diffs) != len(e.layers) {
		return errno.New(errno.ErrDamaged, "image %s has %d layers in the store and %d by its configuration", e.img.ID, len(e.layers), len(diffs))
	}
	sizes := make([]int64, len(diffs))
	same := m.MediaType == v1.MediaTypeImageManifest && len(m.Layers) == len(diffs)
	for n, l := range e.layers {
		if l.DiffDigest != diffs[n] {
			return errno.New(errno.ErrDamaged, "layer %s of image %s has the digest %q, the configuration names %s", l.ID, e.img.ID, l.DiffDigest, diffs[n])
		}
		sizes[n] = l.DiffSize
		same = same && m.Layers[n].Digest == l.DiffDigest && m.Layers[n].MediaType == v1.MediaTypeImageLayer
	}
	if same {
		e.manifest = own
		return nil
	}
	e.manifest, err = manifestOf(e.config, diffs, sizes, m.Annotations)
	return err
}

func (e *exported) item(ctx context.Context, key string) (_ []byte, err error) {
	f, err := e.s.BigData(ctx, store.KindImage, e.img.ID, key)
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	v, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err == nil && len(v) > maxDocument {
		err = errno.New(errno.ErrTooLarge, "the item %q of image %s has more than %d bytes", clip(key), e.img.ID, maxDocument)
	}
	return v, err
}

// tars writes the layers, each content once, and compares their digests.
func (e *exported) tars(ctx context.Context, t *out, name func(digest.Digest) string) error {
	done := map[digest.Digest]bool{}
	for _, l := range e.layers {
		if done[l.DiffDigest] {
			continue
		}
		done[l.DiffDigest] = true
		if err := e.tar(ctx, t, l, name(l.DiffDigest)); err != nil {
			return fmt.Errorf("layer %s: %w", l.ID, err)
		}
	}
	return nil
}

func (e *exported) tar(ctx context.Context, t *out, l *store.Layer, name string) (err error) {
	src, err := e.s.DiffTar(ctx, l.ID)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := src.Close(); err == nil {
			err = cerr
		}
	}()
	if err := t.begin(name, l.DiffSize); err != nil {
		return err
	}
	sum := l.DiffDigest.Algorithm().Digester()
	n, err := src.Copy(ctx, io.MultiWriter(t.tw, sum.Hash()))
	switch {
	case err != nil && !errors.Is(err, tar.ErrWriteTooLong):
		return err
	case err != nil || n != l.DiffSize || sum.Digest() != l.DiffDigest:
		return errno.New(errno.ErrBadStream, "its content has changed: it has not the digest %s any more", l.DiffDigest)
	}
	return nil
}

// out is the archive that is written; after an error it takes nothing more.
type out struct {
	tw  *tar.Writer
	err error
}

func newOut(w io.Writer) *out { return &out{tw: tar.NewWriter(w)} }

func (t *out) begin(name string, size int64) error {
	if t.err != nil {
		return t.err
	}
	t.err = t.tw.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)})
	return t.err
}

func (t *out) text(name string, v []byte) error {
	if err := t.begin(name, int64(len(v))); err != nil {
		return err
	}
	_, t.err = t.tw.Write(v)
	return t.err
}

func (t *out) close() error {
	if t.err != nil {
		return t.err
	}
	return t.tw.Close()
}
