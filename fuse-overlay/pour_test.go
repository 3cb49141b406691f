package fuseoverlay

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// mixture does the same with a file in the mount and one in a directory: rows of
// large writes at odd places, small ones between, appends, truncations, reads, a
// second descriptor, O_DIRECT. What each call says, and the files, must be the same.
const mixture = `
import mmap, os, random, sys
mnt, plain, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
rnd = random.Random(seed)
noise = rnd.randbytes(3 << 20)
def both(name, flags): return [os.open(d + "/" + name, flags, 0o644) for d in (mnt, plain)]
def same(f, *what):
    said = []
    for i in 0, 1:
        try: said.append(f(i))
        except OSError as e: said.append(e.errno)
    if said[0] != said[1]: sys.exit("%s: %r beside %r" % (what, str(said[0])[:80], str(said[1])[:80]))
for name in "lower", "new":
    fds = both(name, os.O_RDWR | os.O_CREAT)
    second = both(name, os.O_WRONLY | os.O_APPEND)
    for step in range(60):
        off = rnd.choice((rnd.randrange(6 << 20), 4096 * rnd.randrange(1500)))
        size = rnd.choice((rnd.randrange(1, 3 << 20), 1 << 20, 1 << 19, (1 << 19) + 1, 65536, rnd.randrange(1, 9000)))
        at = rnd.randrange(len(noise) - size + 1)
        data = noise[at:at + size]
        op = rnd.choice(("write", "write", "row", "row", "append", "cut", "read", "direct"))
        if op == "write": same(lambda i: os.pwrite(fds[i], data, off), op, step)
        elif op == "row":
            for k in range(rnd.randrange(2, 9)):
                part = noise[k * 1000:k * 1000 + min(size, 700000)]
                same(lambda i: os.pwrite(fds[i], part, off + k * len(part)), op, step, k)
        elif op == "append": same(lambda i: os.write(second[i], data), op, step)
        elif op == "cut": same(lambda i: os.ftruncate(fds[i], off), op, step)
        elif op == "read": same(lambda i: os.pread(fds[i], size, off), op, step)
        else:
            page = mmap.mmap(-1, 1 << 20)
            page.write(noise[:1 << 20])
            direct = both(name, os.O_WRONLY | os.O_DIRECT)
            same(lambda i: os.pwrite(direct[i], page, 4096 * rnd.randrange(1) + (off & ~4095)), op, step)
            for fd in direct: os.close(fd)
        same(lambda i: os.fstat(fds[i]).st_size, "size after", op, step)
    for fd in fds + second: os.close(fd)
`

// Large writes, which come through pipes, put the same bytes into a file as any
// filesystem does, also while it is read, and leave nothing behind.
func TestLargeWrites(t *testing.T) {
	for seed := range 4 {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "head -c 5000000 /dev/urandom >lower").start()
			plain := filepath.Join(r.dir, "plain")
			fusetest.Must(t, `mkdir $2; cp $3/lower $2
( while [ ! -e $2/done ]; do cat $1/new $1/lower >/dev/null 2>&1; done ) & reader=$!
s=0; python3 -c "$4" $1 $2 $5 || s=$?
>$2/done; wait $reader || true; [ $s = 0 ] || exit $s
cmp $1/new $2/new; cmp $1/lower $2/lower; cmp $6/new $2/new; cmp $6/lower $2/lower
! cmp -s $3/lower $2/lower`, r.mount, plain, r.lowers[0], mixture, fmt.Sprint(seed), r.config.Upper)
		})
	}
}

// On ext4 a large write is put into the file by pieces, which the kernel keeps in folios
// of that size; elsewhere at once. What is put short is gone on with.
func TestWrittenByPieces(t *testing.T) {
	t.Parallel()
	const size = 5*pieceExt4 + 1234
	for _, ext4 := range []bool{true, false} {
		r := newRig(t, "echo lower >f")
		o, err := newOverlay(r.config)
		check(t, err)
		o.work.ext4 = ext4
		n, _, err := o.lookup(t.Context(), o.root, "f")
		check(t, err)
		var puts []int
		at := int64(100)
		k, err := o.writeBy(t.Context(), n, size, at, false, func(_ int, off int64, most int) (int, error) {
			if off != at {
				t.Errorf("put at %d, not at %d", off, at)
			}
			if len(puts) == 1 {
				most = 500
			}
			puts = append(puts, most)
			at += int64(most)
			return most, nil
		})
		want := []int{size}
		if ext4 {
			want = []int{pieceExt4 - 100, 500, pieceExt4 - 500, pieceExt4, pieceExt4, pieceExt4, 1234 + 100}
		}
		if check(t, err); k != size || !slices.Equal(puts, want) {
			t.Errorf("ext4 %v: put %v, %d in all, for %v", ext4, puts, k, want)
		}
		data := bytes.Repeat([]byte("0123456789"), size/10)
		k, err = o.write(t.Context(), n, data, 3, false)
		check(t, err)
		got := make([]byte, len(data))
		if _, err := o.read(n, got, 3); k != len(data) || err != nil || !bytes.Equal(got, data) {
			t.Errorf("ext4 %v: %d bytes written, read back the same: %v, %v", ext4, k, bytes.Equal(got, data), err)
		}
		check(t, o.close())
	}
}

// The upper is full, or what a process may write is bounded: a large write says so,
// as many bytes are there as it says, and the next ones work.
func TestLargeWritesWithoutRoom(t *testing.T) {
	r := newRig(t, "")
	small := r.config.Upper
	check(t, unix.Mount("small", small, "tmpfs", 0, "size=6m"))
	t.Cleanup(func() { check(t, unix.Unmount(small, unix.MNT_DETACH)) })
	r.config.Work = filepath.Join(r.config.Upper, "w")
	r.config.Upper = filepath.Join(r.config.Upper, "u")
	fusetest.Must(t, "mkdir $1 $2", r.config.Upper, r.config.Work)
	r.start()
	r.do(`for i in 1 2 3; do
	head -c 20000000 /dev/zero | tr '\0' x | dd of=f bs=1M iflag=fullblock 2>$2/err && exit 1
	grep -q 'No space left' $2/err || { cat $2/err; exit 1; }
	n=$(stat -c %s f); [ $n -ge 5000000 ] && [ $n -le 6291456 ] || { echo $n bytes; exit 1; }
	[ $(tr -d x <f | wc -c) = 0 ] || { echo other bytes; exit 1; }
	rm f
	head -c 3000000 /dev/zero | tr '\0' y >g; [ $(tr -d y <g | wc -c) = 0 ]; [ $(wc -c <g) = 3000000 ]
	rm g
done`)
	r.stop()
}
