package options

import (
	"maps"
	"slices"
	"strings"

	"github.com/plyfs/plyfs/internal/errno"
)

// form says whether a word has a value.
type form uint8

const (
	bare form = iota
	valued
	// either is a switch: the bare word is the value "1".
	either
)

// word is a known option: its form, and what it does with its value.
type word struct {
	form form
	set  func(o *Options, key, value string) error
}

func (w word) apply(o *Options, key, value string, has bool) error {
	switch {
	case w.form == bare && has:
		return errno.New(errno.ErrBadValue, "the option %s takes no value, not %s", key, printable(value))
	case w.form == valued && !has:
		return errno.New(errno.ErrBadValue, "the option %s wants a value: %s=…", key, key)
	case !has:
		value = "1"
	}
	value = unquote(value)
	keep := ""
	if key == "lowerdir" {
		keep = ":"
	}
	return w.set(o, key, unescape(value, keep))
}

// words returns all known words.
func words() map[string]word {
	all := layerWords()
	for _, more := range []map[string]word{ownerWords(), cacheWords(), contentWords(), mountWords(), silentWords()} {
		maps.Copy(all, more)
	}
	return all
}

// Names lists the options that mean something, in order; one that wants a value
// ends with "=".
func Names() []string {
	silent, all := silentWords(), words()
	var out []string
	for w, how := range all {
		if _, skip := silent[w]; skip || w == "remount" || w == "bind" {
			continue
		}
		if how.form == valued {
			w += "="
		}
		out = append(out, w)
	}
	slices.Sort(out)
	return out
}

func layerWords() map[string]word {
	return map[string]word{
		"lowerdir": {valued, func(o *Options, key, v string) (err error) {
			o.Lower = splitList(v)
			return noneEmpty(key, o.Lower)
		}},
		// One layer more below, as the kernel's overlay takes it (fsconfig).
		"lowerdir+": {valued, func(o *Options, key, v string) error {
			o.Lower = append(o.Lower, v)
			return noneEmpty(key, []string{v})
		}},
		"upperdir": {valued, func(o *Options, key, v string) error { return setPath(&o.Upper, key, v) }},
		"workdir":  {valued, func(o *Options, key, v string) error { return setPath(&o.Work, key, v) }},
	}
}

func ownerWords() map[string]word {
	return map[string]word{
		"uidmapping": {valued, func(o *Options, key, v string) error { return setRanges(&o.UIDs, key, v) }},
		"gidmapping": {valued, func(o *Options, key, v string) error { return setRanges(&o.GIDs, key, v) }},
		"squash_to_root": {either, func(o *Options, key, v string) error {
			on := false
			if err := setSwitch(&on, key, v); err != nil || !on {
				return err
			}
			// squash_to_uid and squash_to_gid go before it, whatever the order.
			zero := 0
			if o.SquashUID == nil {
				o.SquashUID = &zero
			}
			if o.SquashGID == nil {
				o.SquashGID = &zero
			}
			return nil
		}},
		"squash_to_uid":     {valued, func(o *Options, key, v string) error { return setID(&o.SquashUID, key, v) }},
		"squash_to_gid":     {valued, func(o *Options, key, v string) error { return setID(&o.SquashGID, key, v) }},
		"xattr_permissions": {valued, func(o *Options, key, v string) error { return setInt(&o.XattrPermissions, key, v, 0, 2) }},
	}
}

func cacheWords() map[string]word {
	return map[string]word{
		"timeout":       {valued, setTimeout},
		"attr_timeout":  {valued, setTimeout},
		"entry_timeout": {valued, setTimeout},
		"threaded":      {either, func(o *Options, key, v string) error { return setNot(&o.SingleThread, key, v) }},
		"max_threads":   {valued, func(o *Options, key, v string) error { return setInt(&o.MaxThreads, key, v, 1, 1<<16) }},
		"max_write":     {valued, func(o *Options, key, v string) error { return setInt(&o.MaxWrite, key, v, 4096, 1<<20) }},
		"transport": {valued, func(o *Options, key, v string) error {
			o.Transport = v
			return check(oneOf("auto", "go-fuse"))(o, key, v)
		}},
		"writeback":    {either, func(o *Options, key, v string) error { return setSwitch(&o.Writeback, key, v) }},
		"passthrough":  {either, func(o *Options, key, v string) error { return setSwitch(&o.Passthrough, key, v) }},
		"ino32_t":      {either, func(o *Options, key, v string) error { return setSwitch(&o.Ino32, key, v) }},
		"fsync":        {either, func(o *Options, key, v string) error { return setNot(&o.NoSync, key, v) }},
		"volatile":     {either, func(o *Options, key, v string) error { return setSwitch(&o.Volatile, key, v) }},
		"static_nlink": {either, func(o *Options, key, v string) error { return setSwitch(&o.StaticNlink, key, v) }},
		"clone_fd":     {either, check(switchValue)},
		"fast_ino":     {either, check(switchValue)},
		"xino":         {valued, check(oneOf("on", "off", "auto"))},
	}
}

func contentWords() map[string]word {
	return map[string]word{
		"noacl":     {either, func(o *Options, key, v string) error { return setSwitch(&o.NoACL, key, v) }},
		"noxattrs":  {either, func(o *Options, key, v string) error { return setSwitch(&o.NoXattrs, key, v) }},
		"userxattr": {bare, func(o *Options, _, _ string) error { o.UserXattr = true; return nil }},
		"redirect_dir": {valued, func(o *Options, key, v string) error {
			o.RedirectDir = v
			return check(oneOf("on", "off", "auto", "follow", "nofollow"))(o, key, v)
		}},
		"metacopy": {valued, func(o *Options, key, v string) error {
			o.Metacopy = v == "on"
			return check(oneOf("on", "off"))(o, key, v)
		}},
		"index":       {valued, check(oneOf("on", "off"))},
		"uuid":        {valued, check(oneOf("null", "on", "off", "auto"))},
		"nfs_export":  {valued, check(oneOf("off"))},
		"verity":      {valued, check(oneOf("off"))},
		"stats":       {valued, setStats},
		"size":        {valued, func(o *Options, key, v string) error { return setSize(&o.Size, key, v) }},
		"inodes":      {valued, func(o *Options, key, v string) error { return setSize(&o.Inodes, key, v) }},
		"context":     {valued, func(o *Options, key, v string) error { return setLabel(&o.Context, key, v) }},
		"fscontext":   {valued, func(o *Options, key, v string) error { return setLabel(&o.FSContext, key, v) }},
		"defcontext":  {valued, func(o *Options, key, v string) error { return setLabel(&o.DefContext, key, v) }},
		"rootcontext": {valued, func(o *Options, key, v string) error { return setLabel(&o.RootContext, key, v) }},
	}
}

// mountWords are mount(8)'s and libfuse's that mean something here.
func mountWords() map[string]word {
	flag := func(field func(*Options) *bool, on bool) word {
		return word{bare, func(o *Options, _, _ string) error { *field(o) = on; return nil }}
	}
	ro := func(o *Options) *bool { return &o.ReadOnly }
	nodev := func(o *Options) *bool { return &o.NoDev }
	nosuid := func(o *Options) *bool { return &o.NoSuid }
	noexec := func(o *Options) *bool { return &o.NoExec }
	noatime := func(o *Options) *bool { return &o.NoAtime }
	all := map[string]word{
		"ro": flag(ro, true), "rw": flag(ro, false),
		"nodev": flag(nodev, true), "dev": flag(nodev, false),
		"nosuid": flag(nosuid, true), "suid": flag(nosuid, false),
		"noexec": flag(noexec, true), "exec": flag(noexec, false),
		"noatime": flag(noatime, true), "atime": flag(noatime, false), "relatime": flag(noatime, false), "strictatime": flag(noatime, false),
		"allow_other":  flag(func(o *Options) *bool { return &o.AllowOther }, true),
		"allow_root":   flag(func(o *Options) *bool { return &o.AllowRoot }, true),
		"auto_unmount": flag(func(o *Options) *bool { return &o.AutoUnmount }, true),
		"debug":        flag(func(o *Options) *bool { return &o.Debug }, true),
		"strict":       flag(func(o *Options) *bool { return &o.Strict }, true),
		"fsname":       {valued, func(o *Options, key, v string) error { return setLabel(&o.Source, key, v) }},
		"remount":      {either, refuse("a mount of fuse-overlay cannot be changed: unmount it and mount it anew")},
		"bind":         {either, refuse("that is another kind of mount: use mount --bind on the mount point")},
		"nonempty":     {bare, check(nil)},
	}
	// What mount -o user and its relatives imply (mount(8)).
	for _, w := range []string{"user", "users", "owner", "group"} {
		all[w] = word{either, func(o *Options, _, _ string) error {
			o.NoDev, o.NoSuid = true, true
			if w == "user" || w == "users" {
				o.NoExec = true
			}
			return nil
		}}
	}
	return all
}

// silentWords are those of others that mean nothing here.
func silentWords() map[string]word {
	all := map[string]word{}
	for w := range strings.FieldsSeq(`default_permissions defaults auto noauto nouser nofail _netdev async sync dirsync mand nomand loud silent
		iversion noiversion diratime nodiratime norelatime nostrictatime lazytime nolazytime
		private rprivate shared rshared slave rslave unbindable runbindable
		use_ino readdir_ino direct_io kernel_cache auto_cache noauto_cache big_writes async_read sync_read atomic_o_trunc hard_remove
		intr no_remote_lock no_remote_posix_lock no_remote_flock noforget
		splice_read splice_write splice_move no_splice_read no_splice_write no_splice_move
		subtype max_read max_readahead max_background congestion_threshold max_idle_threads
		negative_timeout ac_attr_timeout remember intr_signal comment setuid drop_privileges`) {
		all[w] = word{either, check(nil)}
	}
	return all
}

// ignoredPrefix tells whether a word is a remark for other readers of fstab.
func ignoredPrefix(key string) bool {
	return strings.HasPrefix(key, "x-") || strings.HasPrefix(key, "X-")
}
