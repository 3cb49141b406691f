package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/plyfs/plyfs/tests/internal/timing"
)

// print writes one step's figures.
func (b *bench) print(w io.Writer, r *result, sides []side) {
	fmt.Fprintf(w, "%-38s", r.Step)
	for _, s := range sides {
		f, ok := r.By[s.name]
		if !ok {
			fmt.Fprintf(w, "  %s –", s.name)
			continue
		}
		fmt.Fprintf(w, "  %s %s", s.name, r.cell(f))
	}
	if text := r.beside(sides); text != "" {
		fmt.Fprintf(w, "  ours to best peer, floor: %s", text)
	}
	fmt.Fprintln(w)
}

// beside is the ratio of ours to the best peer, and to the floor; – for what was
// not measured, "" for nothing.
func (r *result) beside(sides []side) string {
	peer, bottom := r.ratio(ours, peers(sides)...), r.ratio(ours, floor)
	if peer == 0 && bottom == 0 {
		return ""
	}
	text := func(v float64) string {
		if v == 0 {
			return "–"
		}
		return fmt.Sprintf("%.2f", v)
	}
	return text(peer) + ", " + text(bottom)
}

// ratio is that of the value of a to the least one of the others; 0 if there is
// none.
func (r *result) ratio(a string, others ...string) float64 {
	x, ok := r.By[a]
	least := math.Inf(1)
	for _, name := range others {
		if y, ok := r.By[name]; ok {
			least = min(least, y.Value)
		}
	}
	if !ok || x.Value <= 0 || least <= 0 || math.IsInf(least, 1) {
		return 0
	}
	return x.Value / least
}

// peers are the names of the sides that do what ours does.
func peers(sides []side) []string {
	var names []string
	for _, s := range sides {
		if s.name != native && s.name != kernel && s.name != floor && s.name != ours {
			names = append(names, s.name)
		}
	}
	return names
}

// cell is a figure with its ratio to the kernel's, if that was measured.
func (r *result) cell(f figure) string {
	text := fmt.Sprintf("%.0f", f.Value)
	if f.Value < 20 {
		text = fmt.Sprintf("%.1f", f.Value)
	}
	if f.Value < 5 {
		text = fmt.Sprintf("%.2f", f.Value)
	}
	if k, ok := r.By[kernel]; ok && k.Value > 0 && !r.Memory {
		text += fmt.Sprintf(" (%.2f)", f.Value/k.Value)
	}
	switch {
	case f.CPU >= 0.01:
		text += fmt.Sprintf(" %.2fs", f.CPU)
	case f.CPU > 0:
		text += fmt.Sprintf(" %.4fs", f.CPU)
	}
	return text
}

// ratios are those of the values of a to the least one of the others, over all
// lines that both were measured on.
func (b *bench) ratios(a string, others ...string) []float64 {
	var out []float64
	for i := range b.results {
		r := &b.results[i]
		if v := r.ratio(a, others...); v > 0 && !r.Memory && !r.Part {
			out = append(out, v)
		}
	}
	return out
}

// summary writes the geometric means.
func (b *bench) summary(w io.Writer, sides []side) {
	for _, s := range sides {
		if v := b.ratios(s.name, kernel); len(v) > 0 && s.name != kernel {
			fmt.Fprintf(w, "geometric mean to kernel of %d lines: %s %.2f\n", len(v), s.name, timing.Geomean(v))
		}
	}
	if v := b.ratios(ours, peers(sides)...); len(v) > 0 {
		fmt.Fprintf(w, "geometric mean of ours to the best peer of each of %d lines: %.2f\n", len(v), timing.Geomean(v))
	}
	if v := b.ratios(ours, floor); len(v) > 0 {
		fmt.Fprintf(w, "geometric mean of ours to the floor of %d lines: %.2f\n", len(v), timing.Geomean(v))
	}
}

// write replaces the table of this filesystem in the document: what is between
// the lines `<!-- overlay KIND -->` (tmpfs, ext4) and `<!-- end -->`.
func (b *bench) write(sides []side) error {
	before, after, err := b.around()
	if err != nil {
		return err
	}
	out := bytes.NewBuffer(before)
	b.table(out, sides)
	_, _ = out.Write(after) // never fails
	return os.WriteFile(b.doc, out.Bytes(), 0o644)
}

// around returns what the document has before and after the table.
func (b *bench) around() (before, after []byte, err error) {
	text, err := os.ReadFile(b.doc)
	if err != nil {
		return nil, nil, err
	}
	begin := fmt.Sprintf("<!-- overlay %s -->\n", b.kind)
	i := strings.Index(string(text), begin)
	if i < 0 {
		return nil, nil, fmt.Errorf("%s has no line %q", b.doc, strings.TrimSpace(begin))
	}
	i += len(begin)
	j := strings.Index(string(text[i:]), "<!-- end -->")
	if j < 0 {
		return nil, nil, fmt.Errorf("%s has no line <!-- end --> after %q", b.doc, strings.TrimSpace(begin))
	}
	return bytes.Clone(text[:i]), text[i+j:], nil
}

// recall reads what runs before this one on such a filesystem have added to the
// file of results, so that the lines can be measured a few at a time.
func (b *bench) recall() error {
	b.results = nil
	all, err := b.recorded()
	b.results = all[b.kind]
	return err
}

func (b *bench) recorded() (map[string][]result, error) {
	all := map[string][]result{}
	if b.record == "" {
		return all, nil
	}
	text, err := os.ReadFile(b.record)
	if errors.Is(err, os.ErrNotExist) {
		return all, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("the results in %s: %w", b.record, err)
	}
	return all, nil
}

// remember puts the results into their file, in the order of the lines.
func (b *bench) remember() error {
	order := map[string]int{}
	for i, l := range b.lines() {
		order[l.name] = i
	}
	slices.SortStableFunc(b.results, func(x, y result) int { return order[x.Line] - order[y.Line] })
	if b.record == "" {
		return nil
	}
	all, err := b.recorded()
	if err != nil {
		return err
	}
	all[b.kind] = b.results
	text, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(b.record, text, 0o644)
}

func (b *bench) table(w io.Writer, sides []side) {
	fmt.Fprintf(w, "On %s; medians: ms (ratio to kernel) CPU seconds of the server.\n\n| line | rounds |", b.place)
	for _, s := range sides {
		fmt.Fprintf(w, " %s |", s.name)
	}
	fmt.Fprintf(w, " ours to best peer, floor |\n|---|---|%s\n", strings.Repeat("---|", len(sides)+1))
	for i := range b.results {
		r := &b.results[i]
		fmt.Fprintf(w, "| %s | %d |", r.Step, r.Rounds)
		for _, s := range sides {
			if f, ok := r.By[s.name]; ok {
				fmt.Fprintf(w, " %s |", r.cell(f))
			} else {
				fmt.Fprint(w, " – |")
			}
		}
		fmt.Fprintf(w, " %s |\n", cmp.Or(r.beside(sides), "–"))
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
