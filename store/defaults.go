package store

// withDefaults gives a layer without a parent, for which neither ID maps nor
// the host's IDs are named, the maps of the store, as the tools do where
// storage.conf has remap-uids and its like; layers above have their parent's.
func (s *Store) withDefaults(spec LayerSpec) LayerSpec {
	if spec.Parent == "" && spec.Maps.Empty() && !spec.HostIDs {
		spec.Maps = s.opts.Maps
	}
	return spec
}
