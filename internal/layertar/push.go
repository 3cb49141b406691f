package layertar

import (
	"context"
	"io"
	"os"

	"github.com/plyfs/plyfs/internal/errno"
)

// Push is Import fed by writes. Its methods may be called from several
// goroutines; each Push must end with Finish or Abort.
type Push struct{}

// NewPush starts an import of what will be written.
func NewPush(ctx context.Context, dir *os.File, split io.Writer, o ApplyOptions) *Push {
	return &Push{}
}

// Write hands b to the import. An error of the import is returned by the next
// Write at the latest, and by every one after it.
func (p *Push) Write(b []byte) (int, error) {
	return 0, errno.New(errno.ErrNotSupported, "push: not supported")
}

// Boundary waits until everything written is consumed and tells whether the
// stream could end here: on a header boundary or after the end of the
// archive, with the compression frame complete. The error is the import's,
// if it has failed.
func (p *Push) Boundary() (bool, error) {
	return false, errno.New(errno.ErrNotSupported, "push: not supported")
}

// Written returns how many bytes the writes have brought.
func (p *Push) Written() int64 { return 0 }

// Finish ends the stream and waits for the import.
func (p *Push) Finish() (Result, error) {
	return Result{}, errno.New(errno.ErrNotSupported, "push: not supported")
}

// Abort stops the import and waits for it. What it extracted is left in the
// directory. After Finish or Abort it does nothing.
func (p *Push) Abort() {}
