package drivers

// Shift says how a driver gives a container other owners than its layers have.
type Shift uint8

const (
	// NoShift drivers give a layer the owners that its directory has: other
	// ID maps need a layer of their own.
	NoShift Shift = iota
	// ShiftLowers drivers map the layers below when they mount
	// (MountOptions.Maps); what is written through the mount has host IDs.
	ShiftLowers
	// ShiftMount drivers map the whole mount: what is written through it has
	// the container's IDs on disk, as its parents have.
	ShiftMount
)

// Shifter is a driver that can map IDs when it mounts.
type Shifter interface{ Shift() Shift }

// ShiftOf returns how d maps IDs: NoShift unless it says otherwise.
func ShiftOf(d Driver) Shift {
	if s, ok := d.(Shifter); ok {
		return s.Shift()
	}
	return NoShift
}
