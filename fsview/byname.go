package fsview

import (
	"context"
	"strings"
	"time"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// folderSet holds folders of by-name that were made by hand and hold no name.
// They go with the mount. The keys are encoded paths.
type folderSet map[string]bool

func byNameOps(kind store.Kind, modified func(place) time.Time) rowOps {
	return rowOps{
		mtime:   modified,
		has:     func(p place) bool { return p.arg == "" || p.isFolder(kind, p.arg) },
		list:    listByName(kind),
		dirs:    countFolders(kind),
		find:    findByName(kind),
		mkdir:   mkdirByName(kind),
		rmdir:   rmdirByName(kind),
		symlink: symlinkByName(kind),
		unlink:  unlinkByName(kind),
		rename:  renameByName(kind),
	}
}

// byNameRow returns the row of what stands below by-name.
func (f *FS) byNameRow(kind store.Kind, child string) *Row {
	return f.paths["/"+kind.Plural()+"/by-name"].child(child)
}

// joinName is the path of an entry below by-name, encoded.
func joinName(folder, entry string) string {
	if folder == "" {
		return entry
	}
	return folder + "/" + entry
}

func (p place) isFolder(kind store.Kind, path string) bool {
	if _, ok := p.index().kinds[kind].folders[path]; ok {
		return true
	}
	p.fs.mu.Lock()
	defer p.fs.mu.Unlock()
	return p.fs.folders[kind][path]
}

func listByName(kind store.Kind) func(place) []entry {
	return func(p place) []entry {
		x := &p.index().kinds[kind]
		var list []entry
		seen := map[string]bool{}
		for _, ne := range x.folders[p.arg] {
			child := "<name>"
			if ne.folder {
				child = "<folder>"
			}
			seen[ne.entry] = true
			list = append(list, entry{ne.entry, where{p.fs.byNameRow(kind, child), "", joinName(p.arg, ne.entry)}})
		}
		for _, name := range p.fs.emptyFolders(kind, p.arg) {
			if !seen[name] {
				list = append(list, entry{name, where{p.fs.byNameRow(kind, "<folder>"), "", joinName(p.arg, name)}})
			}
		}
		return list
	}
}

func countFolders(kind store.Kind) func(place) int {
	list := listByName(kind)
	return func(p place) int {
		n := 0
		for _, e := range list(p) {
			if e.row.Kind.isDir() {
				n++
			}
		}
		return n
	}
}

// emptyFolders returns the entries of a folder that were made by hand, sorted.
func (f *FS) emptyFolders(kind store.Kind, folder string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []string
	for path := range f.folders[kind] {
		rest, ok := strings.CutPrefix(path, folder+"/")
		if folder == "" {
			rest, ok = path, true
		}
		if ok && !strings.Contains(rest, "/") {
			list = append(list, rest)
		}
	}
	sortStrings(list)
	return list
}

func findByName(kind store.Kind) func(context.Context, place, string) (entry, error) {
	return func(_ context.Context, p place, name string) (entry, error) {
		path := joinName(p.arg, name)
		if _, ok := p.nameAt(kind, path); ok {
			return entry{name, where{p.fs.byNameRow(kind, "<name>"), "", path}}, nil
		}
		if p.isFolder(kind, path) {
			return entry{name, where{p.fs.byNameRow(kind, "<folder>"), "", path}}, nil
		}
		return entry{}, unknown("no %s has a name %q, and no name begins with it", kind, clip(path))
	}
}

// nameAt returns the name that path, below by-name, stands for. A name can
// always be written in one component too.
func (p place) nameAt(kind store.Kind, path string) (string, bool) {
	if name, ok := p.index().kinds[kind].leaf[path]; ok {
		return name, true
	}
	name, err := plainName(path)
	if err != nil {
		return "", false
	}
	_, ok := p.tx.ByName(kind, name)
	return name, ok
}

// plainName decodes a path below by-name, component by component.
func plainName(path string) (string, error) {
	parts := strings.Split(path, "/")
	for i, c := range parts {
		d, err := Decode(c)
		if err != nil {
			return "", err
		}
		parts[i] = d
	}
	return strings.Join(parts, "/"), nil
}

func newName(path string) (string, error) {
	name, err := plainName(path)
	if err != nil {
		return "", err
	}
	return name, checkName(name)
}

func targetByName(kind store.Kind) func(place) (string, bool) {
	return func(p place) (string, bool) {
		name, ok := p.nameAt(kind, p.arg)
		if !ok {
			return "", false
		}
		id, ok := p.tx.ByName(kind, name)
		if !ok {
			return "", false
		}
		return p.index().up(2+strings.Count(p.arg, "/"), kind, id)
	}
}

func mkdirByName(kind store.Kind) mkdirFunc {
	return func(_ context.Context, p place, name string) (entry, error) {
		path := joinName(p.arg, name)
		if _, err := newName(path); err != nil {
			return entry{}, err
		}
		if _, ok := p.nameAt(kind, path); ok || p.isFolder(kind, path) {
			return entry{}, errno.New(errno.ErrDuplicate, "%q is taken in by-name", clip(path))
		}
		f := p.fs
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.folders[kind] == nil {
			f.folders[kind] = folderSet{}
		}
		if len(f.folders[kind]) >= maxFolders {
			return entry{}, errno.New(errno.ErrQuota, "there are %d empty folders in by-name already: remove some", maxFolders)
		}
		f.folders[kind][path] = true
		return entry{name, where{f.byNameRow(kind, "<folder>"), "", path}}, nil
	}
}

// maxFolders bounds the empty folders of a kind.
const maxFolders = 1024

func rmdirByName(kind store.Kind) func(context.Context, place, string) error {
	return func(_ context.Context, p place, name string) error {
		path := joinName(p.arg, name)
		if _, ok := p.nameAt(kind, path); ok {
			return errno.New(errno.ErrNotDir, "%q is a name: rm removes it", clip(path))
		}
		if !p.isFolder(kind, path) {
			return unknown("there is no folder %q in by-name", clip(path))
		}
		if len(p.index().kinds[kind].folders[path]) > 0 || len(p.fs.emptyFolders(kind, path)) > 0 {
			return errno.New(errno.ErrHasChildren, "the folder %q holds names: remove those first", clip(path))
		}
		p.fs.mu.Lock()
		defer p.fs.mu.Unlock()
		delete(p.fs.folders[kind], path)
		return nil
	}
}

func symlinkByName(kind store.Kind) func(context.Context, place, string, string) (entry, error) {
	return func(ctx context.Context, p place, entryName, target string) (entry, error) {
		path := joinName(p.arg, entryName)
		name, err := newName(path)
		if err != nil {
			return entry{}, err
		}
		id, err := p.targetOf(kind, target)
		if err != nil {
			return entry{}, err
		}
		err = p.fs.claimName(ctx, kind, id, name, false)
		return entry{entryName, where{p.fs.byNameRow(kind, "<name>"), "", path}}, err
	}
}

// targetOf resolves the last component of a symlink's target as an object.
func (p place) targetOf(kind store.Kind, target string) (string, error) {
	base := strings.TrimRight(target, "/")
	base = base[strings.LastIndexByte(base, '/')+1:]
	if id, _, ok := p.index().resolve(kind, base); ok {
		return id, nil
	}
	return "", unknown("%q is no %s: link to its ID or to its entry in /%s", clip(base), kind, kind.Plural())
}

func unlinkByName(kind store.Kind) func(context.Context, place, string) error {
	return func(ctx context.Context, p place, entryName string) error {
		path := joinName(p.arg, entryName)
		name, ok := p.nameAt(kind, path)
		if !ok {
			return unknown("no %s has the name %q", kind, clip(path))
		}
		return p.fs.update(ctx, func(w *store.WriteTx) error {
			id, ok := w.ByName(kind, name)
			if !ok {
				return unknown("no %s has the name %q", kind, clip(name))
			}
			return w.RemoveNames(kind, id, name)
		})
	}
}

// renameByName changes a name; the object and the name's place in its list
// stay.
func renameByName(kind store.Kind) func(context.Context, place, string, where, string) error {
	return func(ctx context.Context, p place, entryName string, to where, newEntry string) error {
		if to.row != p.fs.paths["/"+kind.Plural()+"/by-name"] && to.row != p.fs.byNameRow(kind, "<folder>") {
			return errRename(p, entryName)
		}
		from := joinName(p.arg, entryName)
		old, ok := p.nameAt(kind, from)
		if !ok {
			return errno.New(errno.ErrBadValue, "%q is a folder of names: rename the names in it one by one", clip(from))
		}
		name, err := newName(joinName(to.arg, newEntry))
		if err != nil {
			return err
		}
		return p.fs.renameName(ctx, kind, old, name)
	}
}

// renameName puts name in old's place.
func (f *FS) renameName(ctx context.Context, kind store.Kind, old, name string) error {
	if old == name {
		return nil
	}
	return f.update(ctx, func(w *store.WriteTx) error {
		id, ok := w.ByName(kind, old)
		if !ok {
			return unknown("no %s has the name %q any more", kind, clip(old))
		}
		if err := freeName(w, kind, name); err != nil {
			return err
		}
		return w.RenameName(kind, id, old, name)
	})
}

// claimName gives an object one more name, the newest or (last) the oldest.
func (f *FS) claimName(ctx context.Context, kind store.Kind, id, name string, last bool) error {
	return f.update(ctx, func(w *store.WriteTx) error {
		if err := freeName(w, kind, name); err != nil {
			return err
		}
		return w.ClaimName(kind, id, name, last)
	})
}

// freeName refuses a name that cannot be given, and one that any object has, also the one that is to get it:
// to mkdir, mv and ln, a path that exists is one.
func freeName(w *store.WriteTx, kind store.Kind, name string) error {
	if err := checkNewNames(kind, name); err != nil {
		return err
	}
	if id, taken := w.ByName(kind, name); taken {
		return errno.New(errno.ErrDuplicate, "the name %q belongs to %s %s already: choose another, or remove it there", clip(name), kind, short(id))
	}
	return nil
}
