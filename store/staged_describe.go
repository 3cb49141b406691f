package store

import "slices"

// Describe sets what the layer's record will say, until Commit: a caller may
// learn it only after the content was written. Commit looks at the names as
// StageLayer does. After Commit or Discard it does nothing.
func (st *StagedLayer) Describe(names []string, metadata, label string, items []BigDataItem) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.spec.Names, st.spec.Metadata, st.spec.Label = slices.Clone(names), metadata, label
	st.spec.BigData = slices.Clone(items)
}
