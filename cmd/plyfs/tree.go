package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/plyfs/plyfs/cmd/opening"
	"github.com/plyfs/plyfs/fsview"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
)

// withTree runs fn on the tree that a mount would show.
func (a *app) withTree(ctx context.Context, fn func(root vnode.Node) error) error {
	return a.withTreeAs(ctx, mountOptions{}, fn)
}

// withTreeAs is withTree with options of a mount.
func (a *app) withTreeAs(ctx context.Context, o mountOptions, fn func(root vnode.Node) error) (err error) {
	if a.needsInner() {
		return a.runInside(ctx)
	}
	st, conf, err := a.openStore(ctx, opening.Options{Create: a.create})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	o.keepDrafts = true
	tree, err := openTree(st, conf, o, a.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tree.Close(context.WithoutCancel(ctx))) }()
	var end func() error
	a.to, end = writeUntil(ctx, a.out)
	err = fn(tree.Root())
	if werr := end(); err == nil { // else it is what fn has said
		err = werr
	}
	return err
}

// treeCommands are the verbs that walk the tree without a mount.
func (a *app) treeCommands() []*cobra.Command {
	return []*cobra.Command{
		a.lsCommand(), a.treeCommand(), a.findCommand(), a.catCommand(), a.creating(a.writeCommand()), a.mvCommand(), a.lnCommand(),
		a.creating(a.eachCommand("mkdir", "make an object, as mkdir in the mount does",
			`Where you make it says what from: layers/NAME, layers/PARENT/children/NAME,
layers/LAYER/images/NAME, images/NAME, images/IMAGE/containers/NAME,
containers/NAME or drafts/NAME.`,
			"  plyfs mkdir images/app/containers/web", fsview.Mkdir)),
		a.eachCommand("rmdir", "delete an object, as rmdir in the mount does", "",
			"  plyfs rmdir containers/web", fsview.Rmdir),
		a.eachCommand("rm", "remove a name: a symlink in by-name/", "",
			"  plyfs rm images/by-name/localhost/hello:old", fsview.Unlink),
	}
}

// creating gives --create to a verb with which a store can begin.
func (a *app) creating(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(&a.create, "create", false, "make an empty store when there is none")
	return cmd
}

// eachCommand is a verb that does one thing to every path that it is given.
func (a *app) eachCommand(verb, short, long, example string, do func(context.Context, vnode.Node, string) error) *cobra.Command {
	return &cobra.Command{
		Use: verb + " PATH...", Short: short, Long: strings.TrimSpace(short + "\n\n" + long), Example: example,
		Args: wantArgs(1, -1, "one path or more in the tree"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTree(cmd.Context(), func(root vnode.Node) error {
				var errs []error
				for _, path := range args {
					if err := do(cmd.Context(), root, path); err != nil {
						errs = append(errs, fmt.Errorf("%s %s: %w", verb, path, err))
					}
				}
				return errors.Join(errs...)
			})
		},
	}
}

// listOf is fsview.List, but for the empty path, which names nothing, as to ls(1).
func listOf(ctx context.Context, root vnode.Node, path string) ([]fsview.Entry, error) {
	if path == "" {
		return nil, errno.New(errno.ErrUnknown, "an empty path names nothing: leave it out for the root")
	}
	return fsview.List(ctx, root, path)
}

func (a *app) lsCommand() *cobra.Command {
	var long bool
	var owners string
	cmd := &cobra.Command{
		Use: "ls [PATH]...", Short: "list a directory of the tree, without a mount",
		Long: `ls lists directories of the tree, without a mount. The exit status is 2 when
one of them cannot be listed, as that of ls in the mount; the others are listed
all the same.`,
		Example: "  plyfs ls\n  plyfs ls -l images layers",
		Args:    wantArgs(0, -1, "paths in the tree"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{"/"}
			}
			var o mountOptions
			if err := o.set("owners=" + owners); err != nil {
				return errno.New(errno.ErrBadValue, "--owners %q: use host or container", owners)
			}
			return a.withTreeAs(cmd.Context(), o, func(root vnode.Node) error {
				out := bufio.NewWriter(a.to)
				var errs []error
				for n, path := range args {
					list, err := listOf(cmd.Context(), root, path)
					if err != nil {
						errs = append(errs, cannotList{fmt.Errorf("ls %s: %w", path, err)})
						continue
					}
					if len(args) > 1 {
						fmt.Fprintf(out, "%s%s:\n", strings.Repeat("\n", min(n, 1)), path)
					}
					for _, e := range list {
						printEntry(out, a.numbered(e), long)
					}
				}
				return errors.Join(append(errs, out.Flush())...)
			})
		},
	}
	cmd.Flags().BoolVarP(&long, "long", "l", false, "with modes, owners, sizes, times and the targets of symlinks")
	cmd.Flags().StringVar(&owners, "owners", "host", "whose numbers to show below tree/, diff/ and merged/: the `host`'s, or the container's")
	_ = cmd.RegisterFlagCompletionFunc("owners", cobra.FixedCompletions([]string{"host", "container"}, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	return cmd
}

// numbered gives an entry the owner that the user knows, as in a mount.
func (a *app) numbered(e fsview.Entry) fsview.Entry {
	if a.inner != nil && !e.Owned {
		e.Attr.UID, e.Attr.GID = a.inner.maps.ToParent(e.Attr.UID, e.Attr.GID)
	}
	return e
}

func printEntry(out io.Writer, e fsview.Entry, long bool) {
	if !long {
		fmt.Fprintln(out, e.Name)
		return
	}
	target := ""
	if e.Target != "" {
		target = " -> " + e.Target
	}
	fmt.Fprintf(out, "%s %d %d %d %d %s %s%s\n", fsview.TypeOf(e.Attr.Mode), e.Attr.Nlink, e.Attr.UID, e.Attr.GID,
		e.Attr.Size, e.Attr.Mtime.UTC().Format("2006-01-02T15:04:05Z"), e.Name, target)
}

func (a *app) catCommand() *cobra.Command {
	return &cobra.Command{
		Use: "cat PATH...", Short: "print files of the tree, without a mount",
		Example: "  plyfs cat images/localhost%2Fhello:latest/id\n  plyfs cat layers/base/diff.tar | tar t",
		Args:    wantArgs(1, -1, "one path or more in the tree"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTree(cmd.Context(), func(root vnode.Node) error {
				var errs []error
				for _, path := range args {
					if _, err := fsview.ReadFile(cmd.Context(), root, path, a.to); err != nil {
						errs = append(errs, fmt.Errorf("cat %s: %w", path, err))
					}
				}
				return errors.Join(errs...)
			})
		},
	}
}

func (a *app) writeCommand() *cobra.Command {
	var appending bool
	cmd := &cobra.Command{
		Use: "write PATH [TEXT]", Short: "write a file of the tree, without a mount",
		Long: `write replaces what the file holds by TEXT and a newline or, without TEXT, by
standard input, under the same rules as a write through the mount.`,
		Example: "  plyfs write containers/web/names web www\n  tar c . | plyfs write layers/new/diff.tar",
		Args:    wantArgs(1, -1, "a path in the tree, and perhaps a text"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTree(cmd.Context(), func(root vnode.Node) error {
				var from io.Reader
				if len(args) > 1 {
					from = strings.NewReader(strings.Join(args[1:], "\n") + "\n")
				} else {
					from = readUntil(cmd.Context(), a.in)
				}
				if err := fsview.WriteFile(cmd.Context(), root, args[0], from, appending); err != nil {
					return fmt.Errorf("write %s: %w", args[0], err)
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVarP(&appending, "append", "a", false, "add to what the file holds")
	return cmd
}

func (a *app) mvCommand() *cobra.Command {
	return &cobra.Command{
		Use: "mv FROM TO", Short: "rename an object, or commit a draft, without a mount",
		Example: "  plyfs mv containers/web containers/api",
		Args:    wantArgs(2, 2, "two paths in the tree"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTree(cmd.Context(), func(root vnode.Node) error {
				if err := fsview.Rename(cmd.Context(), root, args[0], args[1]); err != nil {
					return fmt.Errorf("mv %s %s: %w", args[0], args[1], err)
				}
				return nil
			})
		},
	}
}

func (a *app) lnCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ln TARGET PATH", Short: "give an object one more name: a symlink in by-name/",
		Example: "  plyfs ln hello:latest images/by-name/localhost/hello:v1",
		Args:    wantArgs(2, 2, "a target and a path in the tree"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTree(cmd.Context(), func(root vnode.Node) error {
				if err := fsview.Symlink(cmd.Context(), root, args[0], args[1]); err != nil {
					return fmt.Errorf("ln %s %s: %w", args[0], args[1], err)
				}
				return nil
			})
		},
	}
}
