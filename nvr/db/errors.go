package db

import (
	"errors"
	"fmt"
	"syscall"

	"modernc.org/sqlite"
)

// ErrNotFound: the object that a call names is not in the database.
var ErrNotFound = errors.New("not found")

// ErrExists: a unique name, UUID, path or type is taken.
var ErrExists = errors.New("exists already")

// RecordingError says which recording made Flush refuse a batch, so that the
// caller can set that one aside and flush the others.
type RecordingError struct {
	ID     int64  // composite id
	Op     string // insert, delete or discard
	Stream string // "front main", or "stream 3" when there is no such stream
	Err    error
}

func (e *RecordingError) Error() string {
	return fmt.Sprintf("%s recording %s of %s: %v", e.Op, idString(e.ID), e.Stream, e.Err)
}

func (e *RecordingError) Unwrap() error { return e.Err }

// Result codes of SQLite (https://sqlite.org/rescode.html).
const (
	codeIOErr      = 10
	codeFull       = 13
	codeConstraint = 19
	codeNotADB     = 26

	codeReadonlyRollback  = 8 | 3<<8
	codeIOErrRead         = codeIOErr | 1<<8
	codeIOErrShortRead    = codeIOErr | 2<<8
	codeIOErrCorruptFS    = codeIOErr | 33<<8 // a read that failed with EIO
	codeIOErrNoMem        = codeIOErr | 12<<8
	codeIOErrShmSize      = codeIOErr | 19<<8
	codeConstraintPrimary = codeConstraint | 6<<8
	codeConstraintUnique  = codeConstraint | 8<<8
)

// sqliteCode returns the extended result code of err, 0 when it is not
// SQLite's.
func sqliteCode(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()
	}
	return 0
}

// isCode reports whether err is of the primary code.
func isCode(err error, primary int) bool { return sqliteCode(err)&0xff == primary }

// Poisoned reports whether err, from a method that writes, means that the
// medium failed under a write or a sync. Then the page cache may hold what the
// disk does not, nothing more is written, and the process must end without a
// sync; whoever starts it again must drop the page cache first. A full disk
// is not among these errors, nor is a read that failed: it leaves nothing in doubt,
// the transaction is taken back in memory, and the next try may read well.
func Poisoned(err error) bool {
	if _, ok := errors.AsType[*poisonError](err); ok {
		return true
	}
	switch code := sqliteCode(err); code {
	case codeIOErrShmSize, // the log's index cannot grow: the disk is full
		codeIOErrNoMem:
		return false
	default:
		return code&0xff == codeIOErr && !readFailed(code)
	}
}

// Unread reports whether err, from a method that opens a database or reads, means
// that a read failed. Most of those that fail with EIO SQLite calls damage, see
// Damaged and Readable.
func Unread(err error) bool {
	code := sqliteCode(err)
	return readFailed(code) || code == codeIOErr || // of the header, under sqlite3_open
		errors.Is(err, syscall.EIO) // of what is read without SQLite
}

func readFailed(code int) bool {
	return code == codeIOErrRead || code == codeIOErrShortRead || code == codeIOErrCorruptFS
}

// Full reports whether err means that the disk of the database has no room. The
// transaction has left nothing behind then.
func Full(err error) bool {
	return isCode(err, codeFull) || sqliteCode(err) == codeIOErrShmSize || errors.Is(err, syscall.ENOSPC)
}

// poisonError is what every write returns after the first that was Poisoned.
type poisonError struct{ err error }

func (e *poisonError) Error() string { return "nothing is written after: " + e.err.Error() }
func (e *poisonError) Unwrap() error { return e.err }
