package layertar_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/layertar"
)

// TestComparedAttributes: two trees differ in a name if what users, capabilities
// and ACLs say differs, whichever side says it, and not by other attributes.
func TestComparedAttributes(t *testing.T) {
	t.Parallel()
	content := []string{"user.a", "user.b", "security.capability"}
	ours := map[string]bool{"user.overlay.origin": true, "trusted.other": true}
	if err := unix.Setxattr(t.TempDir(), "trusted.other", []byte("x"), 0); errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EPERM) {
		t.Skipf("attributes of every kind need root and a filesystem that has them: %v", err)
	}
	attrs := append(slices.Clone(content), "user.overlay.origin", "trusted.other")
	when := time.Unix(1_600_000_000, 0)
	capability := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	rapid.Check(t, func(rt *rapid.T) {
		top := t.TempDir()
		var want []string
		for _, name := range []string{"d", "d/f", "e", "g"} {
			differs := false
			for _, side := range []string{"new", "old"} {
				path := filepath.Join(top, side, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					rt.Fatal(err)
				}
				if name == "d" {
					if err := os.Mkdir(path, 0o755); err != nil {
						rt.Fatal(err)
					}
				} else if err := os.WriteFile(path, nil, 0o600); err != nil {
					rt.Fatal(err)
				}
			}
			for _, attr := range attrs {
				var said [2]int
				for i, side := range []string{"new", "old"} {
					said[i] = rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(rt, side+" "+name+" "+attr)
					value := []byte{byte(said[i])}
					if attr == "security.capability" {
						value = slices.Clone(capability)
						value[4] = byte(said[i])
					}
					if said[i] == 0 || (attr == "security.capability" && name == "d") {
						said[i] = 0
						continue
					}
					if err := unix.Setxattr(filepath.Join(top, side, name), attr, value, 0); err != nil {
						rt.Fatal(attr, err)
					}
				}
				differs = differs || (said[0] != said[1] && !ours[attr])
			}
			if differs {
				want = append(want, "/"+name)
			}
			for _, side := range []string{"new", "old"} {
				if err := os.Chtimes(filepath.Join(top, side, name), when, when); err != nil {
					rt.Fatal(err)
				}
			}
		}
		if slices.Contains(want, "/d/f") && !slices.Contains(want, "/d") {
			want = append([]string{"/d"}, want...)
		}
		var got []string
		s := layertar.Source{New: []string{filepath.Join(top, "new")}, Old: []string{filepath.Join(top, "old")}}
		err := layertar.Changes(context.Background(), s, func(c layertar.Change) error {
			if c.Kind != layertar.Modify {
				rt.Errorf("%v", c)
			}
			got = append(got, c.Path)
			return nil
		})
		if err != nil || !slices.Equal(got, want) {
			rt.Fatalf("%v, %v, want %v", got, err, want)
		}
	})
}
