package fsview

import (
	"context"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// renameObject is mv of an object, or of the symlink that another of its names
// is: the new name takes the place of the old one. An object without a name
// gets its first.
func renameObject(kind store.Kind) func(context.Context, place, string, where, string) error {
	return func(ctx context.Context, p place, name string, to where, newEntry string) error {
		if to.row != p.row {
			return errRename(p, name)
		}
		id, alias, ok := p.index().resolve(kind, name)
		if !ok {
			return unknown("there is no %s %q", kind, clip(name))
		}
		newName, err := nameOf(newEntry)
		switch {
		case err != nil:
			return err
		case newName == id:
			return nil
		case isID(newName):
			return errno.New(errno.ErrBadValue, "%s… has the form of an ID, which cannot be given by mv: choose a name", short(newName))
		case p.row.child(newEntry) != nil:
			return errno.New(errno.ErrDuplicate, "%q is a fixed entry of /%s", newEntry, kind.Plural())
		}
		old, named, err := p.nameToRename(kind, id, name, alias)
		if err != nil {
			return err
		}
		if named {
			return p.fs.renameName(ctx, kind, old, newName)
		}
		return p.fs.claimName(ctx, kind, id, newName, true)
	}
}

// nameToRename returns the name that an entry stands for; false if the object
// has none.
func (p place) nameToRename(kind store.Kind, id, entryName string, alias bool) (string, bool, error) {
	names, _ := p.tx.Names(kind, id)
	if len(names) == 0 {
		return "", false, nil
	}
	if !alias {
		if e, _ := p.index().entry(kind, id); e == Encode(id) {
			// Its oldest name is too long for an entry, which is the ID.
			return "", false, nil
		}
		return names[len(names)-1], true, nil
	}
	plain, err := Decode(entryName)
	if err != nil {
		return "", false, err
	}
	if !contains(names, plain) {
		return "", false, errno.New(errno.ErrBadValue, "%q is the ID of a %s that has a name: rename its entry %q", short(plain), kind, clip(names[len(names)-1]))
	}
	return plain, true, nil
}
