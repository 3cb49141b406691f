package store_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/lockfile"
	"github.com/plyfs/plyfs/store"
)

// autoEnv is a store with subordinate IDs of its own: 10,000 from 100000 on,
// in two lines.
func autoEnv(t *testing.T, driver string) (*lifeEnv, func(store.Options) store.Options) {
	t.Helper()
	e := newLifeEnv(t, driver)
	file := filepath.Join(t.TempDir(), "sub")
	text := "other:1:70000\ncontainers:100000:5000\ncontainers:105000:5000\nfew:1000:10\n"
	want(t, os.WriteFile(file, []byte(text), 0o644), nil)
	return e, func(o store.Options) store.Options { return store.WithSubIDFiles(o, file, file) }
}

func (e *lifeEnv) openWith(change func(store.Options) store.Options) *store.Store {
	e.t.Helper()
	s, err := store.Open(context.Background(), change(e.options()))
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			e.t.Error(err)
		}
	})
	return s
}

// Containers get ID maps that no other has, of the size that their image
// needs, until there are none left; IDs of deleted ones are given again.
func TestAutoMaps(t *testing.T) {
	t.Parallel()
	e, subs := autoEnv(t, "vfs")
	ctx := context.Background()
	s := e.openWith(subs)
	importLayer(t, s, store.LayerSpec{ID: "base"}, ownedTar(t, "a 0 0", "b 2999 1"))
	get(t, s.CreateImage, ctx, store.ImageSpec{ID: "img", Layer: "base"})
	e.peer("create-container", "--id", "peers", "--uidmap", "0:101000:10", "--gidmap", "0:100000:10", "")
	create := func(id string, a store.AutoMaps, image string) (*store.Container, error) {
		return s.CreateContainer(ctx, store.ContainerSpec{ID: id, Image: image, Auto: &a})
	}
	first, err := create("first", store.AutoMaps{}, "img")
	want(t, err, nil)
	if first.Maps.UIDs[0] != (idmap.Range{HostID: 101010, Size: 3000}) || first.Maps.GIDs[0] != (idmap.Range{HostID: 100010, Size: 3000}) {
		t.Errorf("maps %v", first.Maps)
	}
	second, err := create("second", store.AutoMaps{MinSize: 500}, "")
	want(t, err, nil)
	if second.Maps.UIDs[0] != (idmap.Range{HostID: 100000, Size: 500}) {
		t.Errorf("maps %v", second.Maps)
	}
	_, err = create("big", store.AutoMaps{Size: 9000}, "")
	want(t, err, errno.ErrQuota)
	_, err = create("bigger", store.AutoMaps{MaxSize: 2000}, "img")
	want(t, err, errno.ErrBadValue)
	_, err = create("nobody", store.AutoMaps{User: "nobody-has-this-name"}, "")
	want(t, err, errno.ErrNotSupported)
	want(t, s.DeleteContainer(ctx, "first"), nil)
	again, err := create("again", store.AutoMaps{Size: 4000}, "")
	want(t, err, nil)
	if again.Maps.UIDs[0].HostID != 101010 {
		t.Errorf("maps %v", again.Maps)
	}
}

// What a container's AutoMaps leave open is as the store's options say, and
// what they say is not.
func TestAutoMapsOfTheStore(t *testing.T) {
	t.Parallel()
	e, subs := autoEnv(t, "vfs")
	ctx := context.Background()
	s := e.openWith(func(o store.Options) store.Options {
		o.Auto = store.AutoMaps{User: "other", MinSize: 1500, MaxSize: 2000, Size: 7}
		return subs(o)
	})
	for _, c := range []struct {
		id    string
		asked store.AutoMaps
		want  idmap.Range
		err   error
	}{
		{"open", store.AutoMaps{}, idmap.Range{HostID: 1, Size: 1500}, nil},
		{"user", store.AutoMaps{User: "containers"}, idmap.Range{HostID: 100000, Size: 1500}, nil},
		{"min", store.AutoMaps{MinSize: 20}, idmap.Range{HostID: 1501, Size: 20}, nil},
		{"most", store.AutoMaps{Size: 2001}, idmap.Range{}, errno.ErrBadValue},
		{"max", store.AutoMaps{Size: 2001, MaxSize: 3000}, idmap.Range{HostID: 1521, Size: 2001}, nil},
	} {
		asked := c.asked
		got, err := s.CreateContainer(ctx, store.ContainerSpec{ID: c.id, Auto: &asked})
		want(t, err, c.err)
		if asked != c.asked {
			t.Errorf("%s: the caller's AutoMaps are %v now", c.id, asked)
		}
		if err == nil && (got.Maps.UIDs[0] != c.want || got.Maps.GIDs[0] != c.want) {
			t.Errorf("%s: maps %v, want %v", c.id, got.Maps, c.want)
		}
	}
}

// Containers that are made at once, by several processes as it were, never
// share an ID, and wait for a peer that is choosing.
func TestAutoMapsTogether(t *testing.T) {
	t.Parallel()
	e, subs := autoEnv(t, "overlay")
	ctx := context.Background()
	stores := []*store.Store{e.openWith(subs), e.openWith(subs), e.openWith(subs)}
	peer := lockfile.New(filepath.Join(e.root, "userns.lock"), lockfile.Options{Timeout: time.Minute})
	held, err := peer.Lock(ctx, "a peer")
	want(t, err, nil)
	var wg sync.WaitGroup
	for i := range 9 {
		wg.Go(func() {
			_, err := stores[i%3].CreateContainer(ctx, store.ContainerSpec{Auto: &store.AutoMaps{Size: 1000}})
			if err != nil {
				t.Error(err)
			}
		})
	}
	view(t, stores[0], func(tx *store.Tx) error {
		if n := tx.Len(store.KindContainer); n != 0 {
			t.Errorf("%d containers were made while a peer was choosing", n)
		}
		return nil
	})
	want(t, held.Unlock(), nil)
	wg.Wait()
	want(t, peer.Close(), nil)
	view(t, stores[0], func(tx *store.Tx) error {
		seen := map[int]string{}
		for c := range tx.Containers() {
			for id := range 1000 {
				host, ok := idmap.Translate(c.Maps.UIDs, id)
				if !ok || seen[host] != "" {
					t.Fatalf("ID %d of %s and of %q", host, c.ID, seen[host])
				}
				seen[host] = c.ID
			}
		}
		if len(seen) != 9000 {
			t.Errorf("%d IDs are given out, want 9000", len(seen))
		}
		return nil
	})
}
