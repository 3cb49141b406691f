package layertar_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/layertar/layertartest"
)

// tocTar has a member of every kind that a table of contents names.
func tocTar(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	at := time.Unix(1_600_000_000, 0)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755},
		{Typeflag: tar.TypeDir, Name: "./d/", Mode: 0o1777, Uid: 5, Gid: 6},
		{Typeflag: tar.TypeReg, Name: "./d/f", Mode: 0o644, Size: 5000, PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b\x00c"}},
		{Typeflag: tar.TypeReg, Name: "./d/empty", Mode: 0o4755},
		{Typeflag: tar.TypeReg, Name: "./" + strings.Repeat("long/", 30) + "f", Mode: 0o600, Size: 5000, ModTime: at.Add(123 * time.Nanosecond), Format: tar.FormatPAX},
		{Typeflag: tar.TypeLink, Name: "./d/h", Linkname: "./d/f", Mode: 0o644},
		{Typeflag: tar.TypeSymlink, Name: "./l", Linkname: "d/f", Mode: 0o777},
		{Typeflag: tar.TypeFifo, Name: "./p", Mode: 0o600},
		{Typeflag: tar.TypeChar, Name: "./null", Mode: 0o666, Devmajor: 1, Devminor: 3},
	} {
		if h.ModTime.IsZero() {
			h.ModTime = at
		}
		err := w.WriteHeader(&h)
		if err == nil {
			_, err = w.Write(bytes.Repeat([]byte("x"), int(h.Size)))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// importTOC imports a stream, and returns the digest of its table and whether
// the table is the stream's.
func importTOC(t *testing.T, stream []byte) (d digest.Digest, table []byte, ok bool) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "toc"))
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, f)
	dir, split, res, err := importTar(t, stream, layertar.ApplyOptions{TOC: f})
	if err != nil {
		t.Fatal(err)
	}
	if table, err = os.ReadFile(f.Name()); err != nil {
		t.Fatal(err)
	}
	if res.TOCDigest == "" {
		return "", nil, false
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, root)
	ok, err = layertar.CheckTOC(context.Background(), root, split, bytes.NewReader(table))
	if err != nil {
		t.Fatal(err)
	}
	return res.TOCDigest, table, ok
}

func TestTOC(t *testing.T) {
	t.Parallel()
	needRoot(t)
	stream := tocTar(t)
	want := layertartest.Table(t, layertartest.Entries(t, stream))
	chunked, d := layertartest.Chunked(t, stream, want)
	got, table, ok := importTOC(t, chunked)
	if got != d || !bytes.Equal(table, want) || !ok {
		t.Errorf("the table %s, its own: %v, %s; %s was made", got, ok, table, d)
	}
	for _, other := range [][]byte{stream, gzipped(t, stream), chunked[:len(chunked)-48], slices.Concat(chunked, []byte("\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00"))} {
		if got, _, _ := importTOC(t, other); got != "" {
			t.Errorf("a table of contents %s where there is none", got)
		}
	}
}

// A table that says anything else than its stream is not its own: others take
// the table's word for the layer.
func TestForeignTOC(t *testing.T) {
	t.Parallel()
	needRoot(t)
	stream := tocTar(t)
	for name, edit := range map[string]func(es []layertartest.Entry) []layertartest.Entry{
		"content": func(es []layertartest.Entry) []layertartest.Entry {
			es[2].Digest = digest.FromString("other").String()
			return es
		},
		"no digest":   func(es []layertartest.Entry) []layertartest.Entry { es[2].Digest = ""; return es },
		"mode":        func(es []layertartest.Entry) []layertartest.Entry { es[3].Mode = 0o755; return es },
		"owner":       func(es []layertartest.Entry) []layertartest.Entry { es[1].UID = 0; return es },
		"group":       func(es []layertartest.Entry) []layertartest.Entry { es[1].GID = 0; return es },
		"time":        func(es []layertartest.Entry) []layertartest.Entry { es[4].Modtime = es[0].Modtime; return es },
		"size":        func(es []layertartest.Entry) []layertartest.Entry { es[2].Size--; return es },
		"link":        func(es []layertartest.Entry) []layertartest.Entry { es[6].Linkname = "/etc/passwd"; return es },
		"hard link":   func(es []layertartest.Entry) []layertartest.Entry { es[5].Linkname = "./d/empty"; return es },
		"device":      func(es []layertartest.Entry) []layertartest.Entry { es[8].Minor = 5; return es },
		"type":        func(es []layertartest.Entry) []layertartest.Entry { es[8].Type = "block"; return es },
		"attribute":   func(es []layertartest.Entry) []layertartest.Entry { es[2].Xattrs["user.a"] = nil; return es },
		"attributes":  func(es []layertartest.Entry) []layertartest.Entry { es[2].Xattrs = nil; return es },
		"name":        func(es []layertartest.Entry) []layertartest.Entry { es[2].Name = "./d/g"; return es },
		"one missing": func(es []layertartest.Entry) []layertartest.Entry { return es[1:] },
		"last":        func(es []layertartest.Entry) []layertartest.Entry { return es[:len(es)-1] },
		"one more":    func(es []layertartest.Entry) []layertartest.Entry { return append(es, es[0]) },
		"none":        func([]layertartest.Entry) []layertartest.Entry { return nil },
	} {
		table := layertartest.Table(t, edit(layertartest.Entries(t, stream)))
		chunked, d := layertartest.Chunked(t, stream, table)
		if got, _, ok := importTOC(t, chunked); ok || got != d {
			t.Errorf("%s: the table %s is taken for the stream's own", name, got)
		}
	}
	for _, text := range []string{"", "{", "[]", `{"entries":{}}`, `{"version":1}`, `{"entries":[],"entries":[]}`, `{"entries":[{"type":5}]}`, `{"a":"` + strings.Repeat("x", 5<<20) + `"}`} {
		chunked, _ := layertartest.Chunked(t, stream, []byte(text))
		if _, _, ok := importTOC(t, chunked); ok {
			t.Errorf("%.40q is taken for a table of contents", text)
		}
	}
}

// TestTOCWords: a table is not kept that other readers of JSON take otherwise,
// or that says of parts of files what is not so.
func TestTOCWords(t *testing.T) {
	t.Parallel()
	needRoot(t)
	stream := tocTar(t)
	table := string(layertartest.Table(t, layertartest.Entries(t, stream)))
	whole := digest.FromBytes(bytes.Repeat([]byte("x"), 5000))
	half := digest.FromBytes(bytes.Repeat([]byte("x"), 2500))
	end := `"digest":"` + whole.String() + `"}`
	if strings.Count(table, end) != 2 { // d/f and the one with a long name
		t.Fatalf("the table has another form: %s", table)
	}
	// of puts text after the digest of d/f, and lines after its own.
	of := func(text string, lines ...string) string {
		return strings.Replace(table, end, strings.TrimSuffix(end, "}")+text+"}"+strings.Join(append([]string{""}, lines...), ","), 1)
	}
	chunk := func(name string, at, size int, d digest.Digest, more string) string {
		return fmt.Sprintf(`{"type":"chunk","name":%q,"chunkOffset":%d,"chunkSize":%d,"chunkDigest":%q%s}`, name, at, size, d, more)
	}
	first := fmt.Sprintf(`,"chunkSize":2500,"chunkDigest":%q`, half)
	for name, c := range map[string]struct {
		table string
		ok    bool
	}{
		"as it is":              {table, true},
		"a space at the end":    {table + " \n", true},
		"a key of the future":   {`{"tarSplit":5,` + table[1:], true},
		"one part":              {of(fmt.Sprintf(`,"chunkDigest":%q`, whole)), true},
		"two parts":             {of(first, chunk("./d/f", 2500, 2500, half, "")), true},
		"the second to the end": {of(first, chunk("./d/f", 2500, 0, half, "")), true},
		"more at the end":       {table + "{}", false},
		"entries twice":         {`{"entries":[],` + table[1:], false},
		"in another case":       {`{"Entries":[],` + table[1:], false},
		"in another case after": {strings.TrimSuffix(table, "}") + `,"ENTRIES":[]}`, false},
		"another letter s":      {`{"entrie\u017f":[],` + table[1:], false},
		"a digest twice":        {of(`,"digest":null`), false},
		"a name in other case":  {of(`,"NAME":"./d/g"`), false},
		"a link of a file":      {of(`,"linkName":"/etc/shadow"`), false},
		"a device of a file":    {of(`,"devMajor":5`), false},
		"a part's digest":       {of(fmt.Sprintf(`,"chunkDigest":%q`, half)), false},
		"a part too few":        {of(first), false},
		"a part too many":       {of("", chunk("./d/f", 5000, 0, half, "")), false},
		"a part of another":     {of(first, chunk("../../etc/shadow", 2500, 2500, half, "")), false},
		"a part elsewhere":      {of(first, chunk("./d/f", 2400, 2600, half, "")), false},
		"a part too long":       {of(first, chunk("./d/f", 2500, 5000, half, "")), false},
		"a part's own digest":   {of(first, chunk("./d/f", 2500, 2500, whole, "")), false},
		"no zeros":              {of(first, chunk("./d/f", 2500, 2500, half, `,"chunkType":"zeros"`)), false},
		"a part of a directory": {strings.Replace(table, `{"type":"dir"`, `{"chunkSize":5,"type":"dir"`, 1), false},
	} {
		chunked, d := layertartest.Chunked(t, stream, []byte(c.table))
		if got, _, ok := importTOC(t, chunked); ok != c.ok || got != d {
			t.Errorf("%s: kept: %v, digest %s", name, ok, got)
		}
	}
}

// TestTOCOfSkopeo: what skopeo compresses has a table that we keep, with the
// digest that skopeo annotates.
func TestTOCOfSkopeo(t *testing.T) {
	t.Parallel()
	needRoot(t)
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("skopeo is not installed: this test asks it for a stream")
	}
	stream := tocTar(t)
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	put := func(name string, b []byte) digest.Digest {
		d := digest.FromBytes(b)
		if name == "" {
			name = d.Encoded()
		}
		if err := errors.Join(os.MkdirAll(from, 0o755), os.WriteFile(filepath.Join(from, name), b, 0o644)); err != nil {
			t.Fatal(err)
		}
		return d
	}
	layer := put("", stream)
	text := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[%q]}}`, layer)
	config := put("", text)
	put("version", []byte("Directory Transport Version: 1.1\n"))
	put("manifest.json", fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		config, len(text), layer, len(stream)))
	run(t, nil, "skopeo", "--insecure-policy", "copy", "--dest-compress", "--dest-compress-format", "zstd:chunked", "dir:"+from, "dir:"+to)
	b, err := os.ReadFile(filepath.Join(to, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		Layers []struct {
			Digest      digest.Digest
			Annotations map[string]string
		}
	}
	if err := json.Unmarshal(b, &m); err != nil || len(m.Layers) != 1 {
		t.Fatalf("%v: %s", err, b)
	}
	var want string
	for k, v := range m.Layers[0].Annotations {
		if strings.HasSuffix(k, ".zstd-chunked.manifest-checksum") {
			want = v
		}
	}
	blob, err := os.ReadFile(filepath.Join(to, m.Layers[0].Digest.Encoded()))
	if err != nil {
		t.Fatal(err)
	}
	if got, table, ok := importTOC(t, blob); got.String() != want || want == "" || !ok {
		t.Errorf("the table %s, its own: %v; skopeo says %s: %s", got, ok, want, table)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("this needs root: it makes devices and owners")
	}
}
