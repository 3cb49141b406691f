package fsview

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

const (
	// errorLines is how many lines error_log holds.
	errorLines = 256
	// errorSubjects is how many objects' last errors are remembered.
	errorSubjects = 4096
	// errorText bounds one sentence, in bytes.
	errorText = 4096
)

// subject is what an error belongs to: an object, or a directory of the tree.
type subject struct {
	obj objKind
	id  string // the object's ID, or a row's path
}

func subjectOf(w where) subject {
	if w.row.obj == objNone {
		return subject{objNone, w.row.Path}
	}
	return subject{w.row.obj, w.id}
}

// errLog remembers the sentences of failed changes, as long as the mount lives.
type errLog struct {
	mu    sync.Mutex
	lines []string           // at most errorLines, oldest first; guarded by mu
	bySub map[subject]string // at most errorSubjects; guarded by mu
	order []subject          // of bySub, oldest first; guarded by mu
	when  time.Time          // of the last line; guarded by mu
	count map[string]int     // by errno's name; guarded by mu
}

// add remembers one error.
func (l *errLog) add(s subject, path, doing string, err error, now time.Time) {
	text := oneLine(err.Error())
	no := errno.Of(err)
	line := fmt.Sprintf("%s %s %s: %s: %s\n", now.UTC().Format(time.RFC3339Nano), errnoName(no), path, oneLine(doing), text)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) == errorLines {
		l.lines = append(l.lines[:0:0], l.lines[1:]...)
	}
	l.lines = append(l.lines, line)
	l.when = now
	if l.count == nil {
		l.count = map[string]int{}
	}
	l.count[errnoName(no)]++
	if l.bySub == nil {
		l.bySub = map[subject]string{}
	}
	if _, ok := l.bySub[s]; !ok {
		if len(l.order) == errorSubjects {
			delete(l.bySub, l.order[0])
			l.order = append(l.order[:0:0], l.order[1:]...)
		}
		l.order = append(l.order, s)
	}
	l.bySub[s] = text
}

// errnoName returns the name that documents use, where an errno has several.
func errnoName(no syscall.Errno) string {
	switch no {
	case syscall.EUCLEAN:
		return "EUCLEAN"
	case syscall.EOPNOTSUPP:
		return "EOPNOTSUPP"
	case syscall.EAGAIN:
		return "EAGAIN"
	}
	if name := unix.ErrnoName(no); name != "" {
		return name
	}
	return "errno " + strconv.Itoa(int(no))
}

// oneLine keeps a sentence on one line of bounded length: what is quoted in
// it may come from anywhere.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if len(s) > errorText {
		s = s[:errorText] + "…"
	}
	return s
}

func (l *errLog) of(s subject) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bySub[s]
}

// last returns the sentence of the newest line, with its path.
func (l *errLog) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) == 0 {
		return ""
	}
	line := l.lines[len(l.lines)-1]
	return strings.TrimSuffix(line[strings.IndexByte(line, ' ')+1:], "\n")
}

func (l *errLog) text() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return []byte(strings.Join(l.lines, ""))
}

// counts are how often each errno was the answer to a change.
func (l *errLog) counts() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []string
	for name, n := range l.count {
		list = append(list, fmt.Sprintf("%s %d", strings.ReplaceAll(name, " ", "-"), n))
	}
	sortStrings(list)
	return lines(list)
}

func (l *errLog) changed() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.when
}

// forget drops what is remembered of an object that is gone.
func (l *errLog) forget(s subject) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.bySub[s]; !ok {
		return
	}
	delete(l.bySub, s)
	for i, o := range l.order {
		if o == s {
			l.order = append(l.order[:i:i], l.order[i+1:]...)
			break
		}
	}
}

// fail records that a change of w failed, and returns the error for the
// server. What was interrupted is no failure.
func (f *FS) fail(w where, doing string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	f.errs.add(subjectOf(w), f.pathNow(w), doing, err, time.Now())
	return err
}

// Failed records an error that a server met outside of this package, at the
// root of the tree, so that error_log has it.
func (f *FS) Failed(doing string, err error) { _ = f.fail(where{row: f.root}, doing, err) }

// pathNow is pathOf by the names of the index of the last state that was
// looked at; it never asks the store, which may be what failed.
func (f *FS) pathNow(w where) string { return f.pathBy(f.index.Load(), w) }

func (f *FS) pathOf(tx *store.Tx, w where) string { return f.pathBy(f.indexOf(tx), w) }

// pathBy fills in a row's pattern: its first <…> is the object's entry, the
// other the node's further name.
func (f *FS) pathBy(x *index, w where) string {
	parts := strings.Split(w.row.Path, "/")
	named := w.row.obj == objNone
	for i, part := range parts {
		if !strings.HasPrefix(part, "<") {
			continue
		}
		if named {
			parts[i] = w.arg
			if w.row.obj == objNone && w.arg == "" {
				parts[i] = w.id
			}
			continue
		}
		named = true
		parts[i] = Encode(w.id)
		if kind, ok := w.row.obj.kind(); ok && x != nil {
			if e, ok := x.kinds[kind].entryOf[w.id]; ok {
				parts[i] = e
			}
		}
	}
	return strings.Join(parts, "/")
}
