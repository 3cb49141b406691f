package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"text/template"

	"github.com/spf13/pflag"

	"github.com/plyfs/plyfs/store"
)

// output says in which form a verb prints its result.
type output struct {
	json   bool
	format string
}

func (o *output) addTo(f *pflag.FlagSet) {
	f.BoolVarP(&o.json, "json", "j", false, "print JSON")
	f.StringVar(&o.format, "format", "", "print a Go `TEMPLATE` for each element of the result, as in '{{.ID}} {{json .Names}}'")
}

// plain tells that the verb's own lines are wanted.
func (o *output) plain() bool { return !o.json && o.format == "" }

// printBuffer is how much is written by one call, in bytes.
const printBuffer = 64 << 10

// print prints a result: as JSON, by the template, or by text, whose writes
// are buffered.
func (a *app) print(value any, text func(w *bufio.Writer)) error {
	w := bufio.NewWriterSize(a.out, printBuffer)
	switch {
	case a.output.format != "":
		if err := execute(w, a.output.format, value); err != nil {
			return err
		}
	case a.output.json:
		if err := writeJSON(w, value); err != nil {
			return err
		}
	default:
		text(w)
	}
	return w.Flush()
}

// marshal is the value's JSON on one line, without the escapes that are meant
// for web pages.
func marshal(value any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(value)
	return b.Bytes(), err
}

// writeJSON writes what marshal returns. Records are written one by one: their
// JSON is on one line already and need not be read again to be sure of that.
func writeJSON(w *bufio.Writer, value any) error {
	switch list := value.(type) {
	case []*store.Layer:
		return writeRecords(w, list)
	case []*store.Image:
		return writeRecords(w, list)
	case []*store.Container:
		return writeRecords(w, list)
	}
	b, err := marshal(value)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

func writeRecords[R interface {
	AppendJSON(b []byte) ([]byte, error)
}](w *bufio.Writer, list []R) error {
	if list == nil {
		_, err := w.WriteString("null\n")
		return err
	}
	var b []byte
	for i, r := range list {
		sep := byte(',')
		if i == 0 {
			sep = '['
		}
		var err error
		if b, err = r.AppendJSON(append(b[:0], sep)); err != nil {
			return err
		}
		_, _ = w.Write(b) // Flush tells
	}
	end := "]\n"
	if len(list) == 0 {
		end = "[]\n"
	}
	_, err := w.WriteString(end)
	return err
}

// execute runs the template for each element of a list, or for the value if
// it is none, and ends each with a line feed.
func execute(w *bufio.Writer, format string, value any) error {
	t, err := template.New("--format").Option("missingkey=error").Funcs(template.FuncMap{
		"json": func(v any) (string, error) {
			b, err := marshal(v)
			return strings.TrimSuffix(string(b), "\n"), err
		},
		"join":  func(sep string, list []string) string { return strings.Join(list, sep) },
		"lower": strings.ToLower,
		"upper": strings.ToUpper,
	}).Parse(format)
	if err != nil {
		return fmt.Errorf("the template of --format: %w", err)
	}
	each := func(v any) error {
		if err := t.Execute(w, v); err != nil {
			return fmt.Errorf("the template of --format: %w", err)
		}
		return w.WriteByte('\n')
	}
	v := reflect.ValueOf(value)
	if v.Kind() != reflect.Slice {
		return each(value)
	}
	for i := range v.Len() {
		if err := each(v.Index(i).Interface()); err != nil {
			return err
		}
	}
	return nil
}

// idLines prints a new object: its ID, and its names indented below.
func idLines(id string, names []string) func(w *bufio.Writer) {
	return func(w *bufio.Writer) {
		fmt.Fprintln(w, id)
		for _, n := range names {
			fmt.Fprintf(w, "\t%s\n", n)
		}
	}
}

// printStrings prints one string a line.
func (a *app) printStrings(list []string) error {
	return a.print(list, func(w *bufio.Writer) {
		for _, s := range list {
			fmt.Fprintln(w, s)
		}
	})
}

// say prints what went wrong with one of several objects and lets the verb go on.
func (a *app) say(err error) { fmt.Fprintln(a.err, sentence(err)) }
