package options

import (
	"path/filepath"
	"strings"

	"github.com/plyfs/plyfs/internal/errno"
)

// Program is the name of the command, and HelperPrefix what the name that
// mount(8) calls it by begins with.
const (
	Program      = "fuse-overlay"
	HelperPrefix = "mount."
)

// Parse reads a command line, args[0] being the program's name, and what of
// the environment (NAME=value) is meant for it. Errors are of kind ErrBadValue
// or ErrNotSupported, in one sentence that names the option.
func Parse(args, environ []string) (*Options, error) {
	o := &Options{}
	if err := o.environment(environ); err != nil {
		return o, err
	}
	r := reader{o: o, words: words()}
	if len(args) > 0 {
		r.args = args[1:]
		r.helper = strings.HasPrefix(filepath.Base(args[0]), HelperPrefix)
	}
	if err := r.read(); err != nil {
		return o, err
	}
	if err := r.operands(); err != nil {
		return o, err
	}
	return o, o.finish()
}

// reader walks over the arguments.
type reader struct {
	o      *Options
	words  map[string]word
	args   []string
	helper bool
	paths  []string
}

func (r *reader) read() error {
	for len(r.args) > 0 {
		arg := r.args[0]
		r.args = r.args[1:]
		switch {
		case arg == "--":
			r.paths = append(r.paths, r.args...)
			return nil
		case strings.HasPrefix(arg, "--"):
			if err := r.long(arg[2:]); err != nil {
				return err
			}
		case len(arg) > 1 && arg[0] == '-':
			if err := r.short(arg[1:]); err != nil {
				return err
			}
		default:
			r.paths = append(r.paths, arg)
		}
	}
	return nil
}

func (r *reader) long(name string) error {
	name, value, has := strings.Cut(name, "=")
	switch {
	case name == "options" && has:
		return r.o.apply(value, r.words)
	case name == "completion" && has:
		r.o.Completion = value
		return nil
	case has:
	case name == "help":
		r.o.Help = true
		return nil
	case name == "version":
		r.o.Version = true
		return nil
	case name == "debug":
		r.o.Debug = true
		return nil
	case name == "foreground":
		r.o.Foreground = true
		return nil
	case name == "options":
		v, err := r.next("--options")
		if err != nil {
			return err
		}
		return r.o.apply(v, r.words)
	}
	return errno.New(errno.ErrBadValue, "there is no flag --%s: fuse-overlay --help lists them", printable(name))
}

// short reads flags of one letter, which may be joined: -fd, -oOPTIONS.
func (r *reader) short(flags string) error {
	for i := 0; i < len(flags); i++ {
		f := flags[i]
		if strings.IndexByte("oNt", f) >= 0 && (f == 'o' || r.helper) {
			value, err := flags[i+1:], error(nil)
			if value == "" {
				value, err = r.next("-" + flags[i:i+1])
			}
			if err == nil && f == 'o' {
				err = r.o.apply(value, r.words)
			}
			// -t names our own type, -N a namespace that mount(8) is in already.
			return err
		}
		if r.helper {
			if err := r.helperFlag(f); err != nil {
				return err
			}
		} else if err := r.flag(f); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) flag(f byte) error {
	switch f {
	case 'f':
		r.o.Foreground = true
	case 'd':
		r.o.Debug = true
	case 's':
		r.o.SingleThread = true
	case 'h':
		r.o.Help = true
	case 'V':
		r.o.Version = true
	default:
		return errno.New(errno.ErrBadValue, "there is no flag -%s: fuse-overlay --help lists them", printable(string(rune(f))))
	}
	return nil
}

// helperFlag reads what mount(8) passes on: -s (sloppy: unknown words are
// ignored, which they are anyway), -f (fake), -n (no mtab), -v, -r, -w.
func (r *reader) helperFlag(f byte) error {
	switch f {
	case 's', 'n', 'v':
	case 'f':
		r.o.Fake = true
	case 'r':
		r.o.ReadOnly = true
	case 'w':
		r.o.ReadOnly = false
	case 'h':
		r.o.Help = true
	case 'V':
		r.o.Version = true
	default:
		return errno.New(errno.ErrBadValue, "mount(8) passes the flag -%s, which is not known here", printable(string(rune(f))))
	}
	return nil
}

func (r *reader) next(flag string) (string, error) {
	if len(r.args) == 0 {
		return "", errno.New(errno.ErrBadValue, "the flag %s wants a value behind it", flag)
	}
	v := r.args[0]
	r.args = r.args[1:]
	return v, nil
}

// operands takes MOUNTPOINT, or SOURCE MOUNTPOINT.
func (r *reader) operands() error {
	for _, p := range r.paths {
		if p == "" || strings.IndexByte(p, 0) >= 0 {
			return errno.New(errno.ErrBadValue, "the mount point is %s: name a directory", printable(p))
		}
	}
	switch len(r.paths) {
	case 0:
	case 1:
		r.o.Target = r.paths[0]
	case 2:
		if r.o.Source == "" {
			r.o.Source = r.paths[0]
		}
		r.o.Target = r.paths[1]
	default:
		return errno.New(errno.ErrBadValue, "%d arguments are too many: one mount point is wanted, or a source and a mount point", len(r.paths))
	}
	return nil
}

// environment reads the variables that fuse-overlayfs knows. They are set and
// not empty, or not set; of others that begin alike nothing is known.
func (o *Options) environment(environ []string) error {
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if name != "FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT" || value == "" {
			continue
		}
		// Whatever is in it, fuse-overlayfs takes it as set; 0 and its like are
		// taken as meant here.
		on, ok := parseSwitch(value)
		o.FileWhiteouts = on || !ok
	}
	return nil
}
