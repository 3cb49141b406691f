//go:build unix && !linux

package config

import (
	"os"
	"runtime"
)

// system is where things are on this system (containers-config(5)).
func system(getenv func(string) string) Machine {
	m := Machine{
		UID: outerUID(getenv, os.Geteuid()), UserRun: "/var/run/user",
		GraphRoot: "/var/db/containers/storage", RunRoot: "/var/run/containers/storage",
		System: []string{"/usr/local/etc/containers/storage.conf", "/usr/local/share/containers/storage.conf"},
		SubUID: "/etc/subuid", SubGID: "/etc/subgid", Drivers: []string{"zfs", "vfs"},
	}
	if runtime.GOOS == "darwin" {
		m.System = []string{"/etc/containers/storage.conf", "/usr/share/containers/storage.conf"}
		m.GraphRoot, m.Drivers = "/var/lib/containers/storage", []string{"vfs"}
	}
	return m
}
