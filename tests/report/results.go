package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// event is one line of `go test -json` (see `go doc test2json`).
type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

// maxOutput bounds what is kept of one test's output, in bytes.
const maxOutput = 1 << 20

type key struct{ pkg, test string }

func (k key) String() string {
	if k.test == "" {
		return k.pkg
	}
	return k.pkg + " " + k.test
}

// results gathers events. It is used by one goroutine.
type results struct {
	output  map[key]*bytes.Buffer
	parent  map[key]bool // has subtests: is not counted itself
	passed  map[key]bool
	skipped []skip
	failed  []key
	counts  map[string]int // finished leaf tests per package
}

type skip struct {
	key
	reason string
}

func newResults() *results {
	return &results{
		output: map[key]*bytes.Buffer{}, parent: map[key]bool{},
		passed: map[key]bool{}, counts: map[string]int{},
	}
}

// follow reads events until the stream ends and prints progress to out.
func (r *results) follow(stream io.Reader, out io.Writer) error {
	lines := bufio.NewReader(stream)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			r.line(line, out)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *results) line(line []byte, out io.Writer) {
	var e event
	if json.Unmarshal(line, &e) != nil {
		fmt.Fprintf(out, "%s", line) // not an event: a message of the go command
		return
	}
	k := key{e.Package, e.Test}
	if e.Package == "" {
		k.pkg = e.ImportPath
	}
	switch e.Action {
	case "run":
		if i := strings.LastIndexByte(e.Test, '/'); i > 0 {
			r.parent[key{e.Package, e.Test[:i]}] = true
		}
	case "output", "build-output":
		r.keep(k, e.Output)
	case "build-fail":
		r.fail(k, out)
	case "pass", "fail", "skip":
		r.finish(k, e, out)
	}
}

func (r *results) keep(k key, text string) {
	b := r.output[k]
	if b == nil {
		b = &bytes.Buffer{}
		r.output[k] = b
	}
	if b.Len() < maxOutput {
		b.WriteString(text)
	}
}

func (r *results) finish(k key, e event, out io.Writer) {
	if k.test == "" {
		r.finishPackage(k, e, out)
		return
	}
	if r.parent[k] && (e.Action != "fail" || r.subtestFailed(k)) {
		if e.Action == "fail" {
			fmt.Fprintf(out, "%s", r.text(k)) // what it said itself
		}
		delete(r.output, k)
		return
	}
	r.counts[k.pkg]++
	switch e.Action {
	case "pass":
		r.passed[k] = true
	case "skip":
		r.skipped = append(r.skipped, skip{k, reason(r.text(k))})
	case "fail":
		r.fail(k, out)
	}
	delete(r.output, k)
}

// subtestFailed tells whether k fails because a subtest did, which was told.
func (r *results) subtestFailed(k key) bool {
	return slices.ContainsFunc(r.failed, func(f key) bool {
		return f.pkg == k.pkg && strings.HasPrefix(f.test, k.test+"/")
	})
}

func (r *results) finishPackage(k key, e event, out io.Writer) {
	switch {
	case e.Action == "fail":
		for other := range r.output { // those that a crash or the time limit cut off
			if other.pkg == k.pkg && other.test != "" {
				r.fail(other, out)
				delete(r.output, other)
			}
		}
		if !slices.ContainsFunc(r.failed, func(f key) bool { return f.pkg == k.pkg }) {
			r.fail(k, out)
		}
		fmt.Fprintf(out, "FAIL  %-55s %7.1fs\n", k.pkg, e.Elapsed)
	case r.counts[k.pkg] > 0:
		fmt.Fprintf(out, "ok    %-55s %7.1fs  %d tests\n", k.pkg, e.Elapsed, r.counts[k.pkg])
	}
	delete(r.output, k)
}

func (r *results) text(k key) string {
	if b := r.output[k]; b != nil {
		return b.String()
	}
	return ""
}

func (r *results) fail(k key, out io.Writer) {
	r.failed = append(r.failed, k)
	fmt.Fprintf(out, "--- FAIL: %s\n%s", k, r.text(k))
}

// reason is what the test said to t.Skip.
func reason(output string) string {
	said := regexp.MustCompile(`(?m)^\s+\S+\.go:\d+: (.*)$`)
	all := said.FindAllStringSubmatch(output, -1)
	if len(all) == 0 {
		return "no reason given"
	}
	return all[len(all)-1][1]
}

// summary prints skips, failures and counts.
func (r *results) summary(out io.Writer) {
	fmt.Fprintln(out)
	for _, s := range r.skipped {
		fmt.Fprintf(out, "skipped: %s: %s\n", s.key, s.reason)
	}
	for _, f := range r.failed {
		fmt.Fprintf(out, "failed: %s\n", f)
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", len(r.passed), len(r.failed), len(r.skipped))
}
