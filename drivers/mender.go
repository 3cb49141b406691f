package drivers

// Family is a layer with its next of kin, as the store's records have it.
type Family struct {
	ID string
	// Parent is the layer below, or "".
	Parent string
	// Children are the layers made over it.
	Children []string
}

// Mender is a driver whose layers have parts that follow from others, and can
// be made again when they are lost.
type Mender interface {
	// Flaws names the parts of a published layer that are missing or wrong and
	// that Mend can make again, a phrase each; nothing is changed.
	Flaws(f Family) ([]string, error)
	// Mend makes them again. The parent must be without flaws. A kill leaves
	// each part as it was or made. ErrDamaged when that cannot be.
	Mend(f Family) error
}

// Flaws asks d for what Mend could make again; nothing when d is no Mender.
func Flaws(d Driver, f Family) ([]string, error) {
	if m, ok := d.(Mender); ok {
		return m.Flaws(f)
	}
	return nil, nil
}

// Mend lets d make again what follows from other parts, if it can.
func Mend(d Driver, f Family) error {
	if m, ok := d.(Mender); ok {
		return m.Mend(f)
	}
	return nil
}
