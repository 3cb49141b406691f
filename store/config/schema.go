package config

import (
	"slices"
	"strings"
)

// kind is what a key of storage.conf holds. The keys are those of
// containers-storage.conf(5), of July 2018 and of 2025.
type kind uint8

const (
	kindUnknown kind = iota
	kindText         // a string, a boolean or a number: all were written
	kindList         // a list of strings
	kindTable        // a table whose keys nobody here reads
	kindFolder       // a table with keys of its own
	kindIdle         // known, without effect on a store that is opened here
)

// String names the form in messages.
func (k kind) String() string {
	switch k {
	case kindList:
		return "a list of strings"
	case kindTable, kindFolder:
		return "a table"
	}
	return "a string"
}

func (k kind) fits(v any) bool {
	switch k {
	case kindList:
		list, ok := v.([]any)
		return ok && !slices.ContainsFunc(list, func(e any) bool { _, text := e.(string); return !text })
	case kindTable, kindFolder:
		_, ok := v.(map[string]any)
		return ok
	case kindIdle:
		return true
	}
	switch v.(type) {
	case string, bool, int64:
		return true
	}
	return false
}

// schema returns the kind of a full key.
func schema(key string) kind {
	rest, ok := strings.CutPrefix(key, "storage")
	if !ok {
		return kindUnknown
	}
	switch rest {
	case "", ".options":
		return kindFolder
	case ".driver", ".graphroot", ".runroot", ".rootless_storage_path", ".transient_store", ".imagestore":
		return kindText
	case ".driver_priority":
		return kindIdle
	case ".options.additionalimagestores":
		return kindList
	case ".options.pull_options":
		return kindTable
	}
	rest, ok = strings.CutPrefix(rest, ".options.")
	if !ok {
		return kindUnknown
	}
	if table, name, nested := strings.Cut(rest, "."); nested {
		return driverSchema(table, name)
	}
	return optionSchema(rest)
}

// optionSchema is for the keys of storage.options itself.
func optionSchema(name string) kind {
	switch name {
	case "overlay", "vfs", "btrfs", "zfs", "aufs", "thinpool":
		return kindFolder
	case "size", "inodes", "mount_program", "mountopt", "skip_mount_home", "ignore_chown_errors", "force_mask":
		return kindText
	case "override_kernel_check", "ostree_repo", "additionallayerstores",
		"remap-uids", "remap-gids", "remap-user", "remap-group",
		"root-auto-userns-user", "auto-userns-min-size", "auto-userns-max-size", "disable-volatile":
		return kindIdle
	}
	return kindUnknown
}

// driverSchema is for the keys of storage.options.TABLE.
func driverSchema(table, name string) kind {
	switch table {
	case "thinpool", "aufs":
		return kindIdle // drivers that are long gone
	}
	if slices.Contains(driverKeys(table), name) {
		return kindText
	}
	return kindUnknown
}

// driverKeys returns the options that storage.conf has for a driver, in the
// order in which they are handed on.
func driverKeys(driver string) []string {
	switch driver {
	case "overlay":
		return []string{"mount_program", "mountopt", "ignore_chown_errors", "force_mask", "skip_mount_home", "use_composefs", "size", "inodes"}
	case "vfs":
		return []string{"ignore_chown_errors"}
	case "btrfs":
		return []string{"min_space", "size"}
	case "zfs":
		return []string{"fsname", "mountopt", "size"}
	}
	return nil
}
