package layertar_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// pastCase is a stream out of the public history of what went wrong with
// archives in container tools and in the archive programs that they are made
// of. ABS in a name is the canary's absolute path.
type pastCase struct {
	url     string
	ms      []member
	refused bool
	// made must be there afterwards, relative to the layer's root.
	made string
}

const nvd = "https://nvd.nist.gov/vuln/detail/"

func history() map[string]pastCase {
	const up = "../canary"
	return map[string]pastCase{
		// Docker before 1.3.2: image extraction follows symlinks and hard links out.
		"CVE-2014-6407 symlink":              {url: nvd + "CVE-2014-6407", ms: []member{{typ: '2', name: "e", link: up}, {typ: '0', name: "e/f", data: "x"}}, refused: true},
		"CVE-2014-6407 absolute symlink":     {url: nvd + "CVE-2014-6407", ms: []member{{typ: '2', name: "e", link: "ABS"}, {typ: '0', name: "e/f", data: "x"}}, refused: true},
		"CVE-2014-6407 symlinks in a row":    {url: nvd + "CVE-2014-6407", ms: []member{{typ: '2', name: "a", link: ".."}, {typ: '2', name: "b", link: "a/canary"}, {typ: '0', name: "b/f", data: "x"}}, refused: true},
		"CVE-2014-6407 hard link":            {url: nvd + "CVE-2014-6407", ms: []member{{typ: '1', name: "h", link: "../canary/f"}, {typ: '0', name: "h", data: "x"}}, refused: true},
		"CVE-2014-6407 hard link, absolute":  {url: nvd + "CVE-2014-6407", ms: []member{{typ: '1', name: "h", link: "ABS/f"}}, refused: true},
		"CVE-2014-6407 hard link by symlink": {url: nvd + "CVE-2014-6407", ms: []member{{typ: '2', name: "e", link: up}, {typ: '1', name: "h", link: "e/f"}}, refused: true},
		// Docker before 1.3.3: absolute symlinks in an image are followed.
		"CVE-2014-9356": {url: nvd + "CVE-2014-9356", ms: []member{{typ: '5', name: "x/"}, {typ: '2', name: "x/e", link: "ABS/d"}, {typ: '0', name: "x/e/new", data: "x"}}, refused: true},
		// libcontainer, Docker before 1.6.1: a symlink in the place of what is opened or mounted later.
		"CVE-2015-3627": {url: nvd + "CVE-2015-3627", ms: []member{{typ: '2', name: "e", link: up + "/f"}, {typ: '0', name: "./x/../e", data: "x"}}, refused: true},
		"CVE-2015-3629": {url: nvd + "CVE-2015-3629", ms: []member{{typ: '5', name: "proc/"}, {typ: '0', name: ".wh.proc"}, {typ: '2', name: "p/../proc2", link: up}, {typ: '5', name: "proc2/d/"}}, refused: true},
		// "Zip slip": names that climb, absolute names. Peers clean them, and so do we.
		"CVE-2018-1002207":          {url: nvd + "CVE-2018-1002207", ms: []member{{typ: '0', name: "../canary/f", data: "x"}}, made: "canary/f"},
		"CVE-2001-1267":             {url: nvd + "CVE-2001-1267", ms: []member{{typ: '0', name: "a/../../canary/f", data: "x"}}, made: "canary/f"},
		"CVE-2016-6321":             {url: nvd + "CVE-2016-6321", ms: []member{{typ: '0', name: "etc/motd/../../../canary/f", data: "x"}}, made: "canary/f"},
		"CVE-2007-4559":             {url: nvd + "CVE-2007-4559", ms: []member{{typ: '0', name: "ABS/f", data: "x"}}, made: "ABS/f"},
		"CVE-2001-1267 directories": {url: nvd + "CVE-2001-1267", ms: []member{{typ: '5', name: "../canary/d/"}}, made: "canary/d"},
		// docker cp: a path is looked at, then another is used. Nothing of a path is looked at twice.
		"CVE-2018-15664": {url: nvd + "CVE-2018-15664", ms: []member{{typ: '5', name: "d/"}, {typ: '0', name: "d/1"}, {typ: '0', name: ".wh.d"}, {typ: '2', name: "z/../d2", link: up}, {typ: '0', name: "d2/f", data: "x"}}, refused: true},
		// podman cp, oras pull: symlinks in the container's tree are followed on the host.
		"CVE-2019-10152": {url: nvd + "CVE-2019-10152", ms: []member{{typ: '2', name: "a", link: "/"}, {typ: '0', name: "aABS/f", data: "x"}}, refused: false},
		"CVE-2021-21272": {url: nvd + "CVE-2021-21272", ms: []member{{typ: '2', name: "l", link: "ABS/f"}, {typ: '1', name: "h", link: "l"}, {typ: '0', name: "h/x", data: "x"}}, refused: true},
		// umoci before 0.4.7: the layer's root itself is a symlink.
		"CVE-2021-29136":          {url: nvd + "CVE-2021-29136", ms: []member{{typ: '2', name: ".", link: up}, {typ: '0', name: "f", data: "x"}}, refused: true},
		"CVE-2021-29136 slash":    {url: nvd + "CVE-2021-29136", ms: []member{{typ: '2', name: "/", link: up}, {typ: '0', name: "f", data: "x"}}, refused: true},
		"CVE-2021-29136 hardlink": {url: nvd + "CVE-2021-29136", ms: []member{{typ: '2', name: "l", link: up}, {typ: '1', name: "./", link: "l"}}, refused: true},
		// containerd before 1.5.4, docker cp before 20.10.9: the mode of a file outside is changed.
		"CVE-2021-32760":         {url: nvd + "CVE-2021-32760", ms: []member{{typ: '2', name: "e", link: up + "/f"}, {typ: '1', name: "h", link: "e"}}, made: "h"},
		"CVE-2021-41089":         {url: nvd + "CVE-2021-41089", ms: []member{{typ: '2', name: "e", link: up}, {typ: '5', name: "e/d/"}}, refused: true},
		"CVE-2021-41089 itself":  {url: nvd + "CVE-2021-41089", ms: []member{{typ: '2', name: "e", link: up + "/d"}, {typ: '5', name: "e/"}}, refused: true}, // the same name twice
		"CVE-2021-41089 by root": {url: nvd + "CVE-2021-41089", ms: []member{{typ: '5', name: "../"}}, made: "."},
		// node-tar: a directory that was made is remembered, and then a symlink takes its place.
		"CVE-2021-32803": {url: nvd + "CVE-2021-32803", ms: []member{{typ: '5', name: "d/"}, {typ: '2', name: "d", link: up}, {typ: '0', name: "d/f", data: "x"}}, refused: true},
		"CVE-2021-37701": {url: nvd + "CVE-2021-37701", ms: []member{{typ: '5', name: "a\\d/"}, {typ: '5', name: "a/"}, {typ: '5', name: "a/d/"}, {typ: '0', name: "a/.wh.d"}, {typ: '2', name: "a/x/../e", link: "../../canary"}, {typ: '0', name: "a/e/f", data: "x"}}, refused: true},
		// libarchive: hard links with content, and late attributes through a symlink (see TestLateAttributesDoNotFollow).
		"CVE-2016-5418":  {url: nvd + "CVE-2016-5418", ms: []member{{typ: '2', name: "l", link: up + "/f"}, {typ: '1', name: "h", link: "l"}, {typ: '0', name: "y/../h", data: "x"}}, refused: true},
		"CVE-2021-31566": {url: nvd + "CVE-2021-31566", ms: []member{{typ: '5', name: "d/"}, {typ: '2', name: "d", link: up + "/d"}}, refused: true},
		// BuildKit, and removals by whiteouts: what is deleted is outside.
		"CVE-2024-23652":          {url: nvd + "CVE-2024-23652", ms: []member{{typ: '2', name: "e", link: up}, {typ: '0', name: "e/.wh.f"}}, refused: true},
		"CVE-2024-23652 opaque":   {url: nvd + "CVE-2024-23652", ms: []member{{typ: '2', name: "e", link: up}, {typ: '0', name: "e/.wh..wh..opq"}}, refused: true},
		"CVE-2024-23652 dot-dot":  {url: nvd + "CVE-2024-23652", ms: []member{{typ: '0', name: "x/.wh..."}}, refused: true},
		"CVE-2024-23652 climbing": {url: nvd + "CVE-2024-23652", ms: []member{{typ: '0', name: "../canary/.wh.f"}}},
		"CVE-2024-23652 clearing": {url: nvd + "CVE-2024-23652", ms: []member{{typ: '0', name: "../canary/.wh..wh..opq"}}},
		"CVE-2024-23652 itself":   {url: nvd + "CVE-2024-23652", ms: []member{{typ: '2', name: "e", link: up}, {typ: '0', name: ".wh.e"}}},
		// containers/storage, Buildah: symlinks in a layer in the place of well-known files and mount sources.
		"CVE-2024-9676": {url: nvd + "CVE-2024-9676", ms: []member{{typ: '5', name: "etc/"}, {typ: '2', name: "etc/passwd", link: "../../canary/f"}, {typ: '0', name: "x/../etc/./passwd", data: "x"}}, refused: true},
		"CVE-2024-1753": {url: nvd + "CVE-2024-1753", ms: []member{{typ: '2', name: "mnt", link: "/../canary"}, {typ: '0', name: "mnt/f", data: "x"}}, refused: true},
		// containerd 2.1.0: between look and use while an image is unpacked.
		"CVE-2025-47290": {url: nvd + "CVE-2025-47290", ms: []member{{typ: '0', name: "a/b/f"}, {typ: '0', name: "a/.wh.b"}, {typ: '2', name: "q/../a/c", link: "../../canary"}, {typ: '0', name: "a/c/f", data: "x"}}, refused: true},
	}
}

// TestHistoryIsListed: docs/layer-streams.md has every identifier that is here,
// and no other.
func TestHistoryIsListed(t *testing.T) {
	t.Parallel()
	identifiers := func(path string) map[string]bool {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]bool{}
		for _, id := range regexp.MustCompile(`CVE-[0-9]+-[0-9]+`).FindAllString(string(text), -1) {
			out[id] = true
		}
		return out
	}
	if d := cmp.Diff(identifiers("history_test.go"), identifiers("../../docs/layer-streams.md")); d != "" {
		t.Errorf("identifiers (-tested +listed):\n%s", d)
	}
}

// TestHistory: whatever the answer is, nothing outside changes.
func TestHistory(t *testing.T) {
	t.Parallel()
	for name, c := range history() {
		if !strings.HasPrefix(c.url, "https://") {
			t.Errorf("%s has no URL", name)
		}
		for _, style := range []whiteout.Style{whiteout.Apply, whiteout.Files} {
			g := guard(t)
			var ms []member
			for _, m := range c.ms {
				m.name, m.link = strings.ReplaceAll(m.name, "ABS", g.canary), strings.ReplaceAll(m.link, "ABS", g.canary)
				ms = append(ms, m)
			}
			err := g.apply(t, makeTar(t, ms...), layertar.ApplyOptions{Style: style})
			if (err != nil) != c.refused || (err != nil && !errors.Is(err, errno.ErrBadStream)) {
				t.Errorf("%s: %v", name, err)
			}
			if c.made != "" {
				if _, err := os.Lstat(filepath.Join(g.root, strings.ReplaceAll(c.made, "ABS", g.canary))); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			g.check(t)
		}
	}
}

// Streams that took memory, time or a whole process: each must end, soon and
// with ErrBadStream.
func TestHistoryOfExhaustion(t *testing.T) {
	t.Parallel()
	pax := func(size int64) []byte { // a header of that size, without its content
		var b bytes.Buffer
		if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Typeflag: '0', Name: "x", Size: size}); err != nil {
			t.Fatal(err)
		}
		h := b.Bytes()
		h[156] = 'x'
		return fixSums(h)
	}
	good := makeTar(t, member{typ: '0', name: "a", data: strings.Repeat("x", 5000)})
	sparse := func(text string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		rec := "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
		if err := w.WriteHeader(&tar.Header{Typeflag: '0', Name: "x", Size: int64(len(rec))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, rec); err != nil {
			t.Fatal(err)
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: '0', Name: "sparse", Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		out := b.Bytes()
		out[156] = 'x'
		return fixSums(out)
	}
	for name, c := range map[string]struct {
		url    string
		stream []byte
		limits layertar.Limits
	}{
		// archive/tar: a PAX header is read into memory whole.
		"CVE-2022-2879": {nvd + "CVE-2022-2879", pax(1 << 40), layertar.Limits{}},
		// containerd's importer reads a file of any size.
		"CVE-2023-25153": {nvd + "CVE-2023-25153", makeTar(t, member{typ: '0', name: "a", data: strings.Repeat("x", 5000)}), layertar.Limits{FileSize: 4000}},
		// containers/storage before 1.28.1: a layer that is no tar makes the reader wait for ever.
		"CVE-2021-20291":      {nvd + "CVE-2021-20291", []byte(strings.Repeat("this is no tar ", 100_000)), layertar.Limits{}},
		"CVE-2021-20291 gzip": {nvd + "CVE-2021-20291", gzipped(t, []byte(strings.Repeat("nor is this ", 100_000))), layertar.Limits{}},
		// GNU tar: a sparse map that makes no sense; a file that is shorter than said.
		"CVE-2019-9923":  {nvd + "CVE-2019-9923", sparse("2\n0\n100\n50\n100\n"), layertar.Limits{}},
		"CVE-2018-20482": {nvd + "CVE-2018-20482", good[:3000], layertar.Limits{}},
		// GNU tar: a number of base 256 without digits.
		"CVE-2022-48303": {nvd + "CVE-2022-48303", fixSums(append(append(append([]byte{}, good[:136]...), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00), good[148:500]...)), layertar.Limits{}},
		// Bombs: much out of little. The ratio and the total are bounded.
		"a bomb of one frame": {"https://en.wikipedia.org/wiki/Zip_bomb", gzipped(t, makeTar(t, member{typ: '0', name: "zeros", data: strings.Repeat("\x00", 8<<20)})), layertar.Limits{Ratio: 20}},
		"a bomb, total":       {"https://en.wikipedia.org/wiki/Zip_bomb", gzipped(t, makeTar(t, member{typ: '0', name: "zeros", data: strings.Repeat("\x00", 8<<20)})), layertar.Limits{Total: 1 << 20}},
		"layers in layers":    {"https://research.swtch.com/zip", gzipped(t, gzipped(t, good)), layertar.Limits{}},
	} {
		if !strings.HasPrefix(c.url, "https://") {
			t.Errorf("%s has no URL", name)
		}
		g := guard(t)
		done := make(chan error, 1)
		go func() { done <- g.apply(t, c.stream, layertar.ApplyOptions{Limits: c.limits}) }()
		select {
		case err := <-done:
			if !errors.Is(err, errno.ErrBadStream) {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(2 * time.Minute):
			t.Fatalf("%s does not end", name)
		}
		g.check(t)
	}
}

// tokio-tar, tar-rs: a PAX header's size and the block's own disagree, so that
// content is taken for members, or members for content.
//
// https://nvd.nist.gov/vuln/detail/CVE-2025-62518
// https://nvd.nist.gov/vuln/detail/CVE-2026-33055
func TestPAXSizeCounts(t *testing.T) {
	t.Parallel()
	inner := makeTar(t, member{typ: '0', name: "smuggled", data: "x"})
	for _, own := range []string{"00000000000", "00000000007"} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		err := w.WriteHeader(&tar.Header{Typeflag: '0', Name: "outer", Size: int64(len(inner)), PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b"}, Format: tar.FormatPAX})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(inner); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		stream := b.Bytes()
		text := "13 size=" + "2048\n" // what fits into the PAX header's block
		if len(inner) != 2048 {
			t.Fatalf("the inner archive has %d bytes", len(inner))
		}
		n := len(text)
		copy(stream[512:1024], append([]byte(text), make([]byte, 512-n)...))
		copy(stream[124:136], []byte("00000000015\x00")) // 13 in octal
		copy(stream[1024+124:], own)
		dir, _, _, err := importTar(t, fixSums(stream), layertar.ApplyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		es, err := os.ReadDir(dir)
		if err != nil || len(es) != 1 || es[0].Name() != "outer" {
			t.Errorf("%s: %v, %v", own, es, err)
		}
		if fi, err := os.Stat(filepath.Join(dir, "outer")); err != nil || fi.Size() != int64(len(inner)) {
			t.Errorf("%s: %v, %v", own, fi, err)
		}
	}
}

// Docker: an image's own xz or unpigz decompresses, as root. Nothing is run.
//
// https://nvd.nist.gov/vuln/detail/CVE-2014-9357
// https://nvd.nist.gov/vuln/detail/CVE-2026-41567
func TestNoProgramDecompresses(t *testing.T) { //nolint:paralleltest // sets the search path
	bin := t.TempDir()
	ran := filepath.Join(bin, "ran")
	for _, p := range []string{"xz", "unxz", "gzip", "gunzip", "pigz", "unpigz", "bzip2", "zstd"} {
		if err := os.WriteFile(filepath.Join(bin, p), []byte("#!/bin/sh\n: >"+ran+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	plain := makeTar(t, member{typ: '0', name: "a", data: "x"})
	streams := [][]byte{gzipped(t, plain)}
	for _, p := range []string{"xz", "bzip2", "zstd"} {
		streams = append(streams, run(t, bytes.NewReader(plain), p, "-c"))
	}
	t.Setenv("PATH", bin)
	for _, s := range streams {
		d, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := layertar.Import(context.Background(), d, bytes.NewReader(s), io.Discard, layertar.ApplyOptions{}); err != nil {
			t.Error(err)
		}
		closeIt(t, d)
	}
	if _, err := os.Stat(ran); !errors.Is(err, os.ErrNotExist) {
		t.Error("a program of the search path was run")
	}
}
