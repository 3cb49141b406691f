package options

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/idmap"
)

// bad is the refusal of a value: what was given, and what would be right.
func bad(key, value, want string) error {
	return errno.New(errno.ErrBadValue, "the option %s has the bad value %s: %s", key, printable(value), want)
}

// printable is a value for a sentence: quoted when it holds anything that is
// not plain, and of bounded length.
func printable(s string) string {
	const most = 100
	if len(s) > most {
		s = s[:most] + "…"
	}
	if q := strconv.Quote(s); s == "" || q != `"`+s+`"` || strings.ContainsAny(s, " ,") {
		return q
	}
	return s
}

func setPath(field *string, key, v string) error {
	*field = v
	return noneEmpty(key, []string{v})
}

func setStats(o *Options, key, v string) error {
	if o.Stats = v; v == "" {
		return bad(key, v, "name a file")
	}
	return nil
}

func noneEmpty(key string, list []string) error {
	if len(list) == 0 || list[0] == "" {
		return bad(key, "", "name a directory")
	}
	return nil
}

// switchValue reads a switch's value, "" if it is one.
func switchValue(v string) string {
	if _, ok := parseSwitch(v); ok {
		return ""
	}
	return "use 0 or 1"
}

func parseSwitch(v string) (on, ok bool) {
	switch v {
	case "1", "on", "yes", "true":
		return true, true
	case "0", "off", "no", "false":
		return false, true
	}
	return false, false
}

func setSwitch(field *bool, key, v string) error {
	on, ok := parseSwitch(v)
	if !ok {
		return bad(key, v, "use 0 or 1")
	}
	*field = on
	return nil
}

// setNot is setSwitch for a field that says the opposite.
func setNot(field *bool, key, v string) error {
	on := false
	err := setSwitch(&on, key, v)
	*field = err == nil && !on
	return err
}

// check returns a setter that only looks at the value: test says what is wrong
// with it, "" when nothing is.
func check(test func(string) string) func(*Options, string, string) error {
	return func(_ *Options, key, v string) error {
		if test == nil {
			return nil
		}
		if want := test(v); want != "" {
			return bad(key, v, want)
		}
		return nil
	}
}

func oneOf(values ...string) func(string) string {
	return func(v string) string {
		for _, o := range values {
			if v == o {
				return ""
			}
		}
		return "use " + strings.Join(values, " or ")
	}
}

func refuse(why string) func(*Options, string, string) error {
	return func(_ *Options, key, _ string) error {
		return errno.New(errno.ErrNotSupported, "the option %s: %s", key, why)
	}
}

func setInt(field *int, key, v string, least, most int) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < least || n > most {
		return bad(key, v, fmt.Sprintf("use a number from %d to %d", least, most))
	}
	*field = n
	return nil
}

func setID(field **int, key, v string) error {
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil || n == math.MaxUint32 {
		return bad(key, v, "use a user or group ID, a number below 4294967295")
	}
	id := int(n)
	*field = &id
	return nil
}

// setTimeout reads seconds, with a fraction.
func setTimeout(o *Options, key, v string) error {
	s, err := strconv.ParseFloat(v, 64)
	if err != nil || s < 0 || math.IsNaN(s) {
		return bad(key, v, "use a number of seconds")
	}
	if s >= 1e9 { // over thirty years: for good
		o.Timeout = nil
		return nil
	}
	d := time.Duration(s * float64(time.Second))
	o.Timeout = &d
	return nil
}

// setSize reads a number with K, M, G or T behind it, in either case.
func setSize(field *int64, key, v string) error {
	digits, shift := v, 0
	if n := len(v) - 1; n > 0 {
		if i := strings.IndexByte("kmgt", v[n]|0x20); i >= 0 {
			digits, shift = v[:n], 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift || strings.HasPrefix(digits, "+") {
		return bad(key, v, "use a number, or one with K, M, G or T behind it; 0 is no limit")
	}
	*field = n << shift
	return nil
}

func setLabel(field *string, key, v string) error {
	if v == "" {
		return bad(key, v, "leave the option out, or give a value")
	}
	*field = v
	return nil
}

// isRange tells whether s looks like ID:ID:LENGTH.
func isRange(s string) bool {
	return s != "" && strings.Trim(s, "0123456789:") == "" && strings.Count(s, ":") >= 2
}

// setRanges reads `A:B:N[:A:B:N…]`, with a colon in front or not. A value that
// begins with "+" is added to what there is.
func setRanges(field *[]idmap.Range, key, v string) error {
	v, more := strings.CutPrefix(v, "+")
	f := strings.FieldsFunc(v, func(r rune) bool { return r == ':' || r == ' ' })
	if len(f)%3 != 0 {
		return bad(key, v, "use triples ID:SHOWN-ID:LENGTH, joined by colons")
	}
	var specs []string
	if more {
		for _, r := range *field {
			specs = append(specs, r.String())
		}
	}
	for i := 0; i < len(f); i += 3 {
		specs = append(specs, strings.Join(f[i:i+3], ":"))
	}
	if len(specs) > 10000 { // the kernel allows 340
		return bad(key, v, "that are over 10000 ranges")
	}
	ranges, err := idmap.Parse(specs...)
	if err != nil {
		return errno.New(errno.ErrBadValue, "the option %s has the bad value %s: %w", key, printable(v), err)
	}
	*field = ranges
	return nil
}
