package fsview

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
	"github.com/plyfs/plyfs/store/archive"
)

// transferRows are the rows of images that come in.
func transferRows() []Row {
	const none = vnode.ValidNone
	return []Row{
		{Path: "/images/import", Kind: Dir, Mode: modeMake, Valid: vnode.ValidForever, Doc: "Where archives are copied to: `cp app.tar images/import/` takes all images of an OCI layout or docker-save archive, plain or compressed, when the file is closed. Lists nothing. A name that begins with a dot stays until it is renamed or removed, so that rsync works.",
			rowOps: rowOps{create: createImport, find: findImport, unlink: unlinkImport, rename: renameImport}},
		{Path: "/images/import/<file>", Kind: Stream, Mode: modeWrite, Valid: none, Doc: "An archive on its way in. Closing it imports it, when it is whole; a file that is not is dropped with its last descriptor, and nothing changes.",
			rowOps: rowOps{has: func(p place) bool { return p.fs.arrivals.has(p.id) }, blob: noRead, take: openImport}},
		ctlRow("/images/ctl", "Verbs for all images", importVerbs),
	}
}

// importVerbs are what images/ctl understands.
func importVerbs() []verbSpec {
	return []verbSpec{{name: "import", rest: "PATH", doc: "take all images of an OCI layout folder, or of an archive, of the host", check: checkImportPath, run: importPath}}
}

// exportRows are the rows of an image that goes out.
func exportRows(dir string) []Row {
	return []Row{
		{Path: dir + "/oci.tar", Kind: Stream, Mode: modeOwn, Valid: vnode.ValidStore, Listed: Sized, Doc: "The image as the archive of an OCI layout (skopeo: oci-archive), layers as plain tars.",
			rowOps: rowOps{has: hasManifest, hideable: true, exports: true, blob: exportBlob(archive.OCI)}},
		{Path: dir + "/docker.tar", Kind: Stream, Mode: modeOwn, Valid: vnode.ValidStore, Listed: Sized, Doc: "The image in the form of docker-save (skopeo: docker-archive).",
			rowOps: rowOps{has: hasManifest, hideable: true, exports: true, blob: exportBlob(archive.Docker)}},
	}
}

func hasManifest(p place) bool { _, ok := keyManifest(p); return ok }

func exportBlob(write func(context.Context, *store.Store, string, io.Writer) error) func(context.Context, place) (blob, error) {
	return func(_ context.Context, p place) (blob, error) {
		s, id := p.fs.store, p.id
		return newGenerated(func(ctx context.Context, w io.Writer) error { return write(ctx, s, id, w) }, nothing), nil
	}
}

// importOptions are those of every import here.
func (f *FS) importOptions(j *job) archive.Options {
	return archive.Options{
		CheckName: func(name string) error { return checkNewNames(store.KindImage, name) },
		Progress:  func(text string) { j.at("%s", text) },
		Temp:      f.temp,
	}
}

// temp makes a file without a name on the store's filesystem.
func (f *FS) temp() (*os.File, error) {
	dir := f.store.GraphRoot()
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), filepath.Join(dir, "archive")), nil
	}
	file, err := os.CreateTemp(dir, ".tmp-archive")
	if err != nil {
		return nil, fmt.Errorf("make room for the archive: %w", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// importedPath reads what follows the verb import.
func importedPath(arg string) (string, error) {
	path, err := Decode(arg)
	if err == nil && !filepath.IsAbs(path) {
		err = errno.New(errno.ErrBadValue, "%q is not a path from the root of the host: the server knows no other", clip(path))
	}
	return path, err
}

func checkImportPath(arg string) error {
	_, err := importedPath(arg)
	return err
}

// importPath is the verb import. The files are opened by this process, with its
// rights: so it is for who has those, the user that it runs as.
func importPath(ctx context.Context, p place, path string) error {
	path, err := importedPath(path)
	if err != nil {
		return err
	}
	if who, ok := vnode.CallerOf(ctx); ok && who.UID != uint32(os.Geteuid()) {
		return errno.New(errno.ErrForbidden, "import opens files with the rights of whoever mounted the control filesystem, and so only for that user: copy an archive into images/import/ instead")
	}
	return p.fs.run("import", func(j *job) (err error) {
		var ids []string
		defer func() { j.at("images %s", strings.Join(ids, " ")) }()
		fi, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("import: %w", err)
		}
		if fi.IsDir() {
			ids, err = archive.ImportFolder(ctx, p.fs.store, path, p.fs.importOptions(j))
			return err
		}
		if !fi.Mode().IsRegular() {
			return errno.New(errno.ErrBadValue, "%s is neither a folder nor a file", clip(path))
		}
		file, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("import: %w", err)
		}
		ids, err = archive.Import(ctx, p.fs.store, file, fi.Size(), p.fs.importOptions(j))
		return errors.Join(err, file.Close())
	})
}

func findImport(_ context.Context, p place, name string) (entry, error) {
	w := where{row: p.row.child("<file>"), id: name}
	if !p.fs.arrivals.has(name) {
		return entry{}, unknown("no archive %q is on its way in", clip(name))
	}
	return entry{name, w}, nil
}

func createImport(_ context.Context, p place, name string) (entry, error) {
	return entry{name, where{row: p.row.child("<file>"), id: name}}, nil
}

func openImport(_ context.Context, p place, flags int) (vnode.Handle, error) {
	return &importHandle{fs: p.fs, w: p.where, as: p.fs.arrivals.begin(p.id), appending: flags&syscall.O_APPEND != 0}, nil
}

// importHandle is an archive that is written into images/import/. It is kept
// in a file without a name, since what comes first in it may refer to what
// comes last. FLUSH imports it if it is whole; else it fails with EBADMSG and
// the handle stays, for the descriptor closed may have been a duplicate.
type importHandle struct {
	fs        *FS
	w         where
	as        *arrival
	appending bool

	mu   sync.Mutex // guards what follows; held during writes and the import
	file *os.File
	size int64
	done int64 // size that was imported
}

var (
	_ vnode.Writer     = (*importHandle)(nil)
	_ vnode.Flusher    = (*importHandle)(nil)
	_ vnode.Truncater  = (*importHandle)(nil)
	_ vnode.HandleAttr = (*importHandle)(nil)
)

// Flags implements vnode.Handle.
func (h *importHandle) Flags() vnode.OpenFlags { return vnode.DirectIO }

// ReadAt implements vnode.Handle, for programs that read again what they wrote
// through the same descriptor.
func (h *importHandle) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.file == nil || off >= h.size {
		return 0, nil
	}
	n, err := h.file.ReadAt(p, off)
	if err = ignoreEOF(err); err != nil {
		return n, h.fs.fail(h.w, "reading", fmt.Errorf("reading the archive again: %w", err))
	}
	return n, nil
}

// Attr implements vnode.HandleAttr: the size is what was written.
func (h *importHandle) Attr(ctx context.Context) (vnode.Attr, error) {
	n := baseNode{h.fs, h.w}
	a, err := n.Attr(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	a.Size = uint64(h.size)
	return a, err
}

// WriteAt implements vnode.Writer.
func (h *importHandle) WriteAt(_ context.Context, p []byte, off int64) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.appending {
		off = h.size
	}
	if err := h.openLocked(); err != nil {
		return 0, h.fs.fail(h.w, "writing", err)
	}
	n, err := h.file.WriteAt(p, off)
	h.size = max(h.size, off+int64(n))
	if err != nil {
		return n, h.fs.fail(h.w, "writing", fmt.Errorf("keeping the archive: %w", err))
	}
	return n, nil
}

func (h *importHandle) openLocked() (err error) {
	if h.file == nil {
		h.file, err = h.fs.temp()
	}
	return err
}

// Truncate implements vnode.Truncater.
func (h *importHandle) Truncate(_ context.Context, size uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if size > 1<<62 {
		return h.fs.fail(h.w, "truncating", syscall.EFBIG)
	}
	if err := h.openLocked(); err != nil {
		return h.fs.fail(h.w, "truncating", err)
	}
	if err := h.file.Truncate(int64(size)); err != nil {
		return h.fs.fail(h.w, "truncating", fmt.Errorf("keeping the archive: %w", err))
	}
	h.size = int64(size)
	return nil
}

// Flush implements vnode.Flusher. A signal ends the import, and with it the
// close: nothing is imported then.
func (h *importHandle) Flush(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.file == nil || h.size == h.done {
		return nil
	}
	err := h.fs.run("import", func(j *job) error {
		ids, err := archive.Import(ctx, h.fs.store, h.file, h.size, h.fs.importOptions(j))
		j.at("images %s", strings.Join(ids, " "))
		return err
	})
	if err != nil {
		return h.fs.fail(h.w, "closing", err)
	}
	h.done = h.size
	h.fs.arrivals.settle(h.w.id, h.as)
	return nil
}

// Release implements vnode.Handle.
func (h *importHandle) Release(context.Context) error {
	h.fs.arrivals.end(h.w.id, h.as)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.file == nil {
		return nil
	}
	return h.file.Close()
}
