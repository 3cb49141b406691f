package fusewire

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// oracle says that all is brief, and what it was asked.
type oracle struct{ asked string }

func (o *oracle) BriefRmdir(dir uint64, name string) bool {
	o.asked = fmt.Sprintf("rmdir %d %s", dir, name)
	return true
}

func (o *oracle) BriefRename(dir uint64, name string, flags uint32) bool {
	o.asked = fmt.Sprintf("rename %d %s %d", dir, name, flags)
	return true
}

// What removes or moves a directory is laborious unless the filesystem says
// otherwise, which is asked for the first name; so is what is not as it should be.
func TestBrief(t *testing.T) {
	rename2 := make([]byte, 16)
	binary.NativeEndian.PutUint32(rename2[8:], 5)
	further := make([]byte, 40)
	further[8] = 1
	for _, c := range []struct {
		op        uint32
		body      []byte
		rest      string
		extension uint16
		foresight bool
		asked     string
		laborious bool
	}{
		{opRmdir, nil, "dir\x00", 0, false, "", true},
		{opRmdir, nil, "dir\x00", 0, true, "rmdir 12 dir", false},
		{opRmdir, nil, "dir", 0, true, "", true},
		{opRmdir, nil, "dir\x00", 1, true, "", true},
		{opRename, make([]byte, 8), "from\x00to\x00", 0, false, "", true},
		{opRename, make([]byte, 8), "from\x00to\x00", 0, true, "rename 12 from 0", false},
		{opRename2, rename2, "from\x00to\x00", 0, true, "rename 12 from 5", false},
		{opRename2, rename2, "", 0, true, "", true},
		{opRename2, rename2[:8], "", 0, true, "", true},
		{opReadDir, make([]byte, 40), "", 0, true, "", true},
		{opReadDirPlus, further, "", 0, true, "", false},
		{opUnlink, nil, "file\x00", 0, true, "", false},
	} {
		s, _, r := decoding(t)
		o := &oracle{}
		if c.foresight {
			s.foresight = o
		}
		n := r.asking(c.op, c.body, []byte(c.rest), c.extension)
		if got := s.laborious(r, n); got != c.laborious || o.asked != c.asked {
			t.Errorf("%d %q: laborious %v, asked %q", c.op, c.rest, got, o.asked)
		}
	}
}
