package fuseoverlay

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const asideScript = `umask 022; touch f; chown 10:20 f; chmod 4640 f; mkdir d; chown 0:30 d; chmod 2770 d; touch d/c; chmod 700 low; chown 9:9 low; mkdir e; chown 3:4 e`

// described is what a tree shows of owners and modes.
const described = `find . ! -type p ! -type c -printf '%p %M %U:%G\n' | sort`

// TestAside: what is kept in attributes is what a plain directory shows, also
// after a remount, and fuse-overlayfs sees it and goes on with it.
func TestAside(t *testing.T) {
	t.Parallel()
	for name, aside := range map[string]Aside{"security": AsideSecurity, "user": AsideUser} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plain := newRig(t, "touch low; chmod 4751 low; chown 5:6 low; mkdir ld; chown 7:7 ld; touch ld/x")
			r := newRig(t, "touch low; chmod 4751 low; chown 5:6 low; mkdir ld; chown 7:7 ld; touch ld/x")
			r.config.Aside = aside
			plain.start()
			r.start()
			plain.do(asideScript)
			r.do(asideScript)
			want := plain.do(described)
			if got := r.do(described); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
			for _, f := range []string{"u/f", "u/d/c", "u/low"} {
				st, err := os.Stat(r.dir + "/" + f)
				check(t, err)
				if sys := statOf(t, r.dir+"/"+f); sys.Uid != 0 || st.Mode().Perm() != 0o644 {
					t.Errorf("%s is really %v of %d", f, st.Mode(), sys.Uid)
				}
			}
			r.stop()
			r.start()
			if got := r.do(described); got != want {
				t.Errorf("after a remount\n%swant\n%s", got, want)
			}
			r.stop()
			seenByPeer(t, r, aside, want)
		})
	}
}

func statOf(t *testing.T, path string) (st unix.Stat_t) {
	t.Helper()
	check(t, unix.Lstat(path, &st))
	return st
}

// seenByPeer mounts fuse-overlayfs over what r left, changes something, and
// lets ours go on.
func seenByPeer(t *testing.T, r *rig, aside Aside, want string) {
	t.Helper()
	peer, err := exec.LookPath("fuse-overlayfs")
	if err != nil {
		t.Logf("not seen by fuse-overlayfs: %v", err)
		return
	}
	opts := "lowerdir=" + strings.Join(r.lowers, ":") + ",upperdir=" + r.config.Upper + ",workdir=" + r.config.Work + ",xattr_permissions=" + string('0'+rune(aside))
	if out, err := exec.Command(peer, "-o", opts, r.mount).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := r.do(described)
	r.do("umount -l .")
	if got != want {
		t.Errorf("fuse-overlayfs shows\n%swant\n%s", got, want)
	}
	r.start()
	if got := r.do(described); got != want {
		t.Errorf("after fuse-overlayfs\n%swant\n%s", got, want)
	}
}

// TestAsideDevice: where no device can be made, a regular file stands for it.
func TestAsideDevice(t *testing.T) {
	t.Parallel()
	r := newRig(t, `touch null; setfattr -n user.containers.override_stat -v 0:5:020666:char-1-3 null
		touch disk; setfattr -n user.containers.override_stat -v 0:6:060660:block-8-17 disk`)
	r.config.Aside = AsideUser
	r.start()
	const show = `stat -c '%n %f %t:%T %u:%g %s' disk null`
	want := "disk 61b0 8:11 0:6 0\nnull 21b6 1:3 0:5 0\n"
	if got := r.do(show); got != want {
		t.Errorf("got %swant %s", got, want)
	}
	r.do(`test "$(echo x > null; wc -c < null)" = 0; chmod 600 null; chown 1:2 disk`)
	want = "disk 61b0 8:11 1:2 0\nnull 2180 1:3 0:5 0\n"
	for range 2 {
		if got := r.do(show); got != want {
			t.Errorf("got %swant %s", got, want)
		}
		r.stop()
		r.start()
	}
}

// TestParseOverride reads what others write, and what is written here.
func TestParseOverride(t *testing.T) {
	t.Parallel()
	for v, want := range map[string]*override{
		"5:6:0640":             {uid: 5, gid: 6, perm: 0o640},
		"5:6:104640":           {uid: 5, gid: 6, perm: 0o4640},
		"0:0:0700:dir":         {perm: 0o700},
		"1:2:020600:char-1-3":  {uid: 1, gid: 2, perm: 0o600, typ: unix.S_IFCHR, rdev: unix.Mkdev(1, 3)},
		"1:2:60600:block-8-17": {uid: 1, gid: 2, perm: 0o600, typ: unix.S_IFBLK, rdev: unix.Mkdev(8, 17)},
		"1:2:020600:char-0-0":  {uid: 1, gid: 2, perm: 0o600}, // would be a whiteout
		"1:2:020600:char-1":    {uid: 1, gid: 2, perm: 0o600},
		"1:2":                  nil, "": nil, "a:b:c": nil, "-1:0:0": nil, "1:2:9": nil, "4294967296:0:0": nil,
	} {
		got, ok := parseOverride(v)
		if ok != (want != nil) || ok && got != *want {
			t.Errorf("%q: %+v, %v", v, got, ok)
		}
		if !ok {
			continue
		}
		typ := got.typ
		if typ == 0 {
			typ = unix.S_IFREG
		}
		if again, ok := parseOverride(string(got.value(typ))); !ok || again != got {
			t.Errorf("%q is written as %q", v, got.value(typ))
		}
	}
}

// The type that a listing tells is never another than stat's: what stands for a
// device is listed as one, or as of a type that is to be asked for. The kernel
// takes the attributes with the first names only, the others without.
func TestStandInsAreListed(t *testing.T) {
	t.Parallel()
	r := newRig(t, `mkdir d; cd d; seq -f file-%g 1500 | xargs touch; seq -f dev-%g 1500 | xargs touch; mkdir dir; mkfifo fifo; ln -s fifo link
		for i in $(seq 1500); do
			echo "# file: dev-$i"; echo 'user.fuseoverlayfs.override_stat="0:0:666:char-1-3"'; echo
		done | setfattr --restore=-`)
	r.config.Aside = AsideUser
	got := r.start().do(`mkdir d/new; echo x >d/made
		python3 -c 'if 1:
		import os, stat, collections
		kinds = collections.Counter()
		for again in 1, 2:
			for e in list(os.scandir("d")):
				m = os.lstat(e.path).st_mode
				for told, true in (e.is_file(follow_symlinks=False), stat.S_ISREG(m)), (e.is_dir(follow_symlinks=False), stat.S_ISDIR(m)), (e.is_symlink(), stat.S_ISLNK(m)):
					if told != true:
						print(e.name, "is listed as another type than", oct(m))
				kinds[stat.S_IFMT(m)] += 1
		print(*["%o:%d" % x for x in sorted(kinds.items())])'`)
	if want := "10000:2 20000:3000 40000:4 100000:3002 120000:2\n"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}
