package fsview

// DropIndex makes the next look-up build the index of entries again.
func (f *FS) DropIndex() { f.index.Store(nil) }
