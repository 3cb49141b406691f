package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/plyfs/plyfs/fsview"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
)

// descent is what tree and find have in common.
type descent struct {
	depth int
	trees bool
}

func (d *descent) flags(cmd *cobra.Command) {
	cmd.Flags().IntVarP(&d.depth, "level", "L", -1, "descend at most `N` directories")
	cmd.Flags().BoolVar(&d.trees, "trees", false, "also descend into tree/ and diff/ of objects")
}

// enters tells whether what is in a directory is shown.
func (d *descent) enters(file string, depth int) bool {
	if d.depth >= 0 && depth >= d.depth {
		return false
	}
	base := path.Base(file)
	return d.trees || depth == 0 || base != "tree" && base != "diff" || path.Dir(file) == "/" || path.Dir(file) == "."
}

func (a *app) treeCommand() *cobra.Command {
	var d descent
	cmd := &cobra.Command{
		Use: "tree [PATH]...", Short: "show the tree below a directory, without a mount",
		Long: `tree shows what is below PATH, or all of the control tree, with lines that say
what is in what. tree/ and diff/ of objects are not entered, unless PATH leads
into one or --trees is given.`,
		Example: "  plyfs tree -L 2\n  plyfs tree containers/web/tree/etc",
		Args:    wantArgs(0, -1, "paths in the tree"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{"/"}
			}
			return a.withTree(cmd.Context(), func(root vnode.Node) error {
				return a.each(args, "tree", func(out io.Writer, arg string) error { return drawTree(cmd.Context(), out, root, arg, &d) })
			})
		},
	}
	d.flags(cmd)
	return cmd
}

// each runs do for every argument, and prints what it wrote also when it failed.
func (a *app) each(args []string, verb string, do func(out io.Writer, arg string) error) error {
	out := bufio.NewWriter(a.to)
	for _, arg := range args {
		if err := do(out, arg); err != nil {
			return fmt.Errorf("%s %s: %w", verb, arg, firstOf(err, out.Flush()))
		}
	}
	return out.Flush()
}

func firstOf(err, _ error) error { return err }

func drawTree(ctx context.Context, out io.Writer, root vnode.Node, from string, d *descent) error {
	var lasts []bool // whether the directory at each depth was the last of its own
	return fsview.Descend(ctx, root, from, func(file string, e fsview.Entry, depth int, last bool) error {
		lasts = append(lasts[:depth], last)
		var b strings.Builder
		for _, l := range lasts[min(1, depth):depth] {
			b.WriteString(map[bool]string{true: "    ", false: "│   "}[l])
		}
		if depth > 0 {
			b.WriteString(map[bool]string{true: "└── ", false: "├── "}[last])
		}
		b.WriteString(e.Name)
		if e.Target != "" {
			b.WriteString(" -> " + e.Target)
		}
		if _, err := fmt.Fprintln(out, b.String()); err != nil {
			return err
		}
		if !d.enters(file, depth) {
			return fs.SkipDir
		}
		return nil
	})
}

func (a *app) findCommand() *cobra.Command {
	var d descent
	var name, kind string
	cmd := &cobra.Command{
		Use: "find [PATH]...", Short: "print the paths below a directory, without a mount",
		Long: `find prints the path of all that is below PATH, or of all of the control tree.
tree/ and diff/ of objects are not entered, unless PATH leads into one or
--trees is given.`,
		Example: "  plyfs find images --name digest\n  plyfs find --type l layers",
		Args:    wantArgs(0, -1, "paths in the tree"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{"/"}
			}
			if _, err := path.Match(name, ""); err != nil {
				return errno.New(errno.ErrBadValue, "--name %q is no pattern: use *, ? and [..] as a shell does", name)
			}
			bits, ok := map[string]uint32{"": 0, "f": syscall.S_IFREG, "d": syscall.S_IFDIR, "l": syscall.S_IFLNK}[kind]
			if !ok {
				return errno.New(errno.ErrBadValue, "--type %q: use f (file), d (directory) or l (symlink)", kind)
			}
			return a.withTree(cmd.Context(), func(root vnode.Node) error {
				return a.each(args, "find", func(out io.Writer, arg string) error {
					return fsview.Descend(cmd.Context(), root, arg, func(file string, e fsview.Entry, depth int, _ bool) error {
						fits, err := path.Match(name, path.Base(file))
						if err == nil && (name == "" || fits) && (bits == 0 || e.Attr.Mode&syscall.S_IFMT == bits) {
							_, err = fmt.Fprintln(out, file)
						}
						if err == nil && !d.enters(file, depth) {
							return fs.SkipDir
						}
						return err
					})
				})
			})
		},
	}
	d.flags(cmd)
	cmd.Flags().StringVar(&name, "name", "", "only those whose last component fits the shell `PATTERN`")
	cmd.Flags().StringVar(&kind, "type", "", "only files (`f`), directories (d) or symlinks (l)")
	return cmd
}
