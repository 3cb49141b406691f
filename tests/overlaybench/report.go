package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"strings"

	"github.com/plyfs/plyfs/tests/internal/timing"
)

// print writes one step's figures.
func (b *bench) print(w io.Writer, r *result, sides []side) {
	fmt.Fprintf(w, "%-38s", r.step)
	for _, s := range sides {
		f, ok := r.by[s.name]
		if !ok {
			fmt.Fprintf(w, "  %s –", s.name)
			continue
		}
		fmt.Fprintf(w, "  %s %s", s.name, r.cell(f))
	}
	fmt.Fprintln(w)
}

// cell is a figure with its ratio to the kernel's, if that was measured.
func (r *result) cell(f figure) string {
	text := fmt.Sprintf("%.0f", f.value)
	if f.value < 20 {
		text = fmt.Sprintf("%.1f", f.value)
	}
	if k, ok := r.by[kernel]; ok && k.value > 0 && !r.memory {
		text += fmt.Sprintf(" (%.2f)", f.value/k.value)
	}
	if f.cpu > 0 {
		text += fmt.Sprintf(" %.2fs", f.cpu)
	}
	return text
}

// ratios are those of the values of a to the least one of the others, over all
// lines that both were measured on.
func (b *bench) ratios(a string, others ...string) []float64 {
	var out []float64
	for _, r := range b.results {
		x, ok := r.by[a]
		least := math.Inf(1)
		for _, name := range others {
			if y, ok := r.by[name]; ok {
				least = min(least, y.value)
			}
		}
		if ok && !r.memory && x.value > 0 && least > 0 && !math.IsInf(least, 1) {
			out = append(out, x.value/least)
		}
	}
	return out
}

// summary writes the geometric means.
func (b *bench) summary(w io.Writer, sides []side) {
	var peers []string
	for _, s := range sides {
		if s.name != native && s.name != kernel && s.name != floor && s.name != ours {
			peers = append(peers, s.name)
		}
		if v := b.ratios(s.name, kernel); len(v) > 0 && s.name != kernel {
			fmt.Fprintf(w, "geometric mean to kernel of %d lines: %s %.2f\n", len(v), s.name, timing.Geomean(v))
		}
	}
	if v := b.ratios(ours, peers...); len(v) > 0 {
		fmt.Fprintf(w, "geometric mean of ours to the best peer of each of %d lines: %.2f\n", len(v), timing.Geomean(v))
	}
	if v := b.ratios(ours, floor); len(v) > 0 {
		fmt.Fprintf(w, "geometric mean of ours to the floor of %d lines: %.2f\n", len(v), timing.Geomean(v))
	}
}

// write replaces the table of this filesystem in the document: what is between
// the lines `<!-- overlay KIND -->` and `<!-- end -->`.
func (b *bench) write(sides []side) error {
	text, err := os.ReadFile(b.doc)
	if err != nil {
		return err
	}
	begin := fmt.Sprintf("<!-- overlay %s -->\n", b.kind)
	i := strings.Index(string(text), begin)
	if i < 0 {
		return fmt.Errorf("%s has no line %q", b.doc, strings.TrimSpace(begin))
	}
	i += len(begin)
	j := strings.Index(string(text[i:]), "<!-- end -->")
	if j < 0 {
		return fmt.Errorf("%s has no line <!-- end --> after %q", b.doc, strings.TrimSpace(begin))
	}
	out := bytes.NewBuffer(bytes.Clone(text[:i]))
	b.table(out, sides)
	_, _ = out.Write(text[i+j:]) // never fails
	return os.WriteFile(b.doc, out.Bytes(), 0o644)
}

func (b *bench) table(w io.Writer, sides []side) {
	fmt.Fprintf(w, "Medians of %d rounds: ms (ratio to kernel) CPU seconds of the server.\n\n| line |", b.rounds)
	for _, s := range sides {
		fmt.Fprintf(w, " %s |", s.name)
	}
	fmt.Fprintf(w, "\n|---|%s\n", strings.Repeat("---|", len(sides)))
	for i := range b.results {
		r := &b.results[i]
		fmt.Fprintf(w, "| %s |", r.step)
		for _, s := range sides {
			if f, ok := r.by[s.name]; ok {
				fmt.Fprintf(w, " %s |", r.cell(f))
			} else {
				fmt.Fprint(w, " – |")
			}
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "\n")
	for _, s := range sides {
		fmt.Fprintf(w, "- %s: `%s`\n", s.name, s.what)
	}
	var text bytes.Buffer
	b.summary(&text, sides)
	for _, l := range strings.Split(strings.TrimSpace(text.String()), "\n") {
		fmt.Fprintf(w, "- %s\n", l)
	}
}
