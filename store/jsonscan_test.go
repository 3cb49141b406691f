package store

import (
	"encoding/json"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

// FuzzScanner: the scanner accepts exactly what encoding/json accepts, and
// returns each element's very text.
func FuzzScanner(f *testing.F) {
	for _, s := range []string{``, ` null `, `[]`, `[1,2.5e-3,-0]`, `{"a":{"b":[true,false,"\u00e9\n"]}}`, `[01]`, `"\x"`, `{"a"}`, `[1,]`, "\"\x01\"", `-`, `1.`, `nul`, "\"\xff\"", `[[[[`, `{"a":1}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p := scanner{s: s}
		_, err := p.value(1)
		if err == nil {
			err = p.end()
		}
		if valid := json.Valid([]byte(s)); valid != (err == nil) {
			t.Fatalf("encoding/json says valid=%v, the scanner %v: %q", valid, err, s)
		}
		if err != nil {
			return
		}
		var want []json.RawMessage
		if json.Unmarshal([]byte(s), &want) != nil || want == nil {
			return
		}
		var got []json.RawMessage
		p = scanner{s: s}
		if err := p.array(0, func(v string) error { got = append(got, json.RawMessage(v)); return nil }); err != nil {
			t.Fatal(err)
		}
		if len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("elements of %q: %q, want %q", s, got, want)
		}
	})
}

// FuzzUnquote: strings are decoded as encoding/json decodes them.
func FuzzUnquote(f *testing.F) {
	for _, s := range []string{`"plain"`, `"\u0000\ud800x"`, "\"\xc3(\"", `"é<>&\/"`, `""`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var want string
		if len(s) == 0 || s[0] != '"' || json.Unmarshal([]byte(s), &want) != nil {
			return
		}
		p := scanner{s: s}
		raw, err := p.value(1)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := unquote(raw); err != nil || got != want {
			t.Fatalf("%q: %q, %v, want %q", s, got, err, want)
		}
	})
}

// Strings are written byte for byte as encoding/json, and so the peers, do.
func TestAppendQuoted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.StringMatching(`[ -~]{0,20}`), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "s")
		want, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := appendQuoted(nil, s); string(got) != string(want) {
			t.Fatalf("%q, want %q", got, want)
		}
	})
}

// Nesting beyond encoding/json's limit is an error, not a crash.
func TestScannerDepth(t *testing.T) {
	for _, n := range []int{100, 9999, 10000, 10001, 1000000} {
		s := make([]byte, n)
		for i := range s {
			s[i] = '['
		}
		for range n {
			s = append(s, ']')
		}
		p := scanner{s: string(s)}
		_, err := p.value(1)
		if valid := json.Valid(s); valid != (err == nil) {
			t.Errorf("depth %d: encoding/json says valid=%v, the scanner %v", n, valid, err)
		}
	}
}

// plain finds the first byte that a look at every byte finds.
func TestPlain(t *testing.T) {
	t.Parallel()
	bytes := rapid.SliceOf(rapid.OneOf(rapid.Byte(), rapid.SampledFrom([]byte("aZ !#[]\"\\\x00\x1f\x20\x7f\x80\xff"))))
	rapid.Check(t, func(t *rapid.T) {
		s := string(bytes.Draw(t, "s"))
		want := 0
		for want < len(s) && s[want] >= ' ' && s[want] < 0x80 && s[want] != '"' && s[want] != '\\' {
			want++
		}
		if got := plain(s); got != want {
			t.Fatalf("%q: %d, want %d", s, got, want)
		}
	})
}
