package demo

import (
	"encoding/binary"
	"slices"

	"github.com/plyfs/plyfs/internal/errno"
)

// Where a program is loaded, and the sizes of the headers of ELF64.
const (
	loadAddress = 0x400000
	ehdrSize    = 64
	phdrSize    = 56
	codeAt      = ehdrSize + phdrSize
)

// program returns a static ELF64 executable that writes text (under 64 KiB)
// to its standard output and exits with status 0.
func program(arch, text string) ([]byte, error) {
	var code []byte
	var machine uint16
	switch arch {
	case "amd64":
		machine, code = 62, codeAMD64(len(text))
	case "arm64":
		machine, code = 183, codeARM64(len(text))
	default:
		return nil, errno.New(errno.ErrNotSupported, "the demo image has no program for %s: only for amd64 and arm64", arch)
	}
	size := uint64(codeAt + len(code) + len(text))
	le := binary.LittleEndian
	b := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0} // 64 bits, little-endian, System V
	b = le.AppendUint16(b, 2)                                            // executable
	b = le.AppendUint16(b, machine)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, loadAddress+codeAt) // entry
	b = le.AppendUint64(b, ehdrSize)           // program headers
	b = le.AppendUint64(b, 0)                  // no section headers
	b = le.AppendUint32(b, 0)                  // flags
	for _, v := range []uint16{ehdrSize, phdrSize, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, 1) // PT_LOAD
	b = le.AppendUint32(b, 5) // readable, executable
	for _, v := range []uint64{0, loadAddress, loadAddress, size, size, 0x1000} {
		b = le.AppendUint64(b, v)
	}
	return slices.Concat(b, code, []byte(text)), nil
}

// codeAMD64 is write(1, text, n); exit(0). The text follows the code.
func codeAMD64(n int) []byte {
	le := binary.LittleEndian
	c := []byte{0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0, 0xba} // mov eax,1; mov edi,1; mov edx,
	c = le.AppendUint32(c, uint32(n))
	tail := []byte{0x0f, 0x05, 0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05} // syscall; mov eax,60; xor edi,edi; syscall
	c = append(c, 0x48, 0x8d, 0x35)                                       // lea rsi,[rip+
	c = le.AppendUint32(c, uint32(len(tail)))
	return append(c, tail...)
}

// codeARM64 is the same for arm64.
func codeARM64(n int) []byte {
	words := []uint32{
		0xd2800808,                // mov x8, #64 (write)
		0xd2800020,                // mov x0, #1
		0x10000001 | 6<<5,         // adr x1, six instructions on
		0xd2800002 | uint32(n)<<5, // mov x2, #n
		0xd4000001,                // svc #0
		0xd2800ba8,                // mov x8, #93 (exit)
		0xd2800000,                // mov x0, #0
		0xd4000001,                // svc #0
	}
	var c []byte
	for _, w := range words {
		c = binary.LittleEndian.AppendUint32(c, w)
	}
	return c
}
