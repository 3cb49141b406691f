package store

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
)

// Damage says what is wrong with an object: nil, or an ErrDamaged sentence.
// It looks at the record, at what the record refers to, and asks the driver
// about a layer's directories (a few system calls).
func (t *Tx) Damage(k Kind, id string) error {
	o := t.st.of(k).anyOf(id)
	if o == nil {
		return nil
	}
	if why := o.m().damage; why != "" {
		return errno.New(errno.ErrDamaged, "the record of %s %s cannot be understood: %s", k, id, why)
	}
	switch r := o.(type) {
	case *Layer:
		return t.damagedLayer(r)
	case *Image:
		return t.missing(k, id, "top layer", KindLayer, r.TopLayer)
	case *Container:
		return errors.Join(t.missing(k, id, "image", KindImage, r.Image), t.missing(k, id, "layer", KindLayer, r.Layer))
	}
	return nil
}

// missing is the damage of referring to what is not there.
func (t *Tx) missing(k Kind, id, role string, to Kind, ref string) error {
	if ref == "" || t.st.of(to).anyOf(ref) != nil {
		return nil
	}
	return errno.New(errno.ErrDamaged, "%s %s: its %s %s is missing; delete it, or bring that back", k, id, role, short(ref))
}

func (t *Tx) damagedLayer(l *Layer) error {
	if err := t.missing(KindLayer, l.ID, "parent", KindLayer, l.Parent); err != nil {
		return err
	}
	if chain := t.Chain(l.ID); len(chain) > 0 && chain[len(chain)-1].Parent != "" {
		last := chain[len(chain)-1]
		return errno.New(errno.ErrDamaged, "layer %s: the parent %s of layer %s below it is missing or one of its own children", l.ID, short(last.Parent), last.ID)
	}
	if t.s.driver == nil || l.ReadOnly {
		return nil
	}
	has, err := t.s.driver.Has(l.ID)
	switch {
	case err != nil:
		return errno.New(errno.ErrDamaged, "layer %s: %w", l.ID, err)
	case !has:
		return errno.New(errno.ErrDamaged, "layer %s: its directory is missing from the driver %s; delete the layer", l.ID, t.s.opts.DriverName)
	}
	flaws, err := drivers.Flaws(t.s.driver, t.family(l))
	if err != nil {
		return errno.New(errno.ErrDamaged, "layer %s: %w", l.ID, err)
	}
	if len(flaws) > 0 {
		return errno.New(errno.ErrDamaged, "layer %s: %s; mount it or repair the store to have that made again", l.ID, strings.Join(flaws, "; "))
	}
	return nil
}

// Unreadable returns what is wrong (ErrDamaged) with the record files of which
// only a part could be read, in the order of kinds; of kinds that nobody has
// asked for anything yet it says nothing, and reads nothing.
func (t *Tx) Unreadable() []error {
	var out []error
	for k := range Kind(numKinds) {
		if p := t.st.part(k); p.asked() && p.broken() != nil {
			out = append(out, p.broken())
		}
	}
	return out
}

// Damaged lists what is wrong with kind k: files that cannot be read, elements
// that are no records, damaged objects, and what is on disk without a record.
// It looks at every object, so it is slow; nothing is changed.
func (t *Tx) Damaged(k Kind) []Broken {
	var out []Broken
	if err := t.st.part(k).broken(); err != nil {
		out = append(out, Broken{Kind: k, Err: err})
	}
	if err := t.st.mounts.broken; err != nil && k == KindLayer {
		out = append(out, Broken{Kind: k, Err: err})
	}
	for _, o := range t.st.of(k).odd() {
		out = append(out, Broken{Kind: k, ID: o.id, Err: errno.New(errno.ErrDamaged, "a record among the %s (ID %q) is not shown: %s", k.Plural(), short(o.id), o.why)})
	}
	for o := range t.st.of(k).each {
		if err := t.Damage(k, o.id()); err != nil {
			out = append(out, Broken{Kind: k, ID: o.id(), Err: err})
		}
	}
	return append(out, t.unrecorded(k)...)
}

// unrecorded lists what is on disk and has no record.
func (t *Tx) unrecorded(k Kind) []Broken {
	var out []Broken
	recordless := t.recordless(k)
	note := func(id, where string) {
		if recordless(id) && !slices.ContainsFunc(out, func(b Broken) bool { return b.ID == id }) {
			out = append(out, Broken{Kind: k, ID: id, Err: errno.New(errno.ErrDamaged, "%s %s is in %s but has no record; it is left as it is", k, id, where)})
		}
	}
	if k == KindLayer && t.s.driver != nil {
		ids, err := t.s.driver.List()
		if err != nil {
			out = append(out, Broken{Kind: k, Err: errno.New(errno.ErrDamaged, "the driver's layers cannot be listed: %w", err)})
		}
		for _, id := range ids {
			note(id, "the driver's folder")
		}
	}
	dir := t.s.kindDir(k)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		out = append(out, Broken{Kind: k, Err: errno.New(errno.ErrDamaged, "%s cannot be listed: %w", dir, err)})
	}
	for _, e := range entries {
		if id, ok := dataOf(e); ok {
			note(id, dir)
		}
	}
	return out
}

// dataOf returns whose data an entry of a kind's directory is.
func dataOf(e fs.DirEntry) (id string, ok bool) {
	if id, ok := strings.CutSuffix(e.Name(), ".tar-split.gz"); ok && id != "" && e.Type().IsRegular() {
		return id, true
	}
	return e.Name(), e.IsDir() && unsafeID(e.Name()) == ""
}
