package main

import (
	"strings"
	"testing"

	"github.com/plyfs/plyfs/internal/fusetest"
)

// forbidden makes files and directories that their owner may not write to, or
// not search, as a cache of Go modules has them, and forbiddenWork works on them
// and on such of its own.
const forbidden = `mkdir -p mod/a/sub mod/f; echo x > mod/a/f; echo y > mod/a/sub/g; echo z > mod/f/z; chmod 444 mod/a/f mod/a/sub/g; chmod 555 mod/a/sub mod/a
	for i in b c d e; do cp -a mod/a mod/$i; done; ln mod/d/f twin; mkdir mod/g; seq -f mod/g/%g 60 | xargs touch; chmod 555 mod/f mod/g
	`

const forbiddenWork = `try() { "$@" || echo "$* fails"; }
	try chmod -R u+w mod/b; try rm -r mod/b
	try chmod 644 mod/c/f; try sh -c 'echo new > mod/c/f'; try touch mod/c/sub/g; try chmod 600 mod/c/sub/g; stat -c '%n %a %h' mod/c/f mod/c/sub/g
	try ln mod/d/f another; try mv mod/d mod/moved; try mv mod/moved/f x; try mv mod/moved .; stat -c '%n %a %h' another mod/moved/f twin
	try rm -rf mod/moved; try rm -f twin; try mkdir -p q/r; chmod 555 q/r; try rmdir q/r; try mkdir -m 0 q/r; try rmdir q/r
	try mkdir s; try chmod 0 s; try mv s s2; try rmdir s2; try mkdir -m 555 s; try chmod 755 s; try touch s/t; try chmod 0 s/t; try chmod 0 s
	try rm -rf mod/a; try chmod -R u+w mod/a; try rm -r mod/a; try mkdir mod/a; echo 1 > mod/a/one; try chmod 0 mod/a; try chmod 700 mod/a; try chmod 0 mod/a
	chmod 755 mod/f; rm mod/f/z; chmod 0 mod/f; try mkdir n; try chmod 0 n; try mv -T n mod/f; try rmdir mod/f
	(umask 777; try mkdir um; : > umf); try chmod 700 um; try chmod 600 umf; chmod 755 mod/e; rm -rf mod/e; chmod 700 mod/e/sub; rm -r mod/e
	`

const forbiddenShow = `
	find . -type d ! -perm -u=rx -printf '%p %m\n' | sort; chmod 755 s mod/a; find . -printf '%p %y %m\n' | sort; cat mod/a/one mod/c/f`

// TestModesThatForbid: on behalf of an ordinary user the server can do no more
// than he; what he may do with files that he may not write to it does
// nevertheless, as a plain directory does.
func TestModesThatForbid(t *testing.T) {
	needsMount(t)
	t.Parallel()
	for _, options := range []string{"", ",redirect_dir=on"} {
		r := fusetest.AsUser(t, fusetest.User{}, `cd "$HOME"; mkdir plain l u w m; export LC_ALL=C
			(cd l; `+forbidden+`); (cd plain; `+forbidden+forbiddenWork+forbiddenShow+`) > want 2>&1
			"$1" -o lowerdir=l,upperdir=u,workdir=w$2 m || exit 1
			(cd m; `+forbiddenWork+`) > got 2>&1; fusermount3 -u m
			"$1" -o lowerdir=l,upperdir=u,workdir=w$2 m || exit 1
			(cd m; `+forbiddenShow+`) >> got 2>&1; fusermount3 -u m
			diff want got && grep -c . got; cat w/fuse-overlay.log 2>/dev/null
			find w/work -name '#*' ! -name '#whiteout'; chmod -R u+rwx .`, program, options)
		if r.Status != 0 || r.Err != "" || strings.Count(r.Out, "\n") != 1 || len(r.Out) < 3 {
			t.Errorf("%s: %+v", options, r)
		}
	}
}
