package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/plyfs/plyfs/internal/errno"
)

// mountOptions are what -o says.
type mountOptions struct {
	readOnly, allowOther, noExec bool
	hideTrees                    bool
	showStreams, showDirs        bool
	create                       bool
	bigDataLimit                 int64
	lockTimeout                  time.Duration
}

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
	key, value, _ := strings.Cut(item, "=")
	switch key {
	case "bigdata_limit":
		n, err := parseSize(value)
		if err != nil {
			return errno.New(errno.ErrBadValue, "the mount option %s: %w", item, err)
		}
		o.bigDataLimit = n
		return nil
	case "lock_timeout":
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 {
			return errno.New(errno.ErrBadValue, "the mount option %s: write a time above zero as 500ms, 30s or 2m", item)
		}
		o.lockTimeout = d
		return nil
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
	default:
		return errno.New(errno.ErrBadValue, "there is no mount option %q: plyfs mount --help lists them", item)
	}
	return nil
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
