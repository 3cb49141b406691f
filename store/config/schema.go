package config

import (
	"slices"
	"strconv"
	"strings"
)

// kind is what a key of storage.conf holds. The keys are those of
// containers-storage.conf(5), of July 2018, of 2022 and of 2025.
type kind uint8

const (
	kindUnknown kind = iota
	kindText         // a string, a boolean or a number: all were written
	kindBool         // a boolean, or a string that reads as one
	kindNumber       // a number from 0 on, or a string that reads as one
	kindList         // a list of strings
	kindFolder       // a table with keys of its own
	kindIdle         // known, without effect on any store that is opened here
	kindForeign      // a key of a driver that is long gone
)

// String names the form in messages.
func (k kind) String() string {
	switch k {
	case kindBool:
		return `true or false, or "true" or "false"`
	case kindNumber:
		return "a number from 0 on"
	case kindList:
		return "a list of strings"
	case kindFolder:
		return "a table"
	}
	return "a string"
}

func (k kind) fits(v any) bool {
	switch k {
	case kindBool:
		return isBool(v)
	case kindNumber:
		return isNumber(v)
	case kindList:
		_, _, ok := listOf(v)
		return ok
	case kindFolder:
		_, ok := v.(map[string]any)
		return ok
	case kindIdle, kindForeign:
		return true
	}
	switch v.(type) {
	case string, bool, int64:
		return true
	}
	return false
}

func isBool(v any) bool {
	switch v := v.(type) {
	case bool:
		return true
	case string:
		_, err := strconv.ParseBool(v)
		return v == "" || err == nil
	}
	return false
}

func isNumber(v any) bool {
	switch v := v.(type) {
	case int64:
		return v >= 0
	case string:
		_, err := strconv.ParseUint(v, 10, 32)
		return v == "" || err == nil
	}
	return false
}

// listOf returns the strings of a list, and whether it is added to the one of
// earlier files: an element {append=true} says so, as containers.conf(5) has it
// for the drop-ins of all three files.
func listOf(v any) (list []string, add, ok bool) {
	elements, ok := v.([]any)
	for _, e := range elements {
		switch e := e.(type) {
		case string:
			list = append(list, e)
		case map[string]any:
			on, is := e["append"].(bool)
			if !is || len(e) != 1 {
				return nil, false, false
			}
			add = on
		default:
			return nil, false, false
		}
	}
	return list, add, ok
}

// pullTable is a table whose keys belong to who pulls images: any are kept.
const pullTable = "storage.options.pull_options"

// schema returns the kind of a full key.
func schema(key string) kind {
	rest, ok := strings.CutPrefix(key, "storage")
	if !ok {
		return kindUnknown
	}
	switch rest {
	case "", ".options", ".options.pull_options":
		return kindFolder
	case ".driver", ".graphroot", ".runroot", ".rootless_storage_path", ".imagestore":
		return kindText
	case ".transient_store":
		return kindBool
	case ".driver_priority", ".options.additionalimagestores", ".options.additionallayerstores":
		return kindList
	}
	rest, ok = strings.CutPrefix(rest, ".options.")
	if !ok {
		return kindUnknown
	}
	if table, name, nested := strings.Cut(rest, "."); nested {
		return tableSchema(table, name)
	}
	return optionSchema(rest)
}

// optionSchema is for the keys of storage.options itself.
func optionSchema(name string) kind {
	switch name {
	case "overlay", "vfs", "btrfs", "zfs", "aufs", "thinpool":
		return kindFolder
	case "size", "inodes", "mount_program", "mountopt", "force_mask",
		"remap-uids", "remap-gids", "remap-user", "remap-group", "root-auto-userns-user":
		return kindText
	case "skip_mount_home", "ignore_chown_errors", "disable-volatile":
		return kindBool
	case "auto-userns-min-size", "auto-userns-max-size":
		return kindNumber
	case "override_kernel_check", "ostree_repo":
		return kindIdle
	}
	return kindUnknown
}

// tableSchema is for the keys of storage.options.TABLE.
func tableSchema(table, name string) kind {
	switch table {
	case "pull_options":
		return kindText
	case "thinpool", "aufs":
		if slices.Contains(goneKeys(table), name) {
			return kindForeign
		}
		return kindUnknown
	}
	if !slices.Contains(driverKeys(table), name) {
		return kindUnknown
	}
	switch name {
	case "ignore_chown_errors", "skip_mount_home", "use_composefs", "dedup":
		return kindBool
	}
	return kindText
}

// driverKeys returns the options that storage.conf has for a driver, in the
// order in which they are handed on.
func driverKeys(driver string) []string {
	switch driver {
	case "overlay":
		return []string{"mount_program", "mountopt", "ignore_chown_errors", "force_mask", "skip_mount_home", "use_composefs", "size", "inodes", "sync", "dedup"}
	case "vfs":
		return []string{"ignore_chown_errors", "sync", "dedup"}
	case "btrfs":
		return []string{"min_space", "size", "dedup"}
	case "zfs":
		return []string{"fsname", "mountopt", "size"}
	}
	return nil
}

// goneKeys are the options of drivers that no program has any more: they are
// accepted, and only a store of such a driver is refused.
func goneKeys(table string) []string {
	switch table {
	case "aufs":
		return []string{"mountopt"}
	case "thinpool":
		return []string{"autoextend_percent", "autoextend_threshold", "basesize", "blocksize", "directlvm_device",
			"directlvm_device_force", "fs", "log_level", "metadata_size", "min_free_space", "mkfsarg", "mountopt", "size",
			"use_deferred_deletion", "use_deferred_removal", "xfs_nospace_max_retries"}
	}
	return nil
}
