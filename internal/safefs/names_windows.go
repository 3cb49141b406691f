package safefs

import "strings"

// foreign tells whether the system takes a name for more than a name: for
// several components, or for a stream of a file.
func foreign(name string) bool { return strings.ContainsAny(name, `\:`) }
