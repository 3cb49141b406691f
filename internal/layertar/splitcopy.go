package layertar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/plyfs/plyfs/internal/unix"

	"github.com/plyfs/plyfs/internal/safefs"
)

// A copy of a recorded stream has three goroutines with bounded queues:
//
//	record ─ inflate ─ lines ═╤═ files are read, checked, put together ═╤═ written
//
// so that the stream's size decides nothing but the time.

const (
	copyRun    = 64 << 10  // bytes of a run of lines
	copyBlock  = 256 << 10 // bytes of one write
	copyBlocks = 4         // blocks that there are
)

// WriteTo writes the whole stream and checks each file's CRC-64; a mismatch
// is ErrDamaged.
func (r *SplitReader) WriteTo(w io.Writer) (int64, error) {
	return r.Copy(context.Background(), w)
}

// Copy is WriteTo with a context.
func (r *SplitReader) Copy(ctx context.Context, w io.Writer) (n int64, err error) {
	root, err := safefs.FromFile(r.root)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	c := &splitCopy{s: r.s, ctx: ctx, cancel: cancel, dirs: map[string]*safefs.Dir{"": root},
		runs: make(chan *lineRun, 2), full: make(chan []byte, copyBlocks), empty: make(chan []byte, copyBlocks)}
	for range copyBlocks {
		c.empty <- make([]byte, 0, copyBlock)
	}
	go c.readLines()
	done := make(chan error)
	go func() {
		var werr error
		n, werr = c.writeBlocks(w)
		done <- werr
	}()
	err = c.assemble()
	if err != nil {
		cancel(err)
	}
	close(c.full)
	werr := <-done
	cancel(nil)
	for range c.runs { // until its goroutine has ended
	}
	if werr != nil {
		err = werr // it came first: the others end with a cancelled context
	}
	return n, errors.Join(err, c.closeDirs())
}

// splitCopy is a copy that is under way.
type splitCopy struct {
	s      *Split
	ctx    context.Context
	cancel context.CancelCauseFunc

	runs        chan *lineRun
	lineErr     error // of the reading goroutine; read after runs is closed
	full, empty chan []byte

	// Of the assembling goroutine.
	dirs map[string]*safefs.Dir
	out  []byte // the block that is being filled
}

// lineRun is a run of the record's lines: their texts one after another.
type lineRun struct {
	lines []splitLine
	text  []byte
}

// splitLine is a raw segment of n bytes, or a file whose name has n bytes.
type splitLine struct {
	n    int
	file bool
	size int64
	crc  uint64
}

func (c *splitCopy) readLines() {
	defer close(c.runs)
	run := &lineRun{}
	send := func() error {
		select {
		case c.runs <- run:
			run = &lineRun{}
			return nil
		case <-c.ctx.Done():
			return context.Cause(c.ctx)
		}
	}
	c.lineErr = c.s.lines(c.ctx, func(p *splitParser) error {
		l := splitLine{size: p.size, crc: p.crc, file: p.typ == 1}
		text := p.payload
		if l.file {
			text = p.name
		}
		l.n = len(text)
		run.text, run.lines = append(run.text, text...), append(run.lines, l)
		if len(run.text) < copyRun {
			return nil
		}
		return send()
	})
	if len(run.lines) > 0 { // what came before a damage is still good
		if err := send(); c.lineErr == nil {
			c.lineErr = err
		}
	}
}

// writeBlocks is the goroutine that writes; after an error it takes what
// comes and drops it.
func (c *splitCopy) writeBlocks(w io.Writer) (n int64, err error) {
	for b := range c.full {
		if err == nil {
			var m int
			m, err = w.Write(b)
			if n += int64(m); err != nil {
				c.cancel(err)
			}
		}
		c.empty <- b[:0]
	}
	return n, err
}

func (c *splitCopy) assemble() error {
	c.out = <-c.empty
	for run := range c.runs {
		text := run.text
		for i := range run.lines {
			l := &run.lines[i]
			if err := context.Cause(c.ctx); err != nil {
				return err
			}
			var err error
			if l.file {
				err = c.file(string(text[:l.n]), l)
			} else {
				c.raw(text[:l.n])
			}
			if err != nil {
				return err
			}
			text = text[l.n:]
		}
	}
	if c.lineErr != nil {
		return c.lineErr
	}
	c.full <- c.out
	return nil
}

// room returns the free part of the block, after handing a full one on.
func (c *splitCopy) room() []byte {
	if len(c.out) == cap(c.out) {
		c.full <- c.out
		c.out = <-c.empty
	}
	return c.out[len(c.out):cap(c.out)]
}

func (c *splitCopy) raw(b []byte) {
	for len(b) > 0 {
		n := copy(c.room(), b)
		c.out = c.out[:len(c.out)+n]
		b = b[n:]
	}
}

// file reads a file of the layer.
func (c *splitCopy) file(name string, l *splitLine) (err error) {
	f, err := c.open(name)
	if err != nil {
		return err
	}
	defer closing(&err, f.Close)
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := c.s.fits(name, st.Type() == unix.S_IFREG, int64(st.Size), l.size); err != nil {
		return err
	}
	var crc uint64
	for off := int64(0); off < l.size; {
		b := c.room()
		b = b[:min(int64(len(b)), l.size-off)]
		n, err := f.ReadAt(b, off)
		if errors.Is(err, io.EOF) {
			return c.s.changed(name, "it is shorter than it was")
		}
		if err != nil {
			return err
		}
		crc = crcUpdate(crc, b[:n])
		c.out = c.out[:len(c.out)+n]
		off += int64(n)
	}
	if crc != l.crc {
		return c.s.changed(name, "its content is not what it was")
	}
	return nil
}

// open opens a file beneath the layer's root: symlinks in its path as the
// import followed them, none at its end.
func (c *splitCopy) open(name string) (*safefs.File, error) {
	dir, base := splitName(cleanName(name))
	if base == "" {
		return nil, c.s.openError(name, syscall.ENOENT)
	}
	d := c.dirs[dir]
	if d == nil {
		var err error
		if d, err = c.dirs[""].OpenDirAt(dir, safefs.InRoot); err != nil {
			return nil, c.s.openError(name, err)
		}
		if err := c.keep(dir, d); err != nil {
			return nil, err
		}
	}
	f, err := d.OpenFile(base)
	if err != nil {
		return nil, c.s.openError(name, err)
	}
	return f, nil
}

// keep remembers an open directory; all are let go of when there are many,
// since streams go through directories in runs.
func (c *splitCopy) keep(dir string, d *safefs.Dir) error {
	var err error
	if len(c.dirs) >= maxDirCache {
		root := c.dirs[""]
		delete(c.dirs, "")
		err = c.closeDirs()
		c.dirs[""] = root
	}
	c.dirs[dir] = d
	return err
}

func (c *splitCopy) closeDirs() error {
	var err error
	for dir, d := range c.dirs {
		err = errors.Join(err, d.Close())
		delete(c.dirs, dir)
	}
	return err
}

// openError says what it means that a file cannot be opened.
func (s *Split) openError(name string, err error) error {
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENXIO) {
		return s.changed(name, "it is gone or is no file any more")
	}
	return fmt.Errorf("read %s: %w", quote(clip(name)), err)
}

// fits refuses what is no regular file of the right size.
func (s *Split) fits(name string, regular bool, have, want int64) error {
	switch {
	case !regular:
		return s.changed(name, "it is no regular file any more")
	case have != want:
		return s.changed(name, fmt.Sprintf("it has %d bytes in place of %d", have, want))
	}
	return nil
}
