package interop

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// timed runs a command and returns how long it took.
func (e *env) timed(name string, args ...string) time.Duration {
	e.Helper()
	cmd := exec.Command(name, args...)
	begin := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		e.Fatalf("%s %q: %v\n%.2000s", name, args, err, out)
	}
	return time.Since(begin)
}

// report gives the benchmark one number instead of the time of a loop.
func report(b *testing.B, n float64, unit string) {
	b.Helper()
	for b.Loop() {
		continue
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(n, unit)
}

func medianOf(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}

// BenchmarkManyObjects: a store of 5,000 layers and 1,000 images; find over
// all control files beside find over a plain copy of them in memory, and one
// attribute of each image beside a loop of the peer's commands.
func BenchmarkManyObjects(b *testing.B) {
	e := newEnv(b, "vfs")
	e.makeBig(5000, 1000)
	mnt := e.mount()
	entries := 0
	find := func(dir string) time.Duration {
		begin := time.Now()
		out := e.run("find", dir, "(", "-name", "tree", "-o", "-name", "diff", ")", "-prune", "-o", "-print")
		entries = strings.Count(out, "\n")
		return time.Since(begin)
	}
	for _, pass := range []string{"cold", "second", "third", "fourth"} {
		took := find(mnt)
		b.Run("find-"+pass, func(b *testing.B) { report(b, float64(took.Microseconds())/float64(entries), "µs/entry") })
	}
	var images []string
	for i := range 1000 {
		images = append(images, fmt.Sprintf("localhost/image-%04d:latest", i))
	}
	buf := make([]byte, 4096)
	begin := time.Now()
	for _, name := range images {
		path, err := unix.BytePtrFromString(filepath.Join(mnt, "images", strings.ReplaceAll(name, "/", "%2F"), "digest"))
		e.must(err)
		if no := openReadClose(path, buf); no != 0 {
			b.Fatal(no)
		}
	}
	ours := time.Since(begin)
	b.Run("digest-of-1000-images", func(b *testing.B) { report(b, float64(ours.Microseconds())/1000, "ms") })
	begin = time.Now()
	for i := range 20 {
		e.cs("image", images[i*50])
	}
	theirs := time.Since(begin) * 50
	b.Run("peer-image-1000-times", func(b *testing.B) { report(b, theirs.Seconds()*1000, "ms") })
	b.Run("peer-image-times", func(b *testing.B) { report(b, float64(theirs)/float64(ours), "×") })
	plain, err := os.MkdirTemp("/dev/shm", "plyfs-bench-")
	e.must(err)
	defer func() { e.must(os.RemoveAll(plain)) }()
	e.mustSh(mnt, "cd $M && tar c --exclude=tree --exclude=diff --exclude=./stats . | tar x -C "+plain)
	took := find(plain)
	b.Run("find-plain-copy", func(b *testing.B) { report(b, float64(took.Microseconds())/float64(entries), "µs/entry") })
}

// BenchmarkContent: a file of 1 GiB through tree/ beside the file itself, both
// cold; a layer out and in beside the peer's diff and applydiff; medians of five
// alternating rounds.
func BenchmarkContent(b *testing.B) {
	e := newEnv(b, "overlay")
	e.cs("create-layer", "-n", "first")
	mnt := e.mount("-o", "lock_timeout=60s")
	e.mustSh(mnt, "mkdir $M/layers/big $M/layers/out")
	id := e.line(mnt, "layers/big/id")
	direct := filepath.Join(e.root, "overlay", id, "diff/file")
	e.mustSh(mnt, "dd if=/dev/urandom of='"+direct+"' bs=1M count=1024 status=none && sync '"+direct+"'")
	ways := [][]string{{"through-tree", filepath.Join(mnt, "layers/big/tree/file")}, {"direct", direct}}
	took := map[string][]time.Duration{}
	for range 5 {
		for _, way := range ways {
			took[way[0]] = append(took[way[0]], readCold(e, direct, way[1]))
		}
	}
	for _, way := range ways {
		b.Run("read-1GiB-"+way[0], func(b *testing.B) { report(b, medianOf(took[way[0]]).Seconds()*1000, "ms") })
	}
	src := filepath.Join(runtime.GOROOT(), "src") //nolint:staticcheck // the tree that is measured
	tar := filepath.Join(e.dir, "s.tar")
	e.run("tar", "cf", tar, "-C", src, "cmd", "net", "runtime", "crypto")
	e.mustSh(mnt, "cp "+tar+" $M/layers/out/diff.tar")
	var in, out, peerIn, peerOut []time.Duration
	for i := range 5 {
		mine, theirs := fmt.Sprint("mine", i), fmt.Sprint("theirs", i)
		e.mustSh(mnt, "mkdir $M/layers/"+mine)
		e.cs("create-layer", "-n", theirs)
		in = append(in, e.timed("cp", tar, filepath.Join(mnt, "layers", mine, "diff.tar")))
		peerIn = append(peerIn, e.timed("containers-storage", append(e.csArgs(), "applydiff", "-f", tar, theirs)...))
		out = append(out, e.timed("sh", "-c", "cat "+mnt+"/layers/out/diff.tar | cat > /dev/null"))
		peerOut = append(peerOut, e.timed("sh", "-c", "containers-storage "+strings.Join(e.csArgs(), " ")+" diff -u out | cat > /dev/null"))
	}
	for name, list := range map[string][]time.Duration{"cp-into-tree": in, "peer-applydiff": peerIn, "cat-diff.tar": out, "peer-diff": peerOut} {
		b.Run(name, func(b *testing.B) { report(b, medianOf(list).Seconds()*1000, "ms") })
	}
}

// readCold reads path, which shows the file direct, from the disk.
func readCold(e *env, direct, path string) time.Duration {
	e.Helper()
	for _, p := range []string{direct, path} {
		f, err := os.Open(p)
		e.must(err)
		e.must(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
		e.must(f.Close())
	}
	return e.timed("dd", "if="+path, "of=/dev/null", "bs=1M")
}

// BenchmarkForeignChange: how long after the end of a peer's command its change
// is told by events.follow.
func BenchmarkForeignChange(b *testing.B) {
	e := newEnv(b, "vfs")
	e.cs("create-layer", "-n", "one")
	mnt := e.mount()
	follow := exec.Command("cat", filepath.Join(mnt, "events.follow"))
	out, err := follow.StdoutPipe()
	e.must(err)
	e.must(follow.Start())
	lines := make(chan time.Time, 100)
	go func() {
		for told := bufio.NewScanner(out); told.Scan(); {
			if strings.Contains(told.Text(), `"metadata"`) {
				lines <- time.Now()
			}
		}
	}()
	var late []time.Duration
	for i := range 50 {
		e.cs("set-metadata", "-m", fmt.Sprint(i), "one")
		end := time.Now()
		late = append(late, max(0, (<-lines).Sub(end)))
	}
	b.Run("median", func(b *testing.B) { report(b, float64(medianOf(late).Microseconds())/1000, "ms") })
	b.Run("longest", func(b *testing.B) { report(b, float64(late[len(late)-1].Microseconds())/1000, "ms") })
	e.must(follow.Process.Kill())
	_ = follow.Wait() // killed
}
