package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"modernc.org/sqlite"
)

// Results of SQLite that say that a file is damaged.
const codeCorrupt = 11

// Damaged reports whether err means that the database file is damaged, or is
// no database at all. SQLite says the same of a read that failed with EIO, which
// a second try may mend: Readable tells one from the other.
func Damaged(err error) bool {
	return errors.Is(err, ErrForeign) || errors.Is(err, ErrRotten) || isCode(err, codeCorrupt) || isCode(err, codeNotADB)
}

// Readable reads the files of a database from end to end, without SQLite, and is
// an error that names the place when the disk does not give them. Anybody may call
// it at any time.
func Readable(ctx context.Context, path string) error {
	buf := make([]byte, 256<<10)
	for _, name := range []string{path, path + "-wal"} {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		for at := int64(0); err == nil; {
			var n int
			n, err = f.ReadAt(buf, at)
			at += int64(n)
			if err != nil && err != io.EOF {
				err = fmt.Errorf("%w at byte %d", err, at)
			} else if err == nil {
				err = ctx.Err()
			}
		}
		f.Close()
		if err != io.EOF {
			return err
		}
	}
	return nil
}

// identity reads what the header says of a database. It is asked for as pragmas,
// for which SQLite does not read the schema.
func identity(ctx context.Context, p *sql.DB) (application, version int, err error) {
	if err = p.QueryRowContext(ctx, `PRAGMA application_id`).Scan(&application); err == nil {
		err = p.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version)
	}
	return application, version, err
}

// Lock takes the lock that an open database holds, for who has to do with its
// file as a whole. Close gives it back.
func Lock(path string) (io.Closer, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	d := &DB{path: path}
	if err := d.takeLock(); err != nil {
		return nil, err
	}
	return d.lock, nil
}

// Inspect opens a database to look at it and, with Mend alone, to change it. It
// takes the lock as Open does, but it creates nothing and upgrades nothing.
func Inspect(ctx context.Context, cfg Config) (_ *DB, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	path, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", cfg.Path, err)
	}
	d := &DB{path: path, vfs: cfg.VFS, log: cfg.Log, key: keyBeside(path)}
	defer func() {
		if err != nil {
			d.closeFiles()
			err = fmt.Errorf("open database %s: %w", path, err)
		}
	}()
	// First, so that no lock file appears where there is no database.
	if fi, err := os.Stat(path); err != nil {
		return nil, bareError(err)
	} else if fi.Size() == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrForeign)
	}
	if err := d.takeLock(); err != nil {
		return nil, err
	}
	if _, err := sqlite.OFDLocking(true); err != nil {
		d.log.Warn("database locks are less robust", "cause", err)
	}
	if err := checkHeader(path); err != nil {
		return nil, err
	}
	if d.reader, err = d.openPool(readerDSN(path), Readers, checkConnection); err != nil {
		return nil, err
	}
	application, version, err := identity(ctx, d.reader)
	switch {
	case err != nil:
		return nil, err
	case application != applicationID:
		return nil, fmt.Errorf("%w: application id %#08x, expected %#08x", ErrForeign, uint32(application), applicationID)
	case version > schemaVersion:
		return nil, fmt.Errorf("%w: it has schema version %d, this program knows version %d", ErrNewer, version, schemaVersion)
	case version < schemaVersion:
		return nil, fmt.Errorf("%w: it has schema version %d, this program works with version %d; starting the recorder upgrades it",
			ErrOlder, version, schemaVersion)
	}
	return d, nil
}

// Load makes an inspected database ready for reading and for Mend. What comes
// before it (Integrity, SchemaDifferences) needs no sound schema.
func (d *DB) Load(ctx context.Context) error {
	err := d.r.prepare(ctx, d.reader)
	if err == nil {
		err = d.reader.QueryRowContext(ctx, `SELECT uuid FROM meta`).Scan(&d.uuid)
	}
	if err == nil {
		d.known, err = d.readKnown(ctx)
	}
	if err != nil {
		return fmt.Errorf("read database %s: %w", d.path, err)
	}
	return nil
}

func bareError(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	return err
}

// SchemaDifferences says what of the schema is not as in a new database,
// nothing when all is. How a statement is laid out and commented does not count.
func (d *DB) SchemaDifferences(ctx context.Context) ([]string, error) {
	read := func(p *sql.DB) (map[string]string, error) {
		objects := make(map[string]string)
		err := query(ctx, p, `SELECT type || ' ' || name, coalesce(sql, '') FROM sqlite_schema
			WHERE name NOT LIKE 'sqlite\_%' ESCAPE '\'`, nil, func(scan func(...any) error) error {
			var name, text string
			err := scan(&name, &text)
			objects[name] = asRead(text)
			return err
		})
		return objects, err
	}
	fresh, err := openPool(":memory:", 1, nil)
	if err != nil {
		return nil, err
	}
	defer fresh.Close()
	if _, err := fresh.ExecContext(ctx, schema); err != nil {
		return nil, err
	}
	want, err := read(fresh)
	if err != nil {
		return nil, err
	}
	got, err := read(d.reader)
	if err != nil {
		return nil, fmt.Errorf("read schema: %w", d.readError(err))
	}
	var out []string
	for name, text := range want {
		if g, ok := got[name]; !ok {
			out = append(out, name+" is missing")
		} else if g != text {
			out = append(out, name+" differs from that of a new database")
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			out = append(out, name+" is not of a new database")
		}
	}
	slices.Sort(out)
	return out, nil
}

// HistoryProblem says what is wrong with the rows of meta and version, "" when
// nothing is.
func (d *DB) HistoryProblem(ctx context.Context) (string, error) {
	var metas, last int64
	err := d.reader.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM meta), (SELECT coalesce(max(id), 0) FROM version)`).Scan(&metas, &last)
	switch {
	case err != nil:
		return "", fmt.Errorf("read history: %w", d.readError(err))
	case metas != 1:
		return fmt.Sprintf("%d rows in meta, expected 1", metas), nil
	case last != schemaVersion:
		return fmt.Sprintf("its history ends at schema version %d, it has version %d", last, schemaVersion), nil
	}
	return "", nil
}

// Incomplete calls f with each recording that lacks its row of integrity. A
// missing row of playback shows in Playback.
func (d *DB) Incomplete(ctx context.Context, f func(id int64)) error {
	err := query(ctx, d.reader, `SELECT composite_id FROM recording r WHERE NOT EXISTS
		(SELECT 1 FROM recording_integrity i WHERE i.composite_id = r.composite_id)`, nil, func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		f(id)
		return err
	})
	return d.readError(err)
}
