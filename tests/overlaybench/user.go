package main

import (
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/plyfs/plyfs/tests/internal/timing"
)

// who starts a process as the user that -user names.
func (b *bench) who() *syscall.SysProcAttr {
	if b.user == 0 {
		return nil
	}
	id := uint32(b.user)
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
}

// hand gives the directories with all that is in them to that user, and lets
// the user reach them.
func (b *bench) hand(dirs ...string) error {
	if b.user == 0 {
		return nil
	}
	id := strconv.FormatUint(uint64(b.user), 10)
	return timing.Tool(append([]string{"chown", "-R", "-h", id + ":" + id}, dirs...)...)
}

// hash is treeHash, by that user: root is not let into a user's mount.
func (b *bench) hash(top string, apart []string) (string, error) {
	if b.user == 0 {
		return treeHash(top, apart)
	}
	out, err := b.do("/", append([]string{b.self, "work", "hash", top}, apart...))
	return strings.TrimSpace(string(out)), err
}

// printHash is the child's part of hash.
func printHash(top string, apart []string) error {
	sum, err := treeHash(top, apart)
	if err == nil {
		_, err = os.Stdout.WriteString(sum)
	}
	return err
}
