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
		{name: "repair", words: []string{"force"}, doc: "mend or remove what a full check finds; with force containers too", run: runRepair},
		{name: "dedup", doc: "let equal files of layers share their blocks", run: runDedup},
		{name: "shutdown", words: []string{"force"}, doc: "put away what the store keeps mounted; with force unmount layers first", run: runShutdown},
		{name: "wipe", words: []string{"yes"}, must: true, doc: "delete every container, image and layer", run: runWipe},
	}
}

func runGC(ctx context.Context, p place, _ string) error {
	return p.fs.run("gc", func(j *job) error {
		sw, err := p.fs.store.GarbageCollect(ctx, j.steps("entry"))
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

// runRepair checks what the place is, the whole store or one object, and mends
// it.
func runRepair(ctx context.Context, p place, how string) error {
	o := store.CheckOptions{Level: store.CheckFull}
	of := "store"
	if kind, ok := p.row.obj.kind(); ok {
		o.Kind, o.ID, of = kind, p.id, kind.String()
	}
	return p.fs.runOn(of, o.ID, "repair", func(j *job) error {
		o.Progress = func(c store.CheckProgress) {
			j.at("checking object %d of %d %s %s read %d of %d", c.Object, c.Objects, c.Kind, short(c.ID), c.Read, c.Size)
		}
		report, err := p.fs.store.Check(ctx, o)
		if err != nil {
			return fmt.Errorf("checking before the repair: %w", err)
		}
		steps, err := p.fs.store.Repair(ctx, report, store.RepairOptions{Force: how == "force", Done: func(s store.RepairStep) {
			j.found(s.Finding.Line() + ": " + s.Action)
		}})
		j.at("steps %d", len(steps))
		return err
	})
}

func runDedup(ctx context.Context, p place, _ string) error {
	return p.fs.run("dedup", func(j *job) error {
		res, err := p.fs.store.Dedup(ctx, store.DedupOptions{Progress: func(done, all int64) { j.at("bytes %d of %d", done, all) }})
		j.at("shared-bytes %d", res.Deduped)
		return err
	})
}

func runShutdown(ctx context.Context, p place, how string) error {
	return p.fs.run("shutdown", func(j *job) error {
		mounted, err := p.fs.store.Shutdown(ctx, how == "force", j.steps("layer"))
		for _, id := range mounted {
			j.found("layer " + id + " is mounted")
		}
		j.at("mounted %d", len(mounted))
		return err
	})
}

func runWipe(ctx context.Context, p place, _ string) error {
	return p.fs.run("wipe", func(j *job) error {
		if err := p.fs.store.Wipe(ctx, j.steps("object")); err != nil {
			return err
		}
		j.at("removing what was deleted")
		if err := p.fs.store.WaitRemovals(ctx); err != nil {
			return err
		}
		j.at("everything is deleted")
		return nil
	})
}
