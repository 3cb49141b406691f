package store

import "context"

// openExtract makes the extract area ready, and sweeps what dead owners left
// there. Open calls it last, with no lock held; never on a read-only store.
func (s *Store) openExtract(ctx context.Context) error { return nil }

// closeExtract lets go of the extract area; Close calls it.
func (s *Store) closeExtract() error { return nil }

// sweepIncomplete removes records flagged incomplete with what belongs to
// them. Update calls it under the write locks, before its function, when the
// loaded state has such records (they are then leftovers of a dead writer).
func (w *WriteTx) sweepIncomplete(k Kind, ids []string) error {
	for _, id := range ids {
		if err := w.remove(k, id); err != nil {
			return err
		}
	}
	return nil
}
