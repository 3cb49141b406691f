package fsview

import (
	"context"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// packer compresses what is written to it; Close ends the stream.
type packer func(w io.Writer) (io.WriteCloser, error)

func packGzip(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }

// packZstd works in one goroutine: several would keep their buffers for as
// long as a reader that was started is slow.
func packZstd(w io.Writer) (io.WriteCloser, error) {
	return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
}

// packedDiff makes the content of diff.tar.gz and the like.
func packedDiff(pack packer) func(context.Context, place) (blob, error) {
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
			z, err := pack(w)
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
