package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/plyfs/plyfs/internal/layertar"
)

// bar shows on a terminal how far slow work is: one line, written over at most
// ten times a second, and wiped at the end. A nil bar shows nothing.
type bar struct {
	out         io.Writer
	what        string
	read, total int64 // bytes; a total of 0 is not known
	last        time.Time
}

// progress returns a bar when standard error is a terminal, else nil.
func (a *app) progress(what string, total int64) *bar {
	if !isTerminal(a.err) {
		return nil
	}
	return &bar{out: a.err, what: what, total: total}
}

// isTerminal tells whether a person may be looking at f.
func isTerminal(f *os.File) bool {
	fi, err := f.Stat()
	if err != nil || fi.Mode()&os.ModeCharDevice == 0 || os.Getenv("TERM") == "dumb" {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(fi, null)
}

// add counts bytes.
func (b *bar) add(n int) {
	if b != nil {
		b.say(b.what, b.read+int64(n), b.total)
	}
}

// say shows where the work is.
func (b *bar) say(what string, read, total int64) {
	if b == nil {
		return
	}
	b.what, b.read, b.total = what, read, total
	if time.Since(b.last) < 100*time.Millisecond {
		return
	}
	b.last = time.Now()
	line := fmt.Sprintf("%s: %s", what, size(read))
	if total > 0 {
		line += fmt.Sprintf(" of %s (%d %%)", size(total), read*100/total)
	}
	fmt.Fprintf(b.out, "\r%.78s\x1b[K", line)
}

// done wipes the line.
func (b *bar) done() {
	if b != nil && !b.last.IsZero() {
		fmt.Fprint(b.out, "\r\x1b[K")
	}
}

func (b *bar) reader(r io.Reader) io.Reader {
	if b == nil {
		return r
	}
	return counted{b, r, nil}
}

func (b *bar) writer(w io.Writer) io.Writer {
	if b == nil {
		return w
	}
	return counted{b, nil, w}
}

// counted passes bytes through and counts them.
type counted struct {
	b *bar
	r io.Reader
	w io.Writer
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.b.add(n)
	return n, err
}

// Stop implements layertar.Stopper.
func (c counted) Stop() {
	if s, ok := c.r.(layertar.Stopper); ok {
		s.Stop()
	}
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.b.add(n)
	return n, err
}

// size is a number of bytes for people.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, u := float64(n)/1024, 0
	for f >= 1024 && u < len(units)-1 {
		f, u = f/1024, u+1
	}
	return strings.Replace(fmt.Sprintf("%.1f %ciB", f, units[u]), ".0 ", " ", 1)
}

// input opens the file, or takes standard input for "", and shows how far it
// was read. done closes it.
func (a *app) input(file, doing string) (r io.Reader, done func() error, err error) {
	f := a.in
	name := "standard input"
	if file != "" {
		name = file
		if f, err = os.Open(file); err != nil {
			return nil, nil, err
		}
	}
	var total int64
	if fi, err := f.Stat(); err == nil && fi.Mode().IsRegular() {
		total = fi.Size()
	}
	w, end, err := newWaiting(f)
	if err != nil {
		return nil, nil, err
	}
	b := a.progress(doing+" "+name, total)
	return b.reader(w), func() error {
		b.done()
		if file == "" {
			return end()
		}
		return errors.Join(end(), f.Close())
	}, nil
}
