package unix

// FileStat is what stat(2) tells of a file, as far as every system has it.
// Times are nanoseconds since 1970.
type FileStat struct {
	Dev, Ino     uint64
	Mode         uint32 // with the type's bits
	UID, GID     uint32
	Size         int64
	Mtime, Ctime int64
}

// Type returns the file type bits.
func (s *FileStat) Type() uint32 { return s.Mode & S_IFMT }
