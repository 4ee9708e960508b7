package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/filesystem/ext4"
)

// Marker begins the data partition of an image that was never started. It is
// padded with zeros to the end of its sector and beyond.
const Marker = "HOLDFAST FRESH PERM 1\n"

// fresh reports whether the partition is as the image brought it. Only its
// first sector counts: formatting writes the others first.
func fresh(r interface {
	ReadAt([]byte, int64) (int, error)
}) (bool, error) {
	got := make([]byte, sector)
	if _, err := r.ReadAt(got, 0); err != nil {
		return false, fmt.Errorf("read marker: %w", err)
	}
	want := make([]byte, sector)
	copy(want, Marker)
	return bytes.Equal(got, want), nil
}

// Superblock of ext4: where it is, and the fields that are set in it.
const (
	superblock     = 1024 // offset and length
	magicAt        = 0x38
	errorsAt       = 0x3c
	roCompatAt     = 0x64
	checksumAt     = 0x3fc
	metadataCsum   = 0x400
	remountOnError = 2
)

// inodeRatio is how many bytes of disk there are for each file. Recordings are
// large, and the usual ratio would write tens of gigabytes of inodes to a large
// disk. On a small one so few would not fill a block group.
func inodeRatio(size int64) int64 {
	if size < 1<<30 {
		return 64 << 10
	}
	return 1 << 20
}

// format makes an ext4 file system of size bytes on the partition.
//
// The marker goes last: everything but the first sector is written and synced
// before it. So after a power cut at any moment there is the marker, and
// formatting begins anew, or the whole file system.
//
// progress is called before each of very many writes. Its error ends the work.
func format(f table, size int64, label string, progress func() error) error {
	s := &storage{table: f, progress: progress}
	params := ext4.Params{VolumeName: label, InodeRatio: inodeRatio(size), Features: []ext4.FeatureOpt{
		// A sample directory holds tens of thousands of files.
		ext4.WithFeatureDirectoryIndices(true),
	}}
	if _, err := ext4.Create(s, size, 0, 0, &params); err != nil {
		return fmt.Errorf("format: %w", err)
	}
	sb := s.first[superblock : 2*superblock]
	if binary.LittleEndian.Uint16(sb[magicAt:]) != 0xef53 {
		return errors.New("format: there is no superblock after all")
	}
	// An error makes the file system read-only wherever it is mounted.
	binary.LittleEndian.PutUint16(sb[errorsAt:], remountOnError)
	if binary.LittleEndian.Uint32(sb[roCompatAt:])&metadataCsum != 0 {
		sum := ^crc32.Update(0, crc32.MakeTable(crc32.Castagnoli), sb[:checksumAt])
		binary.LittleEndian.PutUint32(sb[checksumAt:], sum)
	}
	for _, step := range []struct {
		data []byte
		at   int64
	}{
		{s.first[sector:], sector},
		{make([]byte, sector), 0}, // the marker
	} {
		if err := progress(); err != nil {
			return fmt.Errorf("format: %w", err)
		}
		if _, err := f.WriteAt(step.data, step.at); err != nil {
			return fmt.Errorf("format: %w", err)
		}
		if err := f.Sync(); err != nil {
			return fmt.Errorf("format: %w", err)
		}
	}
	return nil
}

// storage is the partition as go-diskfs takes it. It holds back the first
// 4 KiB.
type storage struct {
	table
	first    [4096]byte
	progress func() error
}

func (s *storage) WriteAt(b []byte, at int64) (int, error) {
	if err := s.progress(); err != nil {
		return 0, err
	}
	n := 0
	if at < int64(len(s.first)) {
		n = copy(s.first[at:], b)
		b, at = b[n:], at+int64(n)
	}
	if len(b) == 0 {
		return n, nil
	}
	m, err := s.table.WriteAt(b, at)
	return n + m, err
}

func (s *storage) ReadAt(b []byte, at int64) (int, error) {
	n := 0
	if at < int64(len(s.first)) {
		n = copy(b, s.first[at:])
		b, at = b[n:], at+int64(n)
	}
	if len(b) == 0 {
		return n, nil
	}
	m, err := s.table.ReadAt(b, at)
	return n + m, err
}

func (s *storage) Writable() (backend.WritableFile, error) { return s, nil }
func (s *storage) Path() string                            { return "" }
func (s *storage) Close() error                            { return nil }

var errNotAFile = errors.New("disk: a partition is only read and written at offsets")

func (s *storage) Sys() (*os.File, error)         { return nil, errNotAFile }
func (s *storage) Stat() (fs.FileInfo, error)     { return nil, errNotAFile }
func (s *storage) Read([]byte) (int, error)       { return 0, errNotAFile }
func (s *storage) Seek(int64, int) (int64, error) { return 0, errNotAFile }
