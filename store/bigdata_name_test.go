package store

import (
	"encoding/base64"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/durable"
)

// TestDataFileNameProbes holds what the containers tools of 2022 and 2025 did
// when they were asked.
func TestDataFileNameProbes(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"manifest", "a.b", ".hid", "0abc", "A", "Z", "a-", "é", "aA", "="} {
		if got, err := dataFileName(key); err != nil || got != key {
			t.Errorf("%q → %q, %v; want it plain", key, got, err)
		}
	}
	for _, key := range []string{"AB", "a-b", "a_b", "a b", "a%b", "=x", "sha256:12", "日本", "éa", "manifest-sha256:12", "a\nb", "\x01\x02"} {
		want := "=" + base64.StdEncoding.EncodeToString([]byte(key))
		if got, err := dataFileName(key); err != nil || got != want {
			t.Errorf("%q → %q, %v; want %q", key, got, err, want)
		}
	}
	for _, key := range []string{"", ".", "..", "/", "a/", "???a", "???", "userdata", "a\x00", strings.Repeat("a", 256), strings.Repeat("A", 200)} {
		if got, err := dataFileName(key); err == nil {
			t.Errorf("%q → %q; want it refused", key, got)
		}
	}
	for key, want := range map[string]string{"a/": "a", "???": "=Pz8"} {
		if got, err := readDataFileName(key); err != nil || got != want {
			t.Errorf("reading %q → %q, %v; want %q", key, got, err, want)
		}
	}
	for _, key := range []string{"", "/", ".", "..", "???a"} {
		if got, err := readDataFileName(key); err == nil {
			t.Errorf("reading %q → %q; want it refused", key, got)
		}
	}
}

// checkDataFileName holds the laws for one key.
func checkDataFileName(t interface{ Fatalf(string, ...any) }, key string) {
	name, err := dataFileName(key)
	if err != nil {
		return
	}
	if name == "" || name == "." || name == ".." || name == "userdata" || len(name) > maxFileName ||
		strings.ContainsAny(name, "/\x00") || durable.IsTemp(name) {
		t.Fatalf("key %q has the file name %q", key, name)
	}
	if back, ok := keyOfDataFile(name); !ok || back != key {
		t.Fatalf("key %q → %q → %q %v", key, name, back, ok)
	}
	if read, err := readDataFileName(key); err != nil || read != name {
		t.Fatalf("key %q is written to %q and read from %q, %v", key, name, read, err)
	}
}

func TestDataFileNameLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		checkDataFileName(t, rapid.String().Draw(t, "any"))
		checkDataFileName(t, rapid.StringMatching(`[a-z0-9.=/_A-]{0,6}`).Draw(t, "near"))
	})
}

func FuzzDataFileName(f *testing.F) {
	for _, key := range []string{"manifest", "sha256:00", "a/", "=", "=x", "é", "\xff", ".tmp-x1"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		checkDataFileName(t, key)
		if back, ok := keyOfDataFile(key); ok { // key taken as a file name
			if name, err := dataFileName(back); err != nil || name != key {
				t.Fatalf("file %q → key %q → %q, %v", key, back, name, err)
			}
		}
	})
}
