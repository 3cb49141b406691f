package store_test

import (
	"context"
	"errors"
	"testing"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

// A brief store watches nothing, and still reads what others have written.
func TestBriefStoreSeesOthers(t *testing.T) {
	t.Parallel()
	e := newLifeEnv(t, "overlay")
	o := e.options()
	o.Brief = true
	brief, err := store.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, brief)
	other := e.open()
	l := importLayer(t, other, store.LayerSpec{Names: []string{"seen"}}, makeTar(t, entry{name: "f", text: "x"}))
	err = brief.View(context.Background(), func(tx *store.Tx) error {
		got, err := tx.Layer("seen")
		if err == nil && got.ID != l.ID {
			t.Errorf("found %s, want %s", got.ID, l.ID)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if _, err := brief.CreateLayer(context.Background(), store.LayerSpec{Parent: l.ID}); err != nil {
		t.Error(err)
	}
}

func closeStore(t *testing.T, s *store.Store) {
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Every way to sync makes the same layer; others are refused.
func TestSyncPolicies(t *testing.T) {
	t.Parallel()
	for _, p := range []store.SyncPolicy{"", store.SyncNone, store.SyncFilesystem, store.SyncFile, "sometimes"} {
		e := newLifeEnv(t, "overlay")
		o := e.options()
		o.Sync = p
		s, err := store.Open(context.Background(), o)
		if p == "sometimes" {
			if !errors.Is(err, errno.ErrBadValue) {
				t.Errorf("%q: %v", p, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		stream := makeTar(t, entry{name: "d/"}, entry{name: "d/f", text: "x"})
		l := importLayer(t, s, store.LayerSpec{}, stream)
		if got := export(t, s, l.ID); got != l.DiffDigest.Encoded() {
			t.Errorf("%q: exported as %s", p, got)
		}
		closeStore(t, s)
	}
}
