package layertar

import "testing"

// Directories come back the last one first, also from disk.
func TestLateDirs(t *testing.T) {
	t.Parallel()
	var l lateDirs
	const n = 20_000
	for i := range n {
		d := lateDir{dir: "some/directory/that/is/deep", offset: int64(i), perm: uint32(i & 0o7777)}
		if i%3 == 0 {
			d.acl = []byte{1, 2, byte(i)}
		}
		if err := l.push(d); err != nil {
			t.Fatal(err)
		}
	}
	i := n
	err := l.drain(func(d *lateDir) error {
		i--
		if d.offset != int64(i) || d.perm != uint32(i&0o7777) || d.dir != "some/directory/that/is/deep" || (d.acl != nil) != (i%3 == 0) {
			t.Fatalf("number %d is %+v", i, d)
		}
		return nil
	})
	if err != nil || i != 0 || !l.s.Spilled() {
		t.Errorf("%d left, %v", i, err)
	}
	if err := l.s.Close(); err != nil {
		t.Error(err)
	}
}
