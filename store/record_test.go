package store

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/layertar"
)

// fullLayer is a record as Debian's tool (1.43) wrote it back after every
// member had been filled in, but for the unknown ones, which it drops.
const fullLayer = `{"id":"base","names":["n1","x"],"metadata":"md","mountlabel":"ml","created":"2020-01-01T00:00:00+02:00","compressed-diff-digest":"sha256:3333333333333333333333333333333333333333333333333333333333333333","compressed-size":4,"diff-digest":"sha256:2222222222222222222222222222222222222222222222222222222222222222","diff-size":3,"compression":2,"uidset":[2],"gidset":[1],"flags":{"foo":{"a":1.5}},"uidmap":[{"container_id":0,"host_id":1,"size":2}],"gidmap":[{"container_id":0,"host_id":1,"size":2}],"big-data-names":["k"]}`

const fullImage = `{"id":"img","digest":"sha256:4444444444444444444444444444444444444444444444444444444444444444","names":["a","y"],"names-history":["y","a","h"],"layer":"base","mapped-layers":["base"],"metadata":"{\"a\":\"\u003cx\u003e\"}","big-data-names":["k"],"big-data-sizes":{"k":1},"big-data-digests":{"k":"sha256:5555555555555555555555555555555555555555555555555555555555555555"},"created":"2026-11-24T00:02:48.866610699Z","flags":{"foo":1}}`

const fullContainer = `{"id":"con","names":["cn","z"],"image":"img","layer":"52deb944","metadata":"m","big-data-names":["k"],"big-data-sizes":{"k":1},"big-data-digests":{"k":"sha256:5555555555555555555555555555555555555555555555555555555555555555"},"created":"2026-11-24T00:02:48.879085831Z","uidmap":[{"container_id":0,"host_id":1,"size":2}],"gidmap":[{"container_id":0,"host_id":1,"size":2}],"flags":{"MountLabel":"","ProcessLabel":""}}`

type encodable interface {
	object
	append(b []byte) ([]byte, error)
}

func encode(r encodable) (string, error) {
	b, err := r.append(nil)
	return string(b), err
}

func decodeAs(t testing.TB, k Kind, raw string) encodable {
	t.Helper()
	var r encodable
	var err error
	switch k {
	case KindLayer:
		r, err = decodeLayer(&scanner{s: raw})
	case KindImage:
		r, err = decodeImage(&scanner{s: raw})
	case KindContainer:
		r, err = decodeContainer(&scanner{s: raw})
	}
	if err != nil {
		t.Fatalf("decode %s: %v", raw, err)
	}
	return r
}

// What the peers write is written by us byte for byte; unknown members come
// at the end, and inside flags stay as they are.
func TestEncodeAsPeers(t *testing.T) {
	for k, raw := range []string{fullLayer, fullImage, fullContainer} {
		r := decodeAs(t, Kind(k), raw)
		if got, err := encode(r); err != nil || got != raw {
			t.Errorf("%v\n got %s\nwant %s", err, got, raw)
		}
		unknown := `,"x":{"y" : [1e2, null]},"z":0}`
		more := strings.TrimSuffix(raw, "}") + unknown
		r = decodeAs(t, Kind(k), more)
		if got, err := encode(r); err != nil || got != more {
			t.Errorf("%v\n got %s\nwant %s", err, got, more)
		}
		if r.m().damage != "" || len(r.m().extra) != 2 {
			t.Errorf("damage %q, extra %v", r.m().damage, r.m().extra)
		}
	}
}

func TestFlagsNumbersSurvive(t *testing.T) {
	raw := `{"id":"a","created":"0001-01-01T00:00:00Z","flags":{"big":12345678901234567890.25,"incomplete":true,"n":{"deep":[1e400]}}}`
	if got, err := encode(decodeAs(t, KindLayer, raw)); err != nil || got != raw {
		t.Errorf("%v\n got %s\nwant %s", err, got, raw)
	}
}

// A member of the wrong type damages the record and nothing else.
func TestWrongTypes(t *testing.T) {
	for _, member := range []string{
		`"names":5`, `"names":[1]`, `"parent":[]`, `"created":"yesterday"`, `"compressed-size":"x"`,
		`"compressed-size":1.5`, `"uidset":[-1]`, `"uidmap":[{"container_id":-1}]`, `"flags":[]`, `"metadata":7`,
		`"gidset":[4294967296]`, `"big-data-names":{}`, `"compression":"gzip"`,
	} {
		raw := `{"id":"a",` + member + `}`
		if r := decodeAs(t, KindLayer, raw); r.m().damage == "" || r.id() != "a" {
			t.Errorf("%s: damage %q, id %q", member, r.m().damage, r.id())
		}
		null := `{"id":"a",` + member[:strings.Index(member, ":")] + `:null}`
		if r := decodeAs(t, KindLayer, null); r.m().damage != "" {
			t.Errorf("%s: damage %q", null, r.m().damage)
		}
	}
}

func drawDigest(t *rapid.T, label string) digest.Digest {
	return digest.Digest(rapid.SampledFrom([]string{"", "sha256:" + strings.Repeat("1", 64), "sha256:" + strings.Repeat("2", 64)}).Draw(t, label))
}

func drawRanges(t *rapid.T, label string) []idmap.Range {
	one := rapid.Custom(func(t *rapid.T) idmap.Range {
		n := rapid.IntRange(0, 1<<31)
		return idmap.Range{ContainerID: n.Draw(t, "c"), HostID: n.Draw(t, "h"), Size: n.Draw(t, "s")}
	})
	return nilIfEmpty(rapid.SliceOfN(one, 0, 3).Draw(t, label))
}

func nilIfEmpty[E any](s []E) []E {
	if len(s) == 0 {
		return nil
	}
	return s
}

// Encoding and decoding a layer gives the same layer, and encoding/json
// understands the text in the same way.
func TestLayerRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String()
		ids := rapid.SliceOfN(rapid.Uint32(), 0, 4)
		l := &Layer{
			ID:               text.Draw(t, "id"),
			Names:            nilIfEmpty(rapid.SliceOfN(text, 0, 3).Draw(t, "names")),
			Parent:           text.Draw(t, "parent"),
			Metadata:         text.Draw(t, "metadata"),
			MountLabel:       text.Draw(t, "label"),
			Created:          time.Unix(rapid.Int64Range(0, 1<<40>>8).Draw(t, "created"), rapid.Int64Range(0, 999999999).Draw(t, "ns")).UTC(),
			CompressedDigest: drawDigest(t, "cd"),
			DiffDigest:       drawDigest(t, "dd"),
			TOCDigest:        drawDigest(t, "td"),
			CompressedSize:   rapid.Int64().Draw(t, "cs"),
			DiffSize:         rapid.Int64().Draw(t, "ds"),
			Compression:      layertar.Compression(rapid.IntRange(0, 4).Draw(t, "comp")),
			UIDs:             nilIfEmpty(ids.Draw(t, "uids")),
			GIDs:             nilIfEmpty(ids.Draw(t, "gids")),
			BigDataNames:     nilIfEmpty(rapid.SliceOfN(text, 0, 3).Draw(t, "bd")),
		}
		l.Maps.UIDs, l.Maps.GIDs = drawRanges(t, "um"), drawRanges(t, "gm")
		raw, err := encode(l)
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid([]byte(raw)) {
			t.Fatalf("invalid JSON %q", raw)
		}
		back, err := decodeLayer(&scanner{s: raw})
		if err != nil || back.damage != "" {
			t.Fatalf("decode %q: %v %s", raw, err, back.damage)
		}
		back.meta = meta{}
		if !reflect.DeepEqual(l, back) {
			t.Fatal(cmp.Diff(l, back, cmp.AllowUnexported(Layer{}, meta{})))
		}
	})
}
