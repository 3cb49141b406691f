package fsview

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/vnode"
	"github.com/plyfs/plyfs/store"
)

// lockRows are the rows of locks/.
func lockRows() []Row {
	rows := []Row{{Path: "/locks", Kind: Dir, Mode: modeDir, Valid: vnode.ValidForever, Doc: "Who holds the store's locks, and who waits."}}
	for _, l := range []struct{ name, doc string }{
		{"layers", "of the records of layers"}, {"images", "of the records of images"},
		{"containers", "of the records of containers"}, {"mountpoints", "of the table of mounts"},
		{"userns", "of the choice of ID maps"}, {"image-layers", "of the records of a separate image store's layers (only with one)"},
	} {
		rows = append(rows, Row{Path: "/locks/" + l.name, Kind: Text, Mode: modeRead, Valid: vnode.ValidNone,
			Doc:    "The lock " + l.doc + ": `path`, `held`; when it is, `kind` (read, write), `pid` and `command` where they are known, `since` and `what` if plyfs holds it; `waiting PID` lines, and `waiting-here` how many requests of this mount.",
			rowOps: rowOps{get: lockText(l.name), has: func(p place) bool { return slices.Contains(p.fs.store.LockNames(), l.name) }}})
	}
	return rows
}

func lockText(name string) func(place) ([]byte, error) {
	return func(p place) ([]byte, error) {
		st, err := p.fs.store.LockState(name)
		if err != nil {
			return nil, err
		}
		var b bytes.Buffer
		fmt.Fprintf(&b, "path %s\nheld %t\n", oneLine(st.Path), st.Held)
		if h := st.Holder; st.Held {
			kind := "read"
			if h.Write {
				kind = "write"
			}
			fmt.Fprintf(&b, "kind %s\n", kind)
			if h.PID > 0 {
				fmt.Fprintf(&b, "pid %d\ncommand %s\n", h.PID, commandOf(h.PID))
			}
			if h.What != "" {
				fmt.Fprintf(&b, "since %s\nwhat %s\n", h.Since.UTC().Format(time.RFC3339Nano), oneLine(h.What))
			}
		}
		for _, pid := range st.Waiting {
			fmt.Fprintf(&b, "waiting %d %s\n", pid, commandOf(pid))
		}
		fmt.Fprintf(&b, "waiting-here %d\n", st.Here)
		return b.Bytes(), nil
	}
}

// commandOf is the name of a process, or "-".
func commandOf(pid int) string {
	name, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil || len(name) == 0 {
		return "-"
	}
	return oneLine(strings.TrimSuffix(string(name), "\n"))
}

// statRows are the rows of stats/.
func statRows() []Row {
	const none = vnode.ValidNone
	return []Row{
		{Path: "/stats", Kind: Dir, Mode: modeDir, Valid: vnode.ValidForever, Doc: "Numbers about this mount, `key value` a line."},
		{Path: "/stats/process", Kind: Text, Mode: modeRead, Valid: none, Doc: "The server: pid, uptime in seconds, goroutines, bytes of Go's heap, resident bytes, open descriptors.",
			rowOps: rowOps{get: processStats}},
		{Path: "/stats/requests", Kind: Text, Mode: modeRead, Valid: none, Doc: "The kernel's requests by kind: how many were answered, how many microseconds that took, and the longest. Empty without a mount.",
			rowOps: rowOps{get: func(p place) ([]byte, error) { return p.fs.requestStats(), nil }}},
		{Path: "/stats/errors", Kind: Text, Mode: modeRead, Valid: none, Doc: "Failed changes, by errno.",
			rowOps: rowOps{get: func(p place) ([]byte, error) { return p.fs.errs.counts(), nil }}},
	}
}

func processStats(p place) ([]byte, error) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, fmt.Errorf("counting descriptors: %w", err)
	}
	var b strings.Builder
	for _, l := range []struct {
		key string
		n   int64
	}{
		{"pid", int64(os.Getpid())}, {"uptime", int64(time.Since(p.fs.born).Seconds())}, {"goroutines", int64(runtime.NumGoroutine())},
		{"heap-bytes", int64(m.HeapAlloc)}, {"resident-bytes", int64(resident())}, {"descriptors", int64(len(fds))},
	} {
		fmt.Fprintf(&b, "%-14s %*d\n", l.key, usageWidth, l.n)
	}
	return []byte(b.String()), nil
}

// requestStats has lines of a fixed width, so that the file's size is true while
// the numbers grow.
func (f *FS) requestStats() []byte {
	if f.opts.Requests == nil {
		return nil
	}
	var b bytes.Buffer
	for _, r := range f.opts.Requests() {
		fmt.Fprintf(&b, "%-14s %*d %*d %*d\n", r.Kind, usageWidth, r.Count, usageWidth, r.Total.Microseconds(), usageWidth, r.Longest.Microseconds())
	}
	return b.Bytes()
}

// resident is this process's memory that is in use, in bytes; 0 if unknown.
func resident() int {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(statm))
	if len(f) < 2 {
		return 0
	}
	pages, err := strconv.Atoi(f[1])
	if err != nil {
		return 0
	}
	return pages * os.Getpagesize()
}

// storeRows are the rows of stores/.
func storeRows() []Row {
	const gen, forever = vnode.ValidStore, vnode.ValidForever
	const dir = "/stores/<n>"
	rows := []Row{
		{Path: "/stores", Kind: Dir, Mode: modeDir, Valid: forever, Doc: "The additional, read-only stores, numbered from 1 in the order in which they are searched.",
			rowOps: rowOps{list: listStores, dirs: func(p place) int { return len(listStores(p)) }, find: findStore}},
		{Path: dir, Kind: Dir, Mode: modeDir, Valid: forever, Doc: "One additional store. What it holds is also in layers/ and images/, unless an object of the own store has the ID."},
		{Path: dir + "/graphroot", Kind: Text, Mode: modeRead, Valid: forever, Doc: "Its directory.",
			rowOps: rowOps{get: func(p place) ([]byte, error) { return line(oneLine(p.imageStores()[p.nth()-1])), nil }}},
	}
	for _, kind := range []store.Kind{store.KindLayer, store.KindImage} {
		list, find := links(kind, "<"+kind.String()+">", idsFrom(kind))
		rows = append(rows,
			Row{Path: dir + "/" + kind.Plural(), Kind: Links, Mode: modeDir, Valid: gen, Doc: "The " + kind.Plural() + " that come from it.",
				rowOps: rowOps{list: list, find: find, mtime: modifiedAny}},
			Row{Path: dir + "/" + kind.Plural() + "/<" + kind.String() + ">", Kind: Link, Mode: modeLink, Valid: gen, Doc: "One of them.",
				rowOps: rowOps{mtime: modifiedAny, target: func(p place) (string, bool) { return p.index().up(3, kind, p.arg) }}})
	}
	return rows
}

func (p place) imageStores() []string { return p.fs.store.Options().ImageStores }

// nth is the number of the place's store.
func (p place) nth() int {
	n, err := strconv.Atoi(p.id)
	if err != nil {
		return 0
	}
	return n
}

func listStores(p place) []entry {
	var list []entry
	for i := range p.imageStores() {
		n := strconv.Itoa(i + 1)
		list = append(list, entry{n, where{row: p.row.child("<n>"), id: n}})
	}
	return list
}

func findStore(_ context.Context, p place, name string) (entry, error) {
	n, err := strconv.Atoi(name)
	if err != nil || n < 1 || n > len(p.imageStores()) || strconv.Itoa(n) != name {
		return entry{}, errno.New(errno.ErrUnknown, "there is no additional store %q: there are %d", clip(name), len(p.imageStores()))
	}
	return entry{name, where{row: p.row.child("<n>"), id: name}}, nil
}

// idsFrom returns the objects of a kind that come from the place's store.
func idsFrom(kind store.Kind) func(place) []string {
	return func(p place) (ids []string) {
		for _, id := range p.tx.IDs(kind) {
			if p.tx.StoreOf(kind, id) == p.nth() {
				ids = append(ids, id)
			}
		}
		return ids
	}
}
