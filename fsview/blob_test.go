package fsview

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"pgregory.net/rapid"
)

// What a generator writes, in pieces of any size, is what is read, in pieces of
// any size, though some of the reads are interrupted, before anything came or
// while they wait.
func TestGeneratedSurvivesInterrupts(t *testing.T) {
	t.Parallel()
	failed := errors.New("the end")
	rapid.Check(t, func(t *rapid.T) {
		data := rapid.SliceOfN(rapid.Byte(), 0, 2000).Draw(t, "data")
		sizes := rapid.SliceOfN(rapid.IntRange(0, 400), 1, 20).Draw(t, "sizes")
		end := rapid.SampledFrom([]error{nil, failed}).Draw(t, "end")
		gate := make(chan struct{}, 1)
		released := false
		g := newGenerated(func(ctx context.Context, w io.Writer) error {
			for i, rest := 0, data; len(rest) > 0; i++ {
				select {
				case <-gate:
				case <-ctx.Done():
					return ctx.Err()
				}
				n := min(max(1, sizes[i%len(sizes)]), len(rest))
				if _, err := w.Write(rest[:n]); err != nil {
					return err
				}
				rest = rest[n:]
			}
			return end
		}, func() error { released = true; return nil })
		open := func() {
			select {
			case gate <- struct{}{}:
			default:
			}
		}
		var got []byte
		stopAt := rapid.IntRange(0, 3000).Draw(t, "stop")
		for len(got) < stopAt {
			buf := make([]byte, rapid.IntRange(1, 700).Draw(t, "size"))
			ctx, cancel := context.WithCancel(t.Context())
			interrupted := rapid.Bool().Draw(t, "interrupted")
			if interrupted {
				cancel()
				if rapid.Bool().Draw(t, "late") {
					open()
				}
			} else {
				done := make(chan struct{})
				go func() {
					for {
						select {
						case gate <- struct{}{}:
						case <-done:
							return
						}
					}
				}()
				defer close(done)
			}
			n, err := g.readAt(ctx, buf, int64(len(got)))
			cancel()
			got = append(got, buf[:n]...)
			if err == nil || interrupted && errors.Is(err, context.Canceled) {
				continue
			}
			if want := end; want == nil && !errors.Is(err, io.EOF) || want != nil && !errors.Is(err, want) {
				t.Fatalf("after %d bytes: %v, want %v", len(got), err, want)
			}
			if len(got) != len(data) {
				t.Fatalf("%d bytes of %d, then %v", len(got), len(data), err)
			}
			break
		}
		if !bytes.Equal(got, data[:len(got)]) {
			t.Fatal("other bytes")
		}
		if err := g.close(); err != nil || !released {
			t.Fatalf("close: %v, released: %v", err, released)
		}
	})
}
