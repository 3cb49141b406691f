// Package config finds out which store to open: the one that podman, buildah
// and skopeo of the same user would.
//
// # Where settings come from
//
// For each setting the first of these that names it wins:
//
//  1. a command-line flag;
//  2. STORAGE_DRIVER and STORAGE_OPTS;
//  3. what podman's own database in the graph root says of the driver and the
//     run root (a libpod/bolt_state.db): podman obeys it over storage.conf;
//  4. one storage.conf and its drop-ins (see below);
//  5. the driver that the graph root was made with;
//  6. the defaults.
//
// (podman lets its database win over STORAGE_DRIVER too, and complains; a user
// who sets that variable for plyfs is obeyed.)
//
// The file is $CONTAINERS_STORAGE_CONF when set. Otherwise root uses
// $XDG_CONFIG_HOME/containers/storage.conf when that exists, else
// /etc/containers/storage.conf, else /usr/share/containers/storage.conf. An
// ordinary user's file is the one in $XDG_CONFIG_HOME or ~/.config; without it
// only `driver` and `rootless_storage_path` of the system's file hold, and the
// rest is the defaults. All of that was found by running podman 4.3.1, and a
// test compares with `podman info`.
//
// Over that file are laid the drop-ins of containers-config(5), sorted by their
// names whatever folder they are in; of two with one name the last of these
// folders counts: below /usr/share/containers, then below /etc/containers,
// storage.conf.d, storage.rootful.conf.d (root) or storage.rootless.conf.d and
// storage.rootless.conf.d/UID (others); last, storage.conf.d beside the user's
// own file. With $CONTAINERS_STORAGE_CONF there are none. The file that
// $CONTAINERS_STORAGE_CONF_OVERRIDE names comes after all. A list replaces the
// one before it, unless it has the element {append=true}. Drop-ins hold in
// full for ordinary users too; podman 4.3.1 reads none.
//
// Options: those of flags replace those of STORAGE_OPTS, which replace those
// of the file, as a whole. With --root neither the file's nor the variable's
// options are used: they were written for another store.
//
// Defaults: root has /var/lib/containers/storage and /run/containers/storage;
// a user has $XDG_DATA_HOME/containers/storage (~/.local/share) and
// $XDG_RUNTIME_DIR/containers, else /run/user/UID/containers, else
// /tmp/podman-run-UID/containers. The driver is the one that the graph root
// holds a store of; for a new store the first of driver_priority that can be
// used (Machine.Usable), then the first of overlay, btrfs, zfs and vfs.
//
// # What is refused and what is warned of
//
// A file that is no TOML, a value of the wrong type, an unknown driver, and an
// option that is for another driver are errors that name file and line. A key
// that is not known, and a known one that has no effect here (ostree_repo,
// override_kernel_check), is a Warning with file and
// line; plyfs refuses the former (Config.Strict). The tables of drivers other
// than the store's own, thinpool and aufs among them, are accepted and say
// nothing: only who asks for such a driver is refused. The driver itself
// refuses options that it does not know. Booleans and numbers are taken as such
// and as strings.
//
// Every value keeps where it came from, for config/ of the control tree
// (Config.Settings).
package config
