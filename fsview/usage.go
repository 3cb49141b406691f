package fsview

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
)

// usageWidth is how wide the numbers of a file usage are: that way its size is
// known before anything was counted.
const usageWidth = 20

var _ vnode.Statfser = (*baseNode)(nil)

// Statfs implements vnode.Statfser: the whole control tree shows the filesystem
// of the store.
func (n *baseNode) Statfs(context.Context) (st syscall.Statfs_t, err error) {
	if err := syscall.Statfs(n.fs.store.GraphRoot(), &st); err != nil {
		return st, fmt.Errorf("the filesystem of the store: %w", err)
	}
	// Names are as long as in any directory of ours, whatever is below.
	st.Namelen = maxEntry
	return st, nil
}

// objectUsage is what an object takes on disk.
type objectUsage struct {
	// own is what nothing else needs, shared what others need as well, and
	// free what deleting the object would give back now.
	own, shared, free drivers.Usage
}

func (u objectUsage) text() []byte {
	var b strings.Builder
	for _, l := range []struct {
		key string
		n   int64
	}{
		{"own-bytes", u.own.Bytes}, {"own-inodes", u.own.Inodes},
		{"shared-bytes", u.shared.Bytes}, {"shared-inodes", u.shared.Inodes},
		{"reclaimable-bytes", u.free.Bytes}, {"reclaimable-inodes", u.free.Inodes},
	} {
		fmt.Fprintf(&b, "%-18s %*d\n", l.key, usageWidth, l.n)
	}
	return []byte(b.String())
}

func usageSize(context.Context, place) (int64, bool) { return int64(len(objectUsage{}.text())), true }

// openUsage counts when the file is opened; layers that cannot change are
// counted once.
func openUsage(ctx context.Context, p place) (blob, error) {
	u, err := p.usage(ctx)
	if err != nil {
		return nil, fmt.Errorf("counting what %s takes: %w", p.label(), err)
	}
	text := u.text()
	return &readerBlob{strings.NewReader(string(text)), int64(len(text)), nothing}, nil
}

func (p place) usage(ctx context.Context) (objectUsage, error) {
	switch p.row.obj {
	case objLayer:
		return p.layerUsage(ctx)
	case objImage:
		return p.imageUsage(ctx)
	}
	return p.containerUsage(ctx)
}

func (p place) layerUsage(ctx context.Context) (u objectUsage, err error) {
	l, err := p.layer()
	if err != nil {
		return u, err
	}
	if u.own, err = p.ownUsage(ctx, l); err != nil {
		return u, err
	}
	below, err := p.layersBelow(l.ID)
	if err != nil {
		return u, err
	}
	if u.shared, err = p.sum(ctx, below); err != nil {
		return u, err
	}
	if len(p.users()) == 0 && !l.ReadOnly && !p.mounted() {
		u.free = u.own
	}
	return u, nil
}

// imageUsage counts the layers that would go with the image as its own, its
// other layers as shared.
func (p place) imageUsage(ctx context.Context) (u objectUsage, err error) {
	i, err := p.image()
	if err != nil {
		return u, err
	}
	if u.own, err = p.dataUsage(ctx, store.KindImage, i.ID); err != nil {
		return u, err
	}
	goes := map[string]bool{}
	orphans := p.tx.Orphans(i.ID)
	for _, l := range orphans {
		goes[l.ID] = true
	}
	own, err := p.sum(ctx, orphans)
	if err != nil {
		return u, err
	}
	u.own = u.own.Plus(own)
	shared, err := p.layersBelow(i.TopLayer)
	if err != nil {
		return u, err
	}
	if top := p.tx.LayerByID(i.TopLayer); top != nil {
		shared = append(shared[:len(shared):len(shared)], top)
	}
	for _, id := range i.MappedLayers {
		if l := p.tx.LayerByID(id); l != nil {
			shared = append(shared, l)
		}
	}
	var others []*store.Layer
	for _, l := range shared {
		if !goes[l.ID] {
			others = append(others, l)
		}
	}
	if u.shared, err = p.sum(ctx, others); err != nil {
		return u, err
	}
	if len(p.users()) == 0 && !i.ReadOnly {
		u.free = u.own
	}
	return u, nil
}

func (p place) containerUsage(ctx context.Context) (u objectUsage, err error) {
	c, err := p.container()
	if err != nil {
		return u, err
	}
	if u.own, err = p.dataUsage(ctx, store.KindContainer, c.ID); err != nil {
		return u, err
	}
	if l := p.tx.LayerByID(c.Layer); l != nil {
		own, err := p.ownUsage(ctx, l)
		if err != nil {
			return u, err
		}
		u.own = u.own.Plus(own)
	}
	below, err := p.layersBelow(c.Layer)
	if err != nil {
		return u, err
	}
	if u.shared, err = p.sum(ctx, below); err != nil {
		return u, err
	}
	if !p.mounted() {
		u.free = u.own
	}
	return u, nil
}

// layersBelow returns the layers whose content a layer shows but does not hold
// itself: none with a driver of whole copies.
func (p place) layersBelow(id string) ([]*store.Layer, error) {
	chain := p.tx.Chain(id)
	if len(chain) < 2 {
		return nil, nil
	}
	dirs, err := p.fs.store.Dirs(id)
	if err != nil || len(dirs) < 2 {
		return nil, err
	}
	return chain[1:], nil
}

func (p place) sum(ctx context.Context, layers []*store.Layer) (drivers.Usage, error) {
	var sum drivers.Usage
	for _, l := range layers {
		u, err := p.ownUsage(ctx, l)
		if err != nil {
			return sum, err
		}
		sum = sum.Plus(u)
	}
	return sum, nil
}

// ownUsage is what a layer holds itself, with its data items.
func (p place) ownUsage(ctx context.Context, l *store.Layer) (drivers.Usage, error) {
	u, err := p.fs.usages.of(ctx, p, l)
	if err != nil {
		return u, err
	}
	data, err := p.dataUsage(ctx, store.KindLayer, l.ID)
	return u.Plus(data), err
}

// dataUsage is what an object's data items, and what its user put into its
// directories, take.
func (p place) dataUsage(ctx context.Context, kind store.Kind, id string) (drivers.Usage, error) {
	dir, run := p.tx.UserDirs(kind, id)
	var sum drivers.Usage
	for _, d := range []string{filepath.Dir(dir), filepath.Dir(run)} {
		u, err := drivers.UsageBelow(ctx, d)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return sum, err
		}
		sum = sum.Plus(u)
	}
	return sum, nil
}

// usageCache remembers what layers take. A layer that cannot change is counted
// once, one that could be mounted for writing once a generation of the store
// (mounting makes a new one), a mounted one each time.
type usageCache struct {
	mu    sync.Mutex
	known map[string]usageOf // by layer ID; guarded by mu
}

type usageOf struct {
	diff    digest.Digest
	created time.Time
	gen     uint64 // 0 for good
	usage   drivers.Usage
}

// maxUsages bounds the memory of usageCache.
const maxUsages = 16384

func (c *usageCache) of(ctx context.Context, p place, l *store.Layer) (drivers.Usage, error) {
	want := usageOf{diff: l.DiffDigest, created: l.Created}
	m, _ := p.tx.Mountpoint(l.ID)
	if p.mayChange(l) {
		want.gen = p.tx.Generation()
	}
	c.mu.Lock()
	have, ok := c.known[l.ID]
	c.mu.Unlock()
	if ok && m.Count == 0 && have.diff == want.diff && have.created.Equal(want.created) && have.gen == want.gen {
		return have.usage, nil
	}
	d := p.fs.store.Driver()
	if d == nil {
		return want.usage, errno.New(errno.ErrNotSupported, "the store was opened without a driver, so that nothing can be counted")
	}
	var err error
	if want.usage, err = drivers.UsageOf(ctx, d, l.ID); err != nil {
		return want.usage, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= maxUsages {
		c.known = map[string]usageOf{}
	}
	c.known[l.ID] = want
	return want.usage, nil
}
