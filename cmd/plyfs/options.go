package main

import (
	"errors"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/plyfs/plyfs/fsview"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store/config"
)

// mountOptions are what -o says.
type mountOptions struct {
	readOnly, allowOther, noExec bool
	hideTrees                    bool
	containerOwners              bool
	showStreams, showDirs        bool
	create                       bool
	keepDrafts                   bool                         // not an option: commands without a mount
	mountPoint                   string                       // nor this
	requests                     func() []fsview.RequestCount // nor this: what the server counts
	bigDataLimit                 int64
	lockTimeout                  time.Duration
	umask                        uint32
	owner                        *owner // nil: whoever mounts
	// The store, for fstab(5), where there are no flags.
	store, runRoot, driver string
	storageOptions         []string
}

// owner is who the control files belong to.
type owner struct{ uid, gid uint32 }

// parseOptions reads all -o lists; a later item wins over an earlier one.
func parseOptions(lists []string) (mountOptions, error) {
	var o mountOptions
	for _, list := range lists {
		for item := range strings.SplitSeq(list, ",") {
			if item == "" {
				continue
			}
			if err := o.set(item); err != nil {
				return o, err
			}
		}
	}
	return o, nil
}

func (o *mountOptions) set(item string) error {
	key, value, valued := strings.Cut(item, "=")
	if set := valueOptions()[key]; set != nil && (valued || key != "owner") {
		if err := set(o, value); err != nil {
			return errno.New(errno.ErrBadValue, "the mount option %s: %w", item, err)
		}
		return nil
	}
	if strings.HasPrefix(key, "x-") || strings.HasPrefix(key, "comment") {
		return nil // for programs that read fstab
	}
	switch item {
	case "ro", "rw":
		o.readOnly = item == "ro"
	case "exec", "noexec":
		o.noExec = item == "noexec"
	case "allow_other":
		o.allowOther = true
	case "hide=trees":
		o.hideTrees = true
	case "show=streams":
		o.showStreams = true
	case "show=dirs":
		o.showDirs = true
	case "defaults", "nodev", "nosuid":
	case "auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail", "_netdev", "relatime", "noatime", "async":
		// mount(8)'s own, which it may hand on
	default:
		return errno.New(errno.ErrBadValue, "there is no mount option %q: plyfs mount --help lists them", item)
	}
	return nil
}

// completeOptions completes the last word of a list of options.
func completeOptions(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	words := []string{
		"ro", "allow_other", "noexec", "hide=trees", "show=streams", "show=dirs",
	}
	for key := range valueOptions() {
		words = append(words, key+"=")
	}
	slices.Sort(words)
	list := typed[:strings.LastIndexByte(typed, ',')+1]
	for i, w := range words {
		words[i] = list + w
	}
	return words, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}

// valueOptions are those of the form KEY=VALUE.
func valueOptions() map[string]func(*mountOptions, string) error {
	text := func(field func(*mountOptions) *string) func(*mountOptions, string) error {
		return func(o *mountOptions, value string) error {
			if value == "" {
				return errno.New(errno.ErrBadValue, "the value is empty")
			}
			*field(o) = value
			return nil
		}
	}
	return map[string]func(*mountOptions, string) error{
		"bigdata_limit": func(o *mountOptions, value string) (err error) {
			o.bigDataLimit, err = parseSize(value)
			return err
		},
		"lock_timeout": func(o *mountOptions, value string) error {
			d, err := time.ParseDuration(value)
			if err != nil || d <= 0 {
				return errno.New(errno.ErrBadValue, "write a time above zero as 500ms, 30s or 2m")
			}
			o.lockTimeout = d
			return nil
		},
		"umask": func(o *mountOptions, value string) error {
			n, err := strconv.ParseUint(value, 8, 9)
			if err != nil {
				return errno.New(errno.ErrBadValue, "write the bits that files lack in octal, as 027")
			}
			o.umask = uint32(n)
			return nil
		},
		"owner": func(o *mountOptions, value string) (err error) {
			o.owner, err = parseOwner(value)
			return err
		},
		"owners": func(o *mountOptions, value string) error {
			o.containerOwners = value == "container"
			if !o.containerOwners && value != "host" {
				return errno.New(errno.ErrBadValue, "owners are the host's or the container's: use host or container")
			}
			return nil
		},
		"store":   text(func(o *mountOptions) *string { return &o.store }),
		"runroot": text(func(o *mountOptions) *string { return &o.runRoot }),
		"driver":  text(func(o *mountOptions) *string { return &o.driver }),
		"storage_opt": func(o *mountOptions, value string) error {
			o.storageOptions = append(o.storageOptions, value)
			return nil
		},
	}
}

// parseOwner reads USER[:GROUP], names or numbers; without a group, the
// user's own.
func parseOwner(text string) (*owner, error) {
	name, group, grouped := strings.Cut(text, ":")
	u, err := user.Lookup(name)
	if err != nil {
		u, err = user.LookupId(name)
	}
	if err != nil {
		if _, nerr := strconv.ParseUint(name, 10, 32); nerr != nil {
			return nil, errno.New(errno.ErrBadValue, "there is no user %q", name)
		}
		u = &user.User{Uid: name, Gid: name}
	}
	gid := u.Gid
	if grouped {
		gid = group
		if g, err := user.LookupGroup(group); err == nil {
			gid = g.Gid
		}
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	id, err2 := strconv.ParseUint(gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, errno.New(errno.ErrBadValue, "there is no group %q", group)
	}
	return &owner{uint32(uid), uint32(id)}, nil
}

// named puts the store that options name into the flags, where those name none.
func (o *mountOptions) named(f *config.Flags) {
	for _, x := range []struct {
		flag *string
		text string
	}{{&f.Root, o.store}, {&f.RunRoot, o.runRoot}, {&f.Driver, o.driver}} {
		if *x.flag == "" {
			*x.flag = x.text
		}
	}
	if len(f.Options) == 0 {
		f.Options = o.storageOptions
	}
}

// parseSize reads "16M": a number of bytes, or of KiB, MiB or GiB.
func parseSize(text string) (int64, error) {
	shift := 0
	digits := text
	if n := len(text) - 1; n > 0 {
		if i := strings.IndexByte("KMG", text[n]&^0x20); i >= 0 && text[n] > '9' {
			shift, digits = 10*(i+1), text[:n]
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n > 1<<62>>shift {
		return 0, errno.New(errno.ErrBadValue, "write a size above zero in bytes, or as 64K, 16M or 1G")
	}
	return n << shift, nil
}
