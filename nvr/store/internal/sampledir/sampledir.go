// Package sampledir is one sample directory: a flat folder on one disk that
// holds the sample files, one for each recording, and a meta file that says
// whose they are.
//
// It knows names, bytes and what must be called to make them durable. It does
// not know what the bytes mean, which files ought to exist, or when to retry:
// that is the store's.
//
// The properties of a file system that the recorder relies on are P1 to P7 of
// nvr/design/storage.md.
package sampledir

import (
	"errors"
	"fmt"
	"io"
)

// Dir is a sample directory. One goroutine of the store creates, appends,
// syncs and unlinks; Open may be called from any goroutine, also when the disk
// takes no writes any more.
type Dir interface {
	// Create makes the file of a recording for appending. It fails with
	// fs.ErrExist rather than touch a file that is there.
	Create(id int64) (File, error)

	// Open opens the file of a recording to read it. fs.ErrNotExist when there
	// is none.
	Open(id int64) (File, error)

	// Recover opens the file of a recording to read it and to cut it.
	Recover(id int64) (File, error)

	// Unlink removes the file of a recording. Durable after Sync.
	Unlink(id int64) error

	// SyncFiles makes the bytes and sizes of several files of the directory
	// durable, with as few flushes of the disk as it can. It returns an error
	// for each file, nil for those that are durable; what is said of File.Sync
	// holds for the others. entries reports that it made creations and removals
	// durable with them, as a Sync that succeeded does; else that is left to do.
	SyncFiles(files []File) (errs []error, entries bool)

	// Sync makes creations and removals durable (P2). After a failure nobody
	// can know which ones survived, whatever a later Sync says; only a process
	// that starts with an empty page cache sees them.
	Sync() error

	// ReadMeta says whose directory this is: fs.ErrNotExist when it was never
	// said, ErrMeta when that cannot be read.
	ReadMeta() (Meta, error)

	// WriteMeta says durably whose directory this is. A power cut during it
	// leaves what was said before. ErrUnsynced: the meta file is new, and may
	// not be on the disk, also when a later call succeeds.
	WriteMeta(Meta) error

	// Foreign returns the first few names in the directory that are neither
	// the meta file nor a new file system's own: a directory to be taken must
	// have none.
	Foreign() ([]string, error)

	// Space says how much room the disk has.
	Space() (Space, error)

	// Moved reports whether the path at which the directory was opened leads
	// elsewhere now, or nowhere: its disk was taken away, or mounted again.
	Moved() bool

	// Close lets go of the directory. Files stay open.
	Close() error
}

// File is one sample file. It is not safe for concurrent use, except that
// ReadAt may be called beside Append for bytes already appended.
type File interface {
	io.ReaderAt

	// Append writes all buffers at offset at, which is where the file ends,
	// and returns how many bytes got there; a caller goes on from that byte
	// when it tries again.
	Append(at int64, bufs ...[]byte) (int64, error)

	// Sync makes the file's bytes and size durable (P1). A failed Sync must
	// not be called again on the same file: the kernel may have dropped the
	// bytes and will then report success.
	Sync() error

	// Truncate cuts the file. Durable after Sync.
	Truncate(size int64) error

	// Size is the length of the file now.
	Size() (int64, error)

	Close() error
}

// Space is the room on the disk of a directory, in bytes.
type Space struct {
	Total     int64
	Free      int64 // what may still be written
	BlockSize int64 // a file takes a whole number of these

	// Disk is the same for directories that share their room. 0: not known.
	Disk uint64
}

// Name is the file name of a recording: its composite id in hexadecimal.
func Name(id int64) string { return fmt.Sprintf("%016x.mp4", uint64(id)) }

// ErrUnsynced is the kind of an error of a sync behind which the page cache may
// show what is not on the disk: a second sync would report success (storage.md
// rule 14).
var ErrUnsynced = errors.New("what is on the disk is not known")

// ErrMeta is the kind of every error about the identity of a directory.
var ErrMeta = errors.New("sample directory identity")
