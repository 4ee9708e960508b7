package db

import (
	"context"
	"database/sql"
	_ "embed"

	"holdfast/nvr/media"
)

//go:embed upgrade_2.sql
var upgrade2 string

// makeSpans fills span from the recordings of a database that had none. Its
// statements are those of version 2.
func makeSpans(ctx context.Context, _ *DB, t *sql.Tx, progress func()) error {
	insert, err := t.PrepareContext(ctx, `INSERT INTO span (stream_id, start_time_90k, first_no, last_no, run_no, open_id,
		end_time_90k, video_sample_entry_id, video_samples, file_bytes, trailing_zero, end_reason)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`)
	if err != nil {
		return err
	}
	defer insert.Close()
	// In steps, so that no more than some rows are held.
	const rows = 10_000
	var s Span
	next := int64(0)
	for done := false; !done; {
		var whole []Span
		n := 0
		err := query(ctx, t, `SELECT composite_id, run_offset, open_id, start_time_90k, wall_duration_90k, video_sample_entry_id,
			video_samples, file_bytes, flags, coalesce(end_reason, '') FROM recording WHERE composite_id >= ?
			ORDER BY composite_id LIMIT ?`, []any{next, rows}, func(scan func(...any) error) error {
			var r Recording
			if err := scan(&r.ID, &r.RunOffset, &r.OpenID, &r.Start, &r.WallDuration, &r.VideoEntry,
				&r.VideoSamples, &r.FileBytes, &r.Flags, &r.EndReason); err != nil {
				return err
			}
			next, n = r.ID+1, n+1
			if s.takes(&r) {
				s.take(&r)
				return nil
			}
			if s.StreamID != 0 {
				whole = append(whole, s)
			}
			s = spanOf(&r)
			return nil
		})
		if err != nil {
			return err
		}
		if done = n < rows; done && s.StreamID != 0 {
			whole = append(whole, s)
		}
		for i := range whole {
			if _, err := insert.ExecContext(ctx, whole[i].args()...); err != nil {
				return err
			}
		}
		progress()
	}
	return nil
}

// spanBlock is the time in which all recordings of a span begin.
const spanBlock = 6 * 60 * media.Minute
