package layertar_test

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// treeOf returns a line for everything below dir and dir itself. A time of
// this hour is "now": it was not set.
func treeOf(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	links := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		mtime := fmt.Sprintf("%d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
		if d := time.Since(time.Unix(st.Mtim.Unix())); d > 0 && d < time.Hour {
			mtime = "now"
		}
		line := fmt.Sprintf("%q %o %d:%d %s", rel, st.Mode, st.Uid, st.Gid, mtime)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %s", st.Size, sum(b)[:12])
		case unix.S_IFLNK:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + to
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" %d,%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		if !e.IsDir() && st.Nlink > 1 {
			if first, ok := links[st.Ino]; ok {
				line += " = " + first
			} else {
				links[st.Ino] = rel
			}
			line += fmt.Sprintf(" n%d", st.Nlink)
		}
		out = append(out, line+xattrsOf(t, path))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func xattrsOf(t testing.TB, path string) string {
	t.Helper()
	buf := make([]byte, 1<<16)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		t.Fatal(err)
	}
	names := strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	out := ""
	for _, name := range names {
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil {
			t.Fatal(err)
		}
		out += " " + name + "=" + base64.StdEncoding.EncodeToString(buf[:n])
	}
	return out
}

type applyCase struct {
	ms []member
	// refused: we refuse what the peer refuses; lenient: we accept it, as tar
	// does; strict: we refuse what the peer lets pass.
	refused, lenient, strict bool
}

// Streams that stand alone.
var aloneCases = map[string]applyCase{
	"through a link inside":          {ms: []member{{typ: '5', name: "a/"}, {typ: '2', name: "la", link: "a"}, {typ: '0', name: "la/z", data: "zz"}}},
	"through an absolute link":       {ms: []member{{typ: '5', name: "a/"}, {typ: '2', name: "la", link: "/a"}, {typ: '0', name: "la/z", data: "zz"}}},
	"through a link out":             {ms: []member{{typ: '2', name: "lo", link: "../../../../../../../../../etc"}, {typ: '0', name: "lo/z", data: "zz"}}, refused: true},
	"through an absolute link out":   {ms: []member{{typ: '2', name: "lo", link: "/etc"}, {typ: '0', name: "lo/z", data: "zz"}}, refused: true},
	"through a link to nothing":      {ms: []member{{typ: '2', name: "lo", link: "nowhere"}, {typ: '0', name: "lo/z", data: "zz"}}, refused: true},
	"through a link over the root":   {ms: []member{{typ: '2', name: "lo", link: ".."}, {typ: '0', name: "lo/z", data: "zz"}}, strict: true},
	"through links in a circle":      {ms: []member{{typ: '2', name: "l1", link: "l2"}, {typ: '2', name: "l2", link: "l1"}, {typ: '0', name: "l1/z", data: "zz"}}, refused: true},
	"dot-dot and absolute":           {ms: []member{{typ: '0', name: "../esc", data: "1"}, {typ: '0', name: "x/../../esc2", data: "2"}, {typ: '0', name: "/abs/f", data: "3"}}},
	"hard link to nothing":           {ms: []member{{typ: '1', name: "h", link: "missing"}}, refused: true},
	"hard link":                      {ms: []member{{typ: '0', name: "t", data: "1"}, {typ: '1', name: "h", link: "t"}}},
	"hard link, absolute":            {ms: []member{{typ: '0', name: "t", data: "1"}, {typ: '1', name: "h", link: "/t"}}},
	"hard link out":                  {ms: []member{{typ: '1', name: "h", link: "../../../../../../../etc/passwd"}}, refused: true},
	"hard link to itself":            {ms: []member{{typ: '0', name: "t", data: "1"}, {typ: '1', name: "./t", link: "t"}}, refused: true},
	"hard link through a link out":   {ms: []member{{typ: '2', name: "lo", link: "/etc"}, {typ: '1', name: "h", link: "lo/passwd"}}, refused: true},
	"hard link to a symlink":         {ms: []member{{typ: '2', name: "lo", link: "/etc"}, {typ: '1', name: "h", link: "lo"}}},
	"hard link to a directory":       {ms: []member{{typ: '5', name: "dd/"}, {typ: '1', name: "h", link: "dd"}}, refused: true},
	"no parent":                      {ms: []member{{typ: '0', name: "p/q/r", data: "1"}}},
	"parent is a file":               {ms: []member{{typ: '0', name: "p", data: "1"}, {typ: '0', name: "p/q", data: "2"}}, refused: true},
	"same name twice":                {ms: []member{{typ: '0', name: "d", data: "1"}, {typ: '0', name: "d", data: "22"}}, refused: true},
	"file over directory":            {ms: []member{{typ: '5', name: "q/"}, {typ: '0', name: "q/1", data: "1"}, {typ: '0', name: "q", data: "f"}}, refused: true},
	"root directory":                 {ms: []member{{typ: '5', name: "./"}, {typ: '0', name: "./x", data: "1"}}},
	"slash":                          {ms: []member{{typ: '5', name: "/"}, {typ: '0', name: "x", data: "1"}}},
	"root is a file":                 {ms: []member{{typ: '0', name: ".", data: "1"}}, strict: true},
	"the root's parent":              {ms: []member{{typ: '0', name: "a/../..", data: "1"}}, refused: true},
	"device":                         {ms: []member{{typ: '3', name: "cc"}, {typ: '6', name: "pp"}}},
	"unknown type":                   {ms: []member{{typ: 'V', name: "vol"}}, refused: true},
	"contiguous file":                {ms: []member{{typ: '7', name: "cont", data: "c"}}, lenient: true},
	"whiteout of what is not there":  {ms: []member{{typ: '0', name: ".wh.nothing"}}},
	"whiteout of nothing":            {ms: []member{{typ: '0', name: ".wh."}}, refused: true},
	"whiteout of dot":                {ms: []member{{typ: '0', name: ".wh.."}}, refused: true},
	"whiteout of dot-dot":            {ms: []member{{typ: '0', name: "d/.wh..."}}, refused: true},
	"whiteout, then the file":        {ms: []member{{typ: '0', name: ".wh.x"}, {typ: '0', name: "x", data: "1"}}},
	"directory as whiteout":          {ms: []member{{typ: '5', name: ".wh.zz/"}}},
	"opaque root":                    {ms: []member{{typ: '0', name: ".wh..wh..opq"}}},
	"opaque, late":                   {ms: []member{{typ: '5', name: "o/"}, {typ: '0', name: "o/1", data: "1"}, {typ: '0', name: "o/.wh..wh..opq"}}},
	"symlink to nothing, hard link":  {ms: []member{{typ: '2', name: "s", link: "gone"}, {typ: '1', name: "s2", link: "s"}}},
	"path through dot-dot of a link": {ms: []member{{typ: '5', name: "a/"}, {typ: '5', name: "a/b/"}, {typ: '2', name: "l", link: "a/b/.."}, {typ: '0', name: "l/f", data: "1"}}},
}

func TestApplyAsPeer(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"overlay", "vfs"} {
		p := newPeer(t, driver)
		n := 0
		for name, c := range aloneCases {
			n++
			id := fmt.Sprint("l", n)
			stream := makeTar(t, c.ms...)
			p.layer(id, "", nil)
			cmd := p.cmd("applydiff", id)
			cmd.Stdin = bytes.NewReader(stream)
			out, perr := cmd.CombinedOutput()
			if driver == "vfs" && name == "root is a file" {
				c.refused, c.strict = true, false // the peer's answer is the driver's
			}
			dir, _, _, err := importTar(t, stream, layertar.ApplyOptions{Style: styleOf(driver)})
			checkCase(t, driver+": "+name, c, perr, string(out), err)
			if perr != nil || err != nil {
				continue
			}
			compareRoots(t, driver+": "+name, p.dir(id), dir)
		}
	}
}

func styleOf(driver string) whiteout.Style {
	if driver == "vfs" {
		return whiteout.Apply
	}
	return whiteout.Trusted
}

func checkCase(t *testing.T, name string, c applyCase, perr error, out string, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, errno.ErrBadStream) {
		t.Errorf("%s: not a refusal: %v", name, err)
	}
	if want := c.refused || c.strict; want != (err != nil) {
		t.Errorf("%s: ours: %v", name, err)
	}
	if want := c.refused || c.lenient; want != (perr != nil) {
		t.Errorf("%s: the peer's: %v %s", name, perr, out)
	}
	if err != nil && !strings.Contains(err.Error(), "at byte") && !strings.Contains(err.Error(), "invalid tar header") {
		t.Errorf("%s: no offset in: %v", name, err)
	}
}

// compareRoots compares two trees but for the root's own line, whose mode is
// the driver's where the stream does not say.
func compareRoots(t *testing.T, name, theirs, ours string) {
	t.Helper()
	if d := cmp.Diff(treeOf(t, theirs)[1:], treeOf(t, ours)[1:]); d != "" {
		t.Errorf("%s (-peer +ours):\n%s", name, d)
	}
}

// Streams over a layer below (baseTar).
var overCases = map[string]applyCase{
	"file over directory":       {ms: []member{{typ: '0', name: "b", data: "file"}}},
	"directory over file":       {ms: []member{{typ: '5', name: "top/"}, {typ: '0', name: "top/1", data: "1"}}},
	"directory over symlink":    {ms: []member{{typ: '5', name: "la/"}, {typ: '0', name: "la/1", data: "1"}}},
	"implied, over symlink":     {ms: []member{{typ: '0', name: "la/1", data: "1"}}},
	"symlink over directory":    {ms: []member{{typ: '2', name: "b", link: "a"}}},
	"file over symlink":         {ms: []member{{typ: '0', name: "la", data: "file"}}},
	"directory over directory":  {ms: []member{{typ: '5', name: "b/"}, {typ: '0', name: "b/new", data: "n"}}},
	"whiteouts":                 {ms: []member{{typ: '0', name: ".wh.top"}, {typ: '0', name: "b/.wh.y"}}},
	"whiteout of a directory":   {ms: []member{{typ: '0', name: ".wh.b"}}},
	"whiteout of a symlink":     {ms: []member{{typ: '0', name: ".wh.la"}}},
	"whiteout through symlink":  {ms: []member{{typ: '0', name: "la/.wh.x"}}},
	"opaque":                    {ms: []member{{typ: '5', name: "b/"}, {typ: '0', name: "b/.wh..wh..opq"}, {typ: '0', name: "b/k", data: "1"}}},
	"opaque, late":              {ms: []member{{typ: '5', name: "b/"}, {typ: '0', name: "b/k", data: "1"}, {typ: '5', name: "b/kd/"}, {typ: '0', name: "b/kd/1", data: "1"}, {typ: '0', name: "b/.wh..wh..opq"}}},
	"opaque, not named":         {ms: []member{{typ: '0', name: "b/.wh..wh..opq"}}},
	"opaque root":               {ms: []member{{typ: '0', name: ".wh..wh..opq"}, {typ: '0', name: "nn", data: "1"}}},
	"hard link to a lower file": {ms: []member{{typ: '1', name: "h", link: "a/x"}}},
}

func TestApplyOverAsPeer(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"overlay", "vfs"} {
		p := newPeer(t, driver)
		p.layer("base", "", baseTar(t))
		n := 0
		for name, c := range overCases {
			n++
			id := fmt.Sprint("l", n)
			c.refused = driver == "overlay" && name == "hard link to a lower file"
			stream := makeTar(t, c.ms...)
			p.layer(id, "base", nil)
			cmd := p.cmd("applydiff", id)
			cmd.Stdin = bytes.NewReader(stream)
			out, perr := cmd.CombinedOutput()
			dir, split := t.TempDir(), filepath.Join(t.TempDir(), "s")
			if driver == "vfs" {
				if _, err := importInto(t, dir, split, bytes.NewReader(baseTar(t)), layertar.ApplyOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			_, err := importInto(t, dir, split, bytes.NewReader(stream), layertar.ApplyOptions{Style: styleOf(driver)})
			checkCase(t, driver+": "+name, c, perr, string(out), err)
			if perr == nil && err == nil {
				compareRoots(t, driver+": "+name, p.dir(id), dir)
			}
		}
	}
}

// Where the peers lose or resurrect content, ours does what the marks say.
func TestMarksWithinAStream(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes whiteout devices")
	}
	stream := makeTar(t, member{typ: '0', name: ".wh.b"}, member{typ: '5', name: "b/"}, member{typ: '0', name: "b/k", data: "1"},
		member{typ: '0', name: "x", data: "1"}, member{typ: '0', name: ".wh.x"},
		member{typ: '5', name: "q/"}, member{typ: '0', name: "q/n", data: "1"}, member{typ: '0', name: ".wh.q"})
	dir, _, _, err := importTar(t, stream, layertar.ApplyOptions{Style: whiteout.Trusted})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"b": true, "q": true, "b/k": false} {
		buf := make([]byte, 8)
		n, err := unix.Lgetxattr(filepath.Join(dir, name), "trusted.overlay.opaque", buf)
		if opaque := err == nil && string(buf[:n]) == "y"; opaque != want {
			t.Errorf("%s: opaque %v", name, opaque)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "x")); err != nil || string(b) != "1" {
		t.Errorf("x: %q, %v", b, err)
	}
	// The same over a full copy: what was below goes, what is new stays.
	dir, split := t.TempDir(), filepath.Join(t.TempDir(), "s")
	below := makeTar(t, member{typ: '5', name: "q/"}, member{typ: '0', name: "q/old", data: "1"}, member{typ: '5', name: "b/"}, member{typ: '0', name: "b/old", data: "1"})
	for _, s := range [][]byte{below, stream} {
		if _, err := importInto(t, dir, split, bytes.NewReader(s), layertar.ApplyOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]bool{"q/n": true, "q/old": false, "b/k": true, "b/old": false} {
		if _, err := os.Lstat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The overlay's own attributes never come out of a stream.
func TestPrivateXattrsAreNotSet(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	rec := map[string]string{"SCHILY.xattr.user.kept": "1"}
	for _, n := range []string{"trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque", "user.fuseoverlayfs.opaque", "user.containers.override_stat"} {
		rec["SCHILY.xattr."+n] = "y"
	}
	if err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: '5', Name: "d/", Mode: 0o755, PAXRecords: rec}), w.Close()); err != nil {
		t.Fatal(err)
	}
	dir, _, _, err := importTar(t, b.Bytes(), layertar.ApplyOptions{Style: whiteout.Trusted})
	if err != nil {
		t.Fatal(err)
	}
	if got := xattrsOf(t, filepath.Join(dir, "d")); got != " user.kept=MQ==" {
		t.Errorf("attributes: %s", got)
	}
}
