package interop

import (
	"os"
	"path/filepath"
	"testing"
)

// app is the image that the fixtures make: three layers with whiteouts, an
// opaque directory, hard links, odd names, owners, modes and xattrs.
const app = "localhost/app:latest"

// appDir is app's entry under images/.
const appDir = "localhost%2Fapp:latest"

// makeApp builds app with buildah in a store of its own and copies it into
// the test's store with skopeo.
func (e *env) makeApp() {
	e.Helper()
	src, srcrun := filepath.Join(e.dir, "src"), filepath.Join(e.dir, "srcrun")
	base := filepath.Join(e.dir, "l1")
	e.mustSh("", `set -e
mkdir -p '`+base+`'/{bin,etc,data/sub,opaque,tmp,proc,sys,dev,run}; cd '`+base+`'
cp /bin/busybox bin/busybox; ln bin/busybox bin/sh; ln -s busybox bin/ls
echo root:x:0:0::/:/bin/sh > etc/passwd
echo gone > data/gone; echo a > data/sub/a; echo x > opaque/x; chmod 1777 tmp
printf 'odd' > "data/a b'\"\\ %2F
newline"; truncate -s 1M data/sparse; echo end >> data/sparse
ln -s /etc/passwd data/abs; ln -s ../../../../../../etc data/up`)
	buildah := func(args ...string) string {
		e.Helper()
		return trim(e.run("buildah", append([]string{"--root", src, "--runroot", srcrun, "--storage-driver", e.driver}, args...)...))
	}
	c := buildah("from", "scratch")
	buildah("add", c, base, "/")
	buildah("config", "--cmd", "/bin/sh", "--env", "A=b", c)
	buildah("commit", "--quiet", "--rm", c, "one")
	c = buildah("from", "one")
	m := buildah("mount", c)
	e.mustSh(m, `set -e; cd $M; rm data/gone; rm -r opaque; mkdir opaque; echo y > opaque/y
chown 1000:1001 data/sub/a; chmod 4755 data/sub/a; setfattr -n user.t -v v data/sub/a; setfacl -m u:7:r etc/passwd`)
	buildah("umount", c)
	buildah("commit", "--quiet", "--rm", c, "two")
	c = buildah("from", "two")
	m = buildah("mount", c)
	e.mustSh(m, `set -e; cd $M; echo top > top; mkfifo fifo; mknod null c 1 3; rm bin/ls; ln -s sh bin/ls`)
	buildah("umount", c)
	buildah("commit", "--quiet", "--rm", c, "three")
	e.run("skopeo", "copy", "--quiet", e.storeRef(src, srcrun, "localhost/three"), e.storeRef(e.root, e.runroot, app))
}

func trim(s string) string {
	for len(s) > 0 && s[len(s)-1] == '\n' {
		s = s[:len(s)-1]
	}
	return s
}

func writeFile(t testing.TB, path string, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}
