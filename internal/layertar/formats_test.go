package layertar_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/layertar"
)

// treeScript makes a tree with everything that archives can hold.
const treeScript = `
mkdir -p etc/deep/er usr/bin empty
echo root > etc/passwd; chmod 640 etc/passwd; chown 0:42 etc/passwd
ln etc/passwd etc/deep/hard; ln -s ../passwd etc/deep/soft; ln -s /abs/olute abs
cp /bin/busybox usr/bin/busybox; ln usr/bin/busybox usr/bin/sh; chmod 4755 usr/bin/busybox
truncate -s 3M sparse; printf AAAA | dd of=sparse bs=1 seek=1048576 conv=notrunc 2>/dev/null; printf B | dd of=sparse bs=1 seek=3000000 conv=notrunc 2>/dev/null
truncate -s 300K holes
for i in $(seq 1 60); do printf x | dd of=many bs=1 seek=$((i*16384)) conv=notrunc 2>/dev/null; done; truncate -s 2M many
: > zero; mkfifo fifo
touch -d '2003-04-05 06:07:08.123456789 UTC' zero etc/deep
printf 'a\nb' > "$(printf 'new\nline')"; echo s > ' lead and trail '; echo b > 'back\slash'
chmod 1777 empty; chown 1000:1001 empty; chmod 2755 usr
`

const treeScriptPax = `
n=$(printf 'n%.0s' $(seq 1 200)); mkdir -p "$n/$n"; echo long > "$n/$n/f"; ln -s "$n/$n/f" longlink; ln "$n/$n/f" longhard
echo u > 'ünï'; echo bad > "$(printf 'b\377d')"
chown 3000000:3000001 zero; touch -h -d '1969-12-31 23:00:00 UTC' abs
setfattr -n user.attr -v value etc/deep; setfattr -n user.bin -v 0x0001ff0a usr/bin/busybox
setcap cap_net_raw+ep usr/bin/busybox
`

const treeScriptACL = "setfacl -m u:1000:rw etc/passwd; setfacl -d -m g:7:rx empty\n"

func makeTree(t testing.TB, script string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the tree has owners, devices and capabilities")
	}
	dir := t.TempDir()
	cmd := exec.Command("bash", "-e")
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make the tree: %v: %s", err, out)
	}
	return dir
}

type format struct {
	name   string
	script string
	pack   []string // after it: -C DIR .
	unpack []string // reads stdin; after it: -C DIR
	// peer: the peer reads it, too, and its record gives the stream back;
	// records that it writes of sparse members do not. bsdtar makes them.
	peer bool
}

func formats() []format {
	gnu := func(args ...string) []string { return append([]string{"tar", "c", "--numeric-owner"}, args...) }
	x := []string{"tar", "xp", "--numeric-owner"}
	xattrs := append(x, "--xattrs", "--xattrs-include=*")
	return []format{
		{"v7", "mkdir d; echo 1 > d/f; ln d/f d/h; ln -s f d/s; chmod 600 d/f; touch -d @1000000000 d/f d", gnu("--format=v7"), x, true},
		{"ustar", treeScript, gnu("--format=ustar"), x, true},
		{"gnu", treeScript, gnu("--format=gnu"), x, true},
		{"gnu long names", treeScript + strings.Split(treeScriptPax, "setfattr")[0], gnu("--format=gnu"), x, true},
		{"gnu sparse", treeScript, gnu("--format=gnu", "-S"), x, false},
		{"pax", treeScript + treeScriptPax + treeScriptACL, gnu("--format=pax", "--xattrs", "--xattrs-include=*"), xattrs, true},
		{"pax sparse 0.0", treeScript, gnu("--format=pax", "-S", "--sparse-version=0.0"), x, false},
		{"pax sparse 0.1", treeScript, gnu("--format=pax", "-S", "--sparse-version=0.1"), x, false},
		{"pax sparse 1.0", treeScript, gnu("--format=pax", "-S", "--sparse-version=1.0"), x, false},
		{"bsdtar pax", treeScript + treeScriptPax, []string{"bsdtar", "-c", "--format=pax", "-f", "-"}, append([]string{"bsdtar", "-xpf", "-"}, "--numeric-owner"), false},
	}
}

// TestFormats: every format as the archivers write it gives the tree that
// they themselves extract, the stream back byte for byte, and, where it can,
// agrees with the peer.
func TestFormats(t *testing.T) {
	t.Parallel()
	for _, f := range formats() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(f.pack[0]); err != nil {
				t.Skip(f.pack[0] + " is not installed: it makes and reads the format")
			}
			src := makeTree(t, f.script)
			stream := run(t, nil, f.pack[0], append(f.pack[1:], "-C", src, ".")...)
			want := t.TempDir()
			run(t, bytes.NewReader(stream), f.unpack[0], append(f.unpack[1:], "-C", want)...)
			dir, split, res, err := importTar(t, stream, layertar.ApplyOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(treeOf(t, want), treeOf(t, dir)); d != "" {
				t.Errorf("tree (-%s +ours):\n%s", f.unpack[0], d)
			}
			if res.DiffDigest.Encoded() != sum(stream) {
				t.Error("digest differs")
			}
			_, r := openSplit(t, dir, split)
			var out bytes.Buffer
			if _, err := r.WriteTo(&out); err != nil || !bytes.Equal(out.Bytes(), stream) {
				t.Errorf("export differs: %d of %d bytes, %v", out.Len(), len(stream), err)
			}
			withPeer(t, f, stream, dir, split)
		})
	}
}

// withPeer: the peer's tree is ours, we export from its record and directory,
// and it from ours.
func withPeer(t *testing.T, f format, stream []byte, dir, split string) {
	p := newPeer(t, "vfs")
	p.layer("l", "", nil)
	if f.peer {
		p.run(bytes.NewReader(stream), "applydiff", "l")
		compareRoots(t, f.name, p.dir("l"), dir)
		_, r := openSplit(t, p.dir("l"), p.split("l"))
		var out bytes.Buffer
		if _, err := r.WriteTo(&out); err != nil || !bytes.Equal(out.Bytes(), stream) {
			t.Errorf("export of the peer's layer differs: %d of %d bytes, %v", out.Len(), len(stream), err)
		}
	}
	// Our record and our tree in the place of the peer's.
	p.layer("m", "", makeTar(t, member{typ: '0', name: "x", data: "1"}))
	run(t, nil, "sh", "-c", "rm -rf "+p.dir("m")+"; cp -a "+dir+" "+p.dir("m")+"; cp "+split+" "+p.split("m"))
	if got := p.run(nil, "diff", "-u", "m"); !bytes.Equal(got, stream) {
		t.Errorf("the peer's export of our layer differs: %d of %d bytes", len(got), len(stream))
	}
}

func TestSparseStaysSparse(t *testing.T) {
	t.Parallel()
	src := makeTree(t, "truncate -s 200M big; printf x | dd of=big bs=1 seek=100000000 conv=notrunc 2>/dev/null")
	stream := run(t, nil, "tar", "c", "-S", "-C", src, ".")
	dir, _, _, err := importTar(t, stream, layertar.ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "big"), &st); err != nil || st.Size != 200<<20 || st.Blocks > 1024 {
		t.Fatalf("size %d, %d blocks, %v", st.Size, st.Blocks, err)
	}
	n, err := io.Copy(io.Discard, generateReader(dir))
	if err != nil || n < 200<<20 {
		t.Errorf("generated %d bytes, %v", n, err)
	}
}

// generateReader streams a diff without holding it.
func generateReader(dir string) io.Reader {
	r, w := io.Pipe()
	go func() {
		err := layertar.Generate(context.Background(), w, layertar.Source{New: []string{dir}})
		_ = w.CloseWithError(errors.Join(err))
	}()
	return r
}
