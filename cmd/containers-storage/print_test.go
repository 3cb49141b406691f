package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/plyfs/plyfs/store"
)

// Lists of records are written as encoding/json writes them, whatever spaces
// and unknown members their file has.
func TestMarshalRecords(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := store.Options{GraphRoot: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), DriverName: "vfs", Brief: true}
	path := filepath.Join(o.GraphRoot, "vfs-layers", "layers.json")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	text := `[ {"id" : "a", "created":"2026-01-02T03:04:05Z", "later": { "x" : [ 1,
		"two words <b>" ] } }, {"id":"b","names":["one & two"],"created":"2026-01-02T03:04:05Z",
		"uidmap":[ {"container_id":0, "host_id":1, "size":2, "odd":3} ]} ]`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close() //nolint:errcheck // nothing was written
	err = s.View(context.Background(), func(tx *store.Tx) error {
		for _, list := range [][]*store.Layer{collect(tx.Layers()), {}, nil} {
			var want bytes.Buffer
			e := json.NewEncoder(&want)
			e.SetEscapeHTML(false)
			if err := e.Encode(list); err != nil {
				return err
			}
			var got bytes.Buffer
			w := bufio.NewWriter(&got)
			if err := errors.Join(writeJSON(w, list), w.Flush()); err != nil || got.String() != want.String() {
				t.Errorf("%s, %v; want %s", got.String(), err, want.String())
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
