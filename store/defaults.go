package store

// withDefaults gives a layer without a parent and without ID maps those of the
// store, as the tools do where storage.conf has remap-uids and its like; layers
// above have their parent's.
func (s *Store) withDefaults(spec LayerSpec) LayerSpec {
	if spec.Parent == "" && spec.Maps.Empty() {
		spec.Maps = s.opts.Maps
	}
	return spec
}
