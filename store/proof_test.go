package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/fusetest"
	"github.com/plyfs/plyfs/internal/layertar"
	"github.com/plyfs/plyfs/store"
)

// proofLayer is a layer to carry through both programs: script makes its
// content in the working directory, and pack writes the stream to stdout from
// there. SMALL and LARGE in them are replaced by numbers, of which the large
// ones count with PLYFS_LONG.
type proofLayer struct {
	name, script, pack string
	needs              []string // programs
	long               bool     // only with PLYFS_LONG; $DEBIAN is then a tar of a small Debian
	// base is below it.
	base string
	// What containers-storage 1.43 does not keep: refuses says that it takes
	// the stream for none, spoils that it records another stream than it was
	// given, lines and loses what of the tree it has otherwise.
	refuses, spoils bool
	lines           []string // beginnings of lines
	loses           string   // a part of lines
}

const (
	packGNU = `tar c --sort=name --numeric-owner .`
	packPAX = `tar c --format=pax --sort=name --numeric-owner .`
	packX   = `tar c --format=pax --xattrs --xattrs-include='*' --acls --sort=name --numeric-owner .`
)

func proofLayers() []proofLayer {
	return []proofLayer{
		{name: "a system's configuration", script: `cp -a /etc etc; rm -f etc/resolv.conf etc/hosts etc/hostname etc/mtab`, pack: packGNU},
		{name: "debootstrap", long: true, pack: `tar c --numeric-owner .`, script: `tar xpf "$DEBIAN"`},
		{name: "busybox", needs: []string{"busybox"}, pack: packGNU,
			script: `mkdir bin; cp $(command -v busybox) bin/busybox; for a in $(busybox --list); do [ -e bin/$a ] || ln bin/busybox bin/$a; done`},
		{name: "node_modules", pack: packGNU + ` | gzip -1`,
			script: `for i in $(seq SMALL); do d=node_modules/p$i/node_modules/q$i; mkdir -p $d/lib node_modules/.bin; echo "{\"name\":\"p$i\"}" >node_modules/p$i/package.json; echo "module.exports=$i" >$d/lib/index.js; ln -s ../p$i/cli.js node_modules/.bin/p$i; done`},
		{name: "Go's source", pack: packGNU + ` | zstd -q`, needs: []string{"go", "zstd"},
			script: `r=$(go env GOROOT)/src; cp -a $r/net $r/crypto .; [ LARGE -lt 10000 ] || cp -a $r/. all`},
		{name: "a large file", pack: packGNU, script: `head -c ${BIG:-8M} /dev/zero | tr '\0' q >big; printf end >>big`},
		{name: "many tiny files", pack: packGNU, script: `for d in $(seq 100); do mkdir $d; done; i=0; while [ $i -lt LARGE ]; do echo $i >$((i % 100 + 1))/f$i; i=$((i+1)); done`},
		{name: "a sparse database, GNU", pack: `tar cS .`, script: sparseScript, refuses: true},
		{name: "a sparse database, PAX", pack: `tar cS --format=pax .`, script: sparseScript, spoils: true},
		{name: "a sparse database, PAX 0.1", pack: `tar cS --format=pax --sparse-version=0.1 .`, script: sparseScript, spoils: true},
		{name: "odd names", pack: packPAX, script: `touch 'sp ace' 'new
line' 'tab	' '*' '?' '"' "'" '\\' -- -f ünï $(printf 'b\377ad') .hidden ... 'a%20b' 'C:' $(printf 'n%.0s' $(seq 255)); mkdir 'd ir' .d; echo x >'d ir/.wh'; ln -s 'sp ace' 'lin k'; touch 1 01 _ '#' '~'`},
		{name: "odd modes", pack: packGNU, script: `for m in 0000 0001 0200 0444 0777 1777 2755 4755 6711 7777; do echo $m >f$m; chmod $m f$m; mkdir d$m; echo x >d$m/in; chmod $m d$m; done`},
		{name: "owners", pack: packGNU, script: `i=0; for u in 0 1 999 65534 65536 100000 2097151 2097152 4000000000; do echo $u >f$u; chown $u:$((4000000000-u)) f$u; mkdir d$u; chown $u:$u d$u; ln -s f$u l$u; chown -h $u:1 l$u; done`},
		{name: "times", pack: packPAX, lines: []string{`"/far"`, `"/old"`}, script: `touch -d '1969-01-01' old; touch -d '2038-02-01 00:00:00.123456789' new; touch -d '2500-01-01' far; touch -d @0 zero; ln -s x l; touch -h -d '2001-02-03 04:05:06.7' l; mkdir d; echo >d/f; touch -d '1999-12-31 23:59:59.999999999' d`},
		{name: "devices", pack: packGNU, script: `mknod null c 1 3; mknod loop b 7 200; mknod big c 4095 1048575; mkfifo fifo; chmod 620 fifo; mkfifo -m 777 p2; mknod -m 000 none c 5 1`},
		{name: "hard links", pack: packGNU, script: `mkdir a b; echo 1 >a/1; for i in $(seq 50); do ln a/1 b/$i; done; ln -s 1 a/s; ln -P a/s b/s; echo 2 >z; ln z a/z; ln a/z b/z; : >e; ln e e2`},
		{name: "attributes", pack: packX, loses: " user.empty=", needs: []string{"setfattr", "setcap", "setfacl"},
			script: `echo 1 >f; setfattr -n user.a -v 1 f; setfattr -n user.empty f; mkdir d; setfattr -n user.d -v "$(printf 'x%.0s' $(seq 2000))" d; cp /bin/true cap; setcap cap_net_raw,cap_chown+ep cap; echo 2 >acl; setfacl -m u:1:r,g:2:rw acl; chmod 640 f`},
		{name: "long names, GNU", pack: `tar c --format=gnu --sort=name .`, script: longScript},
		{name: "long names, PAX", pack: packPAX, script: longScript},
		{name: "ustar", pack: `tar c --format=ustar --sort=name .`, script: `mkdir -p $(printf 'p%.0s/' $(seq 60)); echo x >$(printf 'p%.0s/' $(seq 60))f; echo y >y`},
		{name: "v7", pack: `tar c --format=v7 --sort=name a b l`, script: `echo 1 >a; mkdir b; echo 2 >b/c; ln -s a l; ln a b/h`},
		{name: "directories implied", pack: `tar c a/b/c/f d/e`, script: `mkdir -p a/b/c d/e; echo 1 >a/b/c/f`},
		{name: "directories last", pack: `tar c --no-recursion a/b/f a/b a`, script: `mkdir -p a/b; echo 1 >a/b/f; chmod 500 a/b; chmod 750 a; touch -d @1e9 a/b a 2>/dev/null || touch -d @1000000000 a/b a`},
		{name: "gzip in members", pack: `tar c . >../t; head -c 5000 ../t | gzip -1; tail -c +5001 ../t | gzip -9`, script: `seq 3000 >s`},
		{name: "zstd in frames, the first to be skipped", refuses: true, needs: []string{"zstd"}, script: `seq 3000 >s`,
			pack: `tar c . >../t; printf 'P\052M\030\004\000\000\000abcd'; head -c 5000 ../t | zstd -q; tail -c +5001 ../t | zstd -q --check`},
		{name: "zstd in frames, some to be skipped", needs: []string{"zstd"}, script: `seq 3000 >s`,
			pack: `tar c . >../t; head -c 5000 ../t | zstd -q; printf 'P\052M\030\004\000\000\000abcd'; tail -c +5001 ../t | zstd -q --check; printf '_\052M\030\000\000\000\000'`},
		{name: "zstd with a window of 128 MiB", needs: []string{"zstd"}, script: `seq 3000 >s; head -c 9M /dev/urandom >r; cp r s2`, pack: packGNU + ` | zstd -q --long=27`},
		{name: "bzip2", pack: packGNU + ` | bzip2`, script: `seq 3000 >s`, needs: []string{"bzip2"}},
		{name: "xz", pack: packGNU + ` | xz`, script: `seq 3000 >s`, needs: []string{"xz"}},
		{name: "nothing", pack: `tar c -T /dev/null`, script: `:`},
		{name: "blocks of tar's own size", pack: `tar c -b 2048 .`, script: `seq 3000 >s`},
		{name: "whiteouts", base: "mkdir a b c; echo 1 >a/1; echo 2 >b/2; echo 3 >c/3; echo t >top", pack: packGNU,
			script: `mkdir a b c; : >a/.wh.1; : >b/.wh..wh..opq; echo new >b/n; : >.wh.top; echo 3 >c/4; touch -d @1000000000 a b c`},
	}
}

const sparseScript = `truncate -s 64M db; for o in 0 4096 1000000 33554432 67108863; do printf data | dd of=db bs=1 seek=$o conv=notrunc 2>/dev/null; done; truncate -s 1M hole; truncate -s 67108864 db; echo small >s`

const longScript = `n=$(printf 'n%.0s' $(seq 200)); mkdir -p $n/$n; echo x >$n/$n/$n; ln -s $n/$n/$n l; ln $n/$n/$n h; ln h $n/$n/h2; ln -s $(printf 'x%.0s' $(seq 99)) l99; ln -s $(printf 'x%.0s' $(seq 100)) l100; ln -s $(printf 'x%.0s' $(seq 101)) l101`

// stream makes the layer's content and returns the files that hold its base's
// stream ("" for none) and its own.
func (l *proofLayer) stream(t *testing.T) (base, own string) {
	t.Helper()
	long := os.Getenv("PLYFS_LONG") != ""
	for _, p := range l.needs {
		needs(t, p)
	}
	if l.long && !long {
		t.Skip("takes minutes and a network: set PLYFS_LONG=1")
	}
	small, large, big := "100", "2000", "8M"
	if long {
		small, large, big = "3000", "100000", "2G"
	}
	var debian string
	if l.long {
		debian = fusetest.Debian(t)
	}
	top := t.TempDir()
	t.Cleanup(func() { run(t, "chmod", "-R", "u+rwx", top) })
	pack := func(name, script, pack string) string {
		dir := filepath.Join(top, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		text := strings.NewReplacer("SMALL", small, "LARGE", large).Replace(script)
		cmd := exec.Command("sh", "-ec", text)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "BIG="+big, "DEBIAN="+debian, "LC_ALL=C")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("make the content: %v: %s", err, out)
		}
		f, err := os.Create(filepath.Join(top, name+".tar"))
		if err != nil {
			t.Fatal(err)
		}
		var errs bytes.Buffer
		cmd = exec.Command("sh", "-ec", pack)
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, f, &errs
		if err := cmd.Run(); err != nil {
			t.Fatalf("pack: %v: %s", err, errs.String())
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		return f.Name()
	}
	if l.base != "" {
		base = pack("base", l.base, packGNU)
	}
	return base, pack("own", l.script, l.pack)
}

func run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Errorf("%q: %v: %s", args, err, out)
	}
}

// TestProofOfLayers carries layers, real and made, through ours and through
// containers-storage: what one applied the other exports, with the same
// digests, trees and changes.
func TestProofOfLayers(t *testing.T) {
	t.Parallel()
	for _, l := range proofLayers() {
		t.Run(l.name, func(t *testing.T) { proveLayer(t, &l) })
	}
}

func proveLayer(t *testing.T, l *proofLayer) {
	e := newLifeEnv(t, "overlay")
	needs(t, "containers-storage")
	baseFile, file := l.stream(t)
	base := ""
	if baseFile != "" {
		base = "base"
		e.peer("import-layer", "-i", base, "-f", baseFile)
	}
	if _, err := e.tryPeer("import-layer", "-i", "theirs", "-f", file, base); (err != nil) != l.refuses {
		t.Fatalf("containers-storage: %v", err)
	}
	s := e.open()
	ours := applyFile(t, s, store.LayerSpec{ID: "ours", Parent: base}, file)
	if got := export(t, s, "ours"); got != ours.DiffDigest.Encoded() {
		t.Errorf("we export what we applied as %s, not %s", got, ours.DiffDigest)
	}
	if l.refuses {
		return
	}
	theirs := layerOf(t, s, "theirs")
	if ours.DiffDigest != theirs.DiffDigest || ours.CompressedDigest != theirs.CompressedDigest || ours.DiffSize != theirs.DiffSize ||
		ours.CompressedSize != theirs.CompressedSize || ours.Compression != theirs.Compression {
		t.Errorf("digests and sizes: ours %v %v %d %d %v, theirs %v %v %d %d %v", ours.DiffDigest, ours.CompressedDigest, ours.DiffSize, ours.CompressedSize, ours.Compression,
			theirs.DiffDigest, theirs.CompressedDigest, theirs.DiffSize, theirs.CompressedSize, theirs.Compression)
	}
	want := ours.DiffDigest.Encoded()
	if got := peerExport(t, e, "ours"); got != want {
		t.Errorf("containers-storage exports what we applied as %s, not %s", got, want)
	}
	if l.spoils {
		want = peerExport(t, e, "theirs")
	}
	if got := export(t, s, "theirs"); got != want {
		t.Errorf("we export what containers-storage applied as %s, not %s", got, want)
	}
	l.sameTrees(t, e, s)
	for _, id := range []string{"ours", "theirs"} {
		if d := cmp.Diff(peerChanges(t, e, id), ourChanges(t, s, id)); d != "" {
			t.Errorf("changes of %s (-containers-storage +ours):\n%s", id, d)
		}
	}
}

func applyFile(t *testing.T, s *store.Store, spec store.LayerSpec, file string) *store.Layer {
	t.Helper()
	ctx := context.Background()
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	st, err := s.StageLayer(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	_, err = st.Import(ctx, in)
	if err = errors.Join(err, in.Close()); err != nil {
		t.Fatal(err)
	}
	l, err := st.Commit(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// export is the digest of what we export.
func export(t *testing.T, s *store.Store, id string) string {
	t.Helper()
	h := sha256.New()
	src := get(t, s.DiffTar, context.Background(), id)
	_, err := src.Copy(context.Background(), h)
	if err = errors.Join(err, src.Close()); err != nil {
		t.Error(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// sameTrees mounts what they applied with ours, and what we applied with
// theirs.
func (l *proofLayer) sameTrees(t *testing.T, e *lifeEnv, s *store.Store) {
	t.Helper()
	path, err := s.Mount(context.Background(), "theirs", drivers.MountOptions{})
	if err != nil {
		t.Fatal(err)
	}
	byUs := l.kept(proofTree(t, path))
	if _, err := s.Unmount(context.Background(), "theirs", false); err != nil {
		t.Error(err)
	}
	byThem := l.kept(proofTree(t, strings.TrimSpace(e.peer("mount", "ours"))))
	e.peer("unmount", "ours")
	if d := cmp.Diff(byUs, byThem); d != "" {
		t.Errorf("trees (-theirs, mounted by us; +ours, mounted by containers-storage):\n%s", d)
	}
	if d := cmp.Diff(byUs, l.kept(byPodman(t, e, s))); d != "" {
		t.Errorf("trees (-theirs, mounted by us; +ours, mounted by podman):\n%s", d)
	}
}

// byPodman is the tree of what we applied as podman mounts an image of it.
func byPodman(t *testing.T, e *lifeEnv, s *store.Store) []string {
	t.Helper()
	img := get(t, s.CreateMinimalImage, context.Background(), store.ImageSpec{Layer: "ours"})
	tree := proofTree(t, strings.TrimSpace(e.podman("image", "mount", img.ID)))
	e.podman("image", "unmount", img.ID)
	return tree
}

// kept is a tree less what containers-storage does not keep.
func (l *proofLayer) kept(tree []string) (out []string) {
	for _, line := range tree {
		if slices.ContainsFunc(l.lines, func(p string) bool { return strings.HasPrefix(line, p) }) {
			continue
		}
		if l.loses != "" {
			line = strings.ReplaceAll(line, l.loses, "")
		}
		out = append(out, line)
	}
	return out
}

func layerOf(t *testing.T, s *store.Store, id string) (l *store.Layer) {
	t.Helper()
	err := s.View(context.Background(), func(tx *store.Tx) (err error) {
		l, err = tx.Layer(id)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func peerExport(t *testing.T, e *lifeEnv, id string) string {
	t.Helper()
	h := sha256.New()
	cmd := exec.Command("containers-storage", "--graph", e.root, "--run", e.run, "--storage-driver", e.driver, "diff", "-u", id)
	var errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = h, &errs
	if err := cmd.Run(); err != nil {
		t.Errorf("diff: %v: %s", err, errs.String())
	}
	return hex.EncodeToString(h.Sum(nil))
}

func peerChanges(t *testing.T, e *lifeEnv, id string) (out []string) {
	t.Helper()
	for line := range strings.Lines(e.peer("changes", id)) {
		kind, quoted, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		path, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if kind == "Delete" && slices.Contains(opaque, path) {
			kind = "Add" // as newer ones and we say of an opaque directory
		}
		out = append(out, kind+" "+strconv.Quote(path))
	}
	slices.Sort(out)
	return out
}

// opaque are the directories of whiteouts' layer that hide what is below.
var opaque = []string{"/b"}

func ourChanges(t *testing.T, s *store.Store, id string) (out []string) {
	t.Helper()
	err := s.Changes(context.Background(), "", id, func(c layertar.Change) error {
		out = append(out, c.Kind.String()+" "+strconv.Quote(c.Path))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// proofTree is a line for everything below dir: mode, owner, links, device,
// time, attributes, and content or target. Only the time of what no stream
// names, and so was made now, is left out.
func proofTree(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		mtime := fmt.Sprintf("%d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
		if age := time.Since(time.Unix(st.Mtim.Unix())); age > 0 && age < time.Hour {
			mtime = "now"
		}
		line := fmt.Sprintf("%q %o %d:%d %d,%d %s", path[len(dir):], st.Mode, st.Uid, st.Gid, unix.Major(st.Rdev), unix.Minor(st.Rdev), mtime)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			h := sha256.New()
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			n, err := io.Copy(h, f)
			if err := f.Close(); err != nil {
				return err
			}
			line += fmt.Sprintf(" n%d %d %x", st.Nlink, n, h.Sum(nil)[:8])
			if err != nil {
				return err
			}
		case unix.S_IFLNK:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + strconv.Quote(to)
		}
		out = append(out, line+proofAttrs(t, path))
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return out
}

func proofAttrs(t *testing.T, path string) string {
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
