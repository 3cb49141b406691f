package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/fusetest"
	"github.com/plyfs/plyfs/internal/hosttree"
	"github.com/plyfs/plyfs/internal/userns"
)

// TestRootlessChild mounts $HOME/m as an ordinary user and shows $HOME/back
// there, from a server in a user namespace. It prints the error otherwise.
func TestRootlessChild(t *testing.T) {
	home := os.Getenv("HOME")
	switch os.Getenv("STAGE") {
	case "mount":
		if err := mountRootless(home + "/m"); err != nil {
			fmt.Printf("errno %d: %v\n", int(errno.Of(err)), err)
			t.FailNow()
		}
	case "umount":
		if err := Unmount(t.Context(), home+"/m", os.Getenv("LAZY") != ""); err != nil {
			fmt.Printf("errno %d: %v\n", int(errno.Of(err)), err)
			t.FailNow()
		}
	case "serve":
		if err := serveRootless(home + "/back"); err != nil {
			fmt.Println(err)
			t.FailNow()
		}
	default:
		t.Skip("runs as a child of the tests below")
	}
}

func mountRootless(dir string) error {
	dev, err := Mount(context.Background(), dir, MountOptions{AllowOther: os.Getenv("OTHER") != ""})
	if err != nil {
		return err
	}
	plan, err := userns.Prepare()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestRootlessChild$")
	cmd.Env = append(os.Environ(), "STAGE=serve")
	cmd.ExtraFiles = []*os.File{dev, w}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := plan.Start(context.Background(), cmd); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := dev.Close(); err != nil {
		return err
	}
	b, err := io.ReadAll(r)
	if string(b) != "ok" {
		return fmt.Errorf("the server says %q: %w", b, errors.Join(err, syscall.EIO))
	}
	return cmd.Process.Release()
}

func serveRootless(back string) error {
	maps, err := userns.Current()
	if err != nil {
		return err
	}
	// As root of the namespace: files of subordinate IDs that nobody else reads.
	if len(maps.UIDs) > 1 {
		if out, err := exec.Command("/bin/sh", "-c", `cd $1 && echo secret > sub && chown 5:6 sub && chmod 400 sub && mkdir closed && echo in > closed/f && chown 7:7 closed && chmod 700 closed`, "sh", back).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w", out, err)
		}
	}
	w, err := hosttree.Open("rootless", back, hosttree.Options{Owners: true})
	if err != nil {
		return err
	}
	s := New(w.Root(), Options{Out: maps.ToParent, In: maps.FromParent, Check: &Check{}})
	if err := s.Start(os.NewFile(3, "/dev/fuse")); err != nil {
		return err
	}
	ready := os.NewFile(4, "ready")
	if _, err := ready.WriteString("ok"); err != nil {
		return err
	}
	if err := ready.Close(); err != nil {
		return err
	}
	s.Wait()
	return nil
}

const begin = `set -e; export LC_ALL=C; EXE=$1; cd $HOME; mkdir m back; echo mine > back/f; chmod 600 back/f
	plymount() { STAGE=mount "$EXE" -test.run '^TestRootlessChild$'; }
	plyumount() { STAGE=umount "$EXE" -test.run '^TestRootlessChild$'; }
`

// The mount is there in the user's ordinary shell; what belongs to subordinate
// IDs can be read; owners are those that the shell knows; what is made belongs
// to the user.
func TestRootless(t *testing.T) {
	t.Parallel()
	r := fusetest.AsUser(t, fusetest.User{}, begin+`plymount > out || { cat out; exit 1; }
		grep -c "$HOME/m .* - fuse.plyfs plyfs " /proc/self/mountinfo
		cat m/f m/sub m/closed/f
		stat -c %u:%g:%a m/f m/sub m/closed
		echo new > m/new; mkdir m/dir; stat -c %u:%g m/new m/dir back/new back/dir
		chown 100009:100009 m/new; stat -c %u:%g m/new back/new
		chown 55:55 m/new 2>&1 | grep -o 'Invalid argument' || :
		ls m | tr '\n' ' '; echo
		plyumount; grep -c "$HOME/m .* - fuse.plyfs plyfs " /proc/self/mountinfo || :
		plyumount | head -1 || :`, fusetest.Exe(t))
	want := `1
mine
secret
in
1000:1000:600
100004:100005:400
100006:100006:700
1000:1000
1000:1000
1000:1000
1000:1000
100009:100009
100009:100009
Invalid argument
closed dir f new sub 
PASS
0
`
	if r.Status != 0 || !strings.HasPrefix(r.Out, want) {
		t.Errorf("status %d\n%s\n%s\nwant\n%s", r.Status, r.Out, r.Err, want)
	}
	if !strings.Contains(r.Out, "nothing is mounted at") {
		t.Errorf("a second unmount: %s", r.Out)
	}
}

// With one ID only, the user's files are shown and everything else is refused.
func TestRootlessSingleID(t *testing.T) {
	t.Parallel()
	r := fusetest.AsUser(t, fusetest.User{NoSubIDs: true}, begin+`plymount > out || { cat out; exit 1; }
		cat m/f; echo new > m/new; stat -c %u:%g m/new back/new; plyumount >/dev/null`, fusetest.Exe(t))
	if want := "mine\n1000:1000\n1000:1000\n"; r.Status != 0 || r.Out != want {
		t.Errorf("status %d\n%s\n%s", r.Status, r.Out, r.Err)
	}
}

// With allow_other, others are checked by the daemon, by the owners and modes
// that they see; the mounting user is not. The other user is the subordinate
// ID 100004, who has the same mount namespace.
func TestRootlessOthersAreChecked(t *testing.T) {
	t.Parallel()
	if err := exec.Command("unshare", "-U", "--map-auto", "--map-root-user", "true").Run(); err != nil && strings.Contains(fusetest.Script(t, "unshare -U --map-auto true").Err, "unrecognized") {
		t.Skip("this util-linux has no unshare --map-auto")
	}
	r := fusetest.AsUser(t, fusetest.User{Conf: "user_allow_other\n", Env: []string{"OTHER=1"}}, begin+`
		echo open > back/open; chmod 644 back/open; mkdir back/sticky; chmod 1777 back/sticky; touch back/sticky/mine; chmod 711 $HOME
		mkdir back/all; chmod 777 back/all
		plymount > out || { cat out; exit 1; }
		cat > try <<'E'
for c in "cat m/open" "cat m/sub" "cat m/f" "ls m/closed" "cat m/closed/f" "tee m/open" "chmod 777 m/open" "chmod 600 m/sub" "chown 7 m/sub" "chgrp 7 m/sub" "chown 5 m/sub" \
	"rm -f m/sticky/mine" "touch m/new" "touch m/sticky/theirs" "mv m/sticky/theirs m/all/moved" "rm m/all/moved" "mv m/all m/sticky/all" "truncate -s 0 m/open" "setfattr -n user.x -v y m/open" "test -w m/open"; do
	if $c < /dev/null > /dev/null 2>&1; then echo "$c: yes"; else echo "$c: no"; fi
done
E
		unshare -U --map-auto --map-root-user setpriv --reuid 5 --regid 5 --clear-groups sh $HOME/try
		cat m/sub; plyumount > /dev/null`, fusetest.Exe(t))
	want := `cat m/open: yes
cat m/sub: yes
cat m/f: no
ls m/closed: no
cat m/closed/f: no
tee m/open: no
chmod 777 m/open: no
chmod 600 m/sub: yes
chown 7 m/sub: no
chgrp 7 m/sub: no
chown 5 m/sub: yes
rm -f m/sticky/mine: no
touch m/new: no
touch m/sticky/theirs: yes
mv m/sticky/theirs m/all/moved: yes
rm m/all/moved: yes
mv m/all m/sticky/all: no
truncate -s 0 m/open: no
setfattr -n user.x -v y m/open: no
test -w m/open: no
secret
`
	if r.Status != 0 || r.Out != want {
		t.Errorf("status %d\n%s\n%s", r.Status, r.Out, r.Err)
	}
}

// Everything that can be missing is said in one sentence.
func TestRootlessRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, before, want string
		user               fusetest.User
	}{
		{"device", "", "there is no /dev/fuse: run `modprobe fuse`, or start the container with `--device /dev/fuse`", fusetest.User{NoDevice: true}},
		{"helper", "", "there is no fusermount3, which mounts for ordinary users: install the package fuse3", fusetest.User{NoHelper: true}},
		{"missing", "rmdir m", "m does not exist: make the directory first", fusetest.User{}},
		{"file", "rmdir m; touch m", "m is not a directory", fusetest.User{}},
		{"not mine", "rmdir m; ln -s /usr m", "m is not yours: an ordinary user mounts only on a directory of his own", fusetest.User{}},
		{"twice", "plymount >/dev/null", "shows a plyfs tree already", fusetest.User{}},
		{"other", "", "allow_other is not permitted here: put the line user_allow_other into /etc/fuse.conf", fusetest.User{Env: []string{"OTHER=1"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := fusetest.AsUser(t, c.user, begin+c.before+"\nplymount", fusetest.Exe(t))
			if r.Status != 1 || !strings.Contains(r.Out, c.want) || strings.Count(strings.Split(r.Out, "--- FAIL")[0], "\n") != 1 {
				t.Errorf("status %d\n%s\n%s\nwant: %s", r.Status, r.Out, r.Err, c.want)
			}
		})
	}
}
