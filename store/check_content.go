package store

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
)

// content compares a layer's files with the stream that made it. A layer that
// somebody may be writing to is passed over, since what it holds is no longer
// what was recorded, and need not be.
func (c *checker) content(ctx context.Context, l *Layer) error {
	if l.DiffDigest == "" || l.DiffSize == 0 || c.beingWritten(l) {
		return ctx.Err()
	}
	tar, err := c.s.splitTar(l)
	if err == nil && tar != nil {
		if _, err = tar.split.Size(); err != nil { // the record itself is damaged
			err = errors.Join(err, tar.Close())
		}
	}
	if err == nil && tar == nil && l.TOCDigest == "" {
		c.found(l, KindLayer, ProblemSplit, "", "", "without it the layer's tar cannot be given back as it was")
	}
	if passing(err) {
		return err
	}
	if err != nil {
		c.found(l, KindLayer, ProblemSplit, "", "", err.Error())
	}
	if err != nil || tar == nil {
		return ctx.Err()
	}
	err = c.stream(ctx, l, tar)
	if err == nil {
		err = c.tree(ctx, l, tar)
	}
	return errors.Join(err, tar.Close())
}

// passing tells whether an error is that of this process or moment, and says
// nothing of what it wanted to read.
func passing(err error) bool {
	for _, no := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EINTR, syscall.EACCES, syscall.EPERM, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
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
	case passing(err):
		return err
	case errors.Is(err, errno.ErrDamaged):
		c.found(l, KindLayer, ProblemIntegrity, "", "", err.Error())
	case err != nil:
		c.found(l, KindLayer, ProblemUnread, "", "", err.Error())
	case h.Digest() != l.DiffDigest:
		c.found(l, KindLayer, ProblemDigest, "", "", "its files and tar-split record give "+h.Digest().String()+", its record says "+l.DiffDigest.String())
	}
	return nil
}

// tree compares the layer's tree with the members of its tar.
func (c *checker) tree(ctx context.Context, l *Layer, tar *TarSource) error {
	src, err := c.s.Diff(ctx, "", l.ID)
	var diffs []layertar.Change
	if err == nil {
		diffs, err = tar.split.Verify(ctx, src, layertar.VerifyOptions{Loose: c.s.looseOwners(), Limit: maxDifferences + 1})
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if passing(err) {
		return err
	}
	if err != nil {
		c.found(l, KindLayer, ProblemUnread, "", "", err.Error())
		return nil
	}
	if len(diffs) == 0 {
		return nil
	}
	more := ""
	if len(diffs) > maxDifferences {
		diffs, more = diffs[:maxDifferences], "…, "
	}
	var text strings.Builder
	for _, d := range diffs {
		text.WriteString(sign(d.Kind) + d.Path + ", ")
	}
	paths := text.String() + more
	c.found(l, KindLayer, ProblemModified, strings.TrimSuffix(paths, ", "), paths+string(ProblemModified), "")
	return nil
}

// maxDifferences is how many differences of one layer a finding lists.
const maxDifferences = 10

// sign is how a finding marks a difference of a kind.
func sign(k layertar.ChangeKind) string {
	switch k {
	case layertar.Add:
		return "+"
	case layertar.Delete:
		return "-"
	case layertar.Modify:
	}
	return "*"
}

// looseOwners tells whether owners and modes on disk are not those of the
// streams: for users with one ID, and by options of the driver.
func (s *Store) looseOwners() bool {
	if s.singleID() {
		return true
	}
	return slices.ContainsFunc(s.opts.DriverOptions, func(o drivers.Option) bool {
		return o.Key == "force_mask" || o.Key == "ignore_chown_errors" && o.Value == "true"
	})
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
