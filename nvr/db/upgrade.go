package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// An older database is brought up to date when it is opened, one version at a
// time (storage.md, Upgrades). What holds:
//
//   - Each step is ONE transaction, with its row in version and the new
//     user_version. A process that ends at any instant leaves the old version
//     or the new one, and the next start goes on from there (R52, R56).
//   - Foreign keys stay enforced. A table goes only after all that refer to it
//     (R50, R51).
//   - Nothing is changed before the checks of prepareUpgrade have passed (R55),
//     and a copy of the old file was made, where there is room.
//   - The last step commits only when the schema is that of a fresh database
//     (R57), and none is begun when a rehearsal without rows ends otherwise.
//
// A step that needs files changed after it takes two versions: one that says
// that the files are being changed, on which the recorder does not start and
// from which the upgrade goes on, and one that says that they have been (R53).
// What is changed in files before a step must be right for the old version,
// too, and be found done by a second try (R54). There is one: overwrite.

// upgrade is a step from one version to the next. Its statements are part of
// history: they never change, whatever becomes of the schema.
type upgrade struct {
	notes string
	first func(*DB, context.Context, *Config) error // before the transaction, may be nil
	sql   string
	then  func(context.Context, *DB, *sql.Tx, func()) error // after sql, may be nil
	last  string                                            // after then
}

// upgrades returns the steps: the first makes version 2 of version 1.
func upgrades() []upgrade {
	return []upgrade{
		{notes: "gaps, spans, retention by days", sql: upgrade2, then: makeSpans},
		{notes: "users, sessions, tokens", sql: upgrade3},
		{notes: "passwords of cameras encrypted", sql: upgrade4, then: sealPasswords, last: dropPasswords},
		// On version 4 the upgrade goes on with this, however often it is killed in it.
		{notes: "passwords in clear overwritten", first: (*DB).overwrite},
		{notes: "deleted cameras go by and by, preferences of users", sql: upgrade6},
	}
}

// Version is a version that the database was brought to.
type Version struct {
	ID    int
	Notes string
	Took  time.Duration
}

// Upgraded returns the upgrades that Open made.
func (d *DB) Upgraded() []Version { return slices.Clone(d.upgraded) }

// SchemaVersion is the version of the schema that this program works with.
const SchemaVersion = schemaVersion

// leastRoom is what an upgrade asks for on the disk, beside a 64th of the
// database: its transaction stands in the log until it is taken over.
const leastRoom = 2 * walSize

// prepareUpgrade makes sure that an upgrade can be tried, and keeps a copy of
// the database as it was. The file is not changed, except that the log is
// taken over into it.
func (d *DB) prepareUpgrade(ctx context.Context, cfg *Config, version int) error {
	if err := d.fitForUpgrade(ctx, cfg, version); err != nil {
		return err
	}
	cfg.at("checked")
	// An older program may have written since an earlier try made it.
	if err := os.Remove(d.copyName(version)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	fi, err := os.Stat(d.path)
	if err != nil {
		return err
	}
	room, err := cfg.free(filepath.Dir(d.path))
	if err != nil {
		return fmt.Errorf("see how much room there is: %w", err)
	}
	need := leastRoom + fi.Size()/64
	if room < need {
		return fmt.Errorf("%d bytes are free beside the database, %d are needed; nothing was changed", room, need)
	}
	if cfg.NoCopy {
		return nil
	}
	if room-need < fi.Size() {
		d.log.Warn("no copy of the database is kept: there is no room for it", "bytes", fi.Size(), "free", room)
		return nil
	}
	if err := d.keepCopy(ctx, cfg, version); err != nil {
		return fmt.Errorf("keep a copy: %w", err)
	}
	return nil
}

// fitForUpgrade reads the tables that a step may have to read, through
// SQLite's own check, and takes the log over, so that the file is whole by
// itself. It leaves out recording_playback, which is nearly all of the file and
// which no step touches.
func (d *DB) fitForUpgrade(ctx context.Context, cfg *Config, version int) (err error) {
	p, err := d.openPool(writerDSN(d.path), 1, d.setUpWriter)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if err := rehearse(ctx, p, version); err != nil {
		return err
	}
	var tables []string
	err = query(ctx, p, `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT IN ('sqlite_sequence', 'recording_playback')`, nil,
		func(scan func(...any) error) error {
			var name string
			err := scan(&name)
			tables = append(tables, name)
			return err
		})
	if err != nil {
		return err
	}
	for _, name := range tables {
		cfg.Progress()
		var found string
		if err := p.QueryRowContext(ctx, `SELECT quick_check FROM pragma_quick_check(?)`, name).Scan(&found); err != nil {
			return fmt.Errorf("check table %s: %w", name, err)
		}
		if found != "ok" {
			return fmt.Errorf("table %s is damaged, nothing was changed: %s", name, found)
		}
	}
	return takeLog(ctx, p)
}

// takeLog takes the whole log over into the file.
func takeLog(ctx context.Context, p *sql.DB) error {
	var busy, inLog, taken int
	if err := p.QueryRowContext(ctx, `PRAGMA wal_checkpoint(FULL)`).Scan(&busy, &inLog, &taken); err != nil {
		return fmt.Errorf("take over the log: %w", err)
	}
	if busy != 0 || inLog != taken {
		return fmt.Errorf("take over the log: %d of its %d pages were (busy: %d)", taken, inLog, busy)
	}
	return nil
}

// rehearse makes the steps on a database in memory that has the schema and no
// rows, so that one whose end would not be as a fresh database is left as it is,
// and not after the first of several steps.
func rehearse(ctx context.Context, p *sql.DB, version int) error {
	mem, err := openPool(":memory:", 1, nil)
	if err != nil {
		return err
	}
	defer mem.Close()
	var list []string
	err = query(ctx, p, `SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY rowid`, nil,
		func(scan func(...any) error) error {
			var text string
			err := scan(&text)
			list = append(list, text)
			return err
		})
	if err != nil {
		return err
	}
	for _, step := range upgrades()[version-1:] {
		list = append(list, statements(step.sql+"\n"+step.last)...)
	}
	for _, text := range list {
		if _, err := mem.ExecContext(ctx, text); err != nil {
			return fmt.Errorf("%q: %w; nothing was changed", text, err)
		}
	}
	if err := likeFresh(ctx, mem); err != nil {
		return fmt.Errorf("%w; nothing was changed", err)
	}
	return nil
}

// copyName is where the copy of a version stands.
func (d *DB) copyName(version int) string { return fmt.Sprintf("%s.v%d", d.path, version) }

// copyKept is for how long. A rollback of the program to the version before is
// done within minutes, by people within days.
const copyKept = 7 * 24 * time.Hour

// keepCopy copies the file, to which no connection is open.
func (d *DB) keepCopy(ctx context.Context, cfg *Config, version int) (err error) {
	name := d.copyName(version)
	from, err := os.Open(d.path)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(name+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(to.Name()))
		}
	}()
	for {
		n, err := io.CopyN(to, from, 4<<20)
		cfg.Progress()
		if err == nil {
			err = ctx.Err()
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return errors.Join(err, to.Close())
		}
		if n == 0 {
			break
		}
	}
	if err := errors.Join(to.Sync(), to.Close()); err != nil {
		return err
	}
	cfg.at("copied")
	if err := os.Rename(to.Name(), name); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(name)); err != nil {
		return err
	}
	cfg.at("copy kept")
	d.log.Info("kept a copy of the database as it was", "path", name)
	return nil
}

// dropCopies removes copies that are no longer of use.
func (d *DB) dropCopies(ctx context.Context, now time.Time) {
	err := func() error {
		var since int64
		if err := d.reader.QueryRowContext(ctx, `SELECT unix_time FROM version WHERE id = ?`, schemaVersion).Scan(&since); err != nil {
			return err
		}
		old := now.Sub(time.Unix(since, 0)) > copyKept
		var errs []error
		for v := 1; v < schemaVersion; v++ {
			names := []string{d.copyName(v) + ".new"}
			if old {
				names = append(names, d.copyName(v))
			}
			for _, name := range names {
				if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
					errs = append(errs, err)
				}
			}
		}
		return errors.Join(errs...)
	}()
	if err != nil {
		d.log.Warn("remove old copies of the database", "cause", err)
	}
}

// upgrade makes one step.
func (d *DB) upgrade(ctx context.Context, cfg *Config, version int) error {
	began := time.Now()
	step := upgrades()[version-1]
	next := version + 1
	if step.first != nil {
		if err := step.first(d, ctx, cfg); err != nil {
			return err
		}
	}
	t, err := d.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer t.Rollback()
	cfg.at("begun")
	var found int
	if err := t.QueryRowContext(ctx, `SELECT user_version FROM pragma_user_version`).Scan(&found); err != nil {
		return err
	}
	if found != version {
		return fmt.Errorf("it has version %d", found)
	}
	run := func(text string) error {
		for _, s := range statements(text) {
			if _, err := t.ExecContext(ctx, s); err != nil {
				return fmt.Errorf("%q: %w", s, err)
			}
			cfg.Progress()
			cfg.at("statement")
		}
		return nil
	}
	if err := run(step.sql); err != nil {
		return err
	}
	if step.then != nil {
		if err := step.then(ctx, d, t, cfg.Progress); err != nil {
			return err
		}
		cfg.at("rows")
	}
	if err := run(step.last); err != nil {
		return err
	}
	if _, err := t.ExecContext(ctx, `INSERT INTO version (id, unix_time, notes) VALUES (?, ?, ?)`, next, cfg.Now().Unix(), step.notes); err != nil {
		return err
	}
	if _, err := t.ExecContext(ctx, fmt.Sprintf(`PRAGMA user_version = %d`, next)); err != nil {
		return err
	}
	if next == schemaVersion {
		if err := likeFresh(ctx, t); err != nil {
			return err
		}
	}
	cfg.at("before commit")
	if err := t.Commit(); err != nil {
		return err
	}
	cfg.at("committed")
	v := Version{next, step.notes, time.Since(began)}
	d.upgraded = append(d.upgraded, v)
	d.log.Info("upgraded database", "path", d.path, "version", v.ID, "notes", v.Notes, "took", v.Took.Round(time.Millisecond))
	return nil
}

// statements splits SQL at the semicolons that end a line.
func statements(text string) (list []string) {
	for s := range strings.SplitSeq(text+"\n", ";\n") {
		if s = strings.TrimSpace(comment.ReplaceAllString(s, "")); s != "" {
			list = append(list, s)
		}
	}
	return list
}

// likeFresh makes sure that the schema is that of a database that was created
// by this program.
func likeFresh(ctx context.Context, q interface {
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
}) error {
	fresh, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return err
	}
	defer fresh.Close()
	fresh.SetMaxOpenConns(1)
	if _, err := fresh.ExecContext(ctx, schema); err != nil {
		return err
	}
	want, err := schemaOf(ctx, fresh)
	if err != nil {
		return err
	}
	got, err := schemaOf(ctx, q)
	if err != nil {
		return err
	}
	for _, s := range want {
		if !slices.Contains(got, s) {
			return fmt.Errorf("the schema is not that of a fresh database: it lacks %q", s)
		}
	}
	for _, s := range got {
		if !slices.Contains(want, s) {
			return fmt.Errorf("the schema is not that of a fresh database: it has %q", s)
		}
	}
	return nil
}

var (
	comment = regexp.MustCompile(`(?m)--.*$`)
	space   = regexp.MustCompile(`\s+`)
	around  = regexp.MustCompile(` ?([(),]) ?`)
)

// asRead is SQL as far as SQLite reads it: without comments and with one kind
// of space. ALTER TABLE takes the text of a column as it is given, and comments
// of an older program stay.
func asRead(text string) string {
	text = space.ReplaceAllString(comment.ReplaceAllString(text, ""), " ")
	return around.ReplaceAllString(strings.TrimSpace(text), "$1")
}

// schemaOf is the text of each table and index, as SQLite reads it.
func schemaOf(ctx context.Context, q interface {
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
}) (list []string, err error) {
	err = query(ctx, q, `SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema ORDER BY type, name`, nil,
		func(scan func(...any) error) error {
			var typ, name, table, text string
			err := scan(&typ, &name, &table, &text)
			list = append(list, typ+" "+name+" of "+table+": "+asRead(text))
			return err
		})
	return list, err
}

// free is how much may be written to the disk of a directory, bytes.
func free(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * s.Bsize, nil
}
