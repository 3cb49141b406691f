package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/plyfs/plyfs/fsview/fusefs"
	"github.com/plyfs/plyfs/internal/detach"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/holders"
)

func (a *app) mountCommand() *cobra.Command {
	var options []string
	var foreground, create bool
	cmd := &cobra.Command{
		Use:   "mount DIR",
		Short: "mount the control filesystem on a directory",
		Long: `mount shows the store on the directory DIR. It goes into the background and
returns when the mount is there, or fails with the reason. SIGTERM, or
"plyfs umount DIR", ends it; mounts of layers that were taken through the
tree are then given back.

Options, after -o, separated by commas:

    ro                  refuse every change
    allow_other         let other users in (for an ordinary user: when
                        /etc/fuse.conf has user_allow_other)
    noexec              let nobody run programs from tree/ and merged/
    hide=trees          leave tree/, diff/ and diff.tar out of listings
    show=streams        also list files whose size is not known beforehand
    show=dirs           also list dir/ and rundir/ of containers
    owners=container    show what is in tree/, diff/ and merged/ with the owners
                        that containers see, not with the host's (owners=host)
    bigdata_limit=SIZE  largest big data item and metadata (16M); K, M, G
    lock_timeout=TIME   longest wait for a lock of the store (60s)
    owner=USER[:GROUP]  whose the control files are (root only), but not to read trees
    umask=BITS          mode bits that the control files lack, in octal
    store=DIR, runroot=DIR, driver=NAME, storage_opt=KEY=VALUE
                        the store, where there are no flags: in fstab(5)

rw, exec, nodev and nosuid are the defaults and may be given. As the program
mount.fuse.plyfs it takes what mount(8) gives to helpers, so that these work:

    mount -t fuse.plyfs /srv/store /mnt -o ro
    /srv/store /mnt fuse.plyfs ro,runroot=/run/store 0 0       (in /etc/fstab)

The source is the graph root, or "none" for the store of podman.

In the background warnings go to --log-file; without one they are in the
tree's own file error_log only.`,
		Example: `  plyfs mount /mnt
  plyfs mount -f --log-level debug /mnt
  plyfs mount -o ro,hide=trees --root /srv/store --runroot /run/store /mnt
  plyfs mount --create --root $HOME/store --runroot $XDG_RUNTIME_DIR/store ~/mnt`,
		Args: wantArgs(1, 1, "one directory to mount on"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := parseOptions(options)
			if err != nil {
				return err
			}
			dir, err := a.prepareMount(&o, args[0], create)
			if err != nil {
				return err
			}
			return a.mount(cmd.Context(), dir, o, foreground)
		},
	}
	cmd.Flags().StringArrayVarP(&options, "options", "o", nil, "mount `OPTIONS`, see above")
	cmd.Flags().BoolVarP(&foreground, "foreground", "f", false, "stay in the foreground")
	cmd.Flags().StringVar(&a.pidFile, "pid-file", "", "write the number of the process to signal to `FILE` once it is mounted")
	cmd.Flags().BoolVar(&create, "create", false, "make an empty store when there is none")
	_ = cmd.RegisterFlagCompletionFunc("options", completeOptions) // the flag is there
	return cmd
}

// prepareMount takes what options and flags say together, and returns the
// absolute mount point.
func (a *app) prepareMount(o *mountOptions, dir string, create bool) (string, error) {
	o.create = create
	o.named(&a.flags)
	if a.needsInner() && o.owner != nil {
		return "", errno.New(errno.ErrForbidden, "the mount option owner is for root: what an ordinary user mounts is the user's")
	}
	if a.pidFile != "" {
		path, err := filepath.Abs(a.pidFile)
		if err != nil {
			return "", fmt.Errorf("the file of the process number: %w", err)
		}
		a.pidFile = path
	}
	return mountPoint(dir)
}

// mount mounts in this process, or starts one in the background that does.
func (a *app) mount(ctx context.Context, dir string, o mountOptions, foreground bool) (err error) {
	background, err := detach.Here()
	if err != nil {
		return err
	}
	unheard := false // in the background nobody reads what this process says at its end
	ready := func() error {
		if err := a.tellReady(); err != nil {
			return err
		}
		unheard = !foreground
		return background.Ready(!foreground)
	}
	defer func() {
		err = errors.Join(err, a.removePID())
		var status exitStatus
		if unheard && err != nil && !errors.As(err, &status) {
			a.log.Error(sentence(err))
		}
	}()
	if a.inner != nil {
		return a.serve(ctx, dir, o, ready)
	}
	if !foreground && background == nil {
		status, err := detach.Start(ctx, a.args, a.err)
		if err == nil && status != 0 {
			return exitStatus(status)
		}
		return err
	}
	// Before anything is opened: a bad mount point changes nothing.
	if err := fusefs.CheckMountPoint(dir); err != nil {
		return err
	}
	if a.needsInner() {
		return a.superviseMount(ctx, dir, o, ready)
	}
	return a.serve(ctx, dir, o, ready)
}

// tellReady tells those who asked that the mount is there. An inner process
// leaves it to the outer one.
func (a *app) tellReady() error {
	if a.inner != nil {
		return nil
	}
	if err := detach.Notify("READY=1"); err != nil {
		a.log.Warn(err)
	}
	return a.writePID()
}

// writePID makes the file that --pid-file names.
func (a *app) writePID() error {
	if a.pidFile == "" {
		return nil
	}
	err := os.WriteFile(a.pidFile, fmt.Appendf(nil, "%d\n", os.Getpid()), 0o644)
	if err != nil {
		return fmt.Errorf("write the process number: %w", err)
	}
	a.pidWritten = true
	return nil
}

// removePID removes the file that writePID made.
func (a *app) removePID() error {
	if !a.pidWritten {
		return nil
	}
	if err := os.Remove(a.pidFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the file of the process number: %w", err)
	}
	return nil
}

const (
	// serverSees is how long the server of a mount that is gone has to see that.
	serverSees = time.Second
	// serverEnds is how long umount waits for its end.
	serverEnds = 30 * time.Second
)

func (a *app) umountCommand() *cobra.Command {
	var lazy bool
	cmd := &cobra.Command{
		Use:     "umount DIR",
		Aliases: []string{"unmount"},
		Short:   "unmount the control filesystem",
		Long: `umount ends the mount on the directory DIR, also one whose server has died.
When programs use it, it names them and fails; with --lazy the mount vanishes
at once and ends when the last of them lets go.`,
		Example: "  plyfs umount /mnt",
		Args:    wantArgs(1, 1, "one directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := mountPoint(args[0]); err != nil {
				return err
			}
			return umount(cmd.Context(), args[0], lazy)
		},
	}
	cmd.Flags().BoolVarP(&lazy, "lazy", "z", false, "do not wait for programs that use it")
	return cmd
}

// umount unmounts what is ours, and names who is in the way.
func umount(ctx context.Context, dir string, lazy bool) (err error) {
	m, err := fusefs.MountAt(dir)
	switch {
	case err != nil:
		return err
	case m == nil:
		return errno.New(errno.ErrBadValue, "%s is not a mount point: nothing to unmount", dir)
	case m.FSType != "fuse."+fusefs.Subtype:
		return errno.New(errno.ErrBadValue, "%s is not a mount of plyfs but of type %s: use umount(8)", dir, m.FSType)
	}
	server := detach.Watch(detach.MountName(m.Major, m.Minor))
	defer func() { err = errors.Join(err, server.Close()) }()
	err = fusefs.Unmount(ctx, dir, lazy)
	switch {
	case errno.Of(err) == errno.ErrInUse.Errno():
		return busy(dir, m.Mountpoint, err)
	case err != nil || lazy:
		return err
	}
	// The server gives back mounts and locks; whoever comes next may remove
	// the store.
	return endServer(ctx, dir, server)
}

// endServer waits for the server of a mount that was just taken away. One that
// does not see it is told: a mount namespace that is not told of unmounts (that
// of a container or of another user's session) has a copy of the mount, which
// would keep it for as long as that namespace lives.
func endServer(ctx context.Context, dir string, server detach.Watched) error {
	if ended, err := server.Wait(ctx, serverSees); err != nil || ended {
		return err
	}
	pid, err := server.PID()
	if err == nil && pid > 0 {
		if err = syscall.Kill(pid, syscall.SIGTERM); errors.Is(err, syscall.ESRCH) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("%s is unmounted, but its server could not be told to end: %w", dir, err)
	}
	ended, err := server.Wait(ctx, serverEnds)
	if err == nil && !ended {
		err = errno.New(errno.ErrInUse, "%s is unmounted, but its server (process %d) has not ended within %v: end it before the store is removed or moved", dir, pid, serverEnds)
	}
	return err
}

// busy adds to err who uses the mount, as far as this user can see.
func busy(dir, mountpoint string, err error) error {
	who, herr := holders.Of(mountpoint)
	switch {
	case herr != nil || len(who) == 0:
		return err
	case len(who) == 1:
		return errno.New(errno.ErrInUse, "%s is busy: %s; end it, or use --lazy", dir, who[0])
	}
	return errno.New(errno.ErrInUse, "%s is busy: %s, and %d more; end them, or use --lazy", dir, who[0], len(who)-1)
}
