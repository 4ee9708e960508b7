package db

import (
	"context"
	"fmt"
)

// BeginOpen inserts the row of a new open, in a transaction of its own, and
// returns it with its id. The caller gives the wall clock and the boot; a
// UUID is chosen when there is none.
func (d *DB) BeginOpen(ctx context.Context, o OpenRow) (OpenRow, error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	if o.UUID == "" {
		o.UUID = newUUID()
	}
	if o.End == 0 {
		o.End = o.Start
	}
	err := d.transact(ctx, func(t *tx) error {
		return t.QueryRowContext(t.ctx, `INSERT INTO open (uuid, boot_id, start_time_90k, end_time_90k, duration_90k)
			VALUES (?, ?, ?, ?, ?) RETURNING id`, o.UUID, o.BootID, o.Start, o.End, o.Duration).Scan(&o.ID)
	})
	if err != nil {
		return OpenRow{}, fmt.Errorf("insert open: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known.opens[o.ID] = true
	return o, nil
}

// CompleteOpen records, in one transaction, that the open is now the last
// complete one of the directories.
func (d *DB) CompleteOpen(ctx context.Context, openID int32, dirIDs ...int32) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if !d.known.opens[openID] {
		return fmt.Errorf("complete open %d: %w", openID, ErrNotFound)
	}
	err := d.transact(ctx, func(t *tx) error {
		for _, id := range dirIDs {
			r, err := t.ExecContext(t.ctx, `UPDATE sample_file_dir SET last_complete_open_id = ? WHERE id = ?`, openID, id)
			if err == nil {
				err = one(r)
			}
			if err != nil {
				return fmt.Errorf("sample directory %d: %w", id, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("complete open %d: %w", openID, err)
	}
	return nil
}
