package store

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func parseLayers(text string, old []*Layer) parsed[*Layer] {
	byID := make(map[string]*Layer)
	for _, l := range old {
		byID[l.ID] = l
	}
	p := parser[*Layer]{kind: KindLayer, path: "layers.json", decode: decodeLayer, old: old, oldID: byID, from: len(text) + 1}
	return p.parse(text)
}

// checkHalves decodes a text by two goroutines, which must make no difference.
func checkHalves(t interface {
	Helper()
	Fatalf(format string, args ...any)
}, text string, want parsed[*Layer],
) {
	t.Helper()
	p := parser[*Layer]{kind: KindLayer, path: "layers.json", decode: decodeLayer}
	got := p.parse(text)
	if fmt.Sprint(got.broken) != fmt.Sprint(want.broken) || len(got.list) != len(want.list) || !slices.Equal(got.opaque, want.opaque) {
		t.Fatalf("%q in halves: %d records, %v, %v; want %d, %v, %v", text, len(got.list), got.opaque, got.broken, len(want.list), want.opaque, want.broken)
	}
	for i, l := range got.list {
		if l.raw != want.list[i].raw || l.ID != want.list[i].ID || l.damage != want.list[i].damage {
			t.Fatalf("%q in halves: record %d is %q, want %q", text, i, l.raw, want.list[i].raw)
		}
	}
}

// Texts of records, with what looks like the beginning of one in odd places
// and cut off or spoilt anywhere, are the same decoded in halves.
func TestHalves(t *testing.T) {
	t.Parallel()
	one := rapid.SampledFrom([]string{
		`{"id":"a"}`, `{"id":"b","names":["n"]}`, `{"id":"c","x":[{"y":1},{"id":"z"}]}`, `{"id":"d","m":"},{\"id\":"}`, `7`, `{"id":"../e"}`, ` {"id":"f"} `, `[{},{"id":"g"}]`,
	})
	rapid.Check(t, func(t *rapid.T) {
		text := "[" + strings.Join(rapid.SliceOfN(one, 0, 12).Draw(t, "records"), ",") + "]"
		switch at := rapid.IntRange(0, len(text)).Draw(t, "at"); rapid.IntRange(0, 2).Draw(t, "spoil") {
		case 1:
			text = text[:at]
		case 2:
			text = text[:at] + "!" + text[at:]
		}
		checkHalves(t, text, parseLayers(text, nil))
	})
}

// FuzzLoad: any text loads without a crash; whatever encoding/json takes for
// an array is one for us, element for element; what was loaded is written back
// as JSON with the same elements; and loading again with the former records at
// hand gives the same.
func FuzzLoad(f *testing.F) {
	for _, s := range []string{
		``, `null`, `[]`, `{}`, `[{}]`, `[1,"a",null,{"id":"x"}]`, `[{"id":"a","names":["n"]},{"id":"b","names":["n"]},{"id":"a"}]`,
		`[{"id":"../x"},{"id":"."},{"id":"l"},{"id":"a/b"}]`, `[{"id":"a"},{"id":"b","names":[`, `[` + fullLayer + `]`,
		`[{"id":"a","id":"b","created":"x","flags":{"incomplete":true}}]`, "[{\"id\":\"\xff\"}]", `[{"id":"a"}] x`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p := parseLayers(text, nil)
		checkHalves(t, text, p)
		var want []json.RawMessage
		ok := json.Unmarshal([]byte(text), &want) == nil || text == ""
		if ok != (p.broken == nil) {
			if strings.TrimSpace(text) != "" || p.broken != nil {
				t.Fatalf("%q: broken %v, encoding/json ok=%v", text, p.broken, ok)
			}
		}
		if p.broken == nil && len(p.list)+len(p.opaque) != len(want) {
			t.Fatalf("%q: %d records and %d others of %d elements", text, len(p.list), len(p.opaque), len(want))
		}
		for _, l := range p.list {
			if why := unsafeID(l.ID); why != "" {
				t.Fatalf("%q is shown: %s", l.ID, why)
			}
		}
		checkRewrite(t, p, len(want))
		again := parseLayers(text, p.list)
		if len(again.list) != len(p.list) || len(again.opaque) != len(p.opaque) {
			t.Fatalf("loaded again: %d and %d, first %d and %d", len(again.list), len(again.opaque), len(p.list), len(p.opaque))
		}
		for i := range again.list {
			if again.list[i].raw != p.list[i].raw || again.list[i].ID != p.list[i].ID {
				t.Fatalf("loaded again: %q, first %q", again.list[i].raw, p.list[i].raw)
			}
		}
	})
}

// checkRewrite saves what was loaded and looks that nothing was lost.
func checkRewrite(t *testing.T, p parsed[*Layer], elements int) {
	if p.broken != nil {
		return
	}
	set := merge(KindLayer, [numFiles]parsed[*Layer]{p}, nil)
	texts, err := set.encode(0)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := writeArray(&b, texts); err != nil {
		t.Fatal(err)
	}
	var back []json.RawMessage
	if err := json.Unmarshal([]byte(b.String()), &back); err != nil || len(back) != elements {
		t.Fatalf("rewritten: %v, %d elements of %d: %q", err, len(back), elements, b.String())
	}
	second := merge(KindLayer, [numFiles]parsed[*Layer]{parseLayers(b.String(), nil)}, nil)
	if len(second.list) != len(set.list) || len(second.byName) != len(set.byName) {
		t.Fatalf("rewritten text loads otherwise: %q", b.String())
	}
	for id, l := range set.byID {
		if o := second.byID[id]; o == nil || strings.Join(o.Names, "\n") != strings.Join(l.Names, "\n") {
			t.Fatalf("rewritten text has another %q: %q", id, b.String())
		}
	}
}

// What a reload takes from memory is what the file says, whatever was added,
// removed, changed or moved in between.
func TestReloadAgainstFresh(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		one := rapid.Custom(func(t *rapid.T) string {
			return `{"id":"` + rapid.StringMatching(`[a-f]`).Draw(t, "id") + `","metadata":"` + rapid.StringMatching(`[xy]`).Draw(t, "md") + `"}`
		})
		var old []*Layer
		for range rapid.IntRange(1, 4).Draw(t, "rounds") {
			text := "[" + strings.Join(rapid.SliceOfN(one, 0, 8).Draw(t, "records"), ",") + "]"
			got, want := parseLayers(text, old), parseLayers(text, nil)
			if len(got.list) != len(want.list) {
				t.Fatalf("%d records, want %d", len(got.list), len(want.list))
			}
			for i := range want.list {
				if got.list[i].raw != want.list[i].raw || got.list[i].Metadata != want.list[i].Metadata || got.list[i].ID != want.list[i].ID {
					t.Fatalf("record %d is %q, want %q", i, got.list[i].raw, want.list[i].raw)
				}
			}
			old = got.list
		}
	})
}
