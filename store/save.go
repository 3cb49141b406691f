package store

import (
	"bufio"
	"fmt"
	"io"

	"github.com/plyfs/plyfs/internal/durable"
)

// saveAll saves every kind that changed. What refers goes last when records
// came and first when records went, so that a kill in between leaves no
// record that refers to one that is not there.
func (w *WriteTx) saveAll() error {
	order := []Kind{KindLayer, KindImage, KindContainer}
	if w.gone != [numKinds]bool{} {
		order = []Kind{KindContainer, KindImage, KindLayer}
	}
	return w.save(order...)
}

// save saves these kinds now, durably and in this order, if they changed, and
// keeps the locks. What was saved stays even when the function given to
// Update fails later.
func (w *WriteTx) save(kinds ...Kind) error {
	for _, k := range kinds {
		if w.dirty[k] == [numFiles]bool{} {
			continue
		}
		var err error
		switch k {
		case KindLayer:
			err = saveKind(w, layerPart)
		case KindImage:
			err = saveKind(w, imagePart)
		case KindContainer:
			err = saveKind(w, containerPart)
		}
		if err != nil {
			w.s.stale.Store(true)
			return fmt.Errorf("save %s: %w", k.Plural(), err)
		}
	}
	return nil
}

// saveKind saves the changed files of a kind: token first, then each file.
func saveKind[R record[R]](w *WriteTx, at func(*state) **part[R]) error {
	set := mutableSet(w, at)
	k := set.kind
	if err := w.writable(k); err != nil {
		return err
	}
	var texts [numFiles][]string
	for file, dirty := range w.dirty[k] {
		if dirty {
			var err error
			if texts[file], err = set.encode(file); err != nil {
				return err
			}
		}
	}
	stamp := &w.st.kinds[k].stamp
	err := w.touchLocks(k, stamp)
	if err != nil {
		return err
	}
	for file, dirty := range w.dirty[k] {
		if !dirty {
			continue
		}
		w.s.fail(fmt.Sprintf("save:1 %s", k)) // the token is new, the file old
		path := w.s.paths[k].own[file]
		if err := durable.WriteFile(path, 0o600, func(to io.Writer) error { return writeArray(to, texts[file]) }); err != nil {
			return err
		}
		if stamp.own[file], err = stampPath(path); err != nil {
			return err
		}
	}
	w.s.fail(fmt.Sprintf("save:2 %s", k)) // the kind is saved
	w.settled(k, func() { *at(w.base) = *at(w.st) })
	return nil
}

// touchLocks writes fresh tokens into the lock files of the files to be saved.
func (w *WriteTx) touchLocks(k Kind, stamp *kindStamp) (err error) {
	if w.dirty[k][fileImages] {
		if stamp.images, err = w.held[heldImages].Touch(); err != nil {
			return err
		}
	}
	if w.dirty[k][fileMain] || w.dirty[k][fileVolatile] {
		stamp.token, err = w.held[k].Touch()
	}
	return err
}

// settled makes what was saved of kind k part of base.
func (w *WriteTx) settled(k Kind, keep func()) {
	keep()
	w.base.kinds[k] = w.st.kinds[k]
	w.own[k], w.dirty[k], w.gone[k] = false, [numFiles]bool{}, false
	w.saved = true
}

// encode returns the elements of an own file. Records that changed get their
// text here; they are not yet shared.
func (s *set[R]) encode(file int) ([]string, error) {
	texts := make([]string, 0, len(s.list)+len(s.opaque[file]))
	var b []byte
	for _, o := range s.opaque[file] {
		texts = append(texts, o.raw)
	}
	for _, r := range s.list {
		if r.m().origin() != (origin{file: file}) {
			continue
		}
		if r.m().trimmed { // published, so changed as a copy
			old := r
			r = r.clone()
			r.m().raw, r.m().trimmed = "", false
			s.replace(old, r)
		}
		if r.m().raw == "" {
			var err error
			if b, err = r.append(b[:0]); err != nil {
				return nil, fmt.Errorf("%s %s: %w", s.kind, r.id(), err)
			}
			r.m().raw = string(b)
		}
		texts = append(texts, r.m().raw)
	}
	return texts, nil
}

func writeArray(to io.Writer, texts []string) error {
	b := bufio.NewWriterSize(to, 256<<10)
	sep := "["
	for _, t := range texts {
		for _, part := range [...]string{sep, t} {
			if _, err := b.WriteString(part); err != nil {
				return err
			}
		}
		sep = ","
	}
	if len(texts) == 0 {
		sep = "[]"
	} else {
		sep = "]"
	}
	if _, err := b.WriteString(sep); err != nil {
		return err
	}
	return b.Flush()
}
