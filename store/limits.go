package store

import (
	"context"
	"errors"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
)

// limitTarget is the layer that ref names: a container's, or a layer.
func (t *Tx) limitTarget(ref string) (*Layer, error) {
	c, err := t.Container(ref)
	switch {
	case err == nil:
		if l := t.LayerByID(c.Layer); l != nil {
			return l, nil
		}
		return nil, errno.New(errno.ErrDamaged, "container %s: its layer %s is missing", c.ID, c.Layer)
	case !errors.Is(err, errno.ErrUnknown):
		return nil, err
	}
	return t.Layer(ref)
}

// Limits returns what bounds the layer of a container, or a layer, and, where
// there is a bound, what counts against it; no lock is held. ErrUnknown.
func (s *Store) Limits(ctx context.Context, ref string) (l drivers.Limits, used drivers.Usage, err error) {
	if s.driver == nil {
		return l, used, s.writable()
	}
	var id string
	err = s.View(ctx, func(t *Tx) error {
		layer, err := t.limitTarget(ref)
		if err == nil {
			id = layer.ID
		}
		return err
	})
	if err != nil {
		return l, used, err
	}
	return drivers.LimitsOf(s.driver, id)
}

// SetLimits bounds the layer of a container, or a layer, from now on; 0 takes a
// bound away. Files are looked at when it is the first bound, with no lock held:
// a kill then leaves some of them uncounted, and calling it again mends that.
// ErrNotSupported, with the reason, where nothing would hold the bound;
// ErrReadOnly; ErrInUse when the layer is mounted and has had none.
func (s *Store) SetLimits(ctx context.Context, ref string, l drivers.Limits) error {
	if err := s.writable(); err != nil {
		return err
	}
	var id string
	err := s.View(ctx, func(t *Tx) error {
		layer, err := t.limitTarget(ref)
		switch {
		case err != nil:
			return err
		case layer.ReadOnly:
			return errno.New(errno.ErrReadOnly, "layer %s belongs to a read-only store and cannot be bounded", layer.ID)
		}
		id = layer.ID
		return nil
	})
	if err != nil {
		return err
	}
	return drivers.SetLimits(s.driver, id, l)
}
