package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/internal/unix"

	"github.com/plyfs/plyfs/internal/errno"
)

// dataItem is what a record says of one item of big data.
type dataItem struct {
	key    string
	size   int64
	digest digest.Digest
}

// BigData opens an item of an object for reading; the file is the caller's. It
// stays what it is when the item is replaced. ErrUnknown when the object or
// the item is not there, ErrDamaged when its file is missing.
func (s *Store) BigData(ctx context.Context, k Kind, ref, key string) (f *os.File, err error) {
	err = s.View(ctx, func(t *Tx) error {
		f, err = t.openData(k, ref, key)
		return err
	})
	return f, err
}

func (t *Tx) openData(k Kind, ref, key string) (*os.File, error) {
	id, err := t.Resolve(k, ref)
	if err != nil {
		return nil, err
	}
	keys, _ := t.dataKeys(k, id)
	if !slices.Contains(keys, key) {
		return nil, errno.New(errno.ErrUnknown, "%s %s has no big data item %q", k, id, key)
	}
	name, err := readDataFileName(key)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(t.dataDir(k, id), name)
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, errno.New(errno.ErrDamaged, "%s %s: the file of big data item %q is missing: %w", k, id, key, err)
		}
		return nil, fmt.Errorf("open big data item %q of %s %s: %w", key, k, id, err)
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, errors.Join(errno.New(errno.ErrDamaged, "%s %s: the file of big data item %q is no regular file", k, id, key), err, f.Close())
	}
	return f, nil
}

// BigDataKeys returns the keys of an object's items; nobody changes the slice.
// ErrUnknown.
func (t *Tx) BigDataKeys(k Kind, ref string) ([]string, error) {
	id, err := t.Resolve(k, ref)
	keys, _ := t.dataKeys(k, id)
	return keys, err
}

// BigDataInfo returns the size in bytes and the digest of an item: what the
// record says or, for layers, whose records don't, what its file has. Errors
// are those of BigData.
func (s *Store) BigDataInfo(ctx context.Context, k Kind, ref, key string) (size int64, d digest.Digest, err error) {
	known := false
	err = s.View(ctx, func(t *Tx) error {
		id, err := t.Resolve(k, ref)
		if i := t.ImageByID(id); k == KindImage && i != nil {
			d, known = i.BigDataDigests[key]
			size = i.BigDataSizes[key]
		}
		if c := t.ContainerByID(id); k == KindContainer && c != nil {
			d, known = c.BigDataDigests[key]
			size = c.BigDataSizes[key]
		}
		return err
	})
	if err != nil || known {
		return size, d, err
	}
	f, err := s.BigData(ctx, k, ref, key)
	if err != nil {
		return 0, "", err
	}
	defer func() { err = also(err, f.Close()) }()
	h := digest.Canonical.Digester()
	size, err = io.Copy(h.Hash(), &contextReader{ctx, f})
	if err != nil {
		return 0, "", fmt.Errorf("read big data item %q of %s %s: %w", key, k, ref, err)
	}
	return size, h.Digest(), nil
}

// dataKeys returns the keys of an object's items; false when it is not known.
func (t *Tx) dataKeys(k Kind, id string) ([]string, bool) {
	switch k {
	case KindLayer:
		if l := t.LayerByID(id); l != nil {
			return l.BigDataNames, true
		}
	case KindImage:
		if i := t.ImageByID(id); i != nil {
			return i.BigDataNames, true
		}
	case KindContainer:
		if c := t.ContainerByID(id); c != nil {
			return c.BigDataNames, true
		}
	}
	return nil, false
}

// SetBigData replaces an item's content by what r yields, or makes the item.
// An image's item `manifest` sets its digest. r is read with no lock held; the
// object must exist when it ends.
func (s *Store) SetBigData(ctx context.Context, k Kind, ref, key string, r io.Reader) error {
	if s.opts.ReadOnly {
		return s.writable()
	}
	name, err := dataFileName(key)
	if err != nil {
		return err
	}
	var id string
	err = s.View(ctx, func(t *Tx) error {
		id, err = t.Resolve(k, ref)
		return err
	})
	if err != nil {
		return err
	}
	entry, err := s.newEntryIn(s.objectRoot(k, id))
	if err != nil {
		return err
	}
	defer s.discard(ctx, entry)
	item := dataItem{key: key}
	if item.size, item.digest, err = entry.receive(ctx, r); err != nil {
		return fmt.Errorf("receive big data item %q of %s %s: %w", key, k, id, err)
	}
	s.fail("data:1")
	j := journal{Op: journalData, Kind: journalKind(k), ID: id, Key: key, Size: item.size, Digest: item.digest}
	if j.Dev, j.Ino, err = identity(entry.own(dataDir)); err != nil {
		return err
	}
	if err := entry.writeJournal(j); err != nil {
		return err
	}
	s.fail("data:2")
	return s.Update(ctx, func(w *WriteTx) error { return w.putData(entry, k, id, name, item) })
}

// receive stores a stream in the entry, synced.
func (e *stageEntry) receive(ctx context.Context, r io.Reader) (int64, digest.Digest, error) {
	f, err := os.OpenFile(e.own(dataDir), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, "", err
	}
	h := digest.Canonical.Digester()
	n, err := io.Copy(io.MultiWriter(f, h.Hash()), &contextReader{ctx, r})
	if err == nil {
		err = f.Sync()
	}
	return n, h.Digest(), errors.Join(err, f.Close())
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// putData is data:3 and data:4. The replaced file, if any, goes to the entry.
func (w *WriteTx) putData(entry *stageEntry, k Kind, id, name string, item dataItem) error {
	if err := w.checkDataWritable(k, id); err != nil {
		return err
	}
	dir := w.s.objectDir(k, id)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make the data directory of %s %s: %w", k, id, err)
	}
	// The old file is kept by a link, so that it can be put back.
	place, old := filepath.Join(dir, name), entry.own("old")
	if err := os.Link(place, old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("keep the old content of item %q: %w", item.key, err)
	}
	if err := os.Rename(entry.own(dataDir), place); err != nil {
		return fmt.Errorf("put item %q of %s %s in place: %w", item.key, k, id, err)
	}
	w.s.fail("data:3")
	err := syncDirs(dir)
	if err == nil {
		err = w.recordData(k, id, item)
	}
	if err != nil {
		uerr := os.Rename(old, place)
		if errors.Is(uerr, os.ErrNotExist) {
			uerr = entry.trash(place)
		}
		return errors.Join(err, uerr)
	}
	w.s.fail("data:4")
	return nil
}

// checkDataWritable refuses objects that are gone or belong to another store.
func (t *Tx) checkDataWritable(k Kind, id string) error {
	if _, known := t.dataKeys(k, id); !known {
		return errno.New(errno.ErrUnknown, "%s %s is not known; it may have been deleted", k, id)
	}
	readOnly := false
	if l := t.LayerByID(id); k == KindLayer && l != nil {
		readOnly = l.ReadOnly
	}
	if i := t.ImageByID(id); k == KindImage && i != nil {
		readOnly = i.ReadOnly
	}
	if readOnly {
		return errno.New(errno.ErrReadOnly, "%s %s belongs to a read-only store", k, id)
	}
	return nil
}

// recordData enters the item into the record and saves it.
func (w *WriteTx) recordData(k Kind, id string, item dataItem) error {
	err := w.editData(k, id, func(d dataFields) {
		if !slices.Contains(*d.keys, item.key) {
			*d.keys = append(slices.Clone(*d.keys), item.key)
		}
		if d.sizes == nil {
			return
		}
		if *d.sizes == nil {
			*d.sizes = map[string]int64{}
		}
		if *d.digests == nil {
			*d.digests = map[string]digest.Digest{}
		}
		(*d.sizes)[item.key], (*d.digests)[item.key] = item.size, item.digest
		if d.own != nil && item.key == manifestKey {
			*d.own = item.digest
		}
	})
	if err == nil {
		err = w.save(k)
	}
	if err != nil {
		return fmt.Errorf("record item %q of %s %s: %w", item.key, k, id, err)
	}
	return nil
}

// dataFields points into a record that is being edited. sizes and digests are
// nil for layers, own (the digest) for all but images.
type dataFields struct {
	keys    *[]string
	sizes   *map[string]int64
	digests *map[string]digest.Digest
	own     *digest.Digest
}

func (w *WriteTx) editData(k Kind, id string, edit func(dataFields)) error {
	switch k {
	case KindLayer:
		return w.editLayer(id, func(l *Layer) error {
			edit(dataFields{keys: &l.BigDataNames})
			return nil
		})
	case KindImage:
		return w.editImage(id, func(i *Image) error {
			edit(dataFields{&i.BigDataNames, &i.BigDataSizes, &i.BigDataDigests, &i.Digest})
			return nil
		})
	case KindContainer:
		return w.editContainer(id, func(c *Container) error {
			edit(dataFields{&c.BigDataNames, &c.BigDataSizes, &c.BigDataDigests, nil})
			return nil
		})
	}
	return errno.New(errno.ErrBadValue, "objects of kind %d have no big data", k)
}

// RemoveBigData removes an item. An image whose item `manifest` goes keeps
// its digest. ErrUnknown when it has none of that key.
func (s *Store) RemoveBigData(ctx context.Context, k Kind, ref, key string) error {
	return s.withEntry(ctx, func(entry *stageEntry) error {
		return s.Update(ctx, func(w *WriteTx) error {
			id, err := w.Resolve(k, ref)
			if err != nil {
				return err
			}
			if err := w.checkDataWritable(k, id); err != nil {
				return err
			}
			if keys, _ := w.dataKeys(k, id); !slices.Contains(keys, key) {
				return errno.New(errno.ErrUnknown, "%s %s has no big data item %q", k, id, key)
			}
			return w.dropData(entry, k, id, key)
		})
	})
}

func (w *WriteTx) dropData(entry *stageEntry, k Kind, id, key string) error {
	name, err := readDataFileName(key)
	if err != nil {
		return err
	}
	if err := entry.writeJournal(journal{Op: journalUndata, Kind: journalKind(k), ID: id, Key: key}); err != nil {
		return err
	}
	w.s.fail("undata:1")
	err = w.editData(k, id, func(d dataFields) {
		*d.keys = slices.DeleteFunc(slices.Clone(*d.keys), func(o string) bool { return o == key })
		if d.sizes != nil {
			delete(*d.sizes, key)
			delete(*d.digests, key)
		}
	})
	if err == nil {
		err = w.save(k)
	}
	if err != nil {
		return fmt.Errorf("remove item %q of %s %s: %w", key, k, id, err)
	}
	w.s.fail("undata:2")
	if err := entry.trash(filepath.Join(w.s.objectDir(k, id), name)); err != nil {
		entry.keep = true
		return err
	}
	return nil
}
