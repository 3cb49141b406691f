package main

import (
	"context"
	"errors"
	"io"
)

// A read or write of a pipe whose other end does nothing cannot be ended. So the
// verbs get pipes within the process, which end with the context, and a
// goroutine makes the calls; one that waits then is left to the program's end.

// pipeBlock is how much is handed over at once.
const pipeBlock = 256 << 10

// readUntil returns a reader of r that ends with the context's error.
func readUntil(ctx context.Context, r io.Reader) io.Reader {
	pr, pw := io.Pipe()
	go func() {
		_, err := io.CopyBuffer(pw, struct{ io.Reader }{r}, make([]byte, pipeBlock))
		_ = pw.CloseWithError(err) // it returns nil always
	}()
	context.AfterFunc(ctx, func() { _ = pr.CloseWithError(context.Cause(ctx)) })
	return &endedReader{ctx, pr}
}

// endedReader says why reading has ended.
type endedReader struct {
	ctx context.Context //nolint:containedctx // of the reader's own life
	r   io.Reader
}

// Read reads what came, or fails with the context.
func (e *endedReader) Read(b []byte) (int, error) {
	n, err := e.r.Read(b)
	if errors.Is(err, io.ErrClosedPipe) {
		err = context.Cause(e.ctx)
	}
	return n, err
}

// writeUntil returns a writer to w that fails with the context's error. end
// waits until all is written, unless the context ends.
func writeUntil(ctx context.Context, w io.Writer) (out io.Writer, end func() error) {
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{pr}, make([]byte, pipeBlock))
		_ = pr.CloseWithError(err) // it returns nil always
		done <- err
	}()
	stop := context.AfterFunc(ctx, func() { _ = pr.CloseWithError(context.Cause(ctx)) })
	return pw, func() error {
		defer stop()
		_ = pw.Close() // it returns nil always
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
