package fsview

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/plyfs/plyfs/internal/errno"
	"github.com/plyfs/plyfs/store"
)

const manifestKey = "manifest"

// bigDataKeys returns the keys of the place's object.
func (p place) bigDataKeys() []string {
	switch p.row.obj {
	case objLayer:
		if l := p.tx.LayerByID(p.id); l != nil {
			return l.BigDataNames
		}
	case objImage:
		if i := p.tx.ImageByID(p.id); i != nil {
			return i.BigDataNames
		}
	case objContainer:
		if c := p.tx.ContainerByID(p.id); c != nil {
			return c.BigDataNames
		}
	}
	return nil
}

func listBigData(p place) []entry {
	row := p.row.child("<key>")
	var list []entry
	for _, key := range p.bigDataKeys() {
		if e := Encode(key); key != "" && len(e) <= maxEntry {
			list = append(list, entry{e, where{row, p.id, key}})
		}
	}
	return list
}

func findBigData(_ context.Context, p place, name string) (entry, error) {
	key, err := Decode(name)
	if err != nil {
		return entry{}, unknown("%v", err)
	}
	e := entry{name, where{p.row.child("<key>"), p.id, key}}
	if !hasBigData(p.at(e.row, e.id, e.arg)) {
		return entry{}, unknown("%s has no item %q", p.label(), clip(name))
	}
	return e, nil
}

// hasBigData tells whether the item is there, or is being written.
func hasBigData(p place) bool {
	return contains(p.bigDataKeys(), p.arg) || len(p.fs.writersOf(p.where)) > 0
}

func createBigData(_ context.Context, p place, name string) (entry, error) {
	key, err := Decode(name)
	if err != nil {
		return entry{}, err
	}
	e := entry{name, where{p.row.child("<key>"), p.id, key}}
	return e, checkBigData(p.at(e.row, e.id, e.arg))
}

// checkBigData refuses early the keys that no file can be made for.
func checkBigData(p place) error {
	if p.arg == "" || p.arg == "." || p.arg == ".." || strings.HasSuffix(p.arg, "/") {
		return errno.New(errno.ErrBadValue, "%q cannot be the key of a data item: choose one that is not a dot and does not end in a slash", clip(p.arg))
	}
	return nil
}

// bigDataSize is the size by the record, or else by the file.
func bigDataSize(ctx context.Context, p place) (int64, bool) {
	sizes := p.bigDataSizes()
	if n, ok := sizes[p.arg]; ok {
		return n, true
	}
	if !contains(p.bigDataKeys(), p.arg) {
		return 0, true
	}
	b, err := openBigData(ctx, p)
	if err != nil {
		return 0, false
	}
	n, known := b.size()
	return n, b.close() == nil && known
}

func (p place) bigDataSizes() map[string]int64 {
	switch p.row.obj {
	case objImage:
		if i := p.tx.ImageByID(p.id); i != nil {
			return i.BigDataSizes
		}
	case objContainer:
		if c := p.tx.ContainerByID(p.id); c != nil {
			return c.BigDataSizes
		}
	}
	return nil
}

func openBigData(ctx context.Context, p place) (blob, error) {
	kind, _ := p.row.obj.kind()
	f, err := p.fs.store.BigData(ctx, kind, p.id, p.arg)
	if err != nil {
		return nil, err
	}
	return newFileBlob(f)
}

func putBigData(kind store.Kind) func(context.Context, place, []byte) error {
	return func(ctx context.Context, p place, v []byte) error {
		return p.fs.store.SetBigData(ctx, kind, p.id, p.arg, bytes.NewReader(v))
	}
}

// itemOps are the operations of a file that shows one item read-only.
func itemOps(key func(p place) (string, bool)) rowOps {
	row := func(p place) (place, bool) {
		k, ok := key(p)
		p.arg = k
		return p, ok
	}
	return rowOps{
		has: func(p place) bool { _, ok := key(p); return ok },
		size: func(ctx context.Context, p place) (int64, bool) {
			q, ok := row(p)
			if !ok {
				return 0, false
			}
			return bigDataSize(ctx, q)
		},
		blob: func(ctx context.Context, p place) (blob, error) {
			q, ok := row(p)
			if !ok {
				return nil, p.missing()
			}
			return openBigData(ctx, q)
		},
	}
}

func keyManifest(p place) (string, bool) {
	return manifestKey, contains(p.bigDataKeys(), manifestKey)
}

// keyConfig finds the configuration: the item whose key is the digest that the
// manifest names, which for most is the image's ID.
func keyConfig(p place) (string, bool) {
	keys := p.bigDataKeys()
	if k := "sha256:" + p.id; contains(keys, k) {
		return k, true
	}
	if len(keys) < 2 || !contains(keys, manifestKey) {
		return "", false // of a manifest alone there is no need to ask where it is
	}
	var m struct {
		Config struct {
			Digest string `json:"digest"`
		} `json:"config"`
	}
	if err := p.decodeItem(manifestKey, &m); err != nil || m.Config.Digest == "" {
		return "", false
	}
	return m.Config.Digest, contains(keys, m.Config.Digest)
}

// maxDecoded bounds what is parsed of an image's data items, in bytes.
const maxDecoded = 4 << 20

// decodeItem reads a data item as JSON.
func (p place) decodeItem(key string, into any) error {
	kind, _ := p.row.obj.kind()
	f, err := p.fs.store.BigData(context.Background(), kind, p.id, key)
	if err != nil {
		return err
	}
	v, err := io.ReadAll(io.LimitReader(f, maxDecoded+1))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	switch {
	case err != nil:
		return fmt.Errorf("reading the data item %q: %w", clip(key), err)
	case len(v) > maxDecoded:
		return errno.New(errno.ErrTooLarge, "the data item %q has more than %d bytes", clip(key), maxDecoded)
	}
	if err := json.Unmarshal(v, into); err != nil {
		return errno.New(errno.ErrDamaged, "the data item %q is not the JSON it should be: %w", clip(key), err)
	}
	return nil
}

// historyText renders the history of the image's configuration.
func historyText(p place) ([]byte, error) {
	key, ok := keyConfig(p)
	if !ok {
		return nil, p.missing()
	}
	var c struct {
		History []struct {
			Created    *time.Time `json:"created"`
			CreatedBy  string     `json:"created_by"`
			Comment    string     `json:"comment"`
			EmptyLayer bool       `json:"empty_layer"`
		} `json:"history"`
	}
	if err := p.decodeItem(key, &c); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for _, h := range c.History {
		when, what := "-", "layer"
		if h.Created != nil {
			when = h.Created.UTC().Format(time.RFC3339Nano)
		}
		if h.EmptyLayer {
			what = "empty"
		}
		text := oneLine(h.CreatedBy)
		if text == "" {
			text = oneLine(h.Comment)
		}
		fmt.Fprintf(&b, "%s %s %s\n", when, what, text)
	}
	return b.Bytes(), nil
}
