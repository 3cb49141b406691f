package fuseoverlay

import "testing"

// TestCutCopies: a lower file that is truncated first is what it is in the kernel's
// overlay: its content, its times, and what it is allowed by its mode and attributes.
func TestCutCopies(t *testing.T) {
	t.Parallel()
	const lower = `for i in empty begin all more suid cap linked attr; do echo 12345 > $i; done; ln linked second; : > none; chmod 4755 suid; chmod 640 begin
python3 -c '
import os, struct
os.setxattr("cap", "security.capability", struct.pack("<IIIII", 0x02000001, 1, 0, 0, 0))
os.setxattr("attr", "user.a", b"b")'
touch -a -d 2001-01-01 *; touch -m -d 2002-02-02 *`
	const script = `: > empty; truncate -s 2 begin; truncate -s 6 all; truncate -s 9 more; : > suid; : > cap; : > linked; : > none; truncate -s 3 attr
for i in *; do test $i -nt old && echo "$i changed"; stat -c "%n %s %a %X %h" $i; done; for i in *; do od -c $i; done
python3 -c '
import os
for f in ("cap", "attr"): print(f, [a for a in os.listxattr(f)])'
echo 1 > suid; stat -c %a suid; truncate -s 0 begin; stat -c %s begin`
	k := newRig(t, lower, "touch -d 2003-03-03 old")
	want := k.throughKernel("index=on,xino=off", script)
	r := newRig(t, lower, "touch -d 2003-03-03 old")
	r.start()
	if got := r.do(script); got != want {
		t.Errorf("there is\n%s\nand in the kernel's overlay\n%s", got, want)
	}
}
