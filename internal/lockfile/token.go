package lockfile

import (
	crand "crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/plyfs/plyfs/internal/errno"
)

// TokenSize is the length of a token in bytes.
const TokenSize = 64

// Token is a last-writer token: comparable, good only for (in)equality. The
// zero Token is that of a file that was never written or does not exist.
type Token struct {
	b [TokenSize]byte
	n int // bytes that were there
}

// IsZero tells whether the file had never been written.
func (t Token) IsZero() bool { return t.n == 0 }

// String returns the token in hexadecimal, for logs.
func (t Token) String() string { return hex.EncodeToString(t.b[:t.n]) }

// Token reads the token without any lock. A missing file is the zero Token.
func (f *File) Token() (Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reads != nil && !linked(f.reads) {
		err := f.reads.Close()
		f.reads = nil
		if err != nil {
			return Token{}, err
		}
	}
	if f.reads == nil {
		fd, err := os.Open(f.path)
		if errors.Is(err, os.ErrNotExist) {
			return Token{}, nil
		}
		if err != nil {
			return Token{}, fmt.Errorf("open lock file: %w", err)
		}
		f.reads = fd
	}
	return readToken(f.reads)
}

func readToken(fd io.ReaderAt) (Token, error) {
	var t Token
	n, err := fd.ReadAt(t.b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return Token{}, fmt.Errorf("read last-writer token: %w", err)
	}
	t.n = n
	return t, nil
}

// Token reads the token of the locked file.
func (h *Held) Token() (Token, error) {
	if h.fd == nil {
		return Token{}, nil
	}
	return readToken(h.fd)
}

// Touch writes and returns a fresh token, to be called under a write lock
// before the guarded file is replaced. It is not synced: tokens say nothing
// across a restart of the machine.
func (h *Held) Touch() (Token, error) {
	if !h.write || h.fd == nil {
		return Token{}, errno.New(errno.ErrReadOnly, "%s: the last-writer token is written under the write lock only", h.f.path)
	}
	t := Token{n: TokenSize}
	binary.LittleEndian.PutUint64(t.b[0:], uint64(time.Now().UnixNano()))
	binary.LittleEndian.PutUint64(t.b[8:], h.f.count.Add(1))
	binary.LittleEndian.PutUint32(t.b[16:], uint32(os.Getpid()))
	if _, err := crand.Read(t.b[20:]); err != nil {
		return Token{}, fmt.Errorf("random bytes for the last-writer token: %w", err)
	}
	if _, err := h.fd.WriteAt(t.b[:], 0); err != nil {
		return Token{}, fmt.Errorf("write last-writer token: %w", err)
	}
	return t, nil
}
