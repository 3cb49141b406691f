package config

import "os"

// system is where things are on this system (containers-config(5)).
func system(getenv func(string) string) Machine {
	return Machine{
		UID: outerUID(getenv, os.Geteuid()), UserRun: "/run/user",
		GraphRoot: "/var/lib/containers/storage", RunRoot: "/run/containers/storage",
		System: []string{"/etc/containers/storage.conf", "/usr/share/containers/storage.conf"},
		SubUID: "/etc/subuid", SubGID: "/etc/subgid",
	}
}
