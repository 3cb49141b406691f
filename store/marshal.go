package store

// MarshalJSON writes the record as its file has it, members that we do not
// know included.
func (l *Layer) MarshalJSON() ([]byte, error) { return encoded(l.encode()) }

// MarshalJSON writes the record as its file has it; see Layer.
func (i *Image) MarshalJSON() ([]byte, error) { return encoded(i.encode()) }

// MarshalJSON writes the record as its file has it; see Layer.
func (c *Container) MarshalJSON() ([]byte, error) { return encoded(c.encode()) }

func encoded(text string, err error) ([]byte, error) { return []byte(text), err }
