package fuseoverlay

import (
	"errors"
	"slices"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/idmap"
	"github.com/plyfs/plyfs/internal/safefs"
)

func TestEdge(t *testing.T) {
	t.Parallel()
	e := newEdge(&MountConfig{
		UIDs: []idmap.Range{{ContainerID: 0, HostID: 1000, Size: 10}}, GIDs: []idmap.Range{{ContainerID: 5, HostID: 6, Size: 1}},
		StaticNlink: true, Ino32: true,
	})
	st := safefs.Stat{UID: 3, GID: 5, Nlink: 7, Mode: syscall.S_IFDIR, Ino: 1<<32 | 5}
	e.show(&st)
	if st.UID != 1003 || st.GID != 6 || st.Nlink != 1 || st.Ino != 4 {
		t.Errorf("%+v", st)
	}
	st = safefs.Stat{UID: 10, GID: 6, Nlink: 7, Mode: syscall.S_IFREG, Ino: 1<<32 | 1}
	e.show(&st)
	if st.UID != overflowID || st.GID != overflowID || st.Nlink != 7 || st.Ino != 1 {
		t.Errorf("%+v", st)
	}
	if u, g := e.keep(1003, 6); u != 3 || g != 5 {
		t.Errorf("%d:%d", u, g)
	}
	if u, g := e.keep(0, 7); u != overflowID || g != overflowID {
		t.Errorf("%d:%d", u, g)
	}
	id := uint32(0)
	if err := e.keepChange(&change{uid: &id}); !errors.Is(err, syscall.EOVERFLOW) {
		t.Errorf("%v", err)
	}
	five := uint32(5)
	e = newEdge(&MountConfig{SquashUID: &five})
	st = safefs.Stat{UID: 1, GID: 2, Ino: 1 << 40}
	if e.show(&st); st.UID != 5 || st.GID != 2 || st.Ino != 1<<40 {
		t.Errorf("%+v", st)
	}
	if e := newEdge(&MountConfig{}); !e.plain {
		t.Error("not plain")
	}
}

// Shown and kept are inverse on all IDs of the map, in ACLs too, whatever else
// their bytes are.
func TestEdgeInverse(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := newEdge(&MountConfig{
			UIDs: []idmap.Range{{ContainerID: 0, HostID: 100, Size: 50}, {ContainerID: 60, HostID: 10, Size: 50}},
			GIDs: []idmap.Range{{ContainerID: 0, HostID: 0, Size: 1 << 20}},
		})
		b := rapid.SliceOfN(rapid.Byte(), 0, 60).Draw(t, "bytes")
		if len(b) >= 12 && rapid.Bool().Draw(t, "entry") {
			copy(b[4:], []byte{2 /* ACL_USER */, 0, 7, 0, rapid.SampledFrom([]byte{0, 49, 60, 109}).Draw(t, "id"), 0, 0, 0})
		}
		shown, err := e.acl(accessACL, b, true)
		if err != nil || len(shown) != len(b) {
			t.Fatalf("%v, %v", shown, err)
		}
		back, err := e.acl(accessACL, shown, false)
		if err == nil && !slices.Equal(back, b) {
			again, _ := e.acl(accessACL, back, true)
			if !slices.Equal(again, shown) { // an ID outside of the map is shown as another
				t.Fatalf("%v → %v → %v", b, shown, back)
			}
		}
		if other, err := e.acl("user.x", b, true); err != nil || !slices.Equal(other, b) {
			t.Fatal("another attribute was changed")
		}
	})
}
