package options

import (
	"slices"
	"strings"
	"time"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
)

// Options are what a command line asks for. The zero value of a field is what
// is meant when nothing is said.
type Options struct {
	// Help and Version ask for nothing but words.
	Help, Version bool
	// Completion names the shell whose completions are wanted.
	Completion string
	// Foreground does not detach; Debug implies it.
	Foreground, Debug bool
	// Source is the mount's source as /proc/mounts shows it, Target the
	// directory to mount on.
	Source, Target string
	// Fake does everything but mounting (mount -f).
	Fake bool

	// Lower are the lower layers, top first. Upper and Work are both given or
	// both empty.
	Lower       []string
	Upper, Work string

	// UIDs and GIDs map what the layers hold (the range's ContainerID) to what
	// the mount shows (its HostID).
	UIDs, GIDs []idmap.Range
	// SquashUID and SquashGID show every file with that owner; nil: its own.
	SquashUID, SquashGID *int
	// XattrPermissions keeps owners and modes in an attribute: 1 in
	// security.fuseoverlayfs.override_stat for root, 2 in
	// user.fuseoverlayfs.override_stat (an upper that has
	// user.containers.override_stat keeps that).
	XattrPermissions int
	// StaticNlink shows link count 1 for every directory.
	StaticNlink bool
	// NoACL and NoXattrs switch ACLs, and all extended attributes, off.
	NoACL, NoXattrs bool
	// FileWhiteouts writes `.wh.` files even where device nodes can be made.
	FileWhiteouts bool

	// Volatile, and NoSync (fsync=0), sync nothing.
	Volatile, NoSync bool
	// Timeout is how long the kernel may believe what it is told; nil: for
	// good.
	Timeout *time.Duration
	// SingleThread is threaded=0.
	SingleThread bool
	// Transport is how requests are read: "auto" (or empty) or "go-fuse".
	Transport string
	// MaxWrite is the largest request in bytes, MaxThreads the most of them
	// served at once; 0: the default.
	MaxWrite, MaxThreads int
	// Ino32 keeps inode numbers below 2³².
	Ino32 bool
	// Writeback lets the kernel gather writes.
	Writeback bool
	// Passthrough lets the kernel read and write the upper's files itself.
	Passthrough bool
	// RedirectDir is "", "on", "off", "auto", "follow" or "nofollow".
	RedirectDir string
	// Metacopy copies attributes up without the data.
	Metacopy bool
	// UserXattr writes and reads marks as user.overlay.* only.
	UserXattr bool
	// Context is the SELinux label of every file, as context= has it;
	// FSContext, DefContext and RootContext are its relatives.
	Context, FSContext, DefContext, RootContext string
	// Size bounds the upper's bytes, Inodes its files; 0: no limit.
	Size, Inodes int64
	// Stats is a file for what the mount does; "": standard error.
	Stats string

	// ReadOnly to NoAtime are the mount's flags.
	ReadOnly, NoDev, NoSuid, NoExec, NoAtime bool
	// AllowOther and AllowRoot let other users in. Modes and owners
	// are always checked.
	AllowOther, AllowRoot bool
	// AutoUnmount ends the mount with the program, however that ends.
	AutoUnmount bool

	// Strict refuses words that are not known.
	Strict bool
	// Unknown are the words that are not known, in their order, without their
	// values.
	Unknown []string
}

// apply reads one -o argument.
func (o *Options) apply(arg string, words map[string]word) error {
	last := ""
	for _, raw := range splitItems(arg) {
		if raw == "" {
			continue
		}
		if strings.IndexByte(raw, 0) >= 0 {
			return errno.New(errno.ErrBadValue, "the option %q holds a zero byte", raw)
		}
		key, value, has := strings.Cut(raw, "=")
		w, known := words[key]
		if !known && !has && (last == "uidmapping" || last == "gidmapping") && isRange(key) {
			// uidmapping=0:0:1,1:1000:5 as the manual page of fuse-overlayfs has it.
			if err := words[last].set(o, last, "+"+key); err != nil {
				return err
			}
			continue
		}
		last = key
		if !known {
			if !ignoredPrefix(key) && !slices.Contains(o.Unknown, key) {
				o.Unknown = append(o.Unknown, key)
			}
			continue
		}
		if err := w.apply(o, key, value, has); err != nil {
			return err
		}
	}
	return nil
}

// finish checks what can only be told when everything is read.
func (o *Options) finish() error {
	if o.Strict && len(o.Unknown) > 0 {
		return errno.New(errno.ErrBadValue, "%s: leave it out, or leave out strict", o.UnknownSentence())
	}
	if o.Help || o.Version || o.Completion != "" {
		return nil
	}
	o.Foreground = o.Foreground || o.Debug
	for _, c := range []struct {
		wrong bool
		say   string
	}{
		{o.Target == "", "no mount point is given: fuse-overlay -o lowerdir=DIR[:DIR…],upperdir=DIR,workdir=DIR MOUNTPOINT"},
		{len(o.Lower) == 0, "no lower layer is given: add -o lowerdir=DIR[:DIR…]"},
		{o.Upper != "" && o.Work == "", "upperdir is given without workdir: add workdir=DIR, a directory on the same filesystem"},
		{o.Upper == "" && o.Work != "", "workdir is given without upperdir: add upperdir=DIR, or leave both out for a read-only mount"},
		{o.AllowOther && o.AllowRoot, "allow_other and allow_root exclude each other: leave one out"},
		{o.Upper == "" && (o.Size > 0 || o.Inodes > 0), "size and inodes bound what is written, and without upperdir nothing is: leave them out"},
	} {
		if c.wrong {
			return errno.New(errno.ErrBadValue, "%s", c.say)
		}
	}
	return nil
}

// UnknownSentence names the unknown words; "" when there are none.
func (o *Options) UnknownSentence() string {
	switch n := len(o.Unknown); n {
	case 0:
		return ""
	case 1:
		return "unknown option " + printable(o.Unknown[0])
	default:
		named := o.Unknown[:min(n, 20)]
		var b strings.Builder
		b.WriteString("unknown options ")
		for i, w := range named {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(printable(w))
		}
		if n > len(named) {
			b.WriteString(", …")
		}
		return b.String()
	}
}
