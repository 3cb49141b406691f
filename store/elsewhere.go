package store

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// A transient store has its records of containers and their layers in the run
// root, where who opens the store as one that lasts does not look, and the other
// way round. Their directories are in one place: what the other has a record
// of is nobody's leftover.

// elsewhere are the IDs of a kind that have a record in the volatile file of the
// other sort of store. all tells that the file cannot be read, so that any ID
// may be in it.
func (s *Store) elsewhere(k Kind) (ids map[string]bool, all bool) {
	if k == KindImage {
		return nil, false
	}
	dir := s.runDir(k)
	if s.opts.Transient {
		dir = s.kindDir(k)
	}
	text, err := os.ReadFile(filepath.Join(dir, "volatile-"+k.Plural()+".json"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(text) == 0 {
		return nil, false
	}
	var records []struct {
		ID string `json:"id"`
	}
	if err != nil || json.Unmarshal(text, &records) != nil {
		return nil, true
	}
	ids = make(map[string]bool, len(records))
	for _, r := range records {
		ids[r.ID] = true
	}
	return ids, false
}

// recordless returns a function that tells whether an ID of a kind has no
// record anywhere. It holds for one look.
func (t *Tx) recordless(k Kind) func(id string) bool {
	others, all := t.s.elsewhere(k)
	return func(id string) bool {
		return t.st.of(k).anyOf(id) == nil && !all && !others[id]
	}
}
