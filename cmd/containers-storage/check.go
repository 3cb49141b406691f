package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/store"
)

func (a *app) check() *verb {
	var quick, repair, force bool
	var age time.Duration
	return &verb{
		name: "check", most: many, json: true,
		short: "Check storage consistency",
		long: `Looks for damage and prints a line for each thing that is wrong, and what to do;
nothing when all is well. With --repair each is mended where that loses nothing,
and what cannot be mended is removed.`,
		example: `  containers-storage check --quick
  containers-storage check --repair`,
		flags: func(f *pflag.FlagSet) {
			f.BoolVarP(&quick, "quick", "q", false, "look at records and files, but do not read layers and data")
			f.BoolVarP(&repair, "repair", "r", false, "mend or remove what is damaged")
			f.BoolVarP(&force, "force", "f", false, "with --repair: remove damaged containers, too")
			f.DurationVarP(&age, "max", "m", 24*time.Hour, "from what age on a layer that nothing needs is a finding")
		},
		run: func(ctx context.Context, _ []string) error {
			return a.runCheck(ctx, quick, repair, force, age)
		},
	}
}

// runCheck checks the store, prints what was found, and repairs it if asked.
// The status is 1 when something is wrong and stays so.
func (a *app) runCheck(ctx context.Context, quick, repair, force bool, age time.Duration) error {
	o := store.CheckOptions{Level: store.CheckFull, UnreferencedAge: age}
	if quick {
		o.Level = store.CheckQuick
	}
	if age <= 0 {
		o.UnreferencedAge = time.Nanosecond
	}
	bar := a.progress("checking", 0)
	o.Progress = func(p store.CheckProgress) {
		bar.say(fmt.Sprintf("checking %s %s, %d of %d", p.Kind, p.ID, p.Object, p.Objects), p.Read, p.Size)
	}
	report, err := a.st.Check(ctx, o)
	bar.done()
	if err != nil {
		return err
	}
	perr := a.print(report, func(w *bufio.Writer) {
		for f := range report.All() {
			fmt.Fprintln(w, f.Line())
		}
		if s := report.Summary(); s != "" {
			fmt.Fprintln(w, s)
		}
	})
	switch {
	case report.Clean():
		return perr
	case repair:
		return errors.Join(perr, a.repair(ctx, report, force))
	}
	return errors.Join(perr, failed)
}

// repair mends what was found, and tells each step on standard error. Its
// error is that of what stays damaged.
func (a *app) repair(ctx context.Context, report *store.CheckReport, force bool) error {
	_, err := a.st.Repair(ctx, report, store.RepairOptions{
		Force: force,
		Done:  func(s store.RepairStep) { fmt.Fprintf(a.err, "%s: %s\n", s.Finding.Line(), s.Action) },
	})
	return err
}

// deduped is what dedup --json prints.
type deduped struct{ Deduped uint64 }

func (a *app) dedup() *verb {
	var method string
	return &verb{
		name: "dedup", most: many, json: true,
		short: "Deduplicate files of the store",
		long: `Lets equal files of all layers share their blocks, where the filesystem can, and
prints how many bytes are shared.`,
		example: "  containers-storage dedup --hash-method sha256",
		values:  map[string][]string{"hash-method": {"crc", "size", "sha256"}},
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&method, "hash-method", "crc", "find files that may be equal by `METHOD`: crc, size or sha256")
		},
		run: func(ctx context.Context, _ []string) error {
			bar := a.progress("deduplicating", 0)
			r, err := a.st.Dedup(ctx, store.DedupOptions{
				Method:   store.DedupMethod(method),
				Progress: func(done, all int64) { bar.say("deduplicating", done, all) },
			})
			bar.done()
			if err != nil {
				return err
			}
			return a.print(deduped{r.Deduped}, func(w *bufio.Writer) { fmt.Fprintf(w, "Deduped: %d bytes\n", r.Deduped) })
		},
	}
}
