package idmap_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/idmap"
)

func TestTranslateAndInverse(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var ranges []idmap.Range
		c, h := 0, 0
		for range rapid.IntRange(0, 4).Draw(t, "n") {
			c += rapid.IntRange(0, 5).Draw(t, "gapC")
			h += rapid.IntRange(0, 5).Draw(t, "gapH")
			size := rapid.IntRange(1, 70000).Draw(t, "size")
			ranges = append(ranges, idmap.Range{ContainerID: c, HostID: h, Size: size})
			c, h = c+size, h+size
		}
		if err := idmap.Validate(ranges); err != nil {
			t.Fatal(err)
		}
		id := rapid.IntRange(0, 300000).Draw(t, "id")
		if host, ok := idmap.Translate(ranges, id); ok {
			if back, ok := idmap.Inverse(ranges, host); !ok || back != id {
				t.Fatalf("%d -> %d -> %d, %v", id, host, back, ok)
			}
		}
		specs := make([]string, len(ranges))
		for i, r := range ranges {
			specs[i] = r.String()
		}
		again, err := idmap.Parse(specs...)
		if err != nil || len(again) != len(ranges) {
			t.Fatalf("Parse(%q) = %v, %v", specs, again, err)
		}
	})
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"1:2", "a:b:c", "0:0:0", "-1:0:1", "0:0:4294967296", "0:100:10,5:300:10", "0:100:10,20:105:10", "1:4294967295:2"} {
		if r, err := idmap.Parse(s); err == nil {
			t.Errorf("Parse(%q) = %v, no error", s, r)
		}
	}
}

func TestPlainACL(t *testing.T) {
	t.Parallel()
	plain := "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x04\x00\x05\x00\xff\xff\xff\xff\x20\x00\x01\x00\xff\xff\xff\xff"
	if perm, ok := idmap.PlainACL([]byte(plain)); !ok || perm != 0o651 {
		t.Errorf("%o, %v", perm, ok)
	}
	for i := range plain {
		cut, other := plain[:i], []byte(plain)
		other[i] ^= 0x30
		_, whole := idmap.PlainACL([]byte(cut))
		_, ok := idmap.PlainACL(other)
		id := i >= 4 && (i-4)%8 >= 4 // means nothing in these entries
		if whole || ok != id {
			t.Errorf("byte %d: cut off there %v, changed %v", i, whole, ok)
		}
	}
}
