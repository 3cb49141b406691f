package detach

import (
	"errors"
	"io"
	"os"
	"testing"
)

func TestPass(t *testing.T) {
	t.Parallel()
	ours, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(Send(ours, w), w.Close(), ours.Close()); err != nil {
		t.Fatal(err)
	}
	got, err := Receive(theirs, "pipe")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := got.WriteString("through"); err != nil {
		t.Fatal(err)
	}
	if err := got.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil || string(b) != "through" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := Receive(theirs, "pipe"); !errors.Is(err, io.EOF) {
		t.Errorf("nothing more was sent: %v", err)
	}
	if err := errors.Join(theirs.Close(), r.Close()); err != nil {
		t.Error(err)
	}
}
