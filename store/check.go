package store

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"
)

// DefaultUnreferencedAge is how old a layer is, unless CheckOptions say
// otherwise, when that nothing refers to it counts as a finding.
const DefaultUnreferencedAge = 24 * time.Hour

// CheckLevel says how much Check reads.
type CheckLevel uint8

// The levels of a check, each including those before it.
const (
	// CheckQuick looks at records, what they refer to, and whether files and
	// directories are there, with the sizes that records tell.
	CheckQuick CheckLevel = iota
	// CheckData also reads big data and compares digests.
	CheckData
	// CheckFull also reads all layers: the stream that made each must come
	// back with its digest, and nothing may have been added to its tree,
	// removed from it or changed.
	CheckFull
)

// CheckOptions say what Check looks at. The zero value is a quick check of
// everything.
type CheckOptions struct {
	Level CheckLevel
	// UnreferencedAge is the age from which on a layer that no image or
	// container needs is a finding; 0 is DefaultUnreferencedAge, below 0 none is.
	UnreferencedAge time.Duration
	// Kind and ID, when ID is set, restrict the check to one object.
	Kind Kind
	ID   string
	// Progress, when set, is called as content is read, from the goroutine
	// that Check was called in. It must be quick.
	Progress func(CheckProgress)
}

// CheckProgress tells where a check is.
type CheckProgress struct {
	Kind Kind
	ID   string
	// Object counts the objects begun, of Objects.
	Object, Objects int
	// Read and Size are the bytes of the object's content that were read, and
	// that there are, as far as it is known.
	Read, Size int64
}

// Problem is a class of damage; its text ends what a finding says.
type Problem string

// The problems. The first eleven have the peers' words.
const (
	ProblemUnaccounted    Problem = "layer in lower level storage driver not accounted for"
	ProblemUnreferenced   Problem = "layer not referenced by any images or containers"
	ProblemDigest         Problem = "layer content incorrect digest"
	ProblemIntegrity      Problem = "file integrity checksum failed"
	ProblemModified       Problem = "layer content modified"
	ProblemImageLayer     Problem = "image layer is missing"
	ProblemContainerImage Problem = "image missing"
	ProblemDataMissing    Problem = "data item is missing"
	ProblemDataSize       Problem = "data item has incorrect size"
	ProblemDataDigest     Problem = "data item has incorrect digest"
	ProblemInUse          Problem = "layer is in use by a container"
	// ProblemContainerLayer is a container whose own layer is gone.
	ProblemContainerLayer Problem = "container layer is missing"
	// ProblemParent is a layer whose chain of parents ends too early, or in itself.
	ProblemParent Problem = "parent layer is missing"
	// ProblemDirectory is a layer that the driver has not got, or not whole.
	ProblemDirectory Problem = "layer directory is missing or damaged"
	// ProblemLinks is a layer that lost parts which the driver can make again.
	ProblemLinks Problem = "layer links are missing or damaged"
	// ProblemUnread is a layer whose files could not be read, for whatever reason.
	ProblemUnread Problem = "layer content cannot be read"
	// ProblemSplit is a layer whose tar-split record is gone or cannot be read.
	ProblemSplit Problem = "layer tar-split record is missing or damaged"
	// ProblemIncomplete is a record that a killed process left half made.
	ProblemIncomplete Problem = "incomplete"
	// ProblemRecord is a record with a member that cannot be understood.
	ProblemRecord Problem = "record cannot be understood"
	// ProblemStray is an element of a record file that is not shown: it is no
	// record, or one of two with the same ID.
	ProblemStray Problem = "record is not shown"
	// ProblemFile is a record file that cannot be read to its end.
	ProblemFile Problem = "record file is damaged"
	// ProblemMounts is a table of mounts that cannot be read.
	ProblemMounts Problem = "table of mounts is damaged"
	// ProblemMountCount is a layer that the table of mounts has as mounted, where nothing is.
	ProblemMountCount Problem = "layer is counted as mounted but is not mounted here"
	// ProblemLeftover is data on disk that no record accounts for.
	ProblemLeftover Problem = "data without a record"
)

// Finding is one thing that is wrong. Its text is what follows `layer ID: `
// (or the like) in the peers' `check`, and its JSON form.
type Finding struct {
	Kind Kind
	// ID is the object's, or "" where there is none.
	ID       string
	ReadOnly bool // it belongs to an additional store
	Problem  Problem
	// Subject is what the problem is about, other than the object itself: a
	// layer, an image, a data item's key, or paths.
	Subject string
	// Detail is a sentence for people, or "".
	Detail string

	// own is the record that was looked at, to tell whether it is still there.
	own object
	// text overrides what String says.
	text string
}

// String returns the peers' words for the finding, without the object.
func (f Finding) String() string {
	if f.text != "" {
		return f.text
	}
	return string(f.Problem)
}

// Line is a line of the peers' `check`.
func (f Finding) Line() string {
	if f.ID == "" {
		return fmt.Sprintf("%s: %s", f.Kind.Plural(), f)
	}
	return fmt.Sprintf("%s %s: %s", f.Kind, f.ID, f)
}

// MarshalJSON yields the text.
func (f Finding) MarshalJSON() ([]byte, error) { return json.Marshal(f.String()) }

// CheckReport is what Check found, by object; an empty one means that nothing
// is wrong. In JSON it has the peers' form, and `Files` when there are any.
type CheckReport struct {
	Layers, ROLayers map[string][]Finding
	Images, ROImages map[string][]Finding
	Containers       map[string][]Finding
	// Files are findings that belong to no object.
	Files []Finding `json:",omitempty"`
}

func newReport() *CheckReport {
	return &CheckReport{
		Layers: map[string][]Finding{}, ROLayers: map[string][]Finding{},
		Images: map[string][]Finding{}, ROImages: map[string][]Finding{},
		Containers: map[string][]Finding{},
	}
}

// of returns the map that findings of a kind are in.
func (r *CheckReport) of(k Kind, readOnly bool) map[string][]Finding {
	switch {
	case k == KindLayer && readOnly:
		return r.ROLayers
	case k == KindLayer:
		return r.Layers
	case k == KindImage && readOnly:
		return r.ROImages
	case k == KindImage:
		return r.Images
	}
	return r.Containers
}

func (r *CheckReport) add(f Finding) {
	if f.ID == "" {
		r.Files = append(r.Files, f)
		return
	}
	m := r.of(f.Kind, f.ReadOnly)
	m[f.ID] = append(m[f.ID], f)
}

// All iterates over the findings: files, layers, images, containers, each by
// ID, those of additional stores after the store's own.
func (r *CheckReport) All() iter.Seq[Finding] {
	return func(yield func(Finding) bool) {
		for _, f := range r.Files {
			if !yield(f) {
				return
			}
		}
		for _, m := range []map[string][]Finding{r.Layers, r.ROLayers, r.Images, r.ROImages, r.Containers} {
			for _, id := range slices.Sorted(maps.Keys(m)) {
				for _, f := range m[id] {
					if !yield(f) {
						return
					}
				}
			}
		}
	}
}

// Clean tells whether nothing was found.
func (r *CheckReport) Clean() bool {
	for range r.All() {
		return false
	}
	return true
}

// Only returns the part of the report that is about one object; files, which
// are about all of a kind, are left out.
func (r *CheckReport) Only(k Kind, id string) *CheckReport {
	out := newReport()
	for f := range r.All() {
		if f.Kind == k && f.ID == id && id != "" {
			out.add(f)
		}
	}
	return out
}

// Summary is the line that ends the peers' `check`; "" when nothing was found.
func (r *CheckReport) Summary() string {
	if r.Clean() {
		return ""
	}
	count := func(m map[string][]Finding) (n int) {
		for _, list := range m {
			n += len(list)
		}
		return n
	}
	s := fmt.Sprintf("%d layer errors, %d read-only layer errors, %d image errors, %d read-only image errors, %d container errors",
		count(r.Layers), count(r.ROLayers), count(r.Images), count(r.ROImages), count(r.Containers))
	if len(r.Files) > 0 {
		s += fmt.Sprintf(", %d file errors", len(r.Files))
	}
	return s
}

// Check looks for damage and changes nothing. It works on one snapshot and
// holds no lock while it reads; what others changed or deleted meanwhile is
// not reported. Its error is that of a check that could not be made (ctx
// ended, a lock was not to be had, ErrUnknown for o.ID), with what was found
// until then; what is wrong in the store is in the report.
func (s *Store) Check(ctx context.Context, o CheckOptions) (*CheckReport, error) {
	if o.UnreferencedAge == 0 {
		o.UnreferencedAge = DefaultUnreferencedAge
	}
	c := &checker{s: s, o: o, report: newReport()}
	// What the driver has is listed before the records are looked at: a layer
	// gets its record first and loses it last.
	if o.ID == "" || o.Kind == KindLayer {
		c.listDriver()
	}
	err := s.View(ctx, func(t *Tx) error {
		c.t = t
		if o.ID == "" {
			return nil
		}
		id, err := t.Resolve(o.Kind, o.ID)
		if err == nil {
			c.o.ID = id
		} else if !c.unrecordedOnly() {
			return err
		}
		return nil
	})
	if err != nil {
		return c.report, err
	}
	if err = c.run(ctx); err != nil {
		return c.report, fmt.Errorf("check: %w", err)
	}
	return c.confirmed(ctx)
}
