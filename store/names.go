package store

import (
	"slices"

	"github.com/plyfs/plyfs/internal/errno"
)

// SetNames replaces an object's names. A name that another object of the kind
// has is moved from it. Repeats count once. An image of an additional store
// is copied into the own records, and the copy gets the names. ErrUnknown,
// ErrBadValue, ErrNameTooLong, ErrReadOnly, ErrDamaged: then nothing changes.
func (w *WriteTx) SetNames(k Kind, id string, names ...string) error {
	names, err := checkNames(names)
	if err != nil {
		return err
	}
	return w.setNames(k, id, names)
}

// AddNames puts names in front of those that the object has. See SetNames.
func (w *WriteTx) AddNames(k Kind, id string, names ...string) error {
	old, ok := w.Names(k, id)
	if !ok {
		return w.unknown(k, id)
	}
	return w.SetNames(k, id, slices.Concat(names, old)...)
}

// RemoveNames takes names from an object; those that it has not got are no
// error. See SetNames.
func (w *WriteTx) RemoveNames(k Kind, id string, names ...string) error {
	old, ok := w.Names(k, id)
	if !ok {
		return w.unknown(k, id)
	}
	return w.setNames(k, id, without(old, names...))
}

// ClaimName adds one name that no other object of the kind has (ErrDuplicate
// otherwise): in front, or at the end, from which the object's entry is
// named, when last. See SetNames.
func (w *WriteTx) ClaimName(k Kind, id, name string, last bool) error {
	old, ok := w.Names(k, id)
	if !ok {
		return w.unknown(k, id)
	}
	if err := w.nameFree(k, id, name); err != nil {
		return err
	}
	if !last && slices.Contains(old, name) {
		return nil
	}
	names := slices.Concat([]string{name}, old)
	if last {
		names = append(without(old, name), name)
	}
	return w.SetNames(k, id, names...)
}

// RenameName puts a new name in the place of an old one of the same object.
// ErrUnknown when the object has no such name, ErrDuplicate when another has
// the new one. See SetNames.
func (w *WriteTx) RenameName(k Kind, id, old, new string) error {
	names, ok := w.Names(k, id)
	if !ok {
		return w.unknown(k, id)
	}
	at := slices.Index(names, old)
	if at < 0 {
		return errno.New(errno.ErrUnknown, "%s %s has no name %q", k, id, short(old))
	}
	if err := w.nameFree(k, id, new); err != nil {
		return err
	}
	if old == new {
		return nil
	}
	names = slices.Clone(names)
	if dup := slices.Index(names, new); dup >= 0 {
		names[at] = new
		return w.setNames(k, id, slices.Delete(names, dup, dup+1))
	}
	names[at] = new
	return w.SetNames(k, id, names...)
}

// nameFree is ErrDuplicate when another object than id has the name.
func (w *WriteTx) nameFree(k Kind, id, name string) error {
	o := w.st.of(k).ownerOf(name)
	if o == nil || o.id() == id {
		return nil
	}
	return errno.New(errno.ErrDuplicate, "the name %q belongs to %s %s already; choose another, or remove it there", short(name), k, o.id())
}

// setNames moves names to id and sets its list.
func (w *WriteTx) setNames(k Kind, id string, names []string) error {
	o := w.st.of(k).anyOf(id)
	if o == nil {
		return w.unknown(k, id)
	}
	if slices.Equal(o.names(), names) {
		return nil
	}
	losers, err := w.losers(k, id, names)
	if err != nil {
		return err
	}
	if o.m().shadow > 0 && k == KindImage {
		if err := w.adopt(id); err != nil {
			return err
		}
	}
	err = w.editAny(k, id, func(f fields) error {
		remember(f.history, names)
		*f.names = names
		return nil
	})
	if err != nil {
		return err
	}
	w.changedSet(k)
	for other, lost := range losers {
		err := w.editAny(k, other, func(f fields) error {
			*f.names = without(*f.names, lost...)
			return nil
		})
		if err != nil {
			return err
		}
	}
	w.relink(k, id)
	return nil
}

// losers finds who would lose which of names to id. Records of additional
// stores are not among them: they lose names when they are loaded again.
func (w *WriteTx) losers(k Kind, id string, names []string) (map[string][]string, error) {
	losers := make(map[string][]string)
	for _, n := range names {
		o := w.st.of(k).ownerOf(n)
		switch {
		case o == nil, o.id() == id:
		case o.m().shadow > 0:
			w.s.stale.Store(true)
		case o.m().damage != "":
			return nil, errno.New(errno.ErrDamaged, "the name %q belongs to %s %s, whose record is damaged (%s); delete that first", short(n), k, o.id(), o.m().damage)
		default:
			losers[o.id()] = append(losers[o.id()], n)
		}
	}
	return losers, nil
}

// relink has the index of names tell what the record of id says.
func (w *WriteTx) relink(k Kind, id string) {
	switch k {
	case KindLayer:
		relinkIn(w, layerPart, id)
	case KindImage:
		relinkIn(w, imagePart, id)
	case KindContainer:
		relinkIn(w, containerPart, id)
	}
}

func relinkIn[R record[R]](w *WriteTx, at func(*state) **part[R], id string) {
	set := mutableSet(w, at)
	for _, n := range set.byID[id].names() {
		set.byName[n] = set.byID[id]
	}
}

// remember puts a list of names that was set into an image's history: those
// that are new to it in front, the last of them first (as observed of 1.43).
func remember(history *[]string, names []string) {
	if history == nil {
		return
	}
	for _, n := range names {
		if !slices.Contains(*history, n) {
			*history = slices.Insert(*history, 0, n)
		}
	}
}

func without(names []string, gone ...string) []string {
	kept := make([]string, 0, len(names))
	for _, n := range names {
		if !slices.Contains(gone, n) {
			kept = append(kept, n)
		}
	}
	return kept
}

// adopt copies the record of an additional store's image into our own, as the
// peers do when such an image is renamed.
func (w *WriteTx) adopt(id string) error {
	if err := w.writable(KindImage); err != nil {
		return err
	}
	set := mutableSet(w, imagePart)
	old := set.byID[id]
	own := old.clone()
	own.ReadOnly = false
	own.meta = meta{extra: old.extra, damage: old.damage}
	set.replace(old, own)
	w.touch(KindImage, &own.meta)
	return nil
}
