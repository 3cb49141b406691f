package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
)

// RepairOptions say how far Repair goes.
type RepairOptions struct {
	// Force lets it delete containers: damaged ones, and those that stand on
	// what has to be removed; and set the mount count of layers to zero that are
	// not mounted here.
	Force bool
	// Remove has damaged objects removed that could be mended, as the peers do.
	Remove bool
	// Done, when set, is called for each step that was made.
	Done func(RepairStep)
}

// RepairStep is one thing that Repair did.
type RepairStep struct {
	Finding Finding
	// Action is a sentence: what was mended or removed.
	Action string
}

// Repair works off what Check found, each finding by itself and each in
// transactions of its own: what can be made again, or left out of a record
// without loss, is mended, and what cannot is removed, with all that stands on
// it. Nothing else is touched: sound layers below a removed image stay. Each
// finding is looked at again, and passed over when it no longer holds. A record file that is cut off is kept beside the new one.
//
// It returns the steps that it made. The error joins one for each finding that
// stays: ErrInUse when containers (without o.Force) or mounts are in the way,
// ErrReadOnly for additional stores.
func (s *Store) Repair(ctx context.Context, report *CheckReport, o RepairOptions) ([]RepairStep, error) {
	if err := s.writable(); err != nil {
		return nil, err
	}
	r := &repairer{s: s, o: o}
	var list []Finding
	err := s.View(ctx, func(t *Tx) error {
		list = inRepairOrder(t, report)
		return nil
	})
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, f := range list {
		if err := ctx.Err(); err != nil {
			return r.steps, errors.Join(append(errs, err)...)
		}
		if err := r.repair(ctx, f); err != nil {
			errs = append(errs, fmt.Errorf("%s: not repaired: %w", f.Line(), err))
		}
	}
	return r.steps, errors.Join(errs...)
}

// inRepairOrder puts files first, since nothing of their kind can be changed
// before, what is mended before what is removed, and unneeded layers last,
// those with the longest chain first.
func inRepairOrder(t *Tx, report *CheckReport) []Finding {
	list := slices.Collect(report.All())
	rank := func(p Problem) int {
		switch p {
		case ProblemFile, ProblemMounts:
			return 0
		case ProblemStray, ProblemIncomplete:
			return 1
		case ProblemLinks:
			return 2
		case ProblemUnreferenced:
			return 4
		}
		return 3
	}
	depth := map[string]int{}
	for _, f := range list {
		if f.Problem == ProblemUnreferenced {
			depth[f.ID] = len(t.Chain(f.ID))
		}
	}
	slices.SortStableFunc(list, func(a, b Finding) int {
		return cmp.Or(rank(a.Problem)-rank(b.Problem), depth[b.ID]-depth[a.ID])
	})
	return list
}

// repairer is one run of Repair.
type repairer struct {
	s     *Store
	o     RepairOptions
	steps []RepairStep
}

func (r *repairer) did(f Finding, format string, args ...any) {
	step := RepairStep{f, fmt.Sprintf(format, args...)}
	r.steps = append(r.steps, step)
	if r.o.Done != nil {
		r.o.Done(step)
	}
}

func (r *repairer) repair(ctx context.Context, f Finding) error {
	if f.ReadOnly {
		return errno.New(errno.ErrReadOnly, "it belongs to an additional store; repair it there")
	}
	switch f.Problem {
	case ProblemFile:
		return r.file(ctx, f)
	case ProblemMounts:
		return r.mounts(ctx, f)
	case ProblemStray:
		return r.stray(ctx, f)
	case ProblemIncomplete:
		return r.incomplete(ctx, f)
	case ProblemUnaccounted, ProblemLeftover:
		return r.unrecorded(ctx, f)
	case ProblemUnreferenced:
		return r.unreferenced(ctx, f)
	case ProblemLinks:
		return r.links(ctx, f)
	case ProblemMountCount:
		return r.mountCount(ctx, f)
	}
	return r.object(ctx, f)
}

// mountCount sets the count of what is not mounted to zero, with force only: it may
// be mounted in another mount namespace.
func (r *repairer) mountCount(ctx context.Context, f Finding) error {
	if !r.o.Force {
		return errno.New(errno.ErrInUse, "another mount namespace may be using it; if none is, use force to set its count to zero")
	}
	_, gone, err := r.s.countedOnly(ctx, f.ID)
	if err != nil || !gone {
		return err
	}
	if _, err := r.s.Unmount(ctx, f.ID, true); err != nil {
		return err
	}
	r.did(f, "set the mount count of layer %s to zero", f.ID)
	return nil
}

// object repairs what is wrong with an object itself.
func (r *repairer) object(ctx context.Context, f Finding) error {
	if stands, err := r.stands(ctx, f); err != nil || !stands {
		return err
	}
	switch f.Problem {
	case ProblemDataMissing, ProblemDataSize, ProblemDataDigest:
		return r.data(ctx, f)
	case ProblemUnread:
		if !r.o.Force {
			return errno.New(errno.ErrDamaged, "%s; see to the cause, or use force to delete the layer", f.Detail)
		}
	case ProblemImageLayer:
		if !r.o.Remove {
			if done, err := r.unmap(ctx, f); done || err != nil {
				return err
			}
		}
	}
	return r.remove(ctx, f)
}

// stands looks whether a finding about an object still holds, before something
// is taken away for it.
func (r *repairer) stands(ctx context.Context, f Finding) (bool, error) {
	o := CheckOptions{Level: CheckData, UnreferencedAge: -1, Kind: f.Kind, ID: f.ID}
	switch f.Problem {
	case ProblemDigest, ProblemIntegrity, ProblemModified, ProblemSplit, ProblemUnread:
		o.Level = CheckFull
	}
	now, err := r.s.Check(ctx, o)
	if errors.Is(err, errno.ErrUnknown) {
		return false, nil
	}
	for g := range now.All() {
		if g.Problem == f.Problem && g.Subject == f.Subject {
			return true, err
		}
	}
	return false, err
}

// incomplete lets a transaction sweep the record.
func (r *repairer) incomplete(ctx context.Context, f Finding) error {
	return r.s.Update(ctx, func(w *WriteTx) error {
		if w.st.of(f.Kind).anyOf(f.ID) == nil {
			r.did(f, "removed %s %s, which was half made", f.Kind, f.ID)
			return nil
		}
		return errno.New(errno.ErrInUse, "others stand on it; delete those first")
	})
}

// unrecorded removes what has no record.
func (r *repairer) unrecorded(ctx context.Context, f Finding) error {
	if unsafeID(f.ID) != "" {
		return errno.New(errno.ErrBadValue, "%q is no ID; remove it by hand", f.ID)
	}
	return r.s.withEntry(ctx, func(entry *stageEntry) error {
		return r.s.Update(ctx, func(w *WriteTx) error {
			if !w.recordless(f.Kind)(f.ID) || !w.s.inDriver(f.ID) && !w.s.hasData(f.Kind, f.ID) {
				return nil
			}
			if w.st.part(f.Kind).broken() != nil {
				return errno.New(errno.ErrDamaged, "its record may be in the part of the file that cannot be read; repair the file first")
			}
			var err error
			if f.Kind == KindLayer {
				w.unmountStray(f.ID)
				err = w.retire(entry, f.ID)
			} else {
				err = entry.trash(w.s.objectDir(f.Kind, f.ID))
			}
			w.s.fail("repair:2")
			if err == nil {
				r.did(f, "removed what was on disk of %s %s without a record", f.Kind, f.ID)
			}
			return err
		})
	})
}

// unreferenced deletes a layer that nothing needs; those above it have gone
// before it (inRepairOrder) or are too young, and keep it.
func (r *repairer) unreferenced(ctx context.Context, f Finding) error {
	err := r.s.DeleteLayer(ctx, f.ID)
	if errors.Is(err, errno.ErrUnknown) {
		return nil
	}
	if err != nil {
		return err
	}
	r.did(f, "deleted layer %s, which nothing needed", f.ID)
	return nil
}

// links has the driver make again what of a layer follows from others, from
// the lowest layer up.
func (r *repairer) links(ctx context.Context, f Finding) error {
	return r.s.Update(ctx, func(w *WriteTx) error {
		mended, err := w.mendChain(f.ID)
		for _, id := range mended {
			r.did(f, "made the links of layer %s again", id)
		}
		return err
	})
}

// mendChain mends a layer and those below it, from the bottom up, and returns
// which were mended.
func (w *WriteTx) mendChain(id string) (mended []string, err error) {
	for _, l := range slices.Backward(w.Chain(id)) {
		if l.shadow > 0 {
			continue
		}
		fam := w.family(l)
		flaws, err := drivers.Flaws(w.s.driver, fam)
		if err != nil || len(flaws) == 0 {
			if err != nil {
				return mended, err
			}
			continue
		}
		if err := drivers.Mend(w.s.driver, fam); err != nil {
			return mended, err
		}
		w.s.fail("repair:3")
		mended = append(mended, l.ID)
	}
	return mended, nil
}

func (t *Tx) family(l *Layer) drivers.Family {
	f := drivers.Family{ID: l.ID, Parent: l.Parent}
	for _, c := range t.Children(l.ID) {
		f.Children = append(f.Children, c.ID)
	}
	return f
}

// data leaves an item out of a record that its object can do without, puts a
// record right whose key says what the content is, or removes the object.
func (r *repairer) data(ctx context.Context, f Finding) error {
	if r.o.Remove {
		return r.remove(ctx, f)
	}
	if right, err := r.recordOfKey(ctx, f); right || err != nil {
		return err
	}
	if f.Kind == KindImage && (isManifestKey(f.Subject) || strings.HasPrefix(f.Subject, "sha256:")) {
		return r.remove(ctx, f)
	}
	return r.s.withEntry(ctx, func(entry *stageEntry) error {
		return r.s.Update(ctx, func(w *WriteTx) error {
			keys, known := w.dataKeys(f.Kind, f.ID)
			if !known || !slices.Contains(keys, f.Subject) {
				return nil
			}
			if err := w.dropData(entry, f.Kind, f.ID, f.Subject); err != nil {
				return err
			}
			r.did(f, "left the item %q out of the record of %s %s", f.Subject, f.Kind, f.ID)
			return nil
		})
	})
}

// recordOfKey corrects size and digest in the record of an item whose key is
// the digest of its content.
func (r *repairer) recordOfKey(ctx context.Context, f Finding) (bool, error) {
	want, err := digest.Parse(f.Subject)
	if err != nil || f.Problem == ProblemDataMissing {
		return false, nil //nolint:nilerr // the key is no digest
	}
	file, err := r.s.BigData(ctx, f.Kind, f.ID, f.Subject)
	if err != nil {
		return false, nil //nolint:nilerr // then it is treated as missing
	}
	sum, err := digestOf(ctx, file)
	fi, serr := file.Stat()
	if err = errors.Join(err, serr, file.Close()); err != nil || sum != want {
		return false, err
	}
	return true, r.s.Update(ctx, func(w *WriteTx) error {
		if _, known := w.dataKeys(f.Kind, f.ID); !known {
			return nil
		}
		err := w.recordData(f.Kind, f.ID, dataItem{f.Subject, fi.Size(), sum})
		if err == nil {
			r.did(f, "put size and digest of the item %q in the record of %s %s right", f.Subject, f.Kind, f.ID)
		}
		return err
	})
}

// unmap takes a missing mapped layer out of an image's record; false when the
// missing layer is its own.
func (r *repairer) unmap(ctx context.Context, f Finding) (done bool, err error) {
	err = r.s.Update(ctx, func(w *WriteTx) error {
		i := w.ImageByID(f.ID)
		if done = i == nil || w.LayerByID(f.Subject) != nil; done {
			return nil
		}
		if i.TopLayer == f.Subject || i.damage != "" {
			return nil
		}
		done = true
		err := w.editImage(i.ID, func(i *Image) error {
			i.MappedLayers = without(i.MappedLayers, f.Subject)
			return nil
		})
		if err == nil {
			r.did(f, "took the mapped layer %s out of the record of image %s", f.Subject, f.ID)
		}
		return err
	})
	return done, err
}

// setAside keeps a damaged file beside its place and returns where.
func setAside(path, stamp string) (string, error) {
	for n := 0; ; n++ {
		to := fmt.Sprintf("%s.damaged-%s", path, stamp)
		if n > 0 {
			to += fmt.Sprintf("-%d", n)
		}
		err := os.Link(path, to)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if errors.Is(err, os.ErrPermission) { // a directory stands there
			if _, serr := os.Lstat(to); serr == nil {
				continue
			}
			err = os.Rename(path, to)
		}
		if err != nil {
			return "", fmt.Errorf("keep the damaged file: %w", err)
		}
		return to, syncDirs(filepath.Dir(to))
	}
}
