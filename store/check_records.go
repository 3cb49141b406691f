package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
)

// checker is one run of Check. It is used by one goroutine.
type checker struct {
	s      *Store
	t      *Tx
	o      CheckOptions
	report *CheckReport

	driver    []string // the driver's layers, before t
	driverErr error
	sound     map[string]bool // layers that were looked at by chainWhole
	needed    map[string]bool // layers that images or containers need
	object    int
}

func (c *checker) listDriver() {
	if c.s.driver != nil {
		c.driver, c.driverErr = c.s.driver.List()
	}
}

// unrecordedOnly tells whether o.ID names what has no record but is on disk.
func (c *checker) unrecordedOnly() bool {
	if unsafeID(c.o.ID) != "" {
		return false
	}
	if c.o.Kind == KindLayer && slices.Contains(c.driver, c.o.ID) {
		return true
	}
	_, err := os.Lstat(c.s.objectDir(c.o.Kind, c.o.ID))
	return err == nil
}

// wants tells whether an object is to be checked.
func (c *checker) wants(k Kind, id string) bool {
	return c.o.ID == "" || c.o.Kind == k && c.o.ID == id
}

func (c *checker) run(ctx context.Context) error {
	c.needed = c.t.neededLayers()
	if c.o.ID == "" {
		c.files()
	}
	for k := range Kind(numKinds) {
		c.strays(k)
	}
	for l := range c.t.Layers() {
		if !c.wants(KindLayer, l.ID) {
			continue
		}
		if err := c.layer(ctx, l); err != nil {
			return err
		}
	}
	for i := range c.t.Images() {
		if c.wants(KindImage, i.ID) {
			if err := c.image(ctx, i); err != nil {
				return err
			}
		}
	}
	for r := range c.t.Containers() {
		if c.wants(KindContainer, r.ID) {
			if err := c.container(ctx, r); err != nil {
				return err
			}
		}
	}
	for k := range Kind(numKinds) {
		c.unrecorded(k)
	}
	return ctx.Err()
}

// neededLayers are the layers that images and containers stand on.
func (t *Tx) neededLayers() map[string]bool {
	needed := make(map[string]bool)
	mark := func(id string) {
		for l := t.LayerByID(id); l != nil && !needed[l.ID]; l = t.LayerByID(l.Parent) {
			needed[l.ID] = true
		}
	}
	for i := range t.Images() {
		mark(i.TopLayer)
		for _, id := range i.MappedLayers {
			mark(id)
		}
	}
	for c := range t.Containers() {
		mark(c.Layer)
	}
	return needed
}

// found reports on an object with a record.
func (c *checker) found(o object, k Kind, p Problem, subject, text, detail string) {
	c.report.add(Finding{
		Kind: k, ID: o.id(), ReadOnly: o.m().shadow > 0, Problem: p,
		Subject: subject, Detail: detail, own: o, text: text,
	})
}

// files reports record files that cannot be read.
func (c *checker) files() {
	for k := range Kind(numKinds) {
		if err := c.t.st.part(k).broken(); err != nil {
			c.report.add(Finding{Kind: k, Problem: ProblemFile, Detail: err.Error(), text: string(ProblemFile)})
		}
	}
	if err := c.t.st.mounts.broken; err != nil {
		c.report.add(Finding{Kind: KindLayer, Problem: ProblemMounts, Detail: err.Error()})
	}
	if c.driverErr != nil {
		c.report.add(Finding{Kind: KindLayer, Problem: ProblemDirectory, Detail: c.driverErr.Error(), text: "the driver's layers cannot be listed"})
	}
}

// strays reports elements of record files that are not shown.
func (c *checker) strays(k Kind) {
	for _, o := range c.t.st.of(k).odd() {
		if c.o.ID == "" || c.wants(k, o.id) {
			c.report.add(Finding{
				Kind: k, ID: short(o.id), Problem: ProblemStray, Subject: o.raw,
				text: fmt.Sprintf("%s: %s", ProblemStray, o.why), Detail: "it is kept in its file as it is",
			})
		}
	}
}

// common reports what any record can have.
func (c *checker) common(o object, k Kind) {
	if why := o.m().damage; why != "" {
		c.found(o, k, ProblemRecord, "", fmt.Sprintf("%s: %s", ProblemRecord, why), "")
	}
	if on, ok := (*o.fields().flags)[flagIncomplete].(bool); ok && on {
		c.found(o, k, ProblemIncomplete, "", "", "the next process that writes removes it")
	}
}

func (c *checker) layer(ctx context.Context, l *Layer) error {
	c.progress(KindLayer, l.ID, 0, l.DiffSize)
	c.common(l, KindLayer)
	whole := c.layerPlace(l)
	if err := c.mountCount(ctx, l); err != nil {
		return err
	}
	if c.o.UnreferencedAge >= 0 && c.unneeded(l) {
		c.found(l, KindLayer, ProblemUnreferenced, "", "", "")
	}
	if err := c.data(ctx, l, KindLayer, l.BigDataNames, nil, nil); err != nil {
		return err
	}
	if !whole || c.o.Level < CheckFull || !c.chainWhole(l) {
		return ctx.Err()
	}
	return c.content(ctx, l)
}

// mountCount looks whether a layer that counts as mounted is: where programs were
// killed, or somebody unmounted it by hand, the count stays, and nobody can mount it
// again. Mounts are of this mount namespace, so it may be in use in another.
func (c *checker) mountCount(ctx context.Context, l *Layer) error {
	if c.s.driver == nil || c.t.st.mounts.table[l.ID].Count == 0 {
		return nil
	}
	m, gone, err := c.s.countedOnly(ctx, l.ID)
	if passing(err) {
		return err
	}
	if err == nil && gone {
		c.found(l, KindLayer, ProblemMountCount, m.Path, "", fmt.Sprintf("its count is %d, at %s, where nothing is mounted: unless it is mounted in another mount namespace, `umount force` sets the count to zero", m.Count, m.Path))
	}
	return nil
}

// chainWhole tells whether the driver has all layers below l whole: else what
// l holds cannot be told, and what is wrong is told of them.
func (c *checker) chainWhole(l *Layer) bool {
	if c.sound == nil {
		c.sound = map[string]bool{}
	}
	for _, below := range c.t.Chain(l.ID)[1:] {
		sound, known := c.sound[below.ID]
		if !known {
			sound = below.shadow > 0
			if !sound {
				has, err := c.s.driver.Has(below.ID)
				flaws, ferr := drivers.Flaws(c.s.driver, c.t.family(below))
				sound = has && err == nil && ferr == nil && len(flaws) == 0
			}
			c.sound[below.ID] = sound
		}
		if !sound {
			return false
		}
	}
	return true
}

// unneeded tells whether nothing needs a layer for long enough. While a file
// cannot be read, whoever needs it may be in there.
func (c *checker) unneeded(l *Layer) bool {
	return !c.needed[l.ID] && l.shadow == 0 && time.Since(l.Created) >= c.o.UnreferencedAge &&
		c.t.allRead(KindLayer, l.ID, KindLayer, KindImage, KindContainer) == nil
}

// layerPlace looks at the layer's parents and directories and tells whether
// they are there.
func (c *checker) layerPlace(l *Layer) bool {
	whole := true
	if chain := c.t.Chain(l.ID); len(chain) > 0 {
		if last := chain[len(chain)-1]; last.Parent != "" {
			text := fmt.Sprintf("layer %s: %s", short(last.Parent), ProblemParent)
			if c.t.LayerByID(last.Parent) != nil {
				text = "its parents lead in a circle"
			}
			c.found(l, KindLayer, ProblemParent, last.Parent, text, "")
			whole = false
		}
	}
	if c.s.driver == nil || l.shadow > 0 {
		return whole && c.s.driver != nil
	}
	flaws, ferr := drivers.Flaws(c.s.driver, c.t.family(l))
	if len(flaws) > 0 {
		c.found(l, KindLayer, ProblemLinks, "", "", strings.Join(flaws, "; "))
	}
	has, err := c.s.driver.Has(l.ID)
	if err == nil && has || len(flaws) > 0 && errors.Is(err, errno.ErrDamaged) {
		return whole && len(flaws) == 0 // without its links its content cannot be told
	}
	err = errors.Join(err, ferr)
	detail := fmt.Sprintf("its directory is missing from the driver %s", c.s.opts.DriverName)
	if err != nil {
		detail = err.Error()
	}
	c.found(l, KindLayer, ProblemDirectory, "", "", detail)
	return false
}

func (c *checker) image(ctx context.Context, i *Image) error {
	c.progress(KindImage, i.ID, 0, 0)
	c.common(i, KindImage)
	for _, id := range append([]string{i.TopLayer}, i.MappedLayers...) {
		if id != "" && c.t.LayerByID(id) == nil {
			c.found(i, KindImage, ProblemImageLayer, id, fmt.Sprintf("layer %s: %s", short(id), ProblemImageLayer), "")
		}
	}
	return c.data(ctx, i, KindImage, i.BigDataNames, i.BigDataSizes, i.BigDataDigests)
}

func (c *checker) container(ctx context.Context, r *Container) error {
	c.progress(KindContainer, r.ID, 0, 0)
	c.common(r, KindContainer)
	if r.Image != "" && c.t.ImageByID(r.Image) == nil {
		c.found(r, KindContainer, ProblemContainerImage, r.Image, fmt.Sprintf("image %s: %s", short(r.Image), ProblemContainerImage), "")
	}
	if r.Layer != "" && c.t.LayerByID(r.Layer) == nil {
		c.found(r, KindContainer, ProblemContainerLayer, r.Layer, fmt.Sprintf("layer %s: %s", short(r.Layer), ProblemContainerLayer), "")
	}
	return c.data(ctx, r, KindContainer, r.BigDataNames, r.BigDataSizes, r.BigDataDigests)
}

// data looks at the big data that a record names; sizes and digests are nil
// for layers, whose records tell none.
func (c *checker) data(ctx context.Context, o object, k Kind, keys []string, sizes map[string]int64, digests map[string]digest.Digest) error {
	for _, key := range keys {
		bad := func(p Problem, detail string) {
			c.found(o, k, p, key, fmt.Sprintf("data item %q: %s %s", key, k, p), detail)
		}
		f, err := c.t.openData(k, o.id(), key)
		if passing(err) {
			return err
		}
		if err != nil {
			bad(ProblemDataMissing, err.Error())
			continue
		}
		fi, err := f.Stat()
		want, told := sizes[key]
		switch {
		case err != nil:
			bad(ProblemDataMissing, err.Error())
		case told && fi.Size() != want:
			bad(ProblemDataSize, fmt.Sprintf("it has %d bytes, its record says %d", fi.Size(), want))
		case c.o.Level >= CheckData && digests[key] != "":
			var sum digest.Digest
			if sum, err = digestOf(ctx, f); err == nil && sum != digests[key] {
				bad(ProblemDataDigest, fmt.Sprintf("it has %s, its record says %s", sum, digests[key]))
			} else if err != nil && !passing(err) {
				bad(ProblemDataMissing, err.Error())
			}
		}
		if err := errors.Join(ctx.Err(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// unrecorded reports what is on disk and has no record. While the records
// cannot all be read nothing is: it would be taken for what may be removed.
func (c *checker) unrecorded(k Kind) {
	if c.t.st.part(k).broken() != nil {
		return
	}
	seen := map[string]bool{}
	recordless := c.t.recordless(k)
	note := func(id string, p Problem, where string) {
		if !seen[id] && c.wants(k, id) && recordless(id) {
			seen[id] = true
			c.report.add(Finding{Kind: k, ID: id, Problem: p, Detail: fmt.Sprintf("it is in %s and is left as it is", where)})
		}
	}
	if k == KindLayer {
		for _, id := range c.driver {
			note(id, ProblemUnaccounted, "the driver's folder")
		}
	}
	dir := c.s.kindDir(k)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && c.o.ID == "" {
		c.report.add(Finding{Kind: k, Problem: ProblemFile, Detail: err.Error(), text: fmt.Sprintf("%s cannot be listed", dir)})
	}
	for _, e := range entries {
		if id, ok := dataOf(e); ok {
			note(id, ProblemLeftover, filepath.Join(dir, e.Name()))
		}
	}
}

func (c *checker) progress(k Kind, id string, read, size int64) {
	if c.o.Progress == nil {
		return
	}
	if read == 0 {
		c.object++
	}
	all := 1
	if c.o.ID == "" {
		all = c.t.Len(KindLayer) + c.t.Len(KindImage) + c.t.Len(KindContainer)
	}
	c.o.Progress(CheckProgress{Kind: k, ID: id, Object: c.object, Objects: all, Read: read, Size: size})
}

// confirmed drops what others changed while the check ran: it looks again
// whether the records are the same, and what had none still has none.
func (c *checker) confirmed(ctx context.Context) (*CheckReport, error) {
	out := newReport()
	err := c.s.View(ctx, func(t *Tx) error {
		needed := c.needed
		if t.st != c.t.st {
			needed = t.neededLayers()
		}
		recordless := [numKinds]func(string) bool{}
		for k := range recordless {
			recordless[k] = t.recordless(Kind(k))
		}
		for f := range c.report.All() {
			now := t.st.of(f.Kind).anyOf(f.ID)
			switch {
			case f.own != nil && now != f.own, f.own != nil && !t.stillWrong(f, needed):
			case f.Problem == ProblemUnaccounted && (!recordless[f.Kind](f.ID) || !c.s.inDriver(f.ID)):
			case f.Problem == ProblemLeftover && (!recordless[f.Kind](f.ID) || !c.s.hasData(f.Kind, f.ID)):
			default:
				out.add(f)
			}
		}
		return nil
	})
	if err != nil {
		return c.report, err
	}
	return out, nil
}

// stillWrong looks again at findings about what an unchanged record refers to.
func (t *Tx) stillWrong(f Finding, needed map[string]bool) bool {
	switch f.Problem {
	case ProblemImageLayer, ProblemContainerLayer:
		return t.LayerByID(f.Subject) == nil
	case ProblemContainerImage:
		return t.ImageByID(f.Subject) == nil
	case ProblemUnreferenced:
		return !needed[f.ID]
	}
	return true
}

// digestOf reads r to its end.
func digestOf(ctx context.Context, r io.Reader) (digest.Digest, error) {
	return digest.Canonical.FromReader(&contextReader{ctx, r})
}

func (s *Store) inDriver(id string) bool {
	if s.driver == nil {
		return false
	}
	has, err := s.driver.Has(id)
	return has || errors.Is(err, errno.ErrDamaged)
}

// hasData tells whether a kind's directory has something of an ID.
func (s *Store) hasData(k Kind, id string) bool {
	_, err := os.Lstat(s.objectDir(k, id))
	if err != nil && k == KindLayer {
		_, err = os.Lstat(s.splitPath(id))
	}
	return err == nil
}
