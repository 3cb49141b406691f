package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/store"
)

func (a *app) diffVerbs() []*verb {
	return []*verb{a.changes(), a.diffSize(), a.diff(), a.applyDiff(), a.applyStagingDir()}
}

// two are the layer and what it is compared with, "" for its parent.
func two(args []string) (to, from string) {
	if len(args) > 1 {
		from = args[1]
	}
	return args[0], from
}

func (a *app) changes() *verb {
	return &verb{
		name: "changes", args: "layerNameOrID [referenceLayerNameOrID]", least: 1, most: 2, json: true,
		short:    "Compare two layers",
		long:     `Prints what was added, changed and deleted in a layer since its parent, or since another one.`,
		example:  "  containers-storage changes top\n  containers-storage changes top base-layer",
		complete: []completer{layerRefs, layerRefs, nothing},
		run: func(ctx context.Context, args []string) error {
			to, from := two(args)
			if a.output.format == "" && !a.output.json { // there may be millions
				w := bufio.NewWriterSize(a.out, printBuffer)
				err := a.st.Changes(ctx, from, to, func(c layertar.Change) error {
					_, err := fmt.Fprintf(w, "%v %q\n", c.Kind, c.Path)
					return err
				})
				return errors.Join(about(store.KindLayer, err), w.Flush())
			}
			var list []layertar.Change // JSON has null for none
			err := a.st.Changes(ctx, from, to, func(c layertar.Change) error {
				list = append(list, c)
				return nil
			})
			if err != nil {
				return about(store.KindLayer, err)
			}
			return a.print(list, nil)
		},
	}
}

func (a *app) diffSize() *verb {
	return &verb{
		name: "diffsize", aliases: []string{"diff-size"}, args: "layerNameOrID [referenceLayerNameOrID]", least: 1, most: 2,
		short:    "Compare two layers",
		long:     `Prints how many bytes of files a layer adds to its parent, or to another one.`,
		example:  "  containers-storage diffsize top",
		complete: []completer{layerRefs, layerRefs, nothing},
		run: func(ctx context.Context, args []string) error {
			to, from := two(args)
			size, err := a.st.DiffSize(ctx, from, to)
			if err != nil {
				return about(store.KindLayer, err)
			}
			_, err = fmt.Fprintln(a.out, size)
			return err
		},
	}
}

// diffFlags are those of diff.
type diffFlags struct {
	file                          string
	plain, gzip, bzip2, bz2, isXz bool
}

func (a *app) diff() *verb {
	var flags diffFlags
	return &verb{
		name: "diff", args: "layerNameOrID [referenceLayerNameOrID]", least: 1, most: 2,
		short: "Compare two layers",
		long: `Writes the difference of a layer to its parent, or to another one, as a tar. The
archive that a layer was made of comes back byte for byte.`,
		example: `  containers-storage diff top >top.tar
  containers-storage diff --gzip --file top.tar.gz top base-layer`,
		flags: func(f *pflag.FlagSet) {
			f.StringVarP(&flags.file, "file", "f", "", "write to `FILE` instead of standard output")
			f.BoolVarP(&flags.plain, "uncompressed", "u", false, "do not compress (the default)")
			f.BoolVarP(&flags.gzip, "gzip", "c", false, "compress with gzip")
			f.BoolVarP(&flags.bzip2, "bzip2", "b", false, "not supported")
			f.BoolVar(&flags.bz2, "bz2", false, "not supported")
			f.BoolVarP(&flags.isXz, "xz", "x", false, "not supported")
		},
		complete: []completer{layerRefs, layerRefs, nothing},
		run: func(ctx context.Context, args []string) error {
			switch {
			case flags.isXz:
				return errors.New("unsupported compression format tar.xz: use --gzip, or pipe the archive into xz")
			case flags.bzip2 || flags.bz2:
				return errors.New("unsupported compression format tar.bz2: use --gzip, or pipe the archive into bzip2")
			}
			return a.writeDiff(ctx, args, flags)
		},
	}
}

func (a *app) writeDiff(ctx context.Context, args []string, flags diffFlags) (err error) {
	to, from := two(args)
	if err := a.view(ctx, func(t *store.Tx) error { _, err := t.Layer(to); return about(store.KindLayer, err) }); err != nil {
		return err
	}
	out := io.Writer(a.out)
	if flags.file != "" {
		f, ferr := os.Create(flags.file)
		if ferr != nil {
			return ferr
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	var size int64
	if from == "" {
		size = a.knownSize(ctx, to)
	}
	widenPipe(out)
	bar := a.progress("writing "+to, size)
	defer bar.done()
	if flags.gzip {
		z, zerr := layertar.Compress(out, layertar.Gzip)
		if zerr != nil {
			return zerr
		}
		defer func() { err = errors.Join(err, z.Close()) }()
		return a.copyDiff(ctx, bar.writer(z), to, from)
	}
	return a.copyDiff(ctx, bar.writer(out), to, from)
}

// knownSize is the length of a layer's recorded archive, 0 when not known.
func (a *app) knownSize(ctx context.Context, ref string) (size int64) {
	_ = a.view(ctx, func(t *store.Tx) error { // only for the display
		if l, err := t.Layer(ref); err == nil {
			size = l.DiffSize
		}
		return nil
	})
	return size
}

func (a *app) copyDiff(ctx context.Context, w io.Writer, to, from string) (err error) {
	if from != "" {
		src, err := a.st.Diff(ctx, from, to)
		if err != nil {
			return about(store.KindLayer, err)
		}
		return layertar.Generate(ctx, w, src)
	}
	src, err := a.st.DiffTar(ctx, to)
	if err != nil {
		return about(store.KindLayer, err)
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	_, err = src.Copy(ctx, w)
	return err
}

func (a *app) applyDiff() *verb {
	var file string
	return &verb{
		name: "applydiff", aliases: []string{"apply-diff"}, args: "layerNameOrID", least: 1, most: 1,
		short: "Apply a diff to a layer",
		long: `Extracts an archive into a layer: a tar, plain or compressed with gzip, bzip2, xz
or zstd, from standard input or --file. What the layer has stays, unless the
archive replaces or removes it, and shows in the layers above. A layer that is
mounted, or below one that is, takes none. A broken archive changes nothing.`,
		example: `  containers-storage applydiff top <changes.tar
  containers-storage diff one | containers-storage applydiff other`,
		flags: func(f *pflag.FlagSet) {
			f.StringVarP(&file, "file", "f", "", "read the archive from `FILE` instead of standard input")
		},
		complete: []completer{layerRefs, nothing},
		run: func(ctx context.Context, args []string) (err error) {
			in, done, err := a.input(file, "applying")
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, done()) }()
			return a.applyTo(ctx, args[0], in)
		},
	}
}

func (a *app) applyTo(ctx context.Context, ref string, in io.Reader) error {
	st, err := a.st.StageSharedDiff(ctx, ref)
	if err != nil {
		return about(store.KindLayer, err)
	}
	_, err = fill(ctx, st, in)
	return err
}

func (a *app) applyStagingDir() *verb {
	return &verb{
		name: "applydiff-using-staging-dir", args: "layerNameOrID directory", least: 2, most: 2,
		short:    "Apply a diff to a layer, from a directory",
		long:     `Puts what a directory holds into a layer, as applydiff does with an archive.`,
		example:  "  containers-storage applydiff-using-staging-dir top ./rootfs",
		complete: []completer{layerRefs, nil},
		run: func(ctx context.Context, args []string) error {
			fi, err := os.Stat(args[1])
			if err != nil {
				return err
			}
			if !fi.IsDir() {
				return errno.New(errno.ErrNotDir, "%s is not a directory: name one, or use applydiff for an archive", args[1])
			}
			r, w := io.Pipe()
			go func() {
				w.CloseWithError(layertar.Generate(ctx, w, layertar.Source{New: []string{args[1]}}))
			}()
			err = a.applyTo(ctx, args[0], r)
			return errors.Join(err, r.Close())
		},
	}
}
