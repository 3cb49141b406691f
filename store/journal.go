package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/plyfs/plyfs/internal/unix"

	"github.com/plyfs/plyfs/internal/durable"
	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/internal/layertar"
)

const (
	journalFile    = "journal.json"
	journalVersion = 1
	// journalLimit bounds what is read of a journal, in bytes.
	journalLimit = 4 << 20
)

// journalOp names the operation that a journal makes all-or-nothing; the rules
// by which it is settled are in the package comment.
type journalOp string

const (
	journalCreate   journalOp = "create"
	journalDelete   journalOp = "delete"
	journalExchange journalOp = "exchange"
	journalSeal     journalOp = "seal"
	journalData     journalOp = "data"
	journalUndata   journalOp = "undata"
	journalMap      journalOp = "map"
)

// journalKind is a Kind, as a number in the file.
type journalKind uint8

// journal is the content of journal.json.
type journal struct {
	Version int       `json:"version"`
	Op      journalOp `json:"op"`
	// Kind and ID name the object.
	Kind journalKind `json:"kind"`
	ID   string      `json:"id"`
	// Layers go with the object: made for it, or deleted with it (top first).
	Layers []string `json:"layers,omitempty"`
	// Dev and Ino identify what was put in place: the layer's own directory
	// (exchange) or the item's file (data).
	Dev uint64 `json:"dev,omitempty"`
	Ino uint64 `json:"ino,omitempty"`
	// Old and New are what the layer's record says of its content; Split
	// tells whether a tar-split file belongs to New.
	Old   *layerContent `json:"old,omitempty"`
	New   *layerContent `json:"new,omitempty"`
	Split bool          `json:"split,omitempty"`
	// Key, Size and Digest are of the item.
	Key    string        `json:"key,omitempty"`
	Size   int64         `json:"size,omitempty"`
	Digest digest.Digest `json:"digest,omitempty"`
}

func (j *journal) kind() Kind { return Kind(j.Kind) }

// layerContent is the part of a layer's record that describes its content.
type layerContent struct {
	CompressedDigest digest.Digest        `json:"compressed-diff-digest,omitempty"`
	CompressedSize   int64                `json:"compressed-size,omitempty"`
	DiffDigest       digest.Digest        `json:"diff-digest,omitempty"`
	DiffSize         int64                `json:"diff-size,omitempty"`
	TOCDigest        digest.Digest        `json:"toc-digest,omitempty"`
	Compression      layertar.Compression `json:"compression,omitempty"`
	UIDs             []uint32             `json:"uidset,omitempty"`
	GIDs             []uint32             `json:"gidset,omitempty"`
}

func contentOf(l *Layer) *layerContent {
	return &layerContent{
		CompressedDigest: l.CompressedDigest, CompressedSize: l.CompressedSize,
		DiffDigest: l.DiffDigest, DiffSize: l.DiffSize, TOCDigest: l.TOCDigest,
		Compression: l.Compression, UIDs: l.UIDs, GIDs: l.GIDs,
	}
}

// contentOfResult describes a layer that holds one import and nothing else. A
// stream of zero bytes has the digest of no bytes, as with the peers.
func contentOfResult(r layertar.Result) *layerContent {
	c := &layerContent{
		CompressedDigest: r.CompressedDigest, CompressedSize: r.CompressedSize,
		DiffDigest: r.DiffDigest, DiffSize: r.DiffSize, TOCDigest: r.TOCDigest,
		Compression: r.Compression, UIDs: r.UIDs, GIDs: r.GIDs,
	}
	if r.DiffDigest == "" {
		c.CompressedDigest, c.DiffDigest = digest.FromBytes(nil), digest.FromBytes(nil)
	}
	return c
}

func (c *layerContent) set(l *Layer) {
	l.CompressedDigest, l.CompressedSize = c.CompressedDigest, c.CompressedSize
	l.DiffDigest, l.DiffSize, l.TOCDigest = c.DiffDigest, c.DiffSize, c.TOCDigest
	l.Compression, l.UIDs, l.GIDs = c.Compression, c.UIDs, c.GIDs
}

// same compares digests and sizes, which is what other writers change.
func (c *layerContent) same(o *layerContent) bool {
	return c.CompressedDigest == o.CompressedDigest && c.CompressedSize == o.CompressedSize &&
		c.DiffDigest == o.DiffDigest && c.DiffSize == o.DiffSize && c.TOCDigest == o.TOCDigest
}

// writeJournal writes the entry's journal, durably with all the directories
// that lead to it.
func (e *stageEntry) writeJournal(j journal) error {
	j.Version = journalVersion
	err := durable.WriteFile(e.own(journalFile), 0o600, func(w io.Writer) error {
		return json.NewEncoder(w).Encode(j)
	})
	for dir := e.dir(); err == nil && len(dir) >= len(e.root); dir = filepath.Dir(dir) {
		err = durable.SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	return nil
}

// readJournal returns nil without error when the entry has none.
func (e *stageEntry) readJournal() (_ *journal, err error) {
	f, err := os.OpenFile(e.own(journalFile), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open a journal: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	j := &journal{}
	if err := json.NewDecoder(io.LimitReader(f, journalLimit)).Decode(j); err != nil {
		return nil, errno.New(errno.ErrDamaged, "%s cannot be read: %w", e.own(journalFile), err)
	}
	if j.Version != journalVersion || j.kind() >= numKinds || !safeIDs(j) {
		return nil, errno.New(errno.ErrDamaged, "%s is not a journal of this version of plyfs", e.own(journalFile))
	}
	return j, nil
}

// safeIDs tells whether the journal's IDs may become part of paths.
func safeIDs(j *journal) bool {
	for _, id := range append([]string{j.ID}, j.Layers...) {
		if unsafeID(id) != "" {
			return false
		}
	}
	return true
}

// identity returns the device and inode number of what is at path.
func identity(path string) (dev, ino uint64, err error) {
	st, err := unix.Lstat(path)
	if err != nil {
		return 0, 0, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	return st.Dev, st.Ino, nil
}
