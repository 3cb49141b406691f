package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/plyfs/plyfs/internal/durable"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/lockfile"
)

// mountTable is the run root's table of mounts (mountpoints.json), by layer ID.
type mountTable map[string]Mountpoint

// mountRecord is an element of mountpoints.json.
type mountRecord struct {
	id    string
	path  string
	count int
	extra string // see Mountpoint
}

// UnmarshalJSON keeps the members that are not known.
func (r *mountRecord) UnmarshalJSON(text []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return err
	}
	for key, to := range map[string]any{"id": &r.id, "path": &r.path, "count": &r.count} {
		if raw, ok := members[key]; ok {
			if err := json.Unmarshal(raw, to); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			delete(members, key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(members)) {
		r.extra += "," + string(appendQuoted(nil, key)) + ":" + string(members[key])
	}
	return nil
}

// MarshalJSON writes the members in the peers' order, then those not known.
func (r mountRecord) MarshalJSON() ([]byte, error) {
	b := append(appendQuoted([]byte(`{"id":`), r.id), `,"path":`...)
	b = strconv.AppendInt(append(appendQuoted(b, r.path), `,"count":`...), int64(r.count), 10)
	return append(append(b, r.extra...), '}'), nil
}

// loadMounts reads the table into next when it changed, under its own lock,
// held for reading. Preconditions: as loadLocked.
func (s *Store) loadMounts(ctx context.Context, next *state) (err error) {
	if !s.stale.Load() && next.gen > 0 {
		if same, err := s.unchangedMounts(&next.mounts); err != nil || same {
			return err
		}
	}
	held, err := s.mountsLock.RLock(ctx)
	if errors.Is(err, fs.ErrNotExist) { // the run root was removed: nothing is mounted
		next.mounts = mountsState{}
		return nil
	}
	if err != nil {
		return fmt.Errorf("lock the table of mounts: %w", err)
	}
	defer func() { err = also(err, held.Unlock()) }()
	return s.readMounts(next, held)
}

// readMounts reads the table. Precondition: held is its lock.
func (s *Store) readMounts(next *state, held *lockfile.Held) error {
	token, err := held.Token()
	if err != nil {
		return err
	}
	text, stamp, err := readText(s.mountsPath)
	if errors.Is(err, fs.ErrPermission) {
		return err
	}
	ms := mountsState{stamp: kindStamp{token: token, own: [numFiles]fileStamp{stamp}}}
	if err != nil {
		ms.broken = errno.New(errno.ErrDamaged, "what is mounted is not known: %w", err)
	} else {
		ms.table, ms.broken = parseMounts(s.mountsPath, text)
	}
	next.mounts = ms
	return nil
}

func parseMounts(path, text string) (mountTable, error) {
	if text == "" {
		return nil, nil
	}
	var list []mountRecord
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, errno.New(errno.ErrDamaged, "%s is damaged (%v): what is mounted is not known; remove it when nothing is", path, err)
	}
	table := make(mountTable, len(list))
	for _, r := range list {
		if r.id != "" && r.count > 0 {
			table[r.id] = Mountpoint{r.path, r.count, r.extra}
		}
	}
	return table, nil
}

// editMounts takes mountpoints.lock, reads the table, lets fn change it and
// saves it, durably, when it changed; the lock is let go before it returns.
// The change shows in w at once, and stays even when Update's function fails
// later. ErrDamaged when the table cannot be read.
func (w *WriteTx) editMounts(fn func(mountTable) error) (err error) {
	s := w.s
	if err := os.MkdirAll(filepath.Dir(s.mountsPath), 0o700); err != nil {
		return fmt.Errorf("make the run root: %w", err)
	}
	held, err := s.mountsLock.Lock(w.cx, "mount counts")
	if err != nil {
		return fmt.Errorf("lock the table of mounts: %w", err)
	}
	defer func() { err = also(err, held.Unlock()) }()
	next := *w.st
	if err := s.readMounts(&next, held); err != nil {
		return err
	}
	if next.mounts.broken != nil {
		return next.mounts.broken
	}
	w.st.mounts, w.base.mounts = next.mounts, next.mounts
	table := maps.Clone(next.mounts.table)
	if table == nil {
		table = mountTable{}
	}
	err = fn(table)
	for id, m := range table {
		m.extra = next.mounts.table[id].extra
		table[id] = m
	}
	if err != nil || maps.Equal(table, next.mounts.table) {
		return err
	}
	w.saved = true
	if err := s.writeMounts(&next.mounts, table, held); err != nil {
		s.stale.Store(true)
		return err
	}
	w.st.mounts, w.base.mounts = next.mounts, next.mounts
	return nil
}

// writeMounts saves table: token first, then the file.
func (s *Store) writeMounts(ms *mountsState, table mountTable, held *lockfile.Held) error {
	list := make([]mountRecord, 0, len(table))
	for _, id := range slices.Sorted(maps.Keys(table)) {
		if m := table[id]; m.Count > 0 {
			list = append(list, mountRecord{id, m.Path, m.Count, m.extra})
		}
	}
	text, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("encode the table of mounts: %w", err)
	}
	token, err := held.Touch()
	if err != nil {
		return err
	}
	err = durable.WriteFile(s.mountsPath, 0o600, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
	if err != nil {
		return fmt.Errorf("save the table of mounts: %w", err)
	}
	stamp, err := stampPath(s.mountsPath)
	*ms = mountsState{stamp: kindStamp{token: token, own: [numFiles]fileStamp{stamp}}, table: table}
	return err
}
