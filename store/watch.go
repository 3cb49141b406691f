package store

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// pollEvery is how often tokens are looked at where no notification tells
// (network filesystems, overlays, directories that came later).
const pollEvery = time.Second

// settleFor is how long a burst of notifications is let pass: a save makes
// several.
const settleFor = 2 * time.Millisecond

// watcher looks for what other processes write.
type watcher struct {
	s      *Store
	notify *fsnotify.Watcher // nil where notifications are not to be had
	cancel context.CancelFunc
	done   chan struct{}
}

func newWatcher(s *Store) *watcher {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{s: s, cancel: cancel, done: make(chan struct{})}
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		s.log.WithError(err).Info("no notifications of changed files: looking once a second")
	} else {
		w.notify = notify
		w.addDirs()
	}
	go w.run(ctx)
	return w
}

// addDirs watches the directories of record files; adding one again does
// nothing, and one that is missing is tried again at the next poll.
func (w *watcher) addDirs() {
	if w.notify == nil {
		return
	}
	for _, d := range w.s.recordDirs() {
		// An error means that the polling has to do.
		_ = w.notify.Add(d)
	}
}

func (w *watcher) run(ctx context.Context) {
	defer close(w.done)
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	var changes chan fsnotify.Event
	var faults chan error
	if w.notify != nil {
		changes, faults = w.notify.Events, w.notify.Errors
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
			w.addDirs()
		case e := <-changes:
			if !interesting(e.Name) {
				continue
			}
			w.calm(ctx, changes)
		case err := <-faults: // an overflow: look
			w.s.log.WithError(err).Debug("notifications of changed files were lost")
		}
		w.look(ctx)
	}
}

// calm lets the rest of a burst pass.
func (w *watcher) calm(ctx context.Context, changes chan fsnotify.Event) {
	timer := time.NewTimer(settleFor)
	defer timer.Stop()
	for {
		select {
		case <-changes:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (w *watcher) look(ctx context.Context) {
	if _, err := w.s.Refresh(ctx); err != nil && ctx.Err() == nil {
		w.s.log.WithError(err).Warn("changed records could not be read; trying again")
	}
}

// interesting tells whether a change of this file can mean new records: saves
// end in a rename to .json or a new token.
func interesting(path string) bool {
	switch filepath.Ext(path) {
	case ".json", ".lock":
		return true
	}
	return false
}

// close ends the goroutine and waits for it.
func (w *watcher) close() error {
	w.cancel()
	<-w.done
	if w.notify == nil {
		return nil
	}
	if err := w.notify.Close(); err != nil && !errors.Is(err, fsnotify.ErrClosed) {
		return err
	}
	return nil
}
