package options

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
)

func parse(t *testing.T, list string) *Options {
	t.Helper()
	o, err := Parse([]string{"fuse-overlay", "-o", list, "/m"}, nil)
	if err != nil {
		t.Fatalf("%s: %v", list, err)
	}
	return o
}

// TestWhatPodmanGives are the lists that podman 4.3.1 was seen to pass.
func TestWhatPodmanGives(t *testing.T) {
	t.Parallel()
	ranges := func(n ...int) (out []idmap.Range) {
		for i := 0; i < len(n); i += 3 {
			out = append(out, idmap.Range{ContainerID: n[i], HostID: n[i+1], Size: n[i+2]})
		}
		return out
	}
	for list, want := range map[string]Options{
		"lowerdir=/r/l/A:/r/l/B,upperdir=/r/ID/diff,workdir=/r/ID/work,": {Lower: []string{"/r/l/A", "/r/l/B"}, Upper: "/r/ID/diff", Work: "/r/ID/work"},
		"lowerdir=l/A,upperdir=u,workdir=w,,volatile":                    {Lower: []string{"l/A"}, Upper: "u", Work: "w", Volatile: true},
		"lowerdir=A,upperdir=U,workdir=W,,volatile,uidmapping=:0:1:1024,gidmapping=:0:0:1000:1000:1000:5": {
			Lower: []string{"A"}, Upper: "U", Work: "W", Volatile: true, UIDs: ranges(0, 1, 1024), GIDs: ranges(0, 0, 1000, 1000, 1000, 5)},
		"lowerdir=ID/diff:l/A:l/B":                {Lower: []string{"ID/diff", "l/A", "l/B"}},
		"lowerdir=D,upperdir=U,workdir=W,private": {Lower: []string{"D"}, Upper: "U", Work: "W"},
		`lowerdir=A,context="system_u:object_r:container_file_t:s0:c1,c2",xattr_permissions=2`: {Lower: []string{"A"}, Context: "system_u:object_r:container_file_t:s0:c1,c2", XattrPermissions: 2},
		"nodev,nosuid,noatime,metacopy=on,lowerdir=A":                                          {Lower: []string{"A"}, NoDev: true, NoSuid: true, NoAtime: true, Metacopy: true},
	} {
		want.Target = "/m"
		if got := parse(t, list); !reflect.DeepEqual(*got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", list, *got, want)
		}
	}
}

func TestEachWord(t *testing.T) {
	t.Parallel()
	five, zero, seven := 5, 0, 7
	second, never := 1500*time.Millisecond, time.Duration(0)
	for list, want := range map[string]Options{
		"squash_to_root":                                    {SquashUID: &zero, SquashGID: &zero},
		"squash_to_root=0":                                  {},
		"squash_to_uid=5,squash_to_root":                    {SquashUID: &five, SquashGID: &zero},
		"squash_to_root,squash_to_gid=7":                    {SquashUID: &zero, SquashGID: &seven},
		"uidmapping=0:0:1,1:1000:5,noacl":                   {NoACL: true, UIDs: []idmap.Range{{ContainerID: 0, HostID: 0, Size: 1}, {ContainerID: 1, HostID: 1000, Size: 5}}},
		"uidmapping=:":                                      {},
		"xattr_permissions=1,static_nlink,noxattrs,noacl=1": {XattrPermissions: 1, StaticNlink: true, NoXattrs: true, NoACL: true},
		"volatile=0,fsync=0,threaded=0":                     {NoSync: true, SingleThread: true},
		"fsync,threaded,volatile=1":                         {Volatile: true},
		"timeout=1.5":                                       {Timeout: &second},
		"timeout=0":                                         {Timeout: &never},
		"timeout=1000000000.0":                              {},
		"clone_fd,fast_ino=1,xino=auto,ino32_t,max_write=131072,max_threads=4,max_idle_threads=2": {Ino32: true, MaxWrite: 131072, MaxThreads: 4},
		"writeback=1,redirect_dir=auto": {Writeback: true, RedirectDir: "auto"},
		"passthrough":                   {Passthrough: true},
		"passthrough,passthrough=0":     {},
		"size=10M,inodes=2k":            {Size: 10 << 20, Inodes: 2048, Upper: "u", Work: "w"},
		"stats=/run/s":                  {Stats: "/run/s"},
		"size=0":                        {},
		"index=on,uuid=null,nfs_export=off,userxattr,metacopy=off": {UserXattr: true},
		"ro,rw,ro,allow_other,auto_unmount,fsname=x":               {ReadOnly: true, AllowOther: true, AutoUnmount: true, Source: "x"},
		"user":                               {NoDev: true, NoSuid: true, NoExec: true},
		"user,exec,dev":                      {NoSuid: true},
		"sync=0,use_ino=1,nonempty,lazytime": {}, // words without meaning, whichever value they are given
		"x-systemd.automount,X-mount.mkdir=0755,_netdev,comment=a": {},
		`fscontext="a,b",defcontext=c,rootcontext=d`:               {FSContext: "a,b", DefContext: "c", RootContext: "d"},
		"debug":              {Debug: true, Foreground: true},
		"foo,bar=1,foo=2,,":  {Unknown: []string{"foo", "bar"}},
		"context=\"open,foo": {Context: `"open`, Unknown: []string{"foo"}},
	} {
		want.Target, want.Lower = "/m", []string{"l"}
		arg := list + ",lowerdir=l"
		if want.Upper != "" {
			arg += ",upperdir=u,workdir=w"
		}
		if got := parse(t, arg); !reflect.DeepEqual(*got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", list, *got, want)
		}
	}
}

func TestLowerdir(t *testing.T) {
	t.Parallel()
	for value, want := range map[string][]string{
		`a:b`:                          {"a", "b"},
		`:a::b:`:                       {"a", "b"},
		`a\:b:c`:                       {"a:b", "c"},
		`a\\:b:c`:                      {"a:b", "c"},
		`a\\\\:b`:                      {`a\`, "b"},
		`x\,y:z`:                       {"x,y", "z"},
		`x\054y:z`:                     {"x,y", "z"},
		`"a,b":c`:                      {`"a,b"`, "c"},
		`a\`:                           {`a\`},
		`a"b:c,upperdir=d"e,workdir=w`: {`a"b`, "c"},
		`a,lowerdir+=b\:c,lowerdir+=d`: {"a", "b:c", "d"},
	} {
		if got := parse(t, "lowerdir="+value); !reflect.DeepEqual(got.Lower, want) {
			t.Errorf("%s: %q, want %q", value, got.Lower, want)
		}
	}
	if o := parse(t, `lowerdir=a,upperdir=u\:v,workdir="w,x"`); o.Upper != "u:v" || o.Work != "w,x" {
		t.Errorf("%q %q", o.Upper, o.Work)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for _, list := range []string{
		"uidmapping=0:1", "uidmapping=a:b:c", "gidmapping=0:0:0", "gidmapping=0:0:5:3:9:5", "squash_to_uid=x", "squash_to_gid=4294967295", "squash_to_uid=-1", "squash_to_gid=-1", "squash_to_gid=-2",
		"xattr_permissions=3", "xattr_permissions", "timeout=abc", "timeout=-1", "timeout=NaN", "threaded=2", "volatile=maybe", "max_write=1",
		"max_write=2000000", "redirect_dir=up", "metacopy=1", "xino=1", "size=-1", "size=9999999T", "inodes=x", "context=", "ro=1", "remount",
		"bind", "nfs_export=on", "lowerdir", "upperdir=", "lowerdir=:", "allow_other,allow_root", "size=5", "fsname=", "index=2", "noacl=2",
		"a\x00b", "max_threads=0", "stats=",
	} {
		arg := "lowerdir=l," + list
		_, err := Parse([]string{"fuse-overlay", "-o", arg, "m"}, nil)
		if !errors.Is(err, errno.ErrBadValue) && !errors.Is(err, errno.ErrNotSupported) {
			t.Errorf("%q: %v", list, err)
			continue
		}
		if key, _, _ := strings.Cut(strings.Split(list, ",")[0], "="); !strings.Contains(err.Error(), key) && list[1] != 0 {
			t.Errorf("%q: %v does not name %s", list, err, key)
		}
	}
	for _, args := range [][]string{
		{}, {"m"}, {"-o"}, {"-o", "lowerdir=l"}, {"-o", "lowerdir=l", "a", "b", "c"}, {"-o", "lowerdir=l", ""}, {"-x", "m"}, {"--x", "m"}, {"--help=1"},
		{"-o", "lowerdir=l,upperdir=u", "m"}, {"-o", "lowerdir=l,workdir=u", "m"}, {"-o", "lowerdir=l,strict,podman", "m"},
	} {
		if o, err := Parse(append([]string{"fuse-overlay"}, args...), nil); !errors.Is(err, errno.ErrBadValue) {
			t.Errorf("%q: %v, %+v", args, err, o)
		}
	}
}

func TestForms(t *testing.T) {
	t.Parallel()
	base := Options{Lower: []string{"l"}, Target: "m"}
	for _, c := range []struct {
		args string
		edit func(*Options)
	}{
		{"fuse-overlay -olowerdir=l m", func(*Options) {}},
		{"fuse-overlay m -o noacl -o lowerdir=l -f", func(o *Options) { o.NoACL, o.Foreground = true, true }},
		{"fuse-overlay -fs -o lowerdir=l -- m", func(o *Options) { o.Foreground, o.SingleThread = true, true }},
		{"fuse-overlay -d -o lowerdir=l none m", func(o *Options) { o.Debug, o.Foreground, o.Source = true, true, "none" }},
		{"fuse-overlay --options=lowerdir=l --foreground m", func(o *Options) { o.Foreground = true }},
		{"fuse-overlay --debug --options lowerdir=l m", func(o *Options) { o.Debug, o.Foreground = true, true }},
		{"/sbin/mount.fuse.fuse-overlay src m -o rw,lowerdir=l", func(o *Options) { o.Source = "src" }},
		{"mount.fuse.fuse-overlay src m -sfnv -N /proc/1/ns/mnt -t fuse.fuse-overlay -o lowerdir=l", func(o *Options) { o.Source, o.Fake = "src", true }},
		{"mount.fuse.fuse-overlay src m -r -o lowerdir=l", func(o *Options) { o.Source, o.ReadOnly = "src", true }},
	} {
		want := base
		c.edit(&want)
		got, err := Parse(strings.Fields(c.args), nil)
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: %v\n got %+v\nwant %+v", c.args, err, *got, want)
		}
	}
	for _, args := range []string{"fuse-overlay --help", "fuse-overlay -h", "fuse-overlay -V", "fuse-overlay --version", "mount.x -h", "mount.x -V"} {
		if o, err := Parse(strings.Fields(args), nil); err != nil || !o.Help && !o.Version {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	for env, want := range map[string]bool{"=1": true, "=": false, "=y": true, "=0": false, "": false} {
		o, err := Parse([]string{"fuse-overlay", "-olowerdir=l", "m"}, []string{"PATH=/bin", "FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT" + env, "FUSE_OVERLAYFS_OTHER=1"})
		if err != nil || o.FileWhiteouts != want {
			t.Errorf("%q: %v, %v", env, o.FileWhiteouts, err)
		}
	}
}

func TestUnknownSentence(t *testing.T) {
	t.Parallel()
	for list, want := range map[string]string{
		"":         "",
		"one=1":    "unknown option one",
		"one,tw o": `unknown options one, "tw o"`,
	} {
		if got := parse(t, "lowerdir=l,"+list).UnknownSentence(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	many := strings.Repeat("x", 200)
	for range 30 {
		many += ",y" + many[:min(len(many), 50)]
	}
	if got := parse(t, "lowerdir=l,"+many).UnknownSentence(); len(got) > 3000 {
		t.Errorf("a sentence of %d bytes", len(got))
	}
}

// TestPathsComeThrough: any path, escaped as internal/mounts escapes it for a
// mount program, comes out as it was.
func TestPathsComeThrough(t *testing.T) {
	t.Parallel()
	comma := strings.NewReplacer(`\`, `\\`, `,`, `\,`)
	colon := strings.NewReplacer(`\`, `\\`, `:`, `\:`)
	path := rapid.StringMatching(`/[a-z:,"=\\0-7]{0,12}[a-z]`)
	rapid.Check(t, func(t *rapid.T) {
		lowers := rapid.SliceOfN(path, 1, 4).Draw(t, "lowers")
		upper, work := path.Draw(t, "upper"), path.Draw(t, "work")
		var lists []string
		for _, l := range lowers {
			lists = append(lists, comma.Replace(colon.Replace(l)))
		}
		arg := "lowerdir=" + strings.Join(lists, ":") + ",upperdir=" + comma.Replace(upper) + ",workdir=" + comma.Replace(work)
		o, err := Parse([]string{"fuse-overlay", "-o", arg, "m"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(o.Lower, lowers) || o.Upper != upper || o.Work != work {
			t.Fatalf("%s: %q %q %q", arg, o.Lower, o.Upper, o.Work)
		}
	})
}

// FuzzParse: nothing panics, what is refused is refused in one printable line,
// and items between commas are the argument.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"lowerdir=/r/l/A:/r/l/B,upperdir=/u,workdir=/w,,volatile", `lowerdir=a\:b\\:c,context="a,b"`, "lowerdir=l,uidmapping=:0:1:1024,5:6:7",
		`lowerdir=\054\,,"`, "size=1k,inodes=2G,lowerdir=x,strict,foo", "timeout=1e300,lowerdir=l",
	} {
		f.Add(s, "m", false)
	}
	f.Fuzz(func(t *testing.T, list, target string, helper bool) {
		name := "fuse-overlay"
		if helper {
			name = "mount.fuse.fuse-overlay"
		}
		o, err := Parse([]string{name, "-o", list, "--", target}, nil)
		if err != nil {
			if s := err.Error(); strings.ContainsAny(s, "\n\x00") {
				t.Errorf("the refusal %q", s)
			}
			return
		}
		if len(o.Lower) == 0 || o.Target == "" || (o.Upper == "") != (o.Work == "") {
			t.Errorf("accepted %q: %+v", list, o)
		}
		for _, l := range o.Lower {
			if l == "" {
				t.Errorf("an empty layer in %q", list)
			}
		}
		if !strings.Contains(list, `"`) && strings.Join(splitItems(list), ",") != list {
			t.Errorf("splitItems(%q) = %q", list, splitItems(list))
		}
	})
}
