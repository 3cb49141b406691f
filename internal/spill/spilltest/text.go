// Package spilltest makes content for the tests of what looks back far.
package spilltest

import (
	"bytes"
	"math/rand/v2"
)

// Text is n bytes that repeat what is near and what is far away, with some that
// do not compress and long runs; the same for the same seed.
func Text(seed uint64, n int) []byte {
	random := rand.New(rand.NewPCG(seed, 0))
	words := make([][]byte, 400)
	for i := range words {
		words[i] = make([]byte, 1+random.IntN(12))
		for j := range words[i] {
			words[i][j] = byte('a' + random.IntN(26))
		}
	}
	out := make([]byte, 0, n)
	for len(out) < n {
		switch k := random.IntN(1000); {
		case k < 4 && len(out) > 0: // far
			at := random.IntN(len(out))
			out = append(out, out[at:min(len(out), at+random.IntN(30_000))]...)
		case k < 6: // what does not compress
			for range random.IntN(2000) {
				out = append(out, byte(random.Uint32()))
			}
		case k < 8:
			out = append(out, bytes.Repeat([]byte{byte(k)}, random.IntN(200_000))...)
		default:
			out = append(out, words[random.IntN(1+random.IntN(len(words)))]...)
		}
	}
	return out[:n]
}
