package store

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// An additional layer store is a filesystem, mounted by a program of its own,
// that has layers ready by the digest of their compressed stream or of its
// table of contents (docs/adr/0015-additional-layer-stores.md):
//
//	<store>/[base64(<image reference>)/]<digest>/diff/   the layer's content, marks as the kernel's overlay or a tar has them
//	                                             info    JSON: digests and sizes, with the names of layers.json
//	                                             blob    the stream itself; may be missing
//	                                             use     making it counts a user; removing the folder ends one
const (
	storeDiff = "diff"
	storeInfo = "info"
	storeBlob = "blob"
	storeUse  = "use"
	// maxInfo bounds what is read of an info file, in bytes.
	maxInfo = 1 << 20
)

// LayerStore is where an additional layer store is.
type LayerStore struct {
	// Path is absolute.
	Path string
	// ByReference tells that a folder for the image's reference lies between.
	ByReference bool
}

// ParseLayerStore reads a setting of additionallayerstores, "PATH" or
// "PATH:ref".
func ParseLayerStore(text string) (LayerStore, error) {
	path, ref := strings.CutSuffix(text, ":ref")
	if !filepath.IsAbs(path) {
		return LayerStore{}, errno.New(errno.ErrBadValue, "the layer store %q is not an absolute path: write it from / on, with :ref behind it if it has folders for image references", text)
	}
	return LayerStore{Path: filepath.Clean(path), ByReference: ref}, nil
}

// AdditionalLayer is a layer that an additional layer store has. Its finder
// calls Release when he is done with it.
type AdditionalLayer struct {
	s    *Store
	dir  string
	info layerContent
	made bool // the file `use` is a file of the filesystem, made by us
}

// LookupAdditionalLayer looks for a layer in the additional layer stores
// (Options.LayerStores), in their order: by the digest of its compressed
// stream, or of its table of contents, and by the reference of an image that
// has it, which may be empty where no store wants one. A store that has a
// program behind it may fetch the layer meanwhile, which takes its time; no lock
// is held. ErrUnknown when none has it.
func (s *Store) LookupAdditionalLayer(ctx context.Context, d digest.Digest, reference string) (*AdditionalLayer, error) {
	if err := d.Validate(); err != nil {
		return nil, errno.New(errno.ErrBadValue, "%q is no digest; write it as sha256: and 64 hex digits", d)
	}
	var failed []error
	for _, at := range s.opts.LayerStores {
		for _, dir := range at.places(d, reference) {
			l, err := s.lookInStore(dir, d)
			if err == nil {
				return l, nil
			}
			if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
				failed = append(failed, err)
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
	}
	if len(failed) > 0 {
		return nil, fmt.Errorf("layer %s: %w", d, errors.Join(failed...))
	}
	return nil, errno.New(errno.ErrUnknown, "no additional layer store has layer %s; %d are configured (additionallayerstores)", d, len(s.opts.LayerStores))
}

// places are the folders that the layer may be in. The base64 text of a
// reference may hold a slash, with which no folder can be named: the alphabet
// for file names is used then.
func (at LayerStore) places(d digest.Digest, reference string) []string {
	root := at.Path
	if at.ByReference {
		if reference == "" {
			return nil
		}
		name := base64.StdEncoding.EncodeToString([]byte(reference))
		if strings.Contains(name, "/") {
			name = base64.URLEncoding.EncodeToString([]byte(reference))
		}
		root = filepath.Join(root, name)
	}
	return []string{filepath.Join(root, d.String()), filepath.Join(root, d.Encoded())}
}

// lookInStore reads the layer's info, and counts us among its users. An error
// is fs.ErrNotExist where there is no such layer.
func (s *Store) lookInStore(dir string, d digest.Digest) (*AdditionalLayer, error) {
	f, err := os.Open(filepath.Join(dir, storeInfo))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxInfo+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	l := &AdditionalLayer{s: s, dir: dir}
	if len(text) > maxInfo {
		err = errors.New("it is larger than 1 MiB")
	} else {
		err = json.Unmarshal(text, &l.info)
	}
	if err == nil {
		err = l.info.fits(d)
	}
	if err != nil {
		return nil, errno.New(errno.ErrDamaged, "%s: %w", f.Name(), err)
	}
	if st, err := os.Stat(filepath.Join(dir, storeDiff)); err != nil {
		return nil, err
	} else if !st.IsDir() {
		return nil, errno.New(errno.ErrDamaged, "%s is no directory", filepath.Join(dir, storeDiff))
	}
	use, err := os.OpenFile(filepath.Join(dir, storeUse), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil { // a program behind the folder counts, and answers that there is no such file
		l.made = true
		err = use.Close()
	}
	s.log.WithError(err).WithField("layer", dir).Debug("additional layer is in use")
	return l, nil
}

// fits refuses digests that are none, and those of another layer.
func (c *layerContent) fits(d digest.Digest) error {
	known := false
	for _, have := range []digest.Digest{c.CompressedDigest, c.DiffDigest, c.TOCDigest} {
		if have != "" && have.Validate() != nil {
			return fmt.Errorf("%q is no digest", have)
		}
		known = known || have == d
	}
	if !known && (c.CompressedDigest != "" || c.TOCDigest != "") {
		return fmt.Errorf("it is that of another layer, %s", or(c.CompressedDigest, c.TOCDigest))
	}
	if c.CompressedSize < 0 || c.DiffSize < 0 {
		return errors.New("it has a size below zero")
	}
	return nil
}

func or(a, b digest.Digest) digest.Digest {
	if a != "" {
		return a
	}
	return b
}

// Digests are what the store says of the layer: those of its stream as it is,
// decompressed, and of its table of contents. What it does not say is "".
func (l *AdditionalLayer) Digests() (compressed, uncompressed, toc digest.Digest) {
	return l.info.CompressedDigest, l.info.DiffDigest, l.info.TOCDigest
}

// Sizes are the bytes of the stream, as it is and decompressed; 0 where the
// store does not say.
func (l *AdditionalLayer) Sizes() (compressed, uncompressed int64) {
	return l.info.CompressedSize, l.info.DiffSize
}

// Dir is the directory of the layer's content, for reading until Release.
func (l *AdditionalLayer) Dir() string { return filepath.Join(l.dir, storeDiff) }

// Blob opens the layer's stream, compressed as it was; fs.ErrNotExist when the
// store does not have it.
func (l *AdditionalLayer) Blob() (io.ReadCloser, error) {
	return os.Open(filepath.Join(l.dir, storeBlob))
}

// Put makes a layer of it, whose content is its own: the store may go away
// afterwards. With a blob the layer is imported from it, and refused when its
// digests are not those that the store says (ErrBadStream). Without one what is
// in diff/ is copied, the digests are recorded as the store says them, and the
// layer's tar cannot be given back as it was.
func (l *AdditionalLayer) Put(ctx context.Context, spec LayerSpec) (*Layer, error) {
	st, err := l.s.StageLayer(ctx, spec)
	if err != nil {
		return nil, err
	}
	if err := l.fill(ctx, st); err != nil {
		return nil, errors.Join(fmt.Errorf("take layer from %s: %w", l.dir, err), st.Discard(ctx))
	}
	return st.Commit(ctx)
}

func (l *AdditionalLayer) fill(ctx context.Context, st *StagedLayer) error {
	blob, err := l.Blob()
	if err == nil {
		res, err := st.Import(ctx, blob)
		err = errors.Join(err, blob.Close())
		if err == nil {
			err = l.info.check(res)
		}
		st.mu.Lock()
		defer st.mu.Unlock()
		st.tocDigest = l.info.TOCDigest
		return err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.private.HasForceMask {
		return errno.New(errno.ErrNotSupported, "content cannot be copied with the driver option force_mask; leave it out")
	}
	res, err := st.extract(ctx, layertar.Source{Upper: l.Dir(), UpperStyle: whiteout.Trusted})
	if err != nil {
		return err
	}
	content := l.info
	content.UIDs, content.GIDs = res.UIDs, res.GIDs
	if content.DiffDigest == "" {
		content.DiffSize = 0
	}
	st.content = &content
	return nil
}

// check compares what a stream turned out to be with what the store said.
func (c *layerContent) check(r layertar.Result) error {
	for _, d := range [][2]digest.Digest{{c.CompressedDigest, r.CompressedDigest}, {c.DiffDigest, r.DiffDigest}} {
		if d[0] != "" && d[0] != d[1] {
			return errno.New(errno.ErrBadStream, "its blob has the digest %s, not %s", d[1], d[0])
		}
	}
	return nil
}

// Release ends our use of the layer; the AdditionalLayer must not be used
// afterwards. A program behind the store is told by the removal of the layer's
// folder, which it does not carry out.
func (l *AdditionalLayer) Release() error {
	if l.made {
		if err := os.Remove(filepath.Join(l.dir, storeUse)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("release layer %s: %w", l.dir, err)
		}
		return nil
	}
	_ = os.Remove(l.dir) // it answers with an error in any case: the folder is not empty
	return nil
}
