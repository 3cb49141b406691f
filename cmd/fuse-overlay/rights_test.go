package main

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

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

// TestSquashedOfOthers: where all files are shown with one owner, a server that
// may not give files away changes those of others nevertheless; their copies are
// its own, without set-ID bits, and capabilities but a user namespace's.
//
// https://github.com/containers/fuse-overlayfs/issues/241
// https://github.com/containers/fuse-overlayfs/issues/374
func TestSquashedOfOthers(t *testing.T) {
	needsMount(t)
	t.Parallel()
	const work = `
		echo more >> m/f; echo x > m/d/new; ln m/d/new m/d/link; mv m/d/g m/d/h; chmod g-r m/c; touch -h m/s; rm m/d/gone; mkdir m/d/sub; mv m/d m/e
		stat -c '%n %u:%g %a' m/f m/e m/e/new m/e/h m/c`
	for options, want := range map[string]string{
		"squash_to_uid=1000,squash_to_gid=1000": "m/f 1000:1000 666\nm/e 1000:1000 777\nm/e/new 1000:1000 644\nm/e/h 1000:1000 755\nm/c 1000:1000 715\n",
		"squash_to_root":                        "m/f 0:0 666\nm/e 0:0 777\nm/e/new 0:0 644\nm/e/h 0:0 755\nm/c 0:0 715\n",
	} {
		dir, base := layers(t)
		fusetest.Must(t, `cd "$1"; umask 022; mkdir lower/d; echo x > lower/d/g; : > lower/d/gone; echo x > lower/c; ln -s f lower/s
			chmod 755 lower/c; chmod 666 lower/f; chmod 6755 lower/d/g; chown -R 5:5 lower; chmod 777 lower lower/d; chmod 6755 lower/d/g
			chown 1000:1000 upper work m`, dir)
		if err := unix.Setxattr(dir+"/lower/c", "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0); err != nil {
			t.Fatal(err)
		}
		script := `cd "$1"; "$2" -o "$3" m && (` + work + `); fusermount3 -u m`
		if options == "squash_to_root" { // whose IDs but 0 are none of the server's
			script = `cd "$1"; unshare -Urm /bin/sh -c '"$1" -o "$2" m && (` + strings.ReplaceAll(work, "'", `'\''`) + `); umount m' sh "$2" "$3"`
		}
		r := fusetest.AsUser(t, fusetest.User{}, script, dir, program, base+","+options)
		if r.Status != 0 || r.Err != "" || r.Out != want {
			t.Errorf("%s: %+v\nwant %s", options, r, want)
		}
		got := fusetest.Must(t, `cd "$1/upper"; stat -c '%u:%g' f e e/new e/h c e/sub | sort -u; ! getfattr -n security.capability --only-values c 2>/dev/null | od -An -tx1 | grep '01 00 00 02'; chmod -R 777 .`, dir)
		if got != "1000:1000\n" {
			t.Errorf("%s: %s", options, got)
		}
	}
}
