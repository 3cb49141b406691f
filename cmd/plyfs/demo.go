package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/moby/sys/mountinfo"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/cmd/opening"
	"github.com/plyfs/plyfs/internal/demo"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

func (a *app) demoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "demo", Short: "the small image that make run shows",
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use: "import", Short: "put the demo image into a store, which is made when there is none",
		Long: `import makes the image ` + demo.Name + ` in the store: two small layers, one
over the other, with a static program, a symlink, a hard link and a removed
file. Where the store has the image already nothing changes.`,
		Example: "  plyfs demo import --root /srv/demo --runroot /run/demo",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.importDemo(cmd.Context())
		},
	})
	cmd.AddCommand(&cobra.Command{
		Use: "remove DIR", Short: "remove a demo's folder, with the store in it",
		Long: `remove deletes the folder DIR that make run made: its parts store, run, mnt,
tour and log, nothing else. As an ordinary user it does so in a user namespace,
where files of subordinate IDs can be removed.`,
		Example: "  plyfs demo remove /tmp/plyfs-demo-0",
		Args:    wantArgs(1, 1, "one directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.needsInner() {
				return a.runInside(cmd.Context())
			}
			return removeDemo(args[0])
		},
	})
	return cmd
}

// removeDemo removes what make run made. podman leaves the driver's folder
// mounted on itself; other mounts are in the way.
func removeDemo(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return fmt.Errorf("look for mounts below %s: %w", dir, err)
	}
	for _, m := range mounts {
		if m.Mountpoint != filepath.Join(dir, "store", "overlay") {
			return errno.New(errno.ErrInUse, "%s is still mounted: run plyfs umount, or umount, on it first", m.Mountpoint)
		}
		if err := unix.Unmount(m.Mountpoint, unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", m.Mountpoint, err)
		}
	}
	for _, part := range []string{"store", "run", "mnt", "tour", "log"} {
		if err := os.RemoveAll(filepath.Join(dir, part)); err != nil {
			return err
		}
	}
	if err := os.Remove(dir); err != nil {
		return errno.New(errno.ErrInUse, "%s is left, since it holds files that are not the demo's: move or remove them, and the directory (%w)", dir, err)
	}
	return nil
}

func (a *app) importDemo(ctx context.Context) (err error) {
	if a.needsInner() {
		return a.runInside(ctx)
	}
	img, err := demo.Build(runtime.GOARCH)
	if err != nil {
		return err
	}
	st, _, err := a.openStore(ctx, opening.Options{Create: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	parent := ""
	for _, l := range img.Layers {
		if err := importLayer(ctx, st, l, parent); err != nil {
			return fmt.Errorf("import the layer %q: %w", l.About, err)
		}
		parent = l.ID
	}
	spec := store.ImageSpec{ID: img.ID, Layer: parent, Names: []string{demo.Name}, Metadata: "{}", Created: img.Created}
	items := img.Items()
	for _, key := range slices.Sorted(maps.Keys(items)) {
		spec.BigData = append(spec.BigData, store.BigDataItem{Key: key, Data: items[key]})
	}
	if _, err := st.CreateImage(ctx, spec); err != nil && !errors.Is(err, errno.ErrDuplicate) {
		return fmt.Errorf("import the image %s: %w", demo.Name, err)
	}
	_, err = fmt.Fprintf(a.out, "imported %s\n", demo.Name)
	return err
}

// importLayer makes a layer of the image, unless the store has it.
func importLayer(ctx context.Context, st *store.Store, l demo.Layer, parent string) error {
	staged, err := st.StageLayer(ctx, store.LayerSpec{ID: l.ID, Parent: parent})
	if errors.Is(err, errno.ErrDuplicate) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := staged.Import(ctx, bytes.NewReader(l.Tar)); err != nil {
		return errors.Join(err, staged.Discard(ctx))
	}
	if _, err := staged.Commit(ctx); err != nil {
		return errors.Join(err, staged.Discard(ctx))
	}
	return nil
}
