package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// dataVerbs are those for big data and directories, of each kind of object.
func (a *app) dataVerbs() []*verb {
	var all []*verb
	for _, k := range []store.Kind{store.KindImage, store.KindContainer, store.KindLayer} {
		all = append(all, a.listData(k), a.getData(k), a.setData(k))
		if k != store.KindLayer {
			all = append(all, a.dataFact(k, "size"), a.dataFact(k, "digest"))
		}
	}
	return append(all,
		a.directory(store.KindContainer, "dir", "data", store.DirOfContainer),
		a.directory(store.KindContainer, "run-dir", "runtime", store.RunDirOfContainer),
		a.directory(store.KindImage, "dir", "data", store.DirOfImage),
		a.directory(store.KindImage, "run-dir", "runtime", store.RunDirOfImage))
}

// undashed is the other spelling of a verb.
func undashed(name string) []string { return []string{strings.ReplaceAll(name, "-", "")} }

// of is the kind with its article.
func of(k store.Kind) string {
	if k == store.KindImage {
		return "an image"
	}
	return "a " + k.String()
}

// sample is an object of the examples.
func sample(k store.Kind) string {
	return [...]string{"base-layer", "app:latest", "web"}[k]
}

func refsOf(k store.Kind) completer {
	return [...]completer{layerRefs, imageRefs, containerRefs}[k]
}

func (a *app) listData(k store.Kind) *verb {
	name := fmt.Sprintf("list-%s-data", k)
	return &verb{
		name: name, aliases: undashed(name), args: k.String() + "NameOrID", least: 1, most: 1, json: true,
		short:    fmt.Sprintf("List data items that are attached to %s", of(k)),
		long:     `Prints the key of each item.`,
		example:  fmt.Sprintf("  %s %s %s", program, name, sample(k)),
		complete: []completer{refsOf(k), nothing},
		run: func(ctx context.Context, args []string) error {
			return a.view(ctx, func(t *store.Tx) error {
				keys, err := t.BigDataKeys(k, args[0])
				if err != nil {
					return about(k, err)
				}
				return a.printStrings(keys)
			})
		},
	}
}

// resolve is the ID of an object of kind k.
func (a *app) resolve(ctx context.Context, k store.Kind, ref string) (id string, err error) {
	err = a.view(ctx, func(t *store.Tx) error {
		id, err = t.Resolve(k, ref)
		return about(k, err)
	})
	return id, err
}

func (a *app) getData(k store.Kind) *verb {
	name := fmt.Sprintf("get-%s-data", k)
	var file string
	return &verb{
		name: name, aliases: undashed(name), args: k.String() + "NameOrID dataName", least: 2, most: many,
		short:   fmt.Sprintf("Get data that is attached to %s", of(k)),
		long:    `Writes the item's bytes to standard output or --file.`,
		example: fmt.Sprintf("  %s %s %s manifest\n  %s %s --file copy %s manifest", program, name, sample(k), program, name, sample(k)),
		flags: func(f *pflag.FlagSet) {
			f.StringVarP(&file, "file", "f", "", "write to `FILE` instead of standard output")
		},
		complete: []completer{refsOf(k), keysOf(k), nothing},
		run: func(ctx context.Context, args []string) (err error) {
			id, err := a.resolve(ctx, k, args[0])
			if err != nil {
				return err
			}
			in, err := a.st.BigData(ctx, k, id, args[1])
			if err != nil {
				return noItem(err, "file does not exist")
			}
			defer func() { err = errors.Join(err, in.Close()) }()
			out := a.out
			if file != "" {
				if out, err = os.Create(file); err != nil {
					return err
				}
				defer func() { err = errors.Join(err, out.Close()) }()
			}
			_, err = io.Copy(out, in)
			return err
		},
	}
}

// noItem explains an error of a data item whose object is there.
func noItem(err error, words string) error {
	if errors.Is(err, errno.ErrUnknown) || errors.Is(err, os.ErrNotExist) {
		return withWords(words, err)
	}
	return err
}

func (a *app) setData(k store.Kind) *verb {
	name := fmt.Sprintf("set-%s-data", k)
	var file string
	return &verb{
		name: name, aliases: undashed(name), args: k.String() + "NameOrID dataName", least: 2, most: many,
		short:   fmt.Sprintf("Set data that is attached to %s", of(k)),
		long:    `Makes the item, or replaces it, with what standard input or --file holds.`,
		example: fmt.Sprintf("  echo '{}' | %s %s %s manifest", program, name, sample(k)),
		flags: func(f *pflag.FlagSet) {
			f.StringVarP(&file, "file", "f", "", "read from `FILE` instead of standard input")
		},
		complete: []completer{refsOf(k), keysOf(k), nothing},
		run: func(ctx context.Context, args []string) (err error) {
			in := a.in
			if file != "" {
				if in, err = os.Open(file); err != nil {
					return err
				}
				defer func() { err = errors.Join(err, in.Close()) }()
			}
			id, err := a.resolve(ctx, k, args[0])
			if err != nil {
				return err
			}
			return about(k, a.st.SetBigData(ctx, k, id, args[1], in))
		},
	}
}

// dataFact is the verb for an item's size or digest.
func (a *app) dataFact(k store.Kind, what string) *verb {
	name := fmt.Sprintf("get-%s-data-%s", k, what)
	words := "size is not known"
	if what == "digest" {
		words = "could not compute digest of item"
	}
	return &verb{
		name: name, aliases: undashed(name), args: k.String() + "NameOrID dataName", least: 2, most: many,
		short:    fmt.Sprintf("Get %s of data that is attached to %s", what, of(k)),
		example:  fmt.Sprintf("  %s %s %s manifest", program, name, sample(k)),
		complete: []completer{refsOf(k), keysOf(k), nothing},
		run: func(ctx context.Context, args []string) error {
			id, err := a.resolve(ctx, k, args[0])
			if err != nil {
				return err
			}
			size, d, err := a.st.BigDataInfo(ctx, k, id, args[1])
			if err != nil {
				return noItem(err, words)
			}
			fact := any(size)
			if what == "digest" {
				fact = d
			}
			_, err = fmt.Fprintln(a.out, fact)
			return err
		},
	}
}

// directory is the verb for a directory that belongs to an object's user.
func (a *app) directory(k store.Kind, what, words string, d store.UserDir) *verb {
	name := fmt.Sprintf("get-%s-%s", k, what)
	return &verb{
		name: name, aliases: undashed(name), args: k.String() + "NameOrID", least: 1, most: many,
		short: fmt.Sprintf("Find the %s's associated %s directory", k, words),
		long: fmt.Sprintf(`Prints the path of a directory that is there for the %s's users, and makes
it. It is deleted with the %s.`, k, k),
		example:  fmt.Sprintf("  %s %s %s", program, name, sample(k)),
		complete: []completer{refsOf(k), nothing},
		run: func(ctx context.Context, args []string) error {
			path, err := a.st.UserDirPath(ctx, d, args[0])
			if err != nil {
				return about(k, err)
			}
			_, err = fmt.Fprintln(a.out, path)
			return err
		},
	}
}
