package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/store"
)

func (a *app) copy() *verb {
	var chown string
	return &verb{
		name: "copy", args: "[sourceLayerNameOrID:]/path [...] targetLayerNameOrID:/path", least: 2, most: many, json: true,
		short: "Copy files or directories into a layer, possibly from another layer",
		long: `Copies each source, a path or one in a layer, into a layer. A directory's
content goes into the target, a file becomes the target. Owners are translated
from the source layer's IDs to those of the target's. No symlink in a layer leads
out of it.`,
		example: `  containers-storage copy ./rootfs top:/
  containers-storage copy --chown 1000:1000 base-layer:/etc/passwd top:/etc/passwd`,
		flags: func(f *pflag.FlagSet) {
			f.StringVarP(&chown, "chown", "o", "", "give the copies to `UID[:GID]` of the target layer")
		},
		complete: []completer{nil},
		run: func(ctx context.Context, args []string) error {
			owner, err := parseOwner(chown)
			if err != nil {
				return err
			}
			last := len(args) - 1
			ref, file, ok := strings.Cut(args[last], ":")
			if !ok {
				return fmt.Errorf("%s names no layer: write the target as LAYER:/path", args[last])
			}
			return a.inMount(ctx, ref, drivers.MountOptions{}, func(target layerTree) error {
				for _, source := range args[:last] {
					if err := a.copyOne(ctx, source, target, file, owner); err != nil {
						return fmt.Errorf("error copying %q to %q: %w", source, args[last], err)
					}
				}
				return nil
			})
		},
	}
}

// owner is what --chown says; nil leaves owners as they are.
type owner struct{ uid, gid int }

func parseOwner(text string) (*owner, error) {
	if text == "" {
		return nil, nil
	}
	u, g, both := strings.Cut(text, ":")
	if !both {
		g = u
	}
	uid, err1 := strconv.ParseUint(u, 10, 31)
	gid, err2 := strconv.ParseUint(g, 10, 31)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("--chown %q: write it as UID or UID:GID, in numbers: %w", text, err)
	}
	return &owner{int(uid), int(gid)}, nil
}

// layerTree is a layer that is mounted, or with no dir the host.
type layerTree struct {
	dir  string
	maps idmap.Maps
}

// path is where a path of the tree is. No symlink leads out of a layer.
func (l layerTree) path(name string) (string, error) {
	if l.dir == "" {
		return name, nil
	}
	p, err := filepath.EvalSymlinks(filepath.Join(l.dir, path.Clean("/"+name)))
	if err == nil && p != l.dir && !strings.HasPrefix(p, l.dir+string(filepath.Separator)) {
		err = errno.New(errno.ErrForbidden, "%s leads out of the layer: name the file that is meant", name)
	}
	return p, err
}

// inMount calls fn with a layer mounted.
func (a *app) inMount(ctx context.Context, ref string, o drivers.MountOptions, fn func(layerTree) error) (err error) {
	var tree layerTree
	var id string
	err = a.view(ctx, func(t *store.Tx) error {
		l, err := t.Layer(ref)
		if err != nil {
			return fmt.Errorf("error finding layer %q: %w", ref, about(store.KindLayer, err))
		}
		id, tree.maps = l.ID, l.Maps
		return nil
	})
	if err != nil {
		return err
	}
	if tree.dir, err = a.st.Mount(ctx, id, o); err != nil {
		return err
	}
	defer func() {
		_, uerr := a.st.Unmount(context.WithoutCancel(ctx), id, false)
		err = errors.Join(err, uerr)
	}()
	if tree.dir, err = filepath.EvalSymlinks(tree.dir); err != nil {
		return err
	}
	return fn(tree)
}

// copyOne copies one source, which may be in a layer of its own.
func (a *app) copyOne(ctx context.Context, source string, target layerTree, file string, own *owner) error {
	ref, name, inLayer := strings.Cut(source, ":")
	if !inLayer {
		return copyTree(ctx, layerTree{}, source, target, file, own)
	}
	return a.inMount(ctx, ref, drivers.MountOptions{ReadOnly: true}, func(from layerTree) error {
		return copyTree(ctx, from, name, target, file, own)
	})
}

func copyTree(ctx context.Context, from layerTree, name string, target layerTree, file string, own *owner) (err error) {
	src, err := from.path(name)
	if err != nil {
		return err
	}
	fi, err := os.Stat(src)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(target.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	// The tar goes into the directory that is the target, or that holds it.
	file = strings.TrimPrefix(path.Clean("/"+file), "/")
	into := path.Dir(file)
	if fi.IsDir() && file != "" {
		into = file
	}
	if old, err := root.Stat(file); err == nil && old.IsDir() && !fi.IsDir() {
		return errno.New(errno.ErrIsDir, "cannot overwrite directory /%s: name the file that the copy is to be", file)
	}
	dir, err := openDir(root, into, from, fi, target, own)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	r, w := io.Pipe()
	go func() { w.CloseWithError(archive(ctx, w, from, src, fi, path.Base(file), own)) }()
	_, err = layertar.Import(ctx, dir, r, nil, layertar.ApplyOptions{Maps: target.maps})
	return errors.Join(err, r.Close())
}

// openDir opens a directory of the target, and makes it when it is missing: the
// one that a directory's content goes into is like that directory.
func openDir(root *os.Root, name string, from layerTree, like os.FileInfo, target layerTree, own *owner) (*os.File, error) {
	if name == "" || name == "." {
		return root.Open(".")
	}
	_, err := root.Stat(name)
	if err == nil {
		return root.Open(name)
	}
	if err := root.MkdirAll(name, 0o755); err != nil {
		return nil, err
	}
	if like.IsDir() {
		h, err := header(from, like, own)
		if err != nil {
			return nil, err
		}
		uid, gid, err := target.maps.ToHost(h.Uid, h.Gid)
		if err == nil {
			err = errors.Join(root.Lchown(name, uid, gid), root.Chmod(name, like.Mode().Perm()))
		}
		if err != nil {
			return nil, err
		}
	}
	return root.Open(name)
}

// header is a file's tar header, with the owner as the container sees it.
func header(from layerTree, fi os.FileInfo, own *owner) (*tar.Header, error) {
	h, err := tar.FileInfoHeader(fi, "")
	if err != nil {
		return nil, err
	}
	h.Uname, h.Gname = "", ""
	if own != nil {
		h.Uid, h.Gid = own.uid, own.gid
		return h, nil
	}
	h.Uid, h.Gid, err = from.maps.ToContainer(h.Uid, h.Gid)
	return h, err
}

// archive writes a file, under the name, or a directory's content as a tar.
func archive(ctx context.Context, w io.Writer, from layerTree, src string, fi os.FileInfo, name string, own *owner) (err error) {
	if fi.IsDir() {
		return archiveDir(ctx, w, layertar.Source{New: []string{src}, Maps: from.maps}, own)
	}
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("%s is neither a file nor a directory: copy the directory that it is in", src)
	}
	h, err := header(from, fi, own)
	if err != nil {
		return err
	}
	h.Name = name
	f, err := os.Open(src)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	tw := tar.NewWriter(w)
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if _, err := io.Copy(tw, f); err != nil {
		return err
	}
	return tw.Close()
}

// archiveDir writes a directory as a tar, with all its attributes; own
// replaces every owner.
func archiveDir(ctx context.Context, w io.Writer, src layertar.Source, own *owner) error {
	if own == nil {
		return layertar.Generate(ctx, w, src)
	}
	r, all := io.Pipe()
	go func() { all.CloseWithError(layertar.Generate(ctx, all, src)) }()
	err := chowned(w, r, *own)
	return errors.Join(err, r.Close())
}

// chowned copies a tar and gives every member to own.
func chowned(w io.Writer, r io.Reader, own owner) error {
	tr, tw := tar.NewReader(r), tar.NewWriter(w)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return tw.Close()
		}
		if err != nil {
			return err
		}
		h.Uid, h.Gid, h.Uname, h.Gname, h.Format = own.uid, own.gid, "", "", tar.FormatPAX
		delete(h.PAXRecords, "uid")
		delete(h.PAXRecords, "gid")
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return err
		}
	}
}
