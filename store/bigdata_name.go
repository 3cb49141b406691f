package store

import (
	"encoding/base64"
	"strings"

	"github.com/plyfs/plyfs/internal/errno"
)

// maxFileName is NAME_MAX of every filesystem that holds stores.
const maxFileName = 255

// dataFileName returns the name of the file that holds the big data item key.
// It is the rule of the containers tools (docs/on-disk.md): the key itself when
// every rune except the last is in [a-z0-9.], else "=" and the padded standard
// base64 of the key's bytes. Keys with which that rule fails, or for which it
// names no file of the object's own, are ErrBadValue, and ErrNameTooLong those
// whose file name is longer than a file name can be.
//
// Laws, for keys without error: the result is one component, not "." or "..",
// not a temporary file's name, and not "userdata"; different keys have
// different results; keyOfDataFile inverts it.
func dataFileName(key string) (string, error) {
	switch {
	case key == "":
		return "", errno.New(errno.ErrBadValue, "the key of a big data item cannot be empty")
	case key == "." || key == ".." || key == "userdata":
		return "", errno.New(errno.ErrBadValue, "big data key %q: the store needs that file name for itself; choose another key", key)
	case strings.HasSuffix(key, "/") || strings.HasSuffix(key, "\x00"):
		return "", errno.New(errno.ErrBadValue, "big data key %q: a key cannot end in a slash or a zero byte", key)
	}
	name := rawDataFileName(key)
	if strings.Contains(name, "/") {
		return "", errno.New(errno.ErrBadValue, "big data key %q: its base64 form holds a slash, so the store's format has no file name for it; choose another key", key)
	}
	if len(name) > maxFileName {
		return "", errno.New(errno.ErrNameTooLong, "big data key %.40q…: its file name would have %d bytes, %d is the limit", key, len(name), maxFileName)
	}
	return name, nil
}

// rawDataFileName is the rule alone, without the exceptions.
func rawDataFileName(key string) string {
	if plainKey(key) {
		return key
	}
	return "=" + base64.StdEncoding.EncodeToString([]byte(key))
}

// plainKey tells whether all runes but the last are in [a-z0-9.].
func plainKey(key string) bool {
	last := 0
	for i := range key {
		last = i
	}
	for _, r := range key[:last] {
		if r != '.' && (r < 'a' || r > 'z') && (r < '0' || r > '9') {
			return false
		}
	}
	return true
}

// keyOfDataFile is the inverse of dataFileName; false for names that the rule
// gives to no key.
func keyOfDataFile(name string) (string, bool) {
	key := name
	if enc, ok := strings.CutPrefix(name, "="); ok && enc != "" {
		b, err := base64.StdEncoding.Strict().DecodeString(enc)
		if err != nil {
			return "", false
		}
		key = string(b)
	}
	back, err := dataFileName(key)
	return key, err == nil && back == name
}

// readDataFileName is the file in which peers may have put the item key: as
// the rule says, with what their path handling makes of slashes at its end.
func readDataFileName(key string) (string, error) {
	name := strings.TrimRight(rawDataFileName(key), "/")
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return "", errno.New(errno.ErrUnknown, "big data item %q: no file can hold an item of that key", key)
	}
	return name, nil
}
