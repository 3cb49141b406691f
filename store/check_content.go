package store

import (
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/internal/errno"
)

// content compares a layer's files with the stream that made it. A layer that
// somebody may be writing to is passed over, since what it holds is no longer
// what was recorded, and need not be.
func (c *checker) content(ctx context.Context, l *Layer) error {
	if l.DiffDigest == "" || l.DiffSize == 0 || c.beingWritten(l) {
		return ctx.Err()
	}
	tar, err := c.s.splitTar(l)
	if err == nil && tar == nil && l.TOCDigest == "" {
		c.found(l, KindLayer, ProblemSplit, "", "", "without it the layer's tar cannot be given back as it was")
	}
	if err != nil {
		c.found(l, KindLayer, ProblemSplit, "", "", err.Error())
	}
	if err != nil || tar == nil {
		return ctx.Err()
	}
	return errors.Join(c.stream(ctx, l, tar), tar.Close())
}

// beingWritten tells whether a layer is mounted and may be written to.
func (c *checker) beingWritten(l *Layer) bool {
	m, ok := c.t.Mountpoint(l.ID)
	return ok && m.Count > 0 && c.t.checkWritable(mountTarget{layer: l}) == nil
}

// stream reads the layer's tar once.
func (c *checker) stream(ctx context.Context, l *Layer, tar *TarSource) error {
	h := digest.Canonical.Digester()
	w := &progressWriter{w: h.Hash(), tell: func(n int64) { c.progress(KindLayer, l.ID, n, l.DiffSize) }}
	_, err := tar.Copy(ctx, w)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errno.ErrDamaged):
		c.found(l, KindLayer, ProblemIntegrity, "", "", err.Error())
	case err != nil:
		c.found(l, KindLayer, ProblemIntegrity, "", "", "its files cannot be read: "+err.Error())
	case h.Digest() != l.DiffDigest:
		c.found(l, KindLayer, ProblemDigest, "", "", "its files and tar-split record give "+h.Digest().String()+", its record says "+l.DiffDigest.String())
	}
	return nil
}

// progressEvery is how many bytes go by between two calls of a progress function.
const progressEvery = 16 << 20

type progressWriter struct {
	w         io.Writer
	tell      func(int64)
	n, before int64
}

func (p *progressWriter) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	p.n += int64(n)
	if p.n-p.before >= progressEvery {
		p.before = p.n
		p.tell(p.n)
	}
	return n, err
}
