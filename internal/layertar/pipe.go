package layertar

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/plyfs/plyfs/internal/safefs"
)

const (
	// maxWriters is how many goroutines write files at most.
	maxWriters = 4
	// batchFiles and batchBytes end a batch: what is handed on at once.
	batchFiles = 16
	batchBytes = flowBlock
)

// pipe is the second half of an import behind the parser: files are written,
// finished and closed by a few goroutines, and the record is written by one
// more, in the stream's order. What the parser's goroutine hands over comes in
// batches, of which a bounded number is under way.
//
// Names are all made by the parser's goroutine, in the stream's order; only
// descriptors are handed over. So a later member finds, links to, replaces or
// removes a file whose content is still on its way.
type pipe struct {
	rec  *recorder
	fail func(error) // told of the first error

	cur   *batch
	work  chan *batch
	order chan *batch
	ended sync.WaitGroup // of the writers
	done  chan struct{}  // closed when the recording goroutine has ended

	failed atomic.Bool
	once   sync.Once
	err    error // of the recording goroutine or a writer; read after done
}

// batch is a run of the stream: what of it is data of files, and what else is
// for the record.
type batch struct {
	writes []write
	bytes  int64
	items  []item
	raw    []byte        // of the items
	done   chan struct{} // closed when the writes are done
}

// write is a piece of a file, or, without one, what ends the file.
type write struct {
	to   *outFile
	data piece
	off  int64
	crc  uint64
}

// item is a part of the record: raw bytes, the write of a number, or the end
// of a file.
type item struct {
	kind itemKind
	n    int // bytes of raw, or the number of a write
	name string
	size int64
}

type itemKind uint8

const (
	itemRaw itemKind = iota
	itemWrite
	itemFile
)

// outFile is a file that is being written. left counts the writes that are not
// done, and one more until the last was handed over.
type outFile struct {
	f    *safefs.File
	h    *header // for errors
	left atomic.Int32
	end  *fileEnd
}

func newPipe(rec *recorder, fail func(error)) *pipe {
	n := min(runtime.GOMAXPROCS(0), maxWriters)
	p := &pipe{rec: rec, fail: fail, cur: &batch{}, work: make(chan *batch, n), order: make(chan *batch, 2*n), done: make(chan struct{})}
	for range n {
		p.ended.Go(p.write)
	}
	go p.record()
	return p
}

// rawBytes adds to the record what is no file's content.
func (p *pipe) rawBytes(b []byte) {
	if p.rec == nil || len(b) == 0 {
		return
	}
	c := p.cur
	c.raw = append(c.raw, b...)
	c.bytes += int64(len(b))
	if k := len(c.items) - 1; k >= 0 && c.items[k].kind == itemRaw {
		c.items[k].n += len(b)
	} else {
		c.items = append(c.items, item{kind: itemRaw, n: len(b)})
	}
	if c.bytes >= 4*batchBytes { // a member of raw bytes only
		p.flush()
	}
}

// file adds a member to the record; its content, if size is not 0, is what was
// written since the last one.
func (p *pipe) file(name string, size int64) {
	if p.rec != nil {
		p.cur.items = append(p.cur.items, item{kind: itemFile, name: name, size: size})
	}
	if c := p.cur; c.bytes >= batchBytes || len(c.items) >= 8*batchFiles {
		p.flush()
	}
}

// start begins a file.
func (p *pipe) start(f *safefs.File, h *header, end *fileEnd) *outFile {
	o := &outFile{f: f, h: h, end: end}
	o.left.Store(1)
	return o
}

// data hands a piece over; recorded says that it counts for the checksum.
func (p *pipe) data(to *outFile, d piece, off int64, recorded bool) {
	c := p.cur
	to.left.Add(1)
	if recorded && p.rec != nil {
		c.items = append(c.items, item{kind: itemWrite, n: len(c.writes)})
	}
	c.writes = append(c.writes, write{to: to, data: d, off: off})
	if c.bytes += int64(len(d.b)); c.bytes >= batchBytes {
		p.flush()
	}
}

// finish says that no more data comes for a file.
func (p *pipe) finish(to *outFile) {
	p.cur.writes = append(p.cur.writes, write{to: to})
	if len(p.cur.writes) >= 2*batchFiles {
		p.flush()
	}
}

// flush hands the batch on; it waits while too many are under way.
func (p *pipe) flush() {
	c := p.cur
	if len(c.writes) == 0 && len(c.items) == 0 {
		return
	}
	c.done = make(chan struct{})
	p.cur = &batch{}
	p.order <- c
	p.work <- c
}

// close hands on what is left, waits for everything, and returns the first
// error. It is called once, after an error, too.
func (p *pipe) close() error {
	p.flush()
	close(p.work)
	close(p.order)
	p.ended.Wait()
	<-p.done
	return p.err
}

// write is a writer's goroutine.
func (p *pipe) write() {
	for b := range p.work {
		for i := range b.writes {
			w := &b.writes[i]
			if err := w.do(p.failed.Load()); err != nil {
				p.failWith(describe(err, w.to.h))
			}
		}
		close(b.done)
	}
}

func (p *pipe) failWith(err error) {
	p.once.Do(func() {
		p.err = err
		p.failed.Store(true)
		p.fail(err)
	})
}

// do writes, and ends the file if nothing else is to be done to it. With drop set only
// what is held is given back.
func (w *write) do(drop bool) (err error) {
	if w.data.of != nil {
		if !drop {
			w.crc = crcUpdate(0, w.data.b)
			_, err = w.to.f.WriteAt(w.data.b, w.off)
		}
		w.data.release()
	}
	if w.to.left.Add(-1) > 0 {
		return err
	}
	if err == nil && !drop {
		err = w.to.end.do(w.to.f)
	}
	if cerr := w.to.f.Close(); err == nil {
		err = cerr
	}
	return err
}

// record is the goroutine that writes the record.
func (p *pipe) record() {
	defer close(p.done)
	var crc uint64
	for b := range p.order {
		<-b.done
		if p.failed.Load() {
			continue
		}
		if err := p.recordBatch(b, &crc); err != nil {
			p.failWith(err)
		}
	}
}

func (p *pipe) recordBatch(b *batch, crc *uint64) error {
	raw := b.raw
	for i := range b.items {
		it := &b.items[i]
		var err error
		switch it.kind {
		case itemRaw:
			err, raw = p.rec.raw(raw[:it.n]), raw[it.n:]
		case itemWrite:
			w := &b.writes[it.n]
			*crc = crcJoin(*crc, w.crc, int64(len(w.data.b)))
		case itemFile:
			err = p.rec.file(it.name, it.size, *crc)
			*crc = 0
		}
		if err != nil {
			return err
		}
	}
	return nil
}
