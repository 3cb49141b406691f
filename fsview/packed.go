package fsview

import (
	"context"
	"fmt"
	"io"

	"github.com/plyfs/plyfs/internal/layertar"
)

// packedDiff makes the content of diff.tar.gz and the like.
func packedDiff(kind layertar.Compression) func(context.Context, place) (blob, error) {
	return func(ctx context.Context, p place) (blob, error) {
		id, ok := p.layerID()
		if !ok {
			return nil, p.missing()
		}
		t, err := p.fs.store.DiffTar(ctx, id)
		if err != nil {
			return nil, err
		}
		return newGenerated(func(ctx context.Context, w io.Writer) error {
			z, err := layertar.Compress(w, kind)
			if err != nil {
				return fmt.Errorf("compressing the diff: %w", err)
			}
			if _, err := t.Copy(ctx, z); err != nil {
				return firstOf(err, z.Close())
			}
			return z.Close()
		}, t.Close), nil
	}
}
