package main

import (
	"bufio"
	"fmt"

	"github.com/plyfs/plyfs/store"
)

// treePrinter prints layers below their parents.
type treePrinter struct {
	w        *bufio.Writer
	t        *store.Tx
	children map[string][]*store.Layer
}

// printTree prints all layers. Those whose parent is not there are shown as
// base layers; those that are their own ancestors after them.
func printTree(w *bufio.Writer, t *store.Tx, all []*store.Layer) {
	p := treePrinter{w: w, t: t, children: map[string][]*store.Layer{}}
	for _, l := range all {
		parent := l.Parent
		if t.LayerByID(parent) == nil || inCircle(t, l) {
			parent = ""
		}
		p.children[parent] = append(p.children[parent], l)
	}
	fmt.Fprintln(w, "(base)")
	p.below("", "")
}

// inCircle tells whether a layer comes back to itself by its parents.
func inCircle(t *store.Tx, l *store.Layer) bool {
	chain := t.Chain(l.ID)
	last := chain[len(chain)-1]
	return last.Parent == l.ID
}

// below prints the children of a layer, "" for none. Chains are as long as a
// store has them; the recursion is as deep, and Go's stack grows.
func (p *treePrinter) below(parent, indent string) {
	list := p.children[parent]
	for i, l := range list {
		head, tail := "├─", "│ "
		if i == len(list)-1 {
			head, tail = "└─", "  "
		}
		fmt.Fprintf(p.w, "%s%s%s\n", indent, head, l.ID)
		p.details(indent+tail, l)
		p.below(l.ID, indent+tail)
	}
}

func (p *treePrinter) details(indent string, l *store.Layer) {
	for _, n := range l.Names {
		fmt.Fprintf(p.w, "%sname: %s\n", indent, n)
	}
	for _, i := range imagesOf(p.t, l.ID) {
		fmt.Fprintf(p.w, "%simage: %s\n", indent, i.ID)
		for _, n := range i.Names {
			fmt.Fprintf(p.w, "%simage name: %s\n", indent, n)
		}
	}
	for _, c := range p.t.ContainersOnLayer(l.ID) {
		fmt.Fprintf(p.w, "%scontainer: %s\n", indent, c.ID)
		for _, n := range c.Names {
			fmt.Fprintf(p.w, "%scontainer name: %s\n", indent, n)
		}
	}
}
