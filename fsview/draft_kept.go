package fsview

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/plyfs/plyfs/internal/durable"
	"github.com/plyfs/plyfs/store"
)

// Without a mount a draft lasts across commands (Options.KeepDrafts). It is
// kept in `<graph root>/plyfs/drafts/<SHA-256 of its name>/`: draft.json with
// what was written, and diff.tar as it was given. A command loads all drafts
// when it begins and saves those that it changed when it ends; of two that
// change one draft at once the last counts. A kill leaves what was saved
// before. Mounts neither load nor touch these drafts.

const (
	// draftAge is how long a draft is kept.
	draftAge = 24 * time.Hour
	// keptLimit bounds the file of a draft, in bytes.
	keptLimit = 512 << 20
	keptName  = "draft.json"
	keptTar   = "diff.tar"
)

// keptDraft is the form of draft.json.
type keptDraft struct {
	Name   string            `json:"name"`
	Born   time.Time         `json:"born"`
	Values map[string][]byte `json:"values,omitempty"`
	Items  map[string][]byte `json:"items,omitempty"`
	Spoilt []spoilt          `json:"spoilt,omitempty"`
}

// spoilt is a file of a draft whose last write failed, and why.
type spoilt struct {
	Row  string `json:"row"`
	Arg  string `json:"arg,omitempty"`
	Text string `json:"text"`
}

func (f *FS) keptRoot() string { return filepath.Join(f.store.GraphRoot(), "plyfs", "drafts") }

func (f *FS) keptDir(name string) string {
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(f.keptRoot(), hex.EncodeToString(sum[:]))
}

// loadDrafts takes up the drafts of earlier commands and drops those that are
// too old, or cannot be read.
func (f *FS) loadDrafts() error {
	dirs, err := os.ReadDir(f.keptRoot())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the drafts of earlier commands: %w", err)
	}
	for _, dir := range dirs {
		path := filepath.Join(f.keptRoot(), dir.Name())
		k, err := readKept(filepath.Join(path, keptName))
		if err != nil || path != f.keptDir(k.Name) || time.Since(k.Born) > draftAge {
			if info, ierr := dir.Info(); err != nil && (ierr != nil || time.Since(info.ModTime()) < draftAge) {
				continue // another command is making it
			}
			if err := f.dropKept(path); err != nil {
				return err
			}
			continue
		}
		f.drafts[k.Name] = f.revive(path, k)
	}
	return nil
}

// revive makes a draft of what was kept in the folder at path.
func (f *FS) revive(path string, k keptDraft) *draft {
	d := &draft{born: k.Born, values: k.Values, items: k.Items}
	if d.values == nil {
		d.values = map[string][]byte{}
	}
	if d.items == nil {
		d.items = map[string][]byte{}
	}
	for _, x := range k.Spoilt {
		if row := f.paths[x.Row]; row != nil {
			if d.broken == nil {
				d.broken = map[where]error{}
			}
			d.broken[where{row, k.Name, x.Arg}] = errors.New(x.Text)
		}
	}
	if tar := filepath.Join(path, keptTar); exists(tar) {
		d.archive = tar
	}
	return d
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func readKept(path string) (k keptDraft, err error) {
	file, err := os.Open(path)
	if err != nil {
		return k, err
	}
	err = json.NewDecoder(io.LimitReader(file, keptLimit)).Decode(&k)
	return k, errors.Join(err, file.Close())
}

// saveDrafts keeps the drafts that this command changed.
func (f *FS) saveDrafts(drafts map[string]*draft) error {
	var errs []error
	for name, d := range drafts {
		d.mu.Lock()
		if d.changed && !d.over {
			errs = append(errs, f.saveDraft(name, d))
		}
		d.mu.Unlock()
	}
	return errors.Join(errs...)
}

func (f *FS) saveDraft(name string, d *draft) error {
	dir := f.keptDir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep the draft %q: %w", clip(name), err)
	}
	k := keptDraft{Name: name, Born: d.born, Values: d.values, Items: d.items}
	for w, err := range d.broken {
		k.Spoilt = append(k.Spoilt, spoilt{w.row.Path, w.arg, err.Error()})
	}
	err := durable.WriteFile(filepath.Join(dir, keptName), 0o600, func(w io.Writer) error { return json.NewEncoder(w).Encode(k) })
	if err != nil {
		return fmt.Errorf("keep the draft %q: %w", clip(name), err)
	}
	return nil
}

// forgetKept removes what is kept of a draft that is over.
func (f *FS) forgetKept(name string) error {
	if !f.opts.KeepDrafts {
		return nil
	}
	return f.dropKept(f.keptDir(name))
}

func (f *FS) dropKept(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove a draft: %w", err)
	}
	_ = os.Remove(f.keptRoot()) // fails while there are others
	return nil
}

// keptSink takes a draft's diff.tar: it is extracted, so that what is wrong
// with it shows at once, and kept as it is.
type keptSink struct {
	*stagedSink
	file *os.File // of a temporary name until it is whole
	done func(path string)
}

func (f *FS) newKeptSink(s *stagedSink, name string, d *draft) (sink, error) {
	dir := f.keptDir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("keep the draft's diff.tar: %w", err)
	}
	file, err := os.CreateTemp(dir, ".tmp-diff")
	if err != nil {
		return nil, fmt.Errorf("keep the draft's diff.tar: %w", err)
	}
	return &keptSink{s, file, func(path string) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.archive, d.changed = path, true
	}}, nil
}

// Write implements sink.
func (s *keptSink) Write(p []byte) (int, error) {
	n, err := s.stagedSink.Write(p)
	if err != nil {
		return n, err
	}
	return s.file.Write(p)
}

// Commit implements sink.
func (s *keptSink) Commit(ctx context.Context) error {
	path := filepath.Join(filepath.Dir(s.file.Name()), keptTar)
	err := errors.Join(s.staged.Discard(ctx), s.file.Sync(), s.file.Close())
	if err == nil {
		err = os.Rename(s.file.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("keep the draft's diff.tar: %w", errors.Join(err, os.Remove(s.file.Name())))
	}
	s.done(path)
	return nil
}

// Discard implements sink.
func (s *keptSink) Discard(ctx context.Context) error {
	return errors.Join(s.staged.Discard(ctx), s.file.Close(), os.Remove(s.file.Name()))
}

// stageArchive makes the layer of a draft whose diff.tar was kept.
func (d *draft) stageArchive(ctx context.Context, s *store.Store, spec store.LayerSpec) (_ *store.Layer, err error) {
	file, err := os.Open(d.archive)
	if err != nil {
		return nil, fmt.Errorf("the draft's diff.tar: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	staged, err := s.StageLayer(ctx, spec)
	if err != nil {
		return nil, err
	}
	if _, err := staged.Import(ctx, file); err != nil {
		return nil, errors.Join(err, staged.Discard(context.WithoutCancel(ctx)))
	}
	return staged.Commit(ctx)
}
