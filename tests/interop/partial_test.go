package interop

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// registry is a registry of images on this machine, with a log of what was
// asked of it.
type registry struct {
	*env
	log, addr string
}

// newRegistry starts one on a free port; the test's end stops it.
func (e *env) newRegistry() *registry {
	e.Helper()
	r := &registry{env: e, log: filepath.Join(e.dir, "registry.log")}
	conf := filepath.Join(e.dir, "registry.yml")
	writeFile(e, conf, fmt.Sprintf("version: 0.1\nlog: {level: info}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: 127.0.0.1:0}\n",
		filepath.Join(e.dir, "registry")))
	log, err := os.Create(r.log)
	e.must(err)
	cmd := exec.Command("docker-registry", "serve", conf)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	e.must(errors.Join(err, log.Close()))
	e.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended, which the next line tells
		if err := cmd.Wait(); err != nil && !strings.Contains(err.Error(), "killed") {
			e.Errorf("docker-registry: %v: %s", err, e.read(r.log))
		}
	})
	listening := regexp.MustCompile(`listening on (127\.0\.0\.1:[0-9]+)`)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if m := listening.FindStringSubmatch(e.read(r.log)); m != nil {
			r.addr = m[1]
			return r
		}
	}
	e.Fatalf("docker-registry does not come up: %s", e.read(r.log))
	return nil
}

// sent is how many bytes of a blob the registry has sent, in how many answers.
func (r *registry) sent(digest string) (bytes, answers int) {
	r.Helper()
	line := regexp.MustCompile(`"GET /v2/[^ ]*/blobs/` + digest + ` HTTP/1.1" 20[06] ([0-9]+)`)
	for _, m := range line.FindAllStringSubmatch(r.read(r.log), -1) {
		n, err := strconv.Atoi(m[1])
		r.must(err)
		bytes, answers = bytes+n, answers+1
	}
	return bytes, answers
}

// push makes an image of a folder, by podman in a store of its own, and pushes
// it with its layer as zstd:chunked; it returns the layer's digest and size.
func (r *registry) push(folder, tag string) (digest string, size int) {
	r.Helper()
	maker := *r.env
	maker.root, maker.runroot = filepath.Join(r.dir, "m"), filepath.Join(r.dir, "mr")
	name := "localhost/" + tag
	// skopeo leaves zeros after the end of a tar out of what it compresses, which
	// is then not what the image's configuration promises: so there are none.
	r.run("tar", "c", "-b", "1", "-C", folder, "-f", filepath.Join(r.dir, "in.tar"), ".")
	maker.podman("import", filepath.Join(r.dir, "in.tar"), name)
	r.run("skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", "--format", "oci",
		"--dest-compress", "--dest-compress-format", "zstd:chunked",
		maker.storeRef(maker.root, maker.runroot, name), "docker://"+r.ref(tag))
	var m struct {
		Layers []struct {
			Digest string
			Size   int
		}
	}
	text := r.run("skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+r.ref(tag))
	if err := json.Unmarshal([]byte(text), &m); err != nil || len(m.Layers) != 1 {
		r.Fatalf("%v: %s", err, text)
	}
	return m.Layers[0].Digest, m.Layers[0].Size
}

func (r *registry) ref(tag string) string { return r.addr + "/" + tag }

// pull has podman pull an image by its tables of contents.
func (r *registry) pull(tag string) {
	r.Helper()
	conf := filepath.Join(r.dir, "partial.conf")
	writeFile(r, conf, fmt.Sprintf("[storage]\ndriver = %q\ngraphroot = %q\nrunroot = %q\n[storage.options]\n"+
		`pull_options = {enable_partial_images = "true", use_hard_links = "false", ostree_repos = ""}`+"\n", r.driver, r.root, r.runroot))
	r.run("env", append([]string{"CONTAINERS_STORAGE_CONF=" + conf, "podman"},
		append(r.podmanArgs(), "pull", "-q", "--tls-verify=false", r.ref(tag))...)...)
}

// TestPartialPull: podman pulls an image by its table of contents into a store
// where another one has most of its files: from the layer that this program
// imported podman takes them as it does from its own, and fetches the rest.
func TestPartialPull(t *testing.T) {
	t.Parallel()
	e := newEnv(t, "overlay", "podman", "skopeo", "runc", "docker-registry", "base64", "tar")
	r := e.newRegistry()
	tree := filepath.Join(e.dir, "tree")
	e.mustSh("", `set -e; mkdir -p '`+tree+`/d'; cd '`+tree+`'
for i in 1 2 3 4 5 6 7 8; do head -c 30000 /dev/urandom | base64 > d/f$i; done; echo one > small; chmod 600 d/f2; chown 5:6 d/f3; ln -s d/f1 link`)
	_, size := r.push(tree, "app:1")
	if size < 200_000 {
		t.Fatalf("a layer of %d bytes", size)
	}
	e.mustSh("", "cd '"+tree+"'; echo two > small")
	second, _ := r.push(tree, "app:2")
	e.mustSh("", "cd '"+tree+"'; echo three > small")
	third, _ := r.push(tree, "app:3")

	// Ours imports the first image, podman pulls the second.
	e.cs("layers")
	mnt := e.mount()
	archive := filepath.Join(e.dir, "app.tar")
	e.run("skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", "docker://"+r.ref("app:1"), "oci-archive:"+archive+":app:1")
	if r := e.sh(mnt, "cp '"+archive+"' $M/images/import/"); r.code != 0 {
		t.Fatalf("%s: %s", r.err, e.read(mnt, "error_log"))
	}
	layers := e.ls(mnt, "layers/by-id")
	if len(layers) != 1 {
		t.Fatalf("layers %q", layers)
	}
	if got := e.cs("list-layer-data", layers[0]); got != "zstd-chunked-manifest\n" {
		t.Errorf("the peer finds %q with the layer", got)
	}
	pulled := func(tag, digest string) {
		t.Helper()
		e.mustSh("", "cd '"+tree+"'; echo "+map[string]string{"app:2": "two", "app:3": "three"}[tag]+" > small")
		r.pull(tag)
		bytes, answers := r.sent(digest)
		if answers < 2 || bytes > size/10 {
			t.Errorf("%s: podman fetched %d bytes in %d requests of a layer like one that is there, of %d bytes", tag, bytes, answers, size)
		}
		image := filepath.Join(mnt, "images/by-name", r.ref(tag))
		// podman 4.3 loses owners and times here: only what it makes itself is compared whole.
		e.run("diff", "-r", "--no-dereference", filepath.Join(image, "tree"), tree)
		theirs := trim(e.podman("image", "mount", r.ref(tag)))
		sameTree(t, tag+" beside podman's mount", filepath.Join(image, "tree"), theirs)
		e.podman("image", "umount", r.ref(tag))
	}
	pulled("app:2", second)

	// What podman pulled serves the next pull as well, when ours has gone.
	e.mustSh(mnt, `for i in $M/images/by-id/*; do test -s $i/names && case $(cat $i/names) in *app:2) ;; *) rmdir $(readlink -f $i);; esac; done`)
	if n := len(e.ls(mnt, "layers/by-id")); n != 1 {
		t.Errorf("%d layers are left", n)
	}
	pulled("app:3", third)
	e.podman("rmi", "-a", "-f")
	if left := e.ls(e.root, "overlay-layers"); strings.Join(left, " ") != "layers.json layers.lock" {
		t.Errorf("removed, the images leave %q", left)
	}
	e.nothingLeft()
}
