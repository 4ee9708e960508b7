package db

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"modernc.org/sqlite"
)

// backupStep is how many pages are copied before others get their turn.
const backupStep = 256

// Backup copies the database as of now into the file at path, which the caller
// made and which is empty, and makes it durable. It reads in one transaction,
// so flushes go on beside it; with gentle it rests as long as it works, so that
// the disk is free half of the time. progress may be nil.
func (d *DB) Backup(ctx context.Context, path string, gentle bool, progress func(done, total int)) error {
	if err := d.backup(ctx, path, gentle, progress); err != nil {
		return fmt.Errorf("back up database %s to %s: %w", d.path, path, d.readError(err))
	}
	return nil
}

func (d *DB) backup(ctx context.Context, path string, gentle bool, progress func(done, total int)) error {
	// Of its own: a disk that hangs under a copy takes no reader from others.
	p, err := d.openPool(readerDSN(d.path), 1, checkConnection)
	if err != nil {
		return err
	}
	defer p.Close()
	conn, err := p.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	// Without a transaction of its own each commit would make it begin anew.
	if _, err := conn.ExecContext(ctx, `BEGIN`); err != nil {
		return err
	}
	defer conn.ExecContext(context.WithoutCancel(ctx), `ROLLBACK`)
	var n int
	if err := conn.QueryRowContext(ctx, `SELECT count(*) FROM meta`).Scan(&n); err != nil {
		return err
	}
	err = conn.Raw(func(c any) error {
		b, err := c.(interface {
			NewBackup(string) (*sqlite.Backup, error)
		}).NewBackup(dsn(path, "mode", "rw", "_pragma", "journal_mode(off)", "_pragma", "synchronous(off)"))
		if err != nil {
			return err
		}
		rest := time.NewTimer(0)
		defer rest.Stop()
		for {
			began := time.Now()
			more, err := b.Step(backupStep)
			if err != nil || !more {
				return errors.Join(err, b.Finish())
			}
			if progress != nil {
				progress(b.PageCount()-b.Remaining(), b.PageCount())
			}
			if gentle {
				rest.Reset(time.Since(began))
				select {
				case <-rest.C:
				case <-ctx.Done():
				}
			}
			if err := ctx.Err(); err != nil {
				return errors.Join(err, b.Finish())
			}
		}
	})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Verify makes sure that the file at path, which nobody has open, is a whole
// database of this program with the uuid, and returns its last open. It checks
// what Integrity does: what that finds in a database it must not find in its copy.
// One that is ErrRotten is better than none.
func Verify(ctx context.Context, path, uuid string) (lastOpen int32, err error) {
	lastOpen, err = verify(ctx, path, uuid)
	if err != nil {
		return 0, fmt.Errorf("verify database %s: %w", path, err)
	}
	return lastOpen, nil
}

func verify(ctx context.Context, path, uuid string) (lastOpen int32, err error) {
	if err := checkHeader(path); err != nil {
		return 0, err
	}
	// Immutable: no log is looked for, and none is made.
	p, err := openPool(dsn(path, "mode", "ro", "immutable", "1"), 1, nil)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	application, version, err := identity(ctx, p)
	if err != nil {
		return 0, err
	}
	if application != applicationID || version < 1 || version > schemaVersion {
		return 0, fmt.Errorf("%w: application id %#08x, version %d", ErrForeign, uint32(application), version)
	}
	var got string
	if err := p.QueryRowContext(ctx, `SELECT uuid, (SELECT coalesce(max(id), 0) FROM open) FROM meta`).Scan(&got, &lastOpen); err != nil {
		return 0, err
	}
	if got != uuid {
		return 0, fmt.Errorf("%w: it is database %s, expected %s", ErrForeign, got, uuid)
	}
	found, err := findings(ctx, p)
	if err != nil || len(found) == 0 {
		return lastOpen, err
	}
	var first string
	if err := p.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&first); err != nil {
		return 0, err
	}
	if first != "ok" {
		return 0, fmt.Errorf("%w: %s", ErrForeign, first)
	}
	return 0, fmt.Errorf("%w: %s (and %d more)", ErrRotten, found[0], len(found)-1)
}
