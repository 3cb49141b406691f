package fsview

import (
	"context"
	"fmt"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// storeVerbs are what the ctl of the root understands.
func storeVerbs() []verbSpec {
	return []verbSpec{
		{name: "gc", doc: "remove what killed programs left half made", run: runGC},
		{name: "check", words: []string{"quick", "full"}, doc: "look for damage: quick reads no content, full all layers; what it finds is in progress", run: runCheck},
	}
}

func runGC(ctx context.Context, p place, _ string) error {
	return p.fs.run("gc", func(j *job) error {
		sw, err := p.fs.store.GarbageCollect(ctx)
		j.at("entries %d files %d layers %d images %d containers %d", sw.Entries, sw.Files, len(sw.Layers), len(sw.Images), len(sw.Containers))
		return err
	})
}

func runCheck(ctx context.Context, p place, how string) error {
	o, verb := store.CheckOptions{Level: store.CheckData}, "check"
	switch how {
	case "quick":
		o.Level, verb = store.CheckQuick, "check-quick"
	case "full":
		o.Level, verb = store.CheckFull, "check-full"
	}
	return p.fs.run(verb, func(j *job) error {
		o.Progress = func(c store.CheckProgress) {
			j.at("object %d of %d %s %s read %d of %d", c.Object, c.Objects, c.Kind, short(c.ID), c.Read, c.Size)
		}
		report, err := p.fs.store.Check(ctx, o)
		if err != nil {
			return fmt.Errorf("checking the store: %w", err)
		}
		first, n := "", 0
		for f := range report.All() {
			if n++; n == 1 {
				first = f.Line()
			}
			j.found(f.Line())
		}
		j.at("findings %d", n)
		if n > 0 {
			return errno.New(errno.ErrDamaged, "the check found %d: %s; cat progress shows all", n, first)
		}
		return nil
	})
}
