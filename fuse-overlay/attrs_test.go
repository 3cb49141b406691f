package fuseoverlay

import (
	"testing"

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
