package store

import (
	"context"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
)

type meta struct{ raw string }

// Store is an open store; see the package comment.
type Store struct {
	opts   Options
	driver drivers.Driver
}

// Tx is a consistent snapshot of the store. It may be kept after View returns:
// it never changes and holds no lock.
type Tx struct{ s *Store }

// WriteTx is a Tx that can change the store; it is good only inside Update.
type WriteTx struct{ *Tx }

// MountTable is the run root's table of mounts, by layer ID.
type mountTable map[string]Mountpoint

func Open(ctx context.Context, o Options) (*Store, error)           { return nil, errno.ErrNotSupported }
func (s *Store) Close() error                                       { return nil }
func (s *Store) Driver() drivers.Driver                             { return s.driver }
func (s *Store) GraphRoot() string                                  { return s.opts.GraphRoot }
func (s *Store) RunRoot() string                                    { return s.opts.RunRoot }
func (s *Store) DriverName() string                                 { return s.opts.DriverName }
func (s *Store) Options() Options                                   { return s.opts }
func (s *Store) View(ctx context.Context, fn func(*Tx) error) error { return errno.ErrNotSupported }
func (s *Store) Update(ctx context.Context, fn func(*WriteTx) error) error {
	return errno.ErrNotSupported
}
func (s *Store) Events(since uint64) (events []Event, gap bool) { return nil, false }
func (s *Store) Refresh(ctx context.Context) (uint64, error)    { return 0, nil }

// Settle waits until the current generation is visible in Events.
func (s *Store) Settle(ctx context.Context) error              { return nil }
func (s *Store) Subscribe(fn func(gen uint64)) (cancel func()) { return func() {} }

// path helpers for B: kindDir is <root>/<drv>-layers etc.; runDir <run>/<drv>-layers
func (s *Store) kindDir(k Kind) string { return "" }
func (s *Store) runDir(k Kind) string  { return "" }

func (t *Tx) Generation() uint64                                { return 0 }
func (t *Tx) Layers() iter.Seq[*Layer]                          { return nil }
func (t *Tx) Images() iter.Seq[*Image]                          { return nil }
func (t *Tx) Containers() iter.Seq[*Container]                  { return nil }
func (t *Tx) Len(k Kind) int                                    { return 0 }
func (t *Tx) Layer(ref string) (*Layer, error)                  { return nil, errno.ErrNotSupported }
func (t *Tx) Image(ref string) (*Image, error)                  { return nil, errno.ErrNotSupported }
func (t *Tx) Container(ref string) (*Container, error)          { return nil, errno.ErrNotSupported }
func (t *Tx) LayerByID(id string) *Layer                        { return nil }
func (t *Tx) ImageByID(id string) *Image                        { return nil }
func (t *Tx) ContainerByID(id string) *Container                { return nil }
func (t *Tx) ByName(k Kind, name string) (id string, ok bool)   { return "", false }
func (t *Tx) Resolve(k Kind, ref string) (id string, err error) { return "", errno.ErrNotSupported }
func (t *Tx) Names(k Kind, id string) ([]string, bool)          { return nil, false }
func (t *Tx) IDs(k Kind) []string                               { return nil }
func (t *Tx) Children(layerID string) []*Layer                  { return nil }
func (t *Tx) ImagesOn(layerID string) []*Image                  { return nil }
func (t *Tx) MappedBy(layerID string) []*Image                  { return nil }
func (t *Tx) ContainersOf(imageID string) []*Container          { return nil }
func (t *Tx) ContainersOnLayer(layerID string) []*Container     { return nil }
func (t *Tx) LayersByDigest(d digest.Digest) []*Layer           { return nil }
func (t *Tx) ImagesByDigest(d digest.Digest) []*Image           { return nil }
func (t *Tx) Chain(layerID string) []*Layer                     { return nil }
func (t *Tx) Mountpoint(layerID string) (Mountpoint, bool)      { return Mountpoint{}, false }
func (t *Tx) Damage(k Kind, id string) error                    { return nil }
func (t *Tx) Damaged(k Kind) []Broken                           { return nil }
func (t *Tx) Modified(k Kind) time.Time                         { return time.Time{} }
func (t *Tx) ModTime(k Kind, id string) time.Time               { return time.Time{} }

func (w *WriteTx) SetNames(k Kind, id string, names ...string) error    { return errno.ErrNotSupported }
func (w *WriteTx) AddNames(k Kind, id string, names ...string) error    { return errno.ErrNotSupported }
func (w *WriteTx) RemoveNames(k Kind, id string, names ...string) error { return errno.ErrNotSupported }
func (w *WriteTx) ClaimName(k Kind, id, name string, last bool) error   { return errno.ErrNotSupported }
func (w *WriteTx) RenameName(k Kind, id, old, new string) error         { return errno.ErrNotSupported }
func (w *WriteTx) SetMetadata(k Kind, id, metadata string) error        { return errno.ErrNotSupported }

// Primitives for creation and deletion (creation.go, deletion.go, …).

// addLayer adds a record that the caller made and no longer touches.
// ErrDuplicate for a taken ID or name, ErrBadValue for an unfit one.
func (w *WriteTx) addLayer(l *Layer) error         { return errno.ErrNotSupported }
func (w *WriteTx) addImage(i *Image) error         { return errno.ErrNotSupported }
func (w *WriteTx) addContainer(c *Container) error { return errno.ErrNotSupported }

// editLayer gives fn a private copy of the record, which then takes the old one's place.
// ErrUnknown, ErrReadOnly (an additional store's).
func (w *WriteTx) editLayer(id string, fn func(*Layer) error) error { return errno.ErrNotSupported }
func (w *WriteTx) editImage(id string, fn func(*Image) error) error { return errno.ErrNotSupported }
func (w *WriteTx) editContainer(id string, fn func(*Container) error) error {
	return errno.ErrNotSupported
}

// remove drops the record of (kind, id).
func (w *WriteTx) remove(k Kind, id string) error { return errno.ErrNotSupported }

// setIncomplete sets or drops the flag `incomplete`.
func (w *WriteTx) setIncomplete(k Kind, id string, on bool) error { return errno.ErrNotSupported }

// save saves these kinds now, durably, if they changed, keeping the locks. What was
// saved stays even when the function given to Update fails later.
func (w *WriteTx) save(kinds ...Kind) error { return errno.ErrNotSupported }

// editMounts takes mountpoints.lock (a leaf), reads the table, lets fn change it and
// saves it, durably, when it changed; the lock is let go before it returns. The
// change shows in w at once and stays even when Update's function fails later.
func (w *WriteTx) editMounts(fn func(mountTable) error) error { return errno.ErrNotSupported }

// after runs fn once Update has let go of all locks, whatever its outcome
// (removing a stage, …).
func (w *WriteTx) after(fn func()) {}

// ctx returns the context given to Update.
func (w *WriteTx) ctx() context.Context { return nil }
