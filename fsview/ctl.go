package fsview

import (
	"context"
	"strings"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
)

// verb is one line written to a ctl file.
type verb struct {
	spec verbSpec
	// arg is the word that follows the verb, or what stands to the end of the
	// line; "" if nothing does.
	arg string
}

// verbSpec is one verb that a ctl file understands.
type verbSpec struct {
	name string
	// words are those of which one may follow.
	words []string
	// rest names what follows to the end of the line instead; optional in
	// brackets.
	rest string
	// must says that a word must follow.
	must bool
	doc  string
	// check refuses what follows where it is not understood; nil: all is.
	check func(arg string) error
	run   func(ctx context.Context, p place, arg string) error
}

// ctlRow is the row of a ctl file.
func ctlRow(path, what string, specs func() []verbSpec) Row {
	var names []string
	for _, s := range specs() {
		names = append(names, s.usage())
	}
	return Row{Path: path, Kind: Ctl, Mode: modeWrite, Valid: vnode.ValidForever,
		Doc: what + ", one a line; reading lists them: " + strings.ReplaceAll(strings.Join(names, ", "), "|", " or ") + ".",
		rowOps: rowOps{born: true, get: func(place) ([]byte, error) { return showVerbs(specs()), nil },
			put: func(ctx context.Context, p place, v []byte) error { return runVerbs(ctx, p, v, specs()) }}}
}

// runVerbs runs the lines in order, none if one of them is not understood.
func runVerbs(ctx context.Context, p place, v []byte, specs []verbSpec) error {
	verbs, err := parseVerbs(v, specs)
	if err != nil {
		return err
	}
	for i, verb := range verbs {
		if i > 0 { // the one before may have changed what there is
			if p, err = p.fs.place(ctx, p.where); err != nil {
				return err
			}
		}
		if err := verb.spec.run(ctx, p, verb.arg); err != nil {
			return err
		}
	}
	return nil
}

// parseVerbs reads the lines written to a ctl file; empty lines and what
// follows a `#` mean nothing, so that what ctl shows can be written to it. It
// fails before anything is done when one of them is not understood.
func parseVerbs(v []byte, specs []verbSpec) ([]verb, error) {
	var list []verb
	for _, l := range textLines(v) {
		if i := strings.IndexByte(l, '#'); i >= 0 {
			l = l[:i]
		}
		f := strings.Fields(l)
		if len(f) == 0 {
			continue
		}
		spec, err := specOf(f[0], specs)
		if err != nil {
			return nil, err
		}
		arg, err := spec.argument(strings.TrimSpace(strings.TrimSpace(l)[len(f[0]):]))
		if err != nil {
			return nil, err
		}
		list = append(list, verb{spec, arg})
	}
	return list, nil
}

func specOf(name string, specs []verbSpec) (verbSpec, error) {
	var known []string
	for _, s := range specs {
		if s.name == name {
			return s, nil
		}
		known = append(known, s.name)
	}
	return verbSpec{}, errno.New(errno.ErrBadValue, "%q is not a verb of this file: it knows %s", clip(name), strings.Join(known, ", "))
}

// argument checks what follows a verb on its line.
func (s verbSpec) argument(text string) (string, error) {
	switch {
	case text == "" && (s.must || s.rest != "" && !strings.HasPrefix(s.rest, "[")):
		return "", errno.New(errno.ErrBadValue, "the verb %s wants more: write `%s`", s.name, s.usage())
	case text != "" && s.rest == "" && !contains(s.words, text):
		return "", errno.New(errno.ErrBadValue, "%q does not go with the verb %s: write `%s`", clip(text), s.name, s.usage())
	case text != "" && s.check != nil:
		return text, s.check(text)
	}
	return text, nil
}

// usage is the verb with what may follow it.
func (s verbSpec) usage() string {
	switch {
	case s.rest != "":
		return s.name + " " + s.rest
	case len(s.words) == 0:
		return s.name
	case s.must:
		return s.name + " " + strings.Join(s.words, "|")
	}
	return s.name + " [" + strings.Join(s.words, "|") + "]"
}

// showVerbs is what a ctl file reads as.
func showVerbs(specs []verbSpec) []byte {
	var b strings.Builder
	for _, s := range specs {
		l := s.usage()
		b.WriteString("# " + l + strings.Repeat(" ", max(1, 24-len(l))) + s.doc + "\n")
	}
	return []byte(b.String())
}

// dataVerbs are what ctl of every object understands.
func dataVerbs() []verbSpec {
	return []verbSpec{
		{name: "forget-data", rest: "KEY", doc: "drop a data item; KEY is its name in bigdata/", check: checkKey, run: forgetData},
	}
}

// layerVerbs, imageVerbs and containerVerbs are what ctl of one understands.
func layerVerbs() []verbSpec {
	return append(append(mountVerbs(), dataVerbs()...),
		verbSpec{name: "repair", words: []string{"force"}, doc: "check all of it, and mend it, or remove it when that cannot be", run: runRepair})
}

func imageVerbs() []verbSpec { return dataVerbs() }

func containerVerbs() []verbSpec {
	return append(layerVerbs(),
		verbSpec{name: "delete", words: []string{"force"}, must: true, doc: "unmount and delete it, also one that podman manages", run: deleteForce})
}

func verbsOf(kind store.Kind) func() []verbSpec {
	switch kind {
	case store.KindLayer:
		return layerVerbs
	case store.KindImage:
		return imageVerbs
	}
	return containerVerbs
}

func checkKey(arg string) error {
	_, err := Decode(arg)
	return err
}

func forgetData(ctx context.Context, p place, arg string) error {
	key, err := Decode(arg)
	if err != nil {
		return err
	}
	kind, _ := p.row.obj.kind()
	if len(p.fs.writersOf(where{p.row.parent.child("bigdata").child("<key>"), p.id, key})) > 0 {
		return errno.New(errno.ErrInUse, "the item %q is open for writing: close it first", clip(key))
	}
	return p.fs.store.RemoveBigData(ctx, kind, p.id, key)
}

// deleteForce is rmdir of a container without its questions.
func deleteForce(ctx context.Context, p place, _ string) error {
	if err := p.fs.let(ctx, p, true); err != nil {
		return err
	}
	if err := p.fs.store.DeleteContainer(ctx, p.id); err != nil {
		return err
	}
	p.fs.errs.forget(subject{objContainer, p.id})
	return nil
}
