package fsview

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
)

// FS is a control tree. It is safe for use by many goroutines.
type FS struct {
	opts  Options
	store *store.Store
	log   *logrus.Entry
	rows  []Row
	paths map[string]*Row
	root  *Row
	born  time.Time

	errs   errLog
	events eventCache
	sizes  sizeCache
	usages usageCache
	damage damageCache
	jobs   jobs
	index  atomic.Pointer[index]

	mu   sync.Mutex
	held map[string]heldMount // layer ID → mount path, for mounts taken here; guarded by mu
	// unsubscribe ends the look at each state for the mounts held; guarded by mu.
	unsubscribe func()
	taking      map[string]chan struct{} // layers that are being mounted or let go; guarded by mu
	folders     map[store.Kind]folderSet // empty folders of by-name; guarded by mu
	drafts      map[string]*draft        // guarded by mu
	writers     map[where][]*valueHandle // handles open for writing; guarded by mu
	closed      bool                     // guarded by mu

	arrivals arrivals
}

// New returns the control tree of o.Store. It holds nothing until it is used.
func New(o Options) (*FS, error) {
	if o.Store == nil {
		return nil, errno.New(errno.ErrBadValue, "the control tree needs a store")
	}
	if o.BigDataLimit == 0 {
		o.BigDataLimit = DefaultBigDataLimit
	}
	if o.BigDataLimit < 0 {
		return nil, errno.New(errno.ErrBadValue, "the limit for big data is %d bytes: give a positive number", o.BigDataLimit)
	}
	f := &FS{
		opts: o, store: o.Store, log: o.Log, rows: table(), born: time.Now(),
		held: map[string]heldMount{}, taking: map[string]chan struct{}{},
		folders: map[store.Kind]folderSet{}, drafts: map[string]*draft{},
		writers: map[where][]*valueHandle{}, arrivals: arrivals{names: map[string]*arrival{}},
	}
	var err error
	if f.root, f.paths, err = plant(f.rows); err == nil && o.KeepDrafts {
		err = f.loadDrafts()
	}
	return f, err
}

// Root returns the root directory.
func (f *FS) Root() vnode.Node { return f.node(where{row: f.root}) }

// Table returns the rows of the tree, for its documentation.
func (f *FS) Table() []Row { return f.rows }

// Table returns the rows of every control tree.
func Table() []Row { return table() }

// Close gives back the mounts that were taken for merged/ and discards drafts,
// or with KeepDrafts keeps them for the next command.
// It returns every error; the tree must not be used any more.
func (f *FS) Close(ctx context.Context) error {
	f.mu.Lock()
	f.closed = true
	drafts := f.drafts
	f.drafts = map[string]*draft{}
	unsubscribe := f.unsubscribe
	f.unsubscribe = nil
	f.mu.Unlock()
	if unsubscribe != nil {
		defer unsubscribe()
	}
	var errs []error
	if f.opts.KeepDrafts {
		errs = append(errs, f.saveDrafts(drafts))
	}
	for _, d := range drafts {
		errs = append(errs, d.discard())
	}
	return errors.Join(append(errs, f.releaseAll(ctx))...)
}

// snapshotKey is what a context carries a snapshot under.
type snapshotKey struct{}

// snapshot is the state that all of a request shows.
type snapshot struct {
	fs *FS
	tx *store.Tx
}

// Snapshot implements vnode.Snapshotter.
func (n *dirNode) Snapshot(ctx context.Context) context.Context {
	tx, err := n.fs.view(ctx)
	if err != nil {
		return ctx // who asks next is told
	}
	return context.WithValue(ctx, snapshotKey{}, snapshot{n.fs, tx})
}

// view returns the present state of the store, or that of ctx.
func (f *FS) view(ctx context.Context) (*store.Tx, error) {
	if s, ok := ctx.Value(snapshotKey{}).(snapshot); ok && s.fs == f {
		return s.tx, nil
	}
	var tx *store.Tx
	err := f.store.View(ctx, func(t *store.Tx) error {
		tx = t
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the store: %w", err)
	}
	return tx, nil
}

// place binds w to the present state, and fails when its object is gone.
func (f *FS) place(ctx context.Context, w where) (place, error) {
	tx, err := f.view(ctx)
	if err != nil {
		return place{}, err
	}
	p := place{where: w, fs: f, tx: tx}
	if !p.exists() {
		return p, p.gone()
	}
	return p, nil
}

// ino returns the inode number of w: the first 64 bits of a hash of what it
// is, so that it is the same at every mount. 0, 1 and ^0 are not used but by
// the root, which is 1.
func (w where) ino() uint64 {
	if w.row.parent == nil {
		return 1
	}
	return hashIno(w.row.Path, w.id, w.arg)
}

func hashIno(parts ...string) uint64 {
	h := sha256.New()
	var n [8]byte
	for _, s := range parts {
		binary.LittleEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	var sum [sha256.Size]byte
	ino := binary.LittleEndian.Uint64(h.Sum(sum[:0]))
	if ino <= 1 || ino == ^uint64(0) {
		ino = 2
	}
	return ino
}

// key names a subtree for Trees.
func (w where) key() string { return w.row.Path + "\x00" + w.id + "\x00" + w.arg }

// writable refuses changes of a tree that is mounted read-only.
func (f *FS) writable() error {
	f.mu.Lock()
	closed := f.closed
	f.mu.Unlock()
	switch {
	case closed:
		return errno.New(errno.ErrReadOnly, "the control filesystem is being unmounted: nothing can be changed any more")
	case f.opts.ReadOnly || f.store.Options().ReadOnly:
		return errno.New(errno.ErrReadOnly, "the control filesystem is mounted read-only: mount it without `ro` to change something")
	}
	return nil
}
