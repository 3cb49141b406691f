package layertar_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/internal/whiteout"
)

// peer is a store of the containers-storage program: the oracle.
type peer struct {
	t      testing.TB
	root   string
	driver string
}

func newPeer(t testing.TB, driver string) *peer {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the oracle is containers-storage with the driver " + driver)
	}
	if _, err := exec.LookPath("containers-storage"); err != nil {
		t.Skip("containers-storage is not installed: it is the oracle")
	}
	p := &peer{t, t.TempDir(), driver}
	t.Cleanup(func() { p.run(nil, "shutdown", "--force") })
	return p
}

func (p *peer) cmd(args ...string) *exec.Cmd {
	return exec.Command("containers-storage", append([]string{"-s", p.driver, "-g", p.root + "/g", "-R", p.root + "/r"}, args...)...)
}

func (p *peer) run(stdin io.Reader, args ...string) []byte {
	p.t.Helper()
	cmd := p.cmd(args...)
	var out, errb bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errb
	if err := cmd.Run(); err != nil {
		p.t.Fatalf("containers-storage %s: %v: %s", strings.Join(args, " "), err, errb.String())
	}
	return out.Bytes()
}

// layer makes a layer from a stream (none when nil).
func (p *peer) layer(id, parent string, stream []byte) {
	p.t.Helper()
	args := []string{"create-layer", "-i", id}
	if parent != "" {
		args = append(args, parent)
	}
	p.run(nil, args...)
	if stream != nil {
		p.run(bytes.NewReader(stream), "applydiff", id)
	}
}

func (p *peer) dir(id string) string {
	if p.driver == "vfs" {
		return filepath.Join(p.root, "g/vfs/dir", id)
	}
	return filepath.Join(p.root, "g/overlay", id, "diff")
}

func (p *peer) split(id string) string {
	return filepath.Join(p.root, "g", p.driver+"-layers", id+".tar-split.gz")
}

// edit runs a shell script in the mounted layer.
func (p *peer) edit(id, script string) {
	p.t.Helper()
	dir := strings.TrimSpace(string(p.run(nil, "mount", id)))
	cmd := exec.Command("sh", "-e")
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	p.run(nil, "unmount", id)
	if err != nil {
		p.t.Fatalf("edit: %v: %s", err, out)
	}
}

func (p *peer) changes(id string) []string {
	p.t.Helper()
	var out []string
	for line := range strings.Lines(string(p.run(nil, "changes", id))) {
		kind, path, _ := strings.Cut(strings.TrimSpace(line), " ")
		path, err := strconv.Unquote(path)
		if err != nil {
			p.t.Fatal(err)
		}
		out = append(out, kind+" "+path)
	}
	slices.Sort(out)
	return out
}

func ourChanges(t testing.TB, s layertar.Source) []string {
	t.Helper()
	var out []string
	err := layertar.Changes(context.Background(), s, func(c layertar.Change) error {
		out = append(out, c.Kind.String()+" "+c.Path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func generate(t testing.TB, s layertar.Source) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := layertar.Generate(context.Background(), &b, s); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// describeTar returns a line for each member.
func describeTar(t testing.TB, stream []byte) []string {
	t.Helper()
	var out []string
	for r := tar.NewReader(bytes.NewReader(stream)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		mtime := strconv.FormatInt(h.ModTime.Unix(), 10)
		if strings.Contains(h.Name, ".wh.") {
			mtime, h.Uname, h.Gname, h.Linkname = "any", "root", "root", ""
		}
		if h.Uid != 0 {
			h.Uname = ""
		}
		if h.Gid != 0 {
			h.Gname = ""
		}
		rec := map[string]string{}
		for k, v := range h.PAXRecords {
			if k != "SCHILY.xattr.system.posix_acl_access" && k != "SCHILY.xattr.system.posix_acl_default" {
				rec[k] = base64.StdEncoding.EncodeToString([]byte(v))
			}
		}
		line := fmt.Sprintf("%q %c %o %d:%d %s:%s %d %s %q %d,%d %s", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Uname, h.Gname, h.Size, mtime, h.Linkname, h.Devmajor, h.Devminor, sum(data)[:8])
		for _, k := range slices.Sorted(maps.Keys(rec)) {
			line += " " + k + "=" + rec[k]
		}
		out = append(out, line)
	}
}

// editScript changes about everything that can be.
const editScript = `
echo new > newfile; ln newfile newlink; mkdir -p nd/sub; ln newfile nd/sub/deep; echo q > nd/0; mkdir nd/empty
echo more >> a/x
rm top; chmod 600 top2; touch -d '2005-01-01 00:00:00.123456789' newfile
ln -s target sl; mkfifo ff; mknod cc c 1 3; mknod bb b 7 0
perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local=>"sock",Listen=>1)'
setfattr -n user.foo -v bar nd/0; setfattr -n user.onlya -v 1 nd; setfattr -n user.q -v 1 xa
cp /bin/true capf; setcap cap_net_raw+ep capf; setfacl -m u:1000:rw nd/0
truncate -s 1M sparse; printf x | dd of=sparse bs=1 seek=500000 conv=notrunc 2>/dev/null
chown 3000000:3000001 ff; chmod 4755 capf
n=$(printf 'n%.0s' $(seq 1 120)); echo long > $n; echo u > "$(printf 'b\377ad')"; echo u > 'ünï'; echo w > "sp ace
nl"
mkdir dd; mkdir dd/$n; mkdir dd/$n/$n; echo e > dd/$n/$n/f
touch -d @-5 neg; mkdir tt; touch -d @1000000000 nd tt; chmod 1777 tt
touch -h la; chown -h 5:6 la; echo .wh > e.wh.x; mkdir keepdir
mv ren ren2; mkdir rend2; mv rend/1 rend2/; rmdir rend; echo more >> hl1
chown 7:8 own
`

func baseTar(t testing.TB) []byte {
	return makeTar(t,
		member{typ: '5', name: "a/"}, member{typ: '0', name: "a/x", data: "hello"},
		member{typ: '5', name: "b/"}, member{typ: '0', name: "b/y", data: "yy"}, member{typ: '5', name: "b/sub/"}, member{typ: '0', name: "b/sub/z", data: "zz"},
		member{typ: '2', name: "la", link: "a"}, member{typ: '0', name: "top", data: "t"}, member{typ: '0', name: "top2", data: "tt"},
		member{typ: '5', name: "chm/"}, member{typ: '0', name: "chm/in", data: "1"},
		member{typ: '0', name: "ren", data: "ren"}, member{typ: '5', name: "rend/"}, member{typ: '0', name: "rend/1", data: "1"},
		member{typ: '0', name: "hl1", data: "h"}, member{typ: '1', name: "hl2", link: "hl1"},
		member{typ: '0', name: "xa", data: "x"}, member{typ: '0', name: "own", data: "o"})
}

func checkAgainstPeer(t *testing.T, p *peer, s layertar.Source, wantChanges []string) {
	t.Helper()
	if d := cmp.Diff(wantChanges, ourChanges(t, s)); d != "" {
		t.Errorf("changes (-peer +ours):\n%s", d)
	}
	theirs, ours := describeTar(t, p.run(nil, "diff", "-u", "top")), describeTar(t, generate(t, s))
	if d := cmp.Diff(theirs, ours); d != "" {
		t.Errorf("diff (-peer +ours):\n%s", d)
	}
	size, err := layertar.Size(context.Background(), s)
	if want := strings.TrimSpace(string(p.run(nil, "diffsize", "top"))); err != nil || strconv.FormatInt(size, 10) != want {
		t.Errorf("size %d, %v, the peer's is %s", size, err, want)
	}
	if again := generate(t, s); !bytes.Equal(again, generate(t, s)) {
		t.Error("two diffs of the same directories differ")
	}
}

func TestNativeDiffAsPeer(t *testing.T) {
	t.Parallel()
	p := newPeer(t, "overlay")
	p.layer("base", "", baseTar(t))
	p.layer("top", "base", nil)
	p.edit("top", editScript)
	s := layertar.Source{Upper: p.dir("top"), UpperStyle: whiteout.Trusted, Lowers: []string{p.dir("base")}}
	checkAgainstPeer(t, p, s, p.changes("top"))
}

// An opaque directory is an Add (as newer peers say it), not a Delete.
func TestNativeDiffOpaque(t *testing.T) {
	t.Parallel()
	p := newPeer(t, "overlay")
	p.layer("base", "", baseTar(t))
	p.layer("top", "base", nil)
	p.edit("top", "rm -rf b; mkdir b; echo y > b/y; echo f > b/fresh; rm -rf rend; mkdir rend; rm -rf chm; echo f > chm")
	s := layertar.Source{Upper: p.dir("top"), UpperStyle: whiteout.Trusted, Lowers: []string{p.dir("base")}}
	want := p.changes("top")
	for i, c := range want {
		if c == "Delete /b" || c == "Delete /rend" {
			want[i] = "Add" + strings.TrimPrefix(c, "Delete")
		}
	}
	slices.Sort(want)
	checkAgainstPeer(t, p, s, want)
}

func TestComparedDiffAsPeer(t *testing.T) {
	t.Parallel()
	p := newPeer(t, "vfs")
	p.layer("base", "", baseTar(t))
	p.layer("top", "base", nil)
	p.edit("top", editScript+"rm -rf b; mkdir b; echo y > b/y; echo f > b/fresh; rm -rf chm; echo f > chm; rm a/x; mkdir a/x; echo 1 > a/x/1")
	s := layertar.Source{New: []string{p.dir("top")}, Old: []string{p.dir("base")}}
	checkAgainstPeer(t, p, s, p.changes("top"))
}
