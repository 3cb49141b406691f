package drivers

import (
	"context"

	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// Differ is a driver that knows what a layer changed without comparing trees.
type Differ interface {
	// NativeDiff returns the source of the difference of id to parent ("" for
	// an empty tree). ok is false, without error, when only a comparison
	// tells: parent is not the layer's own, or the layer's directory does not
	// show its changes.
	NativeDiff(id, parent string) (s layertar.Source, ok bool, err error)
}

// Styler is a driver whose layers hold whiteouts.
type Styler interface {
	// Style is how whiteouts are written in the directories of Dirs.
	Style() whiteout.Style
}

// StyleOf returns the style of d's layers: Apply (no marks) unless d says
// otherwise.
func StyleOf(d Driver) whiteout.Style {
	if s, ok := d.(Styler); ok {
		return s.Style()
	}
	return whiteout.Apply
}

// DiffSource says what the difference of layer id to parent ("" for an empty
// tree; any layer, not only the real parent) is made from. Maps are left to
// the caller, who knows the layers' records.
func DiffSource(d Driver, id, parent string) (layertar.Source, error) {
	if n, can := d.(Differ); can {
		s, ok, err := n.NativeDiff(id, parent)
		if err != nil || ok {
			return s, err
		}
	}
	return CompareSource(d, id, parent)
}

// CompareSource is DiffSource by comparison of the whole trees, also where the
// layer's directory alone tells. An empty id is an empty tree, too.
func CompareSource(d Driver, id, parent string) (layertar.Source, error) {
	s := layertar.Source{UpperStyle: StyleOf(d)}
	var err error
	if id != "" {
		if s.New, err = d.Dirs(id); err != nil {
			return layertar.Source{}, err
		}
	}
	if parent != "" {
		if s.Old, err = d.Dirs(parent); err != nil {
			return layertar.Source{}, err
		}
	}
	return s, nil
}

// Shutdowner is a driver that keeps something mounted beside its layers.
type Shutdowner interface {
	// Shutdown takes it away; the caller has unmounted the layers. The driver
	// works on afterwards and mounts it again when it needs it.
	Shutdown(ctx context.Context) error
}

// Shutdown lets d put away what it keeps mounted beside its layers, if it does.
func Shutdown(ctx context.Context, d Driver) error {
	if s, ok := d.(Shutdowner); ok {
		return s.Shutdown(ctx)
	}
	return nil
}
