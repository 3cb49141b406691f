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

// print prints a result: as JSON, by the template, or by text, whose writes
// are buffered.
func (a *app) print(value any, text func(w *bufio.Writer)) error {
	w := bufio.NewWriter(a.out)
	switch {
	case a.output.format != "":
		if err := execute(w, a.output.format, value); err != nil {
			return err
		}
	case a.output.json:
		b, err := marshal(value)
		if err != nil {
			return err
		}
		_, _ = w.Write(b) // Flush tells
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
