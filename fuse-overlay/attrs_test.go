package fuseoverlay

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// Capabilities, ACLs and set-ID bits of files made, copied up and written.
func TestCapabilitiesAndBits(t *testing.T) {
	t.Parallel()
	if fusetest.Script(t, "command -v setcap setfacl setpriv").Status != 0 {
		t.Skip("setcap, setfacl and setpriv are not all here")
	}
	r := newRig(t, "cp /bin/true low; setcap cap_net_raw+ep low; cp /bin/true suid; chmod 4777 suid; echo > acl; setfacl -m u:5:r acl").start()
	r.do(`
		# a new file has none, then one, and loses it when written
		cp /bin/true new; test -z "$(getcap new)"; setcap cap_net_raw+ep new; test -n "$(getcap new)"
		echo x >> new; test -z "$(getcap new)"
		setcap cap_net_raw+ep new; chown 5 new; test -z "$(getcap new)"
		setfacl -m u:7:rw new; getfacl -n new | grep -q user:7:rw-; setfacl -b new; ! getfacl -n new | grep -q user:7
		# copied up with it, and written
		test -n "$(getcap low)"; chmod 711 low; test -n "$(getcap low)"; echo x >> low; test -z "$(getcap low)"
		touch acl; getfacl -n acl | grep -q user:5:r--
		# set-ID bits go when others write, and stay when root does
		test "$(stat -c %a suid)" = 4777; echo x >> suid; test "$(stat -c %a suid)" = 4777
		setpriv --reuid 77 --regid 88 --clear-groups sh -c 'echo y >> suid'; test "$(stat -c %a suid)" = 777
		echo > s2; chmod 6777 s2; setpriv --reuid 77 --regid 88 --clear-groups sh -c ': > s2'; test "$(stat -c %a s2)" = 777
		chmod 4755 s2; chown 3:3 s2; test "$(stat -c %a s2)" = 755
	`)
}

// A descriptor stays what it was through what happens to the file's names.
func TestOpenFilesSurvive(t *testing.T) {
	t.Parallel()
	r := newRig(t, "echo one > a; echo two > b; mkdir d; echo three > d/c").start()
	r.do(`
		exec 3< a; echo more >> a; test "$(cat <&3)" = "one
more"; exec 3<&-
		exec 3<> b; mv b b2; echo x >&3; rm b2; test "$(stat -L -c %h /proc/self/fd/3)" = 0
		test "$(cat /proc/self/fd/3)" = "x
o" || test "$(head -1 /proc/self/fd/3)" = x; exec 3>&-
		exec 3< d/c; rm -r d; test "$(cat <&3)" = three; test "$(stat -L -c %h /proc/self/fd/3)" = 0 || true; exec 3<&-
		echo new > n; exec 3<> n; echo over > n2; mv n2 n; test "$(cat <&3)" = new; test "$(cat n)" = over; exec 3>&-
		mkdir w; cd w; rmdir ../w; ! touch x 2>/dev/null; ls > /dev/null; cd ..
	`)
}

// plainACL sets ACLs that say no more than a mode, as `cp -p` does for each file, on files
// of all kinds, and tells what has come of it.
const plainACL = `import os, struct, sys
def acl(*e): return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", t, p, i) for t, p, i in e)
def plain(u, g, o): return acl((1, u, -1), (4, g, -1), (32, o, -1))
full = acl((1, 6, -1), (2, 6, 7), (4, 4, -1), (16, 6, -1), (32, 0, -1))
name = "system.posix_acl_access"
def tell(p, what):
    st = os.stat(p)
    print(p, what, oct(st.st_mode), sorted(os.listxattr(p)))
def make(p): open(p, "w").close()
for p in "one", "two", "three", "acls/in":
    make(p)
    os.chmod(p, 0o6755)
    os.setxattr(p, name, plain(6, 4, 0)); tell(p, "plain")
    os.setxattr(p, name, full); tell(p, "full")
    os.setxattr(p, name, plain(7, 0, 1)); tell(p, "plain again")
    os.setxattr(p, name, plain(6, 6, 6)); tell(p, "and again")
for p in "low", "acl", "acls/in2":
    if p == "acls/in2": make(p)
    os.setxattr(p, name, plain(6, 0, 4)); tell(p, "plain")
for bad in b"", b"x", plain(6, 4, 0)[:-8], acl((1, 6, -1), (4, 4, -1), (4, 0, -1)), acl((1, 15, -1), (4, 4, -1), (32, 0, -1)):
    make("bad")
    try: os.setxattr("bad", name, bad); tell("bad", "set")
    except OSError as e: print(e.errno)
make("ours"); os.chown("ours", 77, 88); os.chmod("ours", 0o2777)
with open("ours") as f:
    os.setegid(99); os.seteuid(77)
    os.setxattr(f.fileno(), name, plain(6, 6, 0)); tell("ours", "by its owner, who is not in the group")
    os.setxattr(f.fileno(), name, plain(0, 6, 0)); tell("ours", "again")
    os.seteuid(0); os.seteuid(78)
    try: os.setxattr(f.fileno(), name, plain(7, 7, 7))
    except OSError as e: print(e.errno)
`

func TestPlainACLs(t *testing.T) {
	t.Parallel()
	if fusetest.Script(t, "command -v setfacl python3").Status != 0 {
		t.Skip("setfacl and python3 are not all here")
	}
	const low = "chmod 755 .; echo > low; chmod 6755 low; echo > acl; setfacl -m u:5:r acl; mkdir acls; setfacl -d -m u:5:rwx acls"
	r := newRig(t, low).start()
	plain := t.TempDir()
	want := fusetest.Script(t, "chmod 755 $(dirname $1) $1; cd $1; "+low+"; python3 -c \"$2\"", plain, plainACL)
	got := fusetest.Script(t, "cd $1; python3 -c \"$2\"", r.mount, plainACL)
	if want.Status != 0 || got.Status != 0 || got.Out != want.Out {
		t.Errorf("%s%s\na directory:\n%s%s", got.Out, got.Err, want.Out, want.Err)
	}
}

// The upper's filesystem is asked whether it takes ACLs at all, once; after that a plain
// one is a mode.
func TestPlainACLIsMode(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	o, err := newOverlay(r.config)
	check(t, err)
	defer func() { check(t, o.close()) }()
	acl := []byte{2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255, 32, 0, 1, 0, 255, 255, 255, 255}
	for i, name := range []string{"a", "b", "c"} {
		n, _, err := o.mknod(t.Context(), o.root, name, unix.S_IFREG|0o4777, 0, caller{})
		check(t, err)
		check(t, o.setxattr(t.Context(), n, accessACL, acl, 0))
		st, err := o.stat(n)
		if check(t, err); st.Mode != unix.S_IFREG|0o4641 {
			t.Errorf("%s: mode %o", name, st.Mode)
		}
		if n.is(flagBare) != (i > 0) {
			t.Errorf("%s: bare is %v", name, n.is(flagBare))
		}
	}
}
