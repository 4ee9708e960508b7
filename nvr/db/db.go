// Package db is the recorder's SQLite file: its settings, its schema, and every
// statement that is run on it. It is the only place where SQL is written.
//
// It decides nothing. Which recordings are kept, when they are flushed and
// what becomes of files is the store's business; here a whole transaction
// either happens or leaves nothing. Sample data does not belong here either:
// the database is an index over the sample files, and they are the truth.
//
//	store ──► Flush, ApplyConfig, BeginOpen …  ──► one writing connection ─┐
//	                                                                       ├─ DATA/db, db-wal
//	web ────► store ──► Recordings, Playback … ──► reading connections ────┘
//
// Beside the database file stand its write-ahead log (-wal), the log's index
// (-shm), a lock file (.lock), which one process holds at a time, and db.key, with
// which passwords of cameras are encrypted (password.go). Nothing else may open
// any of them. The tables are described in schema.sql, the times
// in them in nvr/design/time.md.
package db

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
)

const (
	applicationID = 0x48466473 // "HFds"
	schemaVersion = 6

	// walSize is how much of the write-ahead log stays allocated, so that a
	// full disk cannot stop the deletes that would make room
	// (checkpoint.go begins at half of it).
	walSize  = 8 << 20
	pageSize = 4096
)

// Readers is how many reads go on at once; others wait.
const Readers = 4

//go:embed schema.sql
var schema string

// Errors of Open.
var (
	// ErrLocked: another process, or this one, has the database open.
	ErrLocked = errors.New("database is in use")
	// ErrRotten: the file is a database of this program, whose tables are whole, but
	// an index says something else, or a row refers to one that is missing.
	ErrRotten = errors.New("database with damaged indexes or references")

	// ErrForeign: the file is not a database of this program.
	ErrForeign = errors.New("not a database of this program")
	// ErrNewer: the schema has a version that this program does not know.
	ErrNewer = errors.New("database is newer than this program")
	// ErrOlder: the schema has a version from which no upgrade leads here.
	ErrOlder = errors.New("database is older than this program")
)

// ErrClosed is returned by every method after Close.
var ErrClosed = errors.New("database is closed")

// Config says how to open a database.
type Config struct {
	// Path of the database file. Its directory must exist and be writable.
	Path string

	// Log; nil logs nothing.
	Log *slog.Logger

	// Now stamps the creation and upgrades; nil is time.Now.
	Now func() time.Time

	// Progress, if set, is called while an upgrade works. It must not wait.
	Progress func()

	// Full, if set, is called when a transaction finds no room on the disk. When
	// it returns true there is more, and the transaction is tried again, once. It
	// must not use the database.
	Full func(err error) bool

	// NoCopy keeps none of the database as it was before an upgrade: it is a copy.
	NoCopy bool

	// VFS is the name of the one that SQLite reaches its files through, ""
	// for its own. Tests let it fail.
	VFS string

	// Tests look in at each point of an upgrade, and say how much room there is.
	at   func(point string)
	free func(dir string) (int64, error)
}

// DB is an open database. Its methods may be called from any goroutine;
// those that write wait for each other, those that read wait for nobody.
type DB struct {
	path string
	vfs  string
	log  *slog.Logger
	uuid string
	full func(error) bool
	key  *passwordKey

	lock   *os.File
	writer *sql.DB // one connection
	reader *sql.DB // read-only connections
	w      writeStatements
	r      readStatements

	// writing is held through every write transaction and what must agree
	// with it, so that known is what the database holds.
	writing sync.Mutex
	closed  atomic.Bool

	upgraded []Version // by this Open

	// poison is the error after which nothing may be written any more.
	poison atomic.Pointer[poisonError]

	mu    sync.RWMutex // guards known and uses; taken inside writing
	known known
	uses  map[int32]SessionUse // not written yet, by session

	usesDamaged sync.Once // that they cannot be written was logged
}

// Open opens the database, creates it when there is none, and upgrades it when
// it is of an older version (upgrade.go). It takes an exclusive lock on Path +
// ".lock" for as long as the database is open.
//
// Creation is one transaction: after a crash in it there is an empty file,
// which the next Open fills.
//
// After an error that is Poisoned nothing is closed, as Close does not.
func Open(ctx context.Context, cfg Config) (_ *DB, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Progress == nil {
		cfg.Progress = func() {}
	}
	if cfg.at == nil {
		cfg.at = func(string) {}
	}
	if cfg.free == nil {
		cfg.free = free
	}
	path, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", cfg.Path, err)
	}
	d := &DB{path: path, vfs: cfg.VFS, log: cfg.Log, full: cfg.Full, key: keyBeside(path)}
	defer func() {
		if err != nil {
			if !Poisoned(err) { // see Close
				d.closeFiles()
			}
			err = fmt.Errorf("open database %s: %w", path, err)
		}
	}()
	if err := d.takeLock(); err != nil {
		return nil, err
	}

	// POSIX locks on a file vanish when anything in the process closes a
	// descriptor of it; open file description locks do not. The switch is one
	// for the process and only works before its first lock.
	if _, err := sqlite.OFDLocking(true); err != nil {
		d.log.Warn("database locks are less robust", "cause", err)
	}

	version, err := d.probe(ctx)
	if err != nil {
		return nil, err
	}
	if version > 0 && version < schemaVersion {
		if err := d.prepareUpgrade(ctx, &cfg, version); err != nil {
			return nil, fmt.Errorf("upgrade from version %d: %w", version, err)
		}
	}
	if d.writer, err = d.openPool(writerDSN(path), 1, d.setUpWriter); err != nil {
		return nil, err
	}
	if version == 0 {
		// Before anything can be encrypted with it.
		if err := d.key.ensure(); err != nil {
			return nil, err
		}
		if err := d.create(ctx, cfg.Now()); err != nil {
			return nil, fmt.Errorf("create: %w", err)
		}
		version = schemaVersion
	}
	for ; version < schemaVersion; version++ {
		if err := d.upgrade(ctx, &cfg, version); err != nil {
			return nil, fmt.Errorf("upgrade from version %d to %d: %w", version, version+1, err)
		}
	}
	if d.reader, err = d.openPool(readerDSN(path), Readers, checkConnection); err != nil {
		return nil, err
	}
	if err := d.w.prepare(ctx, d.writer); err != nil {
		return nil, err
	}
	if err := d.r.prepare(ctx, d.reader); err != nil {
		return nil, err
	}
	if err := d.reader.QueryRowContext(ctx, `SELECT uuid FROM meta`).Scan(&d.uuid); err != nil {
		return nil, fmt.Errorf("read its uuid: %w", err)
	}
	if d.known, err = d.readKnown(ctx); err != nil {
		return nil, err
	}
	if err := d.warnOfPasswords(ctx); err != nil {
		return nil, err
	}
	d.reserveWAL()
	d.dropCopies(ctx, cfg.Now())
	return d, nil
}

// UUID returns the identity of the database, chosen at its creation.
func (d *DB) UUID() string { return d.uuid }

// Path returns the absolute path of the database file.
func (d *DB) Path() string { return d.path }

// Close waits for a running write transaction and closes the database. Calls
// after the first do nothing.
//
// After a write failed with an error that is Poisoned, Close does not let
// SQLite close the file: closing would run a checkpoint over pages of which
// nobody knows whether they are on the disk. It keeps the lock and returns
// that error; the process is expected to end.
func (d *DB) Close() error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if d.closed.Swap(true) {
		return nil
	}
	if p := d.poison.Load(); p != nil {
		return fmt.Errorf("close database %s: %w", d.path, p)
	}
	if d.writer != nil {
		// SQLite would do it without a word about what fails.
		if err := d.checkpoint(context.Background(), 0); err != nil {
			d.poison.Store(&poisonError{err})
			return fmt.Errorf("close database %s: %w", d.path, err)
		}
	}
	if err := d.closeFiles(); err != nil {
		return fmt.Errorf("close database %s: %w", d.path, err)
	}
	return nil
}

// closeFiles closes what Open got so far, the writer last of the connections:
// only the last one runs the closing checkpoint, and a reader cannot.
func (d *DB) closeFiles() error {
	var errs []error
	if d.reader != nil {
		errs = append(errs, d.reader.Close())
	}
	if d.writer != nil {
		errs = append(errs, d.closeWriter())
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close()) // and with it the lock
	}
	return errors.Join(errs...)
}

// closeWriter closes the writing connection and leaves the log as long as it is.
func (d *DB) closeWriter() error {
	// The last close would cut the log to nothing and give its blocks
	// back to a disk that may be full at the next start.
	_, err := d.writer.Exec(`PRAGMA journal_size_limit = -1`)
	return errors.Join(err, d.writer.Close())
}

// probe looks at the file through a read-only connection, which changes
// nothing in a file that is not ours, and returns its schema version, 0 when
// it has no content yet. It creates the file, so that it never was readable
// to others: it says who may sign in, and where the cameras are.
func (d *DB) probe(ctx context.Context) (version int, err error) {
	f, err := os.OpenFile(d.path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err == nil {
		err = errors.Join(f.Close(), syncDir(filepath.Dir(d.path)))
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return 0, err
	}
	if err := checkHeader(d.path); err != nil {
		return 0, err
	}
	var application, objects int
	look := func(mode string) error {
		p, err := d.openPool(dsn(d.path, "mode", mode, "_busy_timeout", "5000"), 1, nil)
		if err != nil {
			return err
		}
		defer p.Close()
		if application, version, err = identity(ctx, p); err == nil && application == 0 && version == 0 {
			err = p.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema`).Scan(&objects)
		}
		return err
	}
	err = look("ro")
	if sqliteCode(err) == codeReadonlyRollback && wasEmpty(d.path+"-journal") {
		// The process ended while it gave the empty file its log, and SQLite
		// must empty it again before it can be read.
		err = look("rw")
	}
	switch {
	case isCode(err, codeNotADB):
		return 0, ErrForeign
	case err != nil:
		return 0, err
	case application == 0 && version == 0 && objects == 0:
		return 0, nil
	case application != applicationID:
		return 0, fmt.Errorf("%w: application id %#08x, expected %#08x", ErrForeign, uint32(application), applicationID)
	case version > schemaVersion:
		return 0, fmt.Errorf("%w: it has schema version %d, this program knows version %d; start the newer program that made it", ErrNewer, version, schemaVersion)
	case version < 1:
		return 0, fmt.Errorf("%w: it has schema version %d, from which no upgrade leads to version %d", ErrOlder, version, schemaVersion)
	}
	return version, nil
}

// checkHeader refuses a file that is too short for SQLite to find strange: it
// would take it for an empty one and overwrite it. Nothing in the process has
// the file open yet, so closing it takes nobody's locks.
func checkHeader(path string) error {
	const magic = "SQLite format 3\x00"
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	header := make([]byte, len(magic))
	n, err := io.ReadFull(f, header)
	if n == 0 && err == io.EOF {
		return nil
	}
	if err != nil && err != io.ErrUnexpectedEOF {
		return err
	}
	if string(header) != magic {
		return ErrForeign
	}
	return nil
}

// wasEmpty reports whether a rollback journal is of a transaction that began
// with an empty database: it says so in its header.
func wasEmpty(journal string) bool {
	f, err := os.Open(journal)
	if err != nil {
		return false
	}
	defer f.Close()
	const pagesBefore = 16 // magic 8, records 4, nonce 4
	var pages [4]byte
	_, err = f.ReadAt(pages[:], pagesBefore)
	return err == nil && pages == [4]byte{}
}

func (d *DB) create(ctx context.Context, now time.Time) error {
	tx, err := d.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	uuid := newUUID()
	for _, s := range []struct {
		sql  string
		args []any
	}{
		{schema, nil},
		{`INSERT INTO meta (id, uuid) VALUES (1, ?)`, []any{uuid}},
		{`INSERT INTO version (id, unix_time, notes) VALUES (?, ?, 'created')`, []any{schemaVersion, now.Unix()}},
		{fmt.Sprintf(`PRAGMA application_id = %d`, applicationID), nil},
		{fmt.Sprintf(`PRAGMA user_version = %d`, schemaVersion), nil},
	} {
		if _, err := tx.ExecContext(ctx, s.sql, s.args...); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	d.log.Info("created database", "path", d.path, "uuid", uuid)
	return nil
}

// takeLock takes the lock that keeps other recorders away. The lock is on a
// file of its own, because closing any descriptor of the database file could
// drop the locks SQLite holds on that.
func (d *DB) takeLock() error {
	f, err := os.OpenFile(d.path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		holder := make([]byte, 20)
		if n, _ := f.Read(holder); n > 0 {
			return fmt.Errorf("%w: process %s holds %s", ErrLocked, holder[:n], f.Name())
		}
		return fmt.Errorf("%w: another process holds %s", ErrLocked, f.Name())
	}
	d.lock = f
	// The process id is for people; the lock is what counts.
	if err := f.Truncate(0); err == nil {
		f.WriteAt(fmt.Appendf(nil, "%d", os.Getpid()), 0)
	}
	return nil
}

// reserveWAL allocates the blocks of the write-ahead log without changing its
// size. Where the file system cannot, the log is allocated as it grows, and
// kept from then on.
func (d *DB) reserveWAL() {
	err := func() error {
		f, err := os.OpenFile(d.path+"-wal", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, walSize)
	}()
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		d.log.Warn("no room reserved for the write-ahead log", "path", d.path+"-wal", "cause", err)
	}
}

// dsn makes a data source name of SQLite's URI form, in which path may have
// any character, and may be relative: behind an authority, even an empty one, it
// may not.
func dsn(path string, parameters ...string) string {
	q := make(url.Values)
	for i := 0; i < len(parameters); i += 2 {
		q.Add(parameters[i], parameters[i+1])
	}
	return (&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: q.Encode()}).String()
}

// common are the settings of every connection.
func common(parameters ...string) []string {
	return append([]string{
		"_busy_timeout", "5000",
		"_foreign_keys", "1", // R50
		"_defensive", "1",
		"_dqs", "0", // "x" is never a string
		"_error_rc", "1", // no message of another call in an error
		"_pragma", "trusted_schema(0)",
		"_pragma", "cell_size_check(1)",
		"_pragma", "mmap_size(0)",
		"_pragma", "temp_store(memory)",
	}, parameters...)
}

func writerDSN(path string) string {
	return dsn(path, common(
		"_txlock", "immediate",
		"_pragma", fmt.Sprintf("page_size(%d)", pageSize),
		"_pragma", "journal_mode(wal)",
		"_pragma", "synchronous(extra)",
		"_pragma", fmt.Sprintf("journal_size_limit(%d)", walSize),
		"_pragma", "wal_autocheckpoint(0)", // checkpoint does it
	)...)
}

func readerDSN(path string) string {
	return dsn(path, common("mode", "ro", "_query_only", "1")...)
}

// connector runs setUp on each new connection of a pool. The pool may make a
// new one at any time, so what a connection needs cannot be done once.
type connector struct {
	driver.Connector
	setUp func(context.Context, driver.Conn) error
}

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil || c.setUp == nil {
		return conn, err
	}
	if err := c.setUp(ctx, conn); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// openPool opens a pool of connections that go through the database's VFS.
func (d *DB) openPool(dsn string, size int, setUp func(context.Context, driver.Conn) error) (*sql.DB, error) {
	if d.vfs != "" {
		dsn += "&vfs=" + d.vfs
	}
	return openPool(dsn, size, setUp)
}

func openPool(dsn string, size int, setUp func(context.Context, driver.Conn) error) (*sql.DB, error) {
	c, err := sqlite.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	p := sql.OpenDB(connector{c, setUp})
	p.SetMaxOpenConns(size)
	p.SetMaxIdleConns(size)
	return p, nil
}

// setUpWriter makes the log outlive the connection and checks the settings on
// which durability rests: a pragma that does not take effect is silent.
func (d *DB) setUpWriter(ctx context.Context, c driver.Conn) error {
	fc, ok := c.(sqlite.FileControl)
	if !ok {
		return errors.New("keep the write-ahead log: the driver has no file control")
	}
	if _, err := fc.FileControlPersistWAL("main", 1); err != nil {
		return fmt.Errorf("keep the write-ahead log: %w", err)
	}
	if err := checkPragma(ctx, c, "synchronous", int64(3)); err != nil {
		return err
	}
	return checkConnection(ctx, c)
}

func checkConnection(ctx context.Context, c driver.Conn) error {
	if err := checkPragma(ctx, c, "foreign_keys", int64(1)); err != nil {
		return err
	}
	return checkPragma(ctx, c, "journal_mode", "wal")
}

func checkPragma(ctx context.Context, c driver.Conn, name string, want driver.Value) error {
	rows, err := c.(driver.QueryerContext).QueryContext(ctx, "PRAGMA "+name, nil)
	if err != nil {
		return fmt.Errorf("read pragma %s: %w", name, err)
	}
	defer rows.Close()
	got := make([]driver.Value, 1)
	if err := rows.Next(got); err != nil {
		return fmt.Errorf("read pragma %s: %w", name, err)
	}
	if got[0] != want {
		return fmt.Errorf("pragma %s is %v, expected %v: the file system may not allow it", name, got[0], want)
	}
	return nil
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// newUUID makes a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
