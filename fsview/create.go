package fsview

import (
	"context"
	"encoding/json"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// wanted is what a new entry's name says: an ID or a name.
type wanted struct {
	id    string
	names []string
}

// want reads the name given to mkdir in a directory of objects.
func want(name string) (wanted, error) {
	plain, err := nameOf(name)
	if err != nil {
		return wanted{}, err
	}
	if isID(plain) {
		return wanted{id: plain}, nil
	}
	return wanted{names: []string{plain}}, nil
}

// made finds the new object's place in the state that has it. A signal that
// comes now does not make a failure of what is done.
func (p place) made(ctx context.Context, kind store.Kind, id string) (place, error) {
	ctx = context.WithoutCancel(ctx)
	path := "/" + kind.Plural() + "/<" + kind.String() + ">"
	return p.fs.place(ctx, where{row: p.fs.paths[path], id: id})
}

// madeEntry is the answer of a mkdir in the kind's own directory.
func madeEntry(p place, name string) (entry, error) {
	e, ok := p.index().entry(kindOf(p.row), p.id)
	if ok && e != name {
		// The name is shown in another form than it was typed in.
		row := p.fs.paths["/"+kindOf(p.row).Plural()].child("<name>")
		return entry{name, where{row, p.id, name}}, nil
	}
	return entry{name, p.where}, nil
}

func kindOf(r *Row) store.Kind {
	k, _ := r.obj.kind()
	return k
}

func mkdirLayer(ctx context.Context, p place, name string) (entry, error) {
	q, err := p.newLayer(ctx, name, "")
	if err != nil {
		return entry{}, err
	}
	return madeEntry(q, name)
}

func mkdirChild(ctx context.Context, p place, name string) (entry, error) {
	q, err := p.newLayer(ctx, name, p.id)
	if err != nil {
		return entry{}, err
	}
	return entry{name, where{p.row.child("<layer>"), p.id, q.id}}, nil
}

func (p place) newLayer(ctx context.Context, name, parent string) (place, error) {
	w, err := want(name)
	if err != nil {
		return p, err
	}
	l, err := p.fs.store.CreateLayer(ctx, store.LayerSpec{ID: w.id, Names: w.names, Parent: parent})
	if err != nil {
		return p, err
	}
	return p.made(ctx, store.KindLayer, l.ID)
}

func mkdirImage(ctx context.Context, p place, name string) (entry, error) {
	q, err := p.newImage(ctx, name, "")
	if err != nil {
		return entry{}, err
	}
	return madeEntry(q, name)
}

func mkdirImageOn(ctx context.Context, p place, name string) (entry, error) {
	q, err := p.newImage(ctx, name, p.id)
	if err != nil {
		return entry{}, err
	}
	return entry{name, where{p.row.child("<image>"), p.id, q.id}}, nil
}

func (p place) newImage(ctx context.Context, name, layer string) (place, error) {
	w, err := want(name)
	if err != nil {
		return p, err
	}
	id, err := p.makeImage(ctx, store.ImageSpec{ID: w.id, Names: w.names, Layer: layer})
	if err != nil {
		return p, err
	}
	return p.made(ctx, store.KindImage, id)
}

// makeImage makes an image. One without a manifest gets a minimal
// configuration and manifest, without which podman would refuse the whole
// store.
func (p place) makeImage(ctx context.Context, spec store.ImageSpec) (string, error) {
	if err := checkNewNames(store.KindImage, spec.Names...); err != nil {
		return "", err
	}
	create := p.fs.store.CreateMinimalImage
	if hasItem(spec.BigData, manifestKey) {
		create = p.fs.store.CreateImage
	}
	i, err := create(ctx, spec)
	if err != nil {
		return "", err
	}
	return i.ID, nil
}

func hasItem(items []store.BigDataItem, key string) bool {
	for _, it := range items {
		if it.Key == key {
			return true
		}
	}
	return false
}

func mkdirContainer(ctx context.Context, p place, name string) (entry, error) {
	q, err := p.newContainer(ctx, name, "")
	if err != nil {
		return entry{}, err
	}
	return madeEntry(q, name)
}

func mkdirContainerOf(ctx context.Context, p place, name string) (entry, error) {
	q, err := p.newContainer(ctx, name, p.id)
	if err != nil {
		return entry{}, err
	}
	return entry{name, where{p.row.child("<container>"), p.id, q.id}}, nil
}

func (p place) newContainer(ctx context.Context, name, image string) (place, error) {
	w, err := want(name)
	if err != nil {
		return p, err
	}
	c, err := p.fs.store.CreateContainer(ctx, store.ContainerSpec{ID: w.id, Names: w.names, Image: image})
	if err != nil {
		return p, err
	}
	return p.made(ctx, store.KindContainer, c.ID)
}

// rmdirObject deletes an object of kind. What is in use says who uses it.
func rmdirObject(kind store.Kind) func(context.Context, place, string) error {
	return func(ctx context.Context, p place, name string) error {
		id, alias, ok := p.index().resolve(kind, name)
		switch {
		case p.row.child(name) != nil:
			return errno.New(errno.ErrForbidden, "%s is a fixed entry of /%s and stays", name, kind.Plural())
		case !ok:
			return unknown("there is no %s %q", kind, clip(name))
		case alias:
			return errno.New(errno.ErrNotDir, "%q is a symlink to a %s: rmdir the entry that it leads to", clip(name), kind)
		}
		q := p.at(p.row.child("<"+kind.String()+">"), id, "")
		if err := q.checkUnused(kind, name); err != nil {
			return err
		}
		if err := p.fs.remove(ctx, kind, id); err != nil {
			return err
		}
		p.fs.errs.forget(subject{objOf(kind), id})
		return nil
	}
}

// checkUnused names who uses an object, in the words of the tree; the store
// looks again, under its lock.
func (p place) checkUnused(kind store.Kind, name string) error {
	if len(p.users()) > 0 {
		sort := errno.ErrInUse
		if len(p.tx.Children(p.id)) > 0 && kind == store.KindLayer {
			sort = errno.ErrHasChildren
		}
		return errno.New(sort, "%s %q is used by %s: remove those first (ls used-by shows all)", kind, clip(name), p.describeUsers())
	}
	if who := p.manager(); who != "" {
		return errno.New(errno.ErrInUse, "%s %q is managed by %s, which would go on believing in it: remove it there (`podman rm` or the like), or `echo 'delete force' > ctl` in it", kind, clip(name), who)
	}
	if p.mounted() {
		return errno.New(errno.ErrInUse, "%s %q is mounted: `echo umount > ctl` in it first, or `umount force` if whoever mounted it is gone", kind, clip(name))
	}
	return nil
}

// manager names the program that keeps records of its own of a container, by
// what its metadata says; "" if none does. podman and CRI-O write an object
// with these members (seen in their stores).
func (p place) manager() string {
	if p.row.obj != objContainer {
		return ""
	}
	md, _ := p.metadata()
	var m struct {
		ImageID   *string `json:"image-id"`
		CreatedAt *int64  `json:"created-at"`
		PodID     string  `json:"pod-id"`
	}
	switch err := json.Unmarshal([]byte(md), &m); {
	case err != nil || m.ImageID == nil || m.CreatedAt == nil:
		return ""
	case m.PodID != "":
		return "CRI-O"
	}
	return "podman"
}

func (f *FS) remove(ctx context.Context, kind store.Kind, id string) error {
	switch kind {
	case store.KindLayer:
		return f.store.DeleteLayer(ctx, id)
	case store.KindImage:
		_, err := f.store.DeleteImage(ctx, id)
		return err
	}
	return f.store.DeleteContainer(ctx, id)
}
