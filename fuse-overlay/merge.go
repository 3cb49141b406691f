package fuseoverlay

import "strings"

// search is a look-up of one name on its way down the layers: the state that
// decides, after each layer, what to keep and where to look next. It makes no
// system call. The rules are those of the kernel's overlay (its document's
// chapters on merged directories, whiteouts, redirects and metadata only
// copy-up); behaviour was compared with kernel 6.18 by the tests.
type search struct {
	// name is what to look for below: a name in the same directory or, after a
	// redirect, an absolute path in the layer.
	name string
	// isDir: a directory was found, only directories join it.
	isDir bool
	// metacopy: a file without its data was found; the data is below.
	metacopy bool
	// stop ends the search.
	stop bool
}

// absolute tells whether the search goes on from the layers' roots.
func (s *search) absolute() bool { return strings.HasPrefix(s.name, "/") }

// step is where in a path one component stands: pre is what comes before it
// (with the slash), post what comes after it (with the slash). A plain name
// has neither.
type step struct{ pre, post string }

func (p step) end() bool { return p.post == "" }

// take decides on m, found at p in one layer. bottom says that no layer lies
// below. It reports whether the file is to be kept (or, before the path's end,
// entered). The error is that of a redirect which cannot be followed.
func (s *search) take(m mark, p step, bottom bool) (bool, error) {
	switch {
	case m.kind == missing:
		return false, nil
	case m.kind == whiteout, p.end() && s.metacopy && m.kind != regular:
		s.stop = true
		return false, nil
	case m.kind == directory:
		return s.takeDir(m, p, bottom)
	case s.isDir || !p.end():
		s.stop = true
		return false, nil
	}
	s.metacopy = m.metacopy
	s.stop = !m.metacopy
	if m.metacopy && !bottom {
		return true, s.follow(m, p)
	}
	return true, nil
}

func (s *search) takeDir(m mark, p step, bottom bool) (bool, error) {
	if p.end() {
		s.isDir = true
	}
	switch {
	case bottom:
	case m.opacity == opaque:
		s.stop = true
	default:
		return true, s.follow(m, p)
	}
	return true, nil
}

// follow lets a redirect change what is looked for in the layers below. An
// absolute one goes on even when a directory above it was opaque.
func (s *search) follow(m mark, p step) error {
	if m.redirect == "" {
		return nil
	}
	if err := checkRedirect(m.redirect); err != nil {
		return err
	}
	if m.redirect[0] == '/' {
		s.stop = false
		s.name = m.redirect + p.post
	} else {
		s.name = p.pre + m.redirect + p.post
	}
	return nil
}

// split returns the components of an absolute path with their surroundings.
func split(path string) ([]string, []step) {
	names := strings.Split(strings.TrimPrefix(path, "/"), "/")
	steps := make([]step, len(names))
	at := 1
	for i, n := range names {
		steps[i] = step{pre: path[:at], post: path[at+len(n):]}
		at += len(n) + 1
	}
	return names, steps
}
