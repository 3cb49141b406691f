package config

import "path/filepath"

// system is where things are on this system (containers-config(5)). There are
// no user IDs: everybody has the store of their own, under %LOCALAPPDATA%.
func system(getenv func(string) string) Machine {
	local := getenv("LOCALAPPDATA")
	return Machine{
		GraphRoot:  filepath.Join(local, "containers", "storage"),
		RunRoot:    filepath.Join(local, "containers", "run"),
		System:     []string{filepath.Join(getenv("ProgramData"), "containers", "storage.conf")},
		UserConfig: getenv("APPDATA"),
		Drivers:    []string{"vfs"},
	}
}

// ownedBy is false: there are no user IDs.
func ownedBy(string, int) bool { return false }
