//go:build linux

package overlay

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/plyfs/plyfs/drivers"
	"github.com/plyfs/plyfs/internal/errno"
)

// linkLen is the length of a link's name.
const linkLen = 26

// newLink returns a random name: 130 bits in the base32 alphabet.
func newLink() string { return rand.Text() }

// isLink tells whether s has the form of a link's name.
func isLink(s string) bool {
	return len(s) == linkLen && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

// linkOf reads the link of the layer whose directory is dir.
func linkOf(dir string) (string, error) {
	text, err := readSmall(filepath.Join(dir, "link"))
	if err != nil {
		return "", err
	}
	text = strings.TrimSpace(text)
	if !isLink(text) {
		return "", fmt.Errorf("%s holds %q, not 26 letters and digits", filepath.Join(dir, "link"), clip(text))
	}
	return text, nil
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

// lowersOf reads the links of the parents of the layer in dir, nearest first.
func lowersOf(dir string) ([]string, error) {
	path := filepath.Join(dir, "lower")
	text, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var links []string
	for item := range strings.SplitSeq(strings.TrimSpace(text), ":") {
		link, ok := strings.CutPrefix(item, linksName+"/")
		if !ok || !isLink(link) {
			return nil, fmt.Errorf("%s holds %q, which is no link below l/", path, clip(item))
		}
		links = append(links, link)
	}
	return links, nil
}

// target is where a link leads: the home and the layer's directory in it.
type target struct{ home, id, diff string }

// resolver turns links into directories. It belongs to one call of one method
// and reads a home whole at most once.
type resolver struct {
	homes  []string
	byLink map[string]target // nil until a home had to be searched
}

// resolve finds what link stands for in the first home that knows it. missing
// tells that the symlink itself is not there, in any home.
func (r *resolver) resolve(link string) (t target, missing bool, err error) {
	for _, home := range r.homes {
		to, err := os.Readlink(filepath.Join(home, linksName, link))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return target{}, false, err
		}
		id, diff, ok := parseLinkTarget(to)
		if !ok {
			return target{}, false, errno.New(errno.ErrDamaged, "%s leads to %q, not to a layer's diff", filepath.Join(home, linksName, link), clip(to))
		}
		return target{home, id, diff}, false, nil
	}
	if r.byLink == nil {
		r.byLink = map[string]target{}
		for _, home := range r.homes {
			r.search(home)
		}
	}
	if t, ok := r.byLink[link]; ok {
		return t, true, nil
	}
	return target{}, true, errno.New(errno.ErrDamaged, "no layer has the link %s", link)
}

// parseLinkTarget takes `../<ID>/diff` apart; a layer whose owners were mapped
// anew has diff1, diff2, ….
func parseLinkTarget(to string) (id, diff string, ok bool) {
	rest, ok := strings.CutPrefix(to, "../")
	if !ok {
		return "", "", false
	}
	id, diff, ok = strings.Cut(rest, "/")
	n, isDiff := strings.CutPrefix(diff, "diff")
	if !ok || drivers.CheckID(id) != nil || !isDiff || (n != "" && !isDigits(n)) {
		return "", "", false
	}
	return id, diff, true
}

// search remembers the links that the layers of home say they have. A home
// that cannot be read adds nothing: the caller's error names the link.
func (r *resolver) search(home string) {
	entries, err := os.ReadDir(home)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.IsDir() || reserved(e.Name()) {
			continue
		}
		link, err := linkOf(filepath.Join(home, e.Name()))
		if err != nil {
			continue
		}
		if _, known := r.byLink[link]; !known {
			r.byLink[link] = target{home, e.Name(), "diff"}
		}
	}
}

// relink makes the symlink again that t was found without. A home that cannot
// be written is left: the caller uses the directory itself.
func (d *Driver) relink(link string, t target) error {
	err := os.Symlink(filepath.Join("..", t.id, t.diff), filepath.Join(t.home, linksName, link))
	if errors.Is(err, fs.ErrNotExist) && ensureDir(filepath.Join(t.home, linksName), 0o755) == nil {
		err = os.Symlink(filepath.Join("..", t.id, t.diff), filepath.Join(t.home, linksName, link))
	}
	if err == nil || errors.Is(err, fs.ErrExist) || cannotWrite(err) {
		return nil
	}
	return fmt.Errorf("making a missing link again: %w", err)
}
