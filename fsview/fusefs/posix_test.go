package fusefs

import (
	"os"
	"path/filepath"
	"sort"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"

	"github.com/plyfs/plyfs/internal/fusetest"
	"github.com/plyfs/plyfs/internal/hosttree"
)

// window mounts a window on a new host directory and returns both.
func window(t testing.TB) (mount, host string) {
	t.Helper()
	host = t.TempDir()
	if err := os.Chmod(host, 0o755); err != nil {
		t.Fatal(err)
	}
	w, err := hosttree.Open("test", host, hosttree.Options{Owners: true})
	if err != nil {
		t.Fatal(err)
	}
	mount, _ = mounted(t, w.Root(), Options{})
	return mount, host
}

// exceptions are what go-fuse's suite asks for and we do not do.
func exceptions() map[string]string {
	return map[string]string{
		"FcntlFlockLocksFile": "go-fuse itself leaves it out: it opens the same file in the server's process",
		"OpenSymlinkRace":     "go-fuse itself leaves it out: it takes minutes",
		"Tmpfile":             "O_TMPFILE is EOPNOTSUPP here (docs/controlfs.md)",
	}
}

// go-fuse's own conformance suite, over a host directory through the mount.
func TestPosix(t *testing.T) {
	t.Parallel()
	mount, _ := window(t)
	r := fusetest.Child(t, "TestPosixChild", "POSIX="+mount)
	if r.Status != 0 {
		t.Errorf("%s\n%s", r.Out, r.Err)
	}
}

// TestPosixChild drives the mount of TestPosix.
func TestPosixChild(t *testing.T) {
	if !fusetest.IsChild() {
		t.Skip("runs as a child of TestPosix")
	}
	names := make([]string, 0, len(posixtest.All))
	for name := range posixtest.All {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			if why := exceptions()[name]; why != "" {
				t.Skip(why)
			}
			dir := filepath.Join(os.Getenv("POSIX"), name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			posixtest.All[name](t, dir)
		})
	}
}

// The same commands on a plain directory and through the mount leave the same
// files: names, types, modes, owners, links, content, attributes.
func TestSameAsPlainDirectory(t *testing.T) {
	t.Parallel()
	mount, host := window(t)
	plain := t.TempDir()
	if err := os.Chmod(plain, 0o755); err != nil {
		t.Fatal(err)
	}
	work := `
		cd $1; umask 027
		mkdir d d/e; echo hello > d/f; ln d/f d/g; ln -s ../../../nowhere/out out; ln -s d sd
		mkfifo p; mknod n c 1 3; mknod b b 7 0; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("s")'
		chmod 4755 d/f; chown 12:34 d/e; chown -h 12:34 out; chmod 2777 d/e; chmod 1777 d
		setpriv --reuid 77 --regid 88 --clear-groups sh -c 'umask 022; mkdir d/e/sub; echo x > d/e/file; ln -s q d/e/link; mknod d/e/fifo p; chmod 640 d/e/file'
		touch -d '2001-02-03 04:05:06.789' d/f; touch -h -d 2002-03-04 sd
		setfattr -n user.a -v b d/f; setfattr -n trusted.t -v u d/f; setfattr -n user.gone -v x d; setfattr -x user.gone d
		mkdir acl; setfacl -m u:55:rwx acl; setfacl -d -m u:56:r-x acl; mkdir acl/in; echo a > acl/file
		setfacl -d -m g::rwx,o::rwx acl; mkdir acl/open; echo b > acl/open/file; mkfifo acl/fifo; chmod 640 acl/open/file
		truncate -s 1000000 sparse; printf end | dd of=sparse bs=1 seek=900000 conv=notrunc status=none
		cp --sparse=always sparse sparse2; cp -a d d2; mv d2 d/moved; mv d/moved/f renamed
		echo 1 > over; echo 2 > over2; mv over2 over
		exec 3> unlinked; rm unlinked; echo still >&3; exec 3>&-
		seq 1000 > app; echo more >> app; head -c 5 app > app2; : > app2
		dd if=/dev/zero of=big bs=64k count=40 status=none; fallocate -p -o 65536 -l 65536 big
		mkdir -p deep/a/b/c; rm -r deep/a/b; rmdir deep/a
		perl -e 'rename("app", "app") or die; require "syscall.ph" if 0; open(F, "+<", "big"); truncate(F, 100000); close F'
		tar cf t.tar d acl; mkdir x; tar xf t.tar -C x; rm t.tar
		ls -lR > /dev/null; n=$(find . | wc -l); echo $n > count`
	fusetest.Must(t, work, mount)
	fusetest.Must(t, work, plain)
	show := `cd $1; find . -printf '%p %y %m %U %G %n %l\n' | sort
		find . -type f ! -name sparse2 -printf '%p %s\n' | sort
		find . -type f -exec sha256sum {} + | sort
		find . -newermt 2000-01-01 ! -newermt 2010-01-01 -printf '%p %T@\n' | sort
		getfattr -R -h -d -m - . ; getfacl -R . 2>/dev/null | grep -v '^# file'`
	want := fusetest.Must(t, show, plain)
	if got := fusetest.Must(t, show, host); got != want {
		t.Errorf("the directory below differs:\n%s", diff(t, want, got))
	}
	if got := fusetest.Must(t, show, mount); got != want {
		t.Errorf("the mount shows:\n%s", diff(t, want, got))
	}
}

func diff(t *testing.T, want, got string) string {
	t.Helper()
	dir := t.TempDir()
	for name, s := range map[string]string{"want": want, "got": got} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return fusetest.Script(t, `cd $1; diff want got | head -60`, dir).Out
}

// What another program does in the directory below is seen at once, and no
// symlink leads out.
func TestBackingChangesUnseen(t *testing.T) {
	t.Parallel()
	mount, host := window(t)
	secret := t.TempDir()
	fusetest.Must(t, `
		m=$1 h=$2
		echo one > $h/f; test "$(cat $m/f)" = one
		echo three > $h/f; test "$(cat $m/f)" = three; test "$(stat -c %s $m/f)" = 6
		mv $h/f $h/g; test ! -e $m/f; test "$(cat $m/g)" = three
		mkdir $h/d; touch $h/d/x; ls $m/d > /dev/null; mv $h/d $h/e; test -e $m/e/x
		exec 3< $m/g; rm $h/g; test "$(cat <&3)" = three; test ! -e $m/g
		cd $m/e; mv $h/e $h/moved; cd /; test -e $m/moved/x
		rm -r $h/moved; ln -s $3 $h/moved; test "$(readlink $m/moved)" = $3
		echo t > $3/t`, mount, host, secret)
	// A directory that becomes a symlink between look-up and use.
	r := fusetest.Script(t, `
		m=$1 h=$2 s=$3; mkdir $h/race; 
		( for i in $(seq 300); do rmdir $h/race; ln -s $s $h/race; rm $h/race; mkdir $h/race; done ) 2>/dev/null &
		for i in $(seq 300); do ( cd $m/race 2>/dev/null && case "$(pwd -P)" in $m/*) echo x > leaked 2>/dev/null; rm -f leaked;; esac ); done
		wait; ls $s`, mount, host, secret)
	if r.Out != "t\n" {
		t.Errorf("something got out: %q", r.Out)
	}
}
