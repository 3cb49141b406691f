package interop

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestLayerFromTar pipes tars into layers and has the peer export them.
func TestLayerFromTar(t *testing.T) {
	for _, driver := range []string{"overlay", "vfs"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, driver, "tar", "gzip", "zstd")
			src := filepath.Join(e.dir, "tree")
			e.mustSh("", `set -e; mkdir -p '`+src+`'/{d/e,f}; cd '`+src+`'; echo a > a; ln a b; ln -s a c; mkfifo p; seq 100000 > d/e/n
truncate -s 3M sparse; echo x >> sparse; chmod 6755 a; chown 5:6 d; touch -d '2001-02-03 04:05:06.789' d/e f; cp /bin/busybox f/`)
			e.cs("layers")
			mnt := e.mount()
			for _, form := range []string{"--format=gnu", "--format=pax", "--format=ustar", "--format=gnu --sparse"} {
				name := "new" + strings.NewReplacer("-", "", "=", "", " ", "").Replace(form)
				e.mustSh(mnt, `set -e; cd '`+src+`'; mkdir $M/layers/`+name+`; tar c `+form+` . > $M/layers/`+name+`/diff.tar`)
				e.mustSh(mnt, `cd '`+src+`'; tar c `+form+` . > '`+e.dir+`/want.tar'; cmp $M/layers/`+name+`/diff.tar '`+e.dir+`/want.tar'`)
				if got, want := e.cs("diff", "-u", name), e.read(e.dir, "want.tar"); got != want {
					t.Errorf("%s: the peer exports %d bytes, the tar has %d", form, len(got), len(want))
				}
				sameTree(t, form, filepath.Join(mnt, "layers", name, "tree"), e.untar("want.tar"))
				if strings.Contains(form, "sparse") {
					e.mustSh(mnt, `cp '`+e.dir+`/want.tar' `+filepath.Join(e.dir, "in.tar"))
				}
			}
			plain := e.untar("in.tar")
			for _, z := range []string{"gzip", "bzip2", "xz", "zstd"} {
				e.mustSh(mnt, `set -e; cd '`+src+`'; mkdir $M/layers/`+z+`; tar c --format=gnu . | `+z+` -c > $M/layers/`+z+`/diff.tar`)
				sameTree(t, z, filepath.Join(mnt, "layers", z, "tree"), plain)
				e.cs("diff", "-u", z)
			}
			// cp of a file into the tree, and a second, additive, stream.
			e.mustSh(mnt, `set -e; mkdir $M/layers/cp; cp '`+e.dir+`/in.tar' $M/layers/cp/diff.tar
mkdir -p '`+e.dir+`/more'; echo second > '`+e.dir+`/more/second'; tar c -C '`+e.dir+`/more' . > $M/layers/cp/diff.tar
test "$(cat $M/layers/cp/tree/second)" = second; test "$(cat $M/layers/cp/tree/a)" = a`)
			e.nothingLeft()
		})
	}
}

// untar extracts a tar as GNU tar does and returns the folder: the oracle.
func (e *env) untar(file string) string {
	e.Helper()
	dir, err := os.MkdirTemp(e.dir, "untar-")
	if err != nil {
		e.Fatal(err)
	}
	e.run("tar", "x", "-p", "--xattrs", "-C", dir, "-f", filepath.Join(e.dir, file))
	return dir
}

// nothingLeft fails the test when the extract area does not become empty: what
// is removed there is removed in the background.
func (e *env) nothingLeft() {
	e.Helper()
	var left []string
	for range 400 {
		ents, err := os.ReadDir(filepath.Join(e.root, "plyfs"))
		if err != nil && !os.IsNotExist(err) {
			e.Fatal(err)
		}
		left = nil
		for _, ent := range ents {
			if ent.IsDir() {
				left = append(left, ent.Name())
			}
		}
		if len(left) == 0 {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	e.Errorf("left in the extract area: %q", left)
}

func makeTar(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range headers {
		h := &headers[i]
		body := []byte(h.Uname) // the content of a regular file, for brevity
		h.Uname = ""
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(body))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(body); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestBadStreams feeds broken and hostile streams: each fails with the reason
// in `error`, leaves nothing and touches nothing outside.
func TestBadStreams(t *testing.T) {
	for _, driver := range []string{"overlay", "vfs"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, driver)
			e.cs("layers")
			mnt := e.mount()
			outside := filepath.Join(e.dir, "outside")
			if err := os.Mkdir(outside, 0o755); err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(outside, "canary"), "alive")
			good := makeTar(t, tar.Header{Name: "dir/", Typeflag: tar.TypeDir, Mode: 0o755},
				tar.Header{Name: "dir/file", Typeflag: tar.TypeReg, Uname: strings.Repeat("x", 3000)})
			for name, data := range map[string][]byte{
				"truncated": good[:512+512+1000],
				"junk":      bytes.Repeat([]byte("not a tar at all "), 1000),
				"hardlink": makeTar(t, tar.Header{Name: "s", Typeflag: tar.TypeSymlink, Linkname: outside},
					tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "s/canary"}),
				"symlink": makeTar(t, tar.Header{Name: "s", Typeflag: tar.TypeSymlink, Linkname: outside},
					tar.Header{Name: "s/evil", Typeflag: tar.TypeReg, Uname: "evil"}),
			} {
				file := filepath.Join(e.dir, name+".tar")
				writeFile(t, file, string(data))
				e.mustSh(mnt, "mkdir $M/layers/"+name)
				if r := e.sh(mnt, "cat '"+file+"' > $M/layers/"+name+"/diff.tar"); r.code == 0 {
					t.Errorf("%s: accepted", name)
				}
				if s := e.line(mnt, "layers", name, "error"); len(s) < 10 {
					t.Errorf("%s: error says %q", name, s)
				} else {
					t.Logf("%s: %s", name, s)
				}
				if got := e.ls(mnt, "layers", name, "tree"); len(got) != 0 {
					t.Errorf("%s left %q in the layer", name, got)
				}
				if out := e.cs("changes", name); strings.TrimSpace(out) != "" {
					t.Errorf("%s: the peer sees %q", name, out)
				}
			}
			if got := e.ls(outside); len(got) != 1 || e.read(outside, "canary") != "alive" {
				t.Errorf("outside was touched: %q", got)
			}
			e.nothingLeft()
			inside := makeTar(t, tar.Header{Name: "../../up", Typeflag: tar.TypeReg, Uname: "up"},
				tar.Header{Name: "/abs/file", Typeflag: tar.TypeReg, Uname: "abs"})
			file := filepath.Join(e.dir, "inside.tar")
			writeFile(t, file, string(inside))
			e.mustSh(mnt, "set -e; mkdir $M/layers/inside; cp '"+file+"' $M/layers/inside/diff.tar")
			e.run("containers-storage", append(e.csArgs(), "create-layer", "-n", "peer")...)
			e.cs("applydiff", "-f", file, "peer")
			for path, want := range map[string]string{"up": "up", "abs/file": "abs"} {
				for _, layer := range []string{"inside", "peer"} {
					if got := e.read(mnt, "layers", layer, "tree", path); got != want {
						t.Errorf("%s/%s = %q", layer, path, got)
					}
				}
			}
		})
	}
}
