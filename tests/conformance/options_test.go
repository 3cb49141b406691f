package conformance

import (
	"maps"
	"testing"
)

// optionWorlds are ours with options that change how things are done, and not
// what is seen.
func optionWorlds(t *testing.T) []world {
	t.Helper()
	ps := programs(t)
	p := ps[len(ps)-1]
	var ws []world
	for _, o := range []struct {
		name, options string
		layers        int
		known         map[string]string
	}{
		{"redirects", "redirect_dir=on,metacopy=on", 1, nil},
		{"redirects", "redirect_dir=on,metacopy=on", manyLayers, nil},
		{"aside-security", "xattr_permissions=1", 1, knownAside},
		{"aside-user", "xattr_permissions=2", 1, knownAside},
		{"writeback", "writeback=1", 1, knownWriteback},
		{"one-thread", "threaded=0", 1, nil},
	} {
		known := maps.Clone(p.known)
		maps.Copy(known, o.known)
		ws = append(ws, world{
			name: o.name + "-" + map[bool]string{true: "1", false: "9"}[o.layers == 1], layers: o.layers, known: known,
			mount: func(e *env) func() { return p.mountWith(e, o.options) },
		})
	}
	return ws
}

// TestOptions runs the suite with each set of options.
func TestOptions(t *testing.T) {
	need(t)
	for _, w := range optionWorlds(t) {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			runSuite(t, w)
		})
	}
}

// knownAside is what differs where owners and modes are kept in an attribute.
var knownAside = map[string]string{
	"acl-copied-up":                 "there are no ACLs",
	"acl-mask-follows-chmod":        "there are no ACLs",
	"acl-default-with-umask":        "there are no ACLs",
	"acl-grants":                    "there are no ACLs",
	"bug-default-acl-not-inherited": "there are no ACLs",
	"bug-setfacl-not-supported":     "there are no ACLs",
	"root-attributes":               "the upper's root has the mode in an attribute",
}

// knownWriteback is what differs where the kernel gathers writes.
var knownWriteback = map[string]string{
	"seek-in-lower": "holes that the kernel has not written yet cannot be told",
}
