package fuseoverlay

import "testing"

// A directory of more entries than are listed with their attributes: names only
// and then with what they are, half of it listed and then changed, by one
// listing and by the next.
func TestListingInParts(t *testing.T) {
	t.Parallel()
	fill := func(from, to string) string {
		return `mkdir -p d; i=` + from + `; while [ $i -lt ` + to + ` ]; do printf %*s $((i%7)) "" > d/a-name-of-some-length-$i; i=$((i+1)); done; `
	}
	both := fill("1500", "2600") + "mkdir d/sub; ln -s x d/link"
	r := newRig(t, fill("900", "1700")+"rm d/a-name-of-some-length-1650; mkdir d/sub; echo > d/sub/z", both).start()
	want := r.do("mkdir $2/plain; cp -a $2/l/b/. $2/l/a/. $2/plain; cd $2/plain/d; stat -c '%n %s %F' * | sort")
	look := "cd $1/d; "
	if got := r.do(look + `ls -f | sort | grep -v '^\.\.*$'`); got != r.do(`cd $2/plain/d; ls | sort`) {
		t.Errorf("names only: %s", got)
	}
	for _, how := range []string{"ls -l >/dev/null; ls -f >/dev/null; ", "", "ls -f >/dev/null; "} {
		if got := r.do(look + how + "stat -c '%n %s %F' * | sort"); got != want {
			t.Errorf("after %q the files are\n%s\nnot\n%s", how, got, want)
		}
		if got := r.do(look + how + `find . -mindepth 1 -maxdepth 1 -printf '%f %i\n' | sort`); got != r.do(look+`stat -c '%n %i' * | sort`) {
			t.Errorf("after %q the numbers of a listing are not those of its files", how)
		}
	}
	change := "rm a-name-of-some-length-15*; mkdir a-new-one; echo xyz > a-name-of-some-length-2599; "
	want = r.do("cd $2/plain/d; " + change + "stat -c '%n %s %F' * | sort")
	if got := r.do(look + change + "stat -c '%n %s %F' * | sort"); got != want {
		t.Errorf("changed: %s", got)
	}
	if got := r.do("rm -r d; mkdir d; ls d"); got != "" {
		t.Errorf("removed, and there are %s", got)
	}
}
