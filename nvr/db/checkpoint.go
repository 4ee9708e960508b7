package db

import (
	"context"
	"fmt"
)

// checkpointAt is how many pages are in the log when it is taken over: half of
// walSize.
const checkpointAt = walSize / 2 / pageSize

// checkpoint takes the log over into the file when it has so many pages. SQLite
// would do so after a commit by itself, and say nothing when it fails. Then
// the log would grow without end on a disk that is ill, and a sync that failed
// would be repeated.
//
// An error means that the medium failed. What only has no room, or has a reader
// in its way, is tried again with the next commit.
func (d *DB) checkpoint(ctx context.Context, pages int) error {
	var busy, inLog, taken int
	pragma := func(mode string) error {
		return d.writer.QueryRowContext(ctx, `PRAGMA wal_checkpoint(`+mode+`)`).Scan(&busy, &inLog, &taken)
	}
	err := pragma("NOOP") // how much there is
	if err == nil && inLog >= pages {
		err = pragma("PASSIVE")
	}
	if err == nil {
		return nil
	}
	if Poisoned(err) {
		return fmt.Errorf("take over the log: %w", err)
	}
	d.log.Warn("write-ahead log is not taken over; trying again with the next commit", "path", d.path, "cause", err)
	return nil
}
