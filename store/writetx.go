package store

import (
	"context"
	"maps"
	"time"

	"github.com/plyfs/plyfs/internal/errno"
)

// WriteTx is a Tx that can change the store. It is good only inside Update,
// and only for the goroutine that Update called.
type WriteTx struct {
	*Tx
	cx   context.Context // Update's
	held *heldLocks
	// base is what stays when Update's function fails: the state before it,
	// and what save and editMounts have saved since.
	base *state
	// own tells which sets of st nobody else sees.
	own [numKinds]bool
	// dirty tells which files (main, volatile) must be saved, gone which
	// kinds lost a record since the last save.
	dirty [numKinds][numFiles]bool
	gone  [numKinds]bool
	saved bool
	later []func()
}

// Update calls fn with the newest state under the write locks of all kinds,
// and saves what it changed, durably, before it returns. When fn fails its
// error is returned as it is and nothing changes (but for what it saved
// itself). fn must be quick: nothing slow, and no waiting for others, happens
// in it. ErrTimeout when a lock cannot be had, ErrReadOnly for a store opened
// read-only, ErrDamaged when a file to be saved is damaged.
func (s *Store) Update(ctx context.Context, fn func(*WriteTx) error) (err error) {
	if s.opts.ReadOnly {
		return errno.New(errno.ErrReadOnly, "the store %s is opened read-only", s.opts.GraphRoot)
	}
	var later []func()
	defer func() {
		for _, f := range later {
			f()
		}
	}()
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	held, err := s.lockAll(ctx, "update")
	defer func() { err = also(err, unlockAll(held)) }()
	if err != nil {
		return err
	}
	if _, err := s.loadLocked(ctx, held); err != nil {
		return err
	}
	s.writing.Store(true)
	defer s.writing.Store(false)
	w := s.newWriteTx(ctx, held)
	defer func() { later = w.later }()
	w.sweepAll()
	return w.run(fn)
}

func (s *Store) newWriteTx(ctx context.Context, held *heldLocks) *WriteTx {
	st, base := *s.cur.Load(), *s.cur.Load()
	return &WriteTx{Tx: &Tx{s: s, st: &st}, cx: ctx, held: held, base: &base}
}

// run calls fn, saves, and publishes what is then on disk.
func (w *WriteTx) run(fn func(*WriteTx) error) (err error) {
	done := false
	defer func() {
		if !done { // fn panicked: what is on disk counts
			w.s.stale.Store(true)
		}
	}()
	err = fn(w)
	if err == nil {
		err = w.saveAll()
	}
	done = true
	if w.saved {
		final := *w.base
		w.s.publish(&final)
	}
	return err
}

// sweepAll removes what dead writers left half made. Under the write locks
// every record flagged incomplete is such a leftover. A failure is only
// logged: it must not keep the store from being written.
func (w *WriteTx) sweepAll() {
	for k := range Kind(numKinds) {
		ids := w.st.part(k).incomplete()
		if len(ids) == 0 {
			continue
		}
		err := w.run1(func() error { return w.sweepIncomplete(k, ids) })
		if err != nil {
			w.s.log.WithError(err).Warnf("half-made %s could not be removed: %v", k.Plural(), ids)
		}
	}
}

// run1 runs one step whose changes are saved by themselves, or dropped.
func (w *WriteTx) run1(step func() error) error {
	err := step()
	if err == nil {
		err = w.saveAll()
	}
	if err != nil {
		w.rollback()
	}
	return err
}

// ctx returns the context given to Update.
func (w *WriteTx) ctx() context.Context { return w.cx }

// rollback drops what was changed since the last save.
func (w *WriteTx) rollback() {
	*w.st = *w.base
	w.own = [numKinds]bool{}
	w.dirty = [numKinds][numFiles]bool{}
	w.gone = [numKinds]bool{}
}

// after runs fn once Update has let go of all locks, whatever its outcome.
func (w *WriteTx) after(fn func()) { w.later = append(w.later, fn) }

// kindSet gives the generic functions below the set of their type.
func layerPart(st *state) **part[*Layer]         { return &st.layers }
func imagePart(st *state) **part[*Image]         { return &st.images }
func containerPart(st *state) **part[*Container] { return &st.containers }

// mutableSet returns the transaction's own set of a kind.
func mutableSet[R record[R]](w *WriteTx, at func(*state) **part[R]) *set[R] {
	return mutablePart(w, at).set
}

// mutablePart is mutableSet with what is known beside the set.
func mutablePart[R record[R]](w *WriteTx, at func(*state) **part[R]) *decoded[R] {
	p := at(w.st)
	d := (*p).get()
	if k := d.set.kind; !w.own[k] {
		own := *d
		own.set = d.set.mutable()
		*p = known(own)
		w.own[k] = true
	}
	return (*p).get()
}

// mutableAny is mutablePart without its type.
func (w *WriteTx) mutableAny(k Kind) anyDecoded {
	switch k {
	case KindLayer:
		return mutablePart(w, layerPart)
	case KindImage:
		return mutablePart(w, imagePart)
	}
	return mutablePart(w, containerPart)
}

// touch notes that r's file must be saved.
func (w *WriteTx) touch(k Kind, m *meta) {
	if m.shadow == 0 {
		w.dirty[k][m.origin().file] = true
	}
}

// writable refuses to change a kind whose file is damaged.
func (w *WriteTx) writable(k Kind) error { return w.st.part(k).broken() }

func add[R record[R]](w *WriteTx, at func(*state) **part[R], r R) error {
	k := (*at(w.st)).records().kind
	if err := w.writable(k); err != nil {
		return err
	}
	if err := checkNewID(k, r.id()); err != nil {
		return err
	}
	names, err := checkNames(r.names())
	if err != nil {
		return err
	}
	if (*at(w.st)).records().anyOf(r.id()) != nil {
		return errno.New(errno.ErrDuplicate, "%s %q exists already; choose another ID", k, r.id())
	}
	for _, n := range names {
		if err := w.nameFree(k, r.id(), n); err != nil {
			return err
		}
	}
	*r.fields().names = names
	m := r.m()
	*m = meta{file: m.file, extra: m.extra}
	mutableSet(w, at).add(r)
	w.touch(k, m)
	w.changedSet(k)
	return nil
}

// addLayer adds a record that the caller made and no longer touches.
// ErrDuplicate for a taken ID or name, ErrBadValue or ErrNameTooLong for an
// unfit one, ErrDamaged when the kind is read-only.
func (w *WriteTx) addLayer(l *Layer) error {
	if l.Volatile {
		l.file = fileVolatile
	}
	return add(w, layerPart, l)
}

// addImage is addLayer for images.
func (w *WriteTx) addImage(i *Image) error { return add(w, imagePart, i) }

// addContainer is addLayer for containers. The flags are made as the peers
// make them.
func (w *WriteTx) addContainer(c *Container) error {
	if c.Volatile {
		c.file = fileVolatile
	}
	flags := map[string]any{"MountLabel": "", "ProcessLabel": ""}
	if c.Volatile {
		flags["Volatile"] = true
	}
	maps.Copy(flags, c.Flags)
	c.Flags = flags
	return add(w, containerPart, c)
}

// edit gives fn a private copy of a record, which then takes its place.
func edit[R record[R]](w *WriteTx, at func(*state) **part[R], id string, fn func(R) error) error {
	k := (*at(w.st)).records().kind
	if err := w.writable(k); err != nil {
		return err
	}
	old, ok := (*at(w.st)).records().byID[id]
	if !ok {
		return w.unknown(k, id)
	}
	m := old.m()
	if m.shadow > 0 {
		return errno.New(errno.ErrReadOnly, "%s %s is in an additional image store and cannot be changed", k, id)
	}
	if m.damage != "" {
		return errno.New(errno.ErrDamaged, "the record of %s %s is damaged (%s) and cannot be changed; delete it or repair the file", k, id, m.damage)
	}
	r := old.clone()
	if err := fn(r); err != nil {
		return err
	}
	r.m().raw, r.m().trimmed, r.m().changed = "", false, time.Now()
	mutableSet(w, at).replace(old, r)
	w.touch(k, r.m())
	return nil
}

// editLayer gives fn a private copy of the layer's record, which then takes
// the old one's place; fn must not change ID or Names. ErrUnknown,
// ErrReadOnly (an additional store's), ErrDamaged, or fn's error, upon which
// nothing changes.
func (w *WriteTx) editLayer(id string, fn func(*Layer) error) error {
	return edit(w, layerPart, id, fn)
}

// editImage is editLayer for images.
func (w *WriteTx) editImage(id string, fn func(*Image) error) error {
	return edit(w, imagePart, id, fn)
}

// editContainer is editLayer for containers.
func (w *WriteTx) editContainer(id string, fn func(*Container) error) error {
	return edit(w, containerPart, id, fn)
}

// editAny is edit for what all kinds have.
func (w *WriteTx) editAny(k Kind, id string, fn func(fields) error) error {
	switch k {
	case KindLayer:
		return edit(w, layerPart, id, func(l *Layer) error { return fn(l.fields()) })
	case KindImage:
		return edit(w, imagePart, id, func(i *Image) error { return fn(i.fields()) })
	}
	return edit(w, containerPart, id, func(c *Container) error { return fn(c.fields()) })
}

func drop[R record[R]](w *WriteTx, at func(*state) **part[R], id string) error {
	k := (*at(w.st)).records().kind
	if err := w.writable(k); err != nil {
		return err
	}
	r, ok := (*at(w.st)).records().byID[id]
	if !ok {
		return w.unknown(k, id)
	}
	if r.m().shadow > 0 {
		return errno.New(errno.ErrReadOnly, "%s %s is in an additional image store and cannot be deleted", k, id)
	}
	set := mutableSet(w, at)
	set.remove(r)
	for file, list := range set.opaque { // records that this one replaced
		var kept []opaque
		for _, o := range list {
			if o.id != id {
				kept = append(kept, o)
			}
		}
		if len(kept) != len(list) {
			set.opaque[file] = kept
			w.dirty[k][file] = true
		}
	}
	w.touch(k, r.m())
	w.gone[k] = true
	w.changedSet(k)
	if len(w.s.paths[k].shadows) > 0 {
		w.s.stale.Store(true) // what it hid in an additional store shows again
	}
	return nil
}

// remove drops the record of an object. ErrUnknown, ErrReadOnly, ErrDamaged
// (the whole file; a damaged record can be removed).
func (w *WriteTx) remove(k Kind, id string) error {
	switch k {
	case KindLayer:
		return drop(w, layerPart, id)
	case KindImage:
		return drop(w, imagePart, id)
	}
	return drop(w, containerPart, id)
}

// setIncomplete sets or drops the flag that has the next writer remove the
// object, should we be killed.
func (w *WriteTx) setIncomplete(k Kind, id string, on bool) error {
	return w.editAny(k, id, func(f fields) error {
		if on && *f.flags == nil {
			*f.flags = make(map[string]any)
		}
		if on {
			(*f.flags)[flagIncomplete] = true
		} else {
			delete(*f.flags, flagIncomplete)
		}
		return nil
	})
}

func (w *WriteTx) changedSet(k Kind) { w.mutableAny(k).date(time.Now()) }

// SetMetadata replaces an object's metadata. ErrUnknown, ErrReadOnly,
// ErrDamaged.
func (w *WriteTx) SetMetadata(k Kind, id, metadata string) error {
	return w.editAny(k, id, func(f fields) error {
		*f.metadata = metadata
		return nil
	})
}
