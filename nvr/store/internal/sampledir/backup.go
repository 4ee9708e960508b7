package sampledir

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// A directory keeps two generations of a copy of the database, the newer one
// first. Each is the copied file with a trailer behind it, big endian:
//
//	 0  magic "HFBKv1\0\0"
//	 8  size of the copied file u64
//	16  when it was made u64    90 kHz
//	24  last open in it u32
//	28  database uuid 16
//	44  CRC-32C of the copied file
//	48  CRC-32C of bytes 0 to 47
//
// So bit rot is found before a copy is trusted, and which copy is the newest is
// known without reading them. SQLite reads no further than the size that the
// file's own header says.
var backupNames = []string{"db.backup-0", "db.backup-1"}

// BackupTemp is the name under which a copy is made.
const BackupTemp = "db.backup-new"

const (
	trailerSize = 52
	backupMagic = "HFBKv1\x00\x00"
)

// Backup is one generation.
type Backup struct {
	Name         string
	Size         int64 // of the database
	Time         int64 // 90 kHz
	Open         int32
	DatabaseUUID string

	crc uint32
}

// Backups returns the generations that are whole as far as their trailers say,
// the newer one first.
func (d *Disk) Backups() []Backup {
	var out []Backup
	for _, name := range backupNames {
		if b, err := d.readTrailer(name); err == nil {
			out = append(out, b)
		}
	}
	return out
}

func (d *Disk) readTrailer(name string) (Backup, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return Backup{}, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return Backup{}, err
	}
	var t [trailerSize]byte
	if _, err := f.ReadAt(t[:], fi.Size()-trailerSize); err != nil {
		return Backup{}, err
	}
	b := Backup{
		Name: name, Size: int64(binary.BigEndian.Uint64(t[8:])), Time: int64(binary.BigEndian.Uint64(t[16:])),
		Open: int32(binary.BigEndian.Uint32(t[24:])), DatabaseUUID: uuidText(t[28:44]), crc: binary.BigEndian.Uint32(t[44:]),
	}
	if string(t[:8]) != backupMagic || crc32.Checksum(t[:48], castagnoli) != binary.BigEndian.Uint32(t[48:]) ||
		b.Size != fi.Size()-trailerSize {
		return Backup{}, fmt.Errorf("backup %s/%s has no valid trailer", d.path, name)
	}
	return b, nil
}

// BeginBackup makes an empty file for a copy, in the place of what an earlier
// try left, and returns its path.
func (d *Disk) BeginBackup() (path string, err error) {
	if err := d.DropBackup(); err != nil {
		return "", err
	}
	f, err := d.root.OpenFile(BackupTemp, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return "", fmt.Errorf("create %s/%s: %w", d.path, BackupTemp, bare(err))
	}
	return filepath.Join(d.path, BackupTemp), f.Close()
}

// DropBackup removes a copy that was begun.
func (d *Disk) DropBackup() error {
	if err := d.root.Remove(BackupTemp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s/%s: %w", d.path, BackupTemp, bare(err))
	}
	return nil
}

// KeepBackup makes the copy durable and the newer generation; the one before
// becomes the older, and the oldest goes. A power cut in between leaves one
// generation at least. progress is called for each piece read.
func (d *Disk) KeepBackup(b Backup, progress func() error) error {
	fail := func(op string, err error) error { return fmt.Errorf("%s %s/%s: %w", op, d.path, BackupTemp, bare(err)) }
	f, err := d.root.OpenFile(BackupTemp, os.O_RDWR, 0)
	if err != nil {
		return fail("open", err)
	}
	defer f.Close()
	if b.Size, b.crc, err = pour(io.Discard, f, -1, progress); err != nil {
		return fail("read", err)
	}
	t := make([]byte, trailerSize)
	copy(t, backupMagic)
	binary.BigEndian.PutUint64(t[8:], uint64(b.Size))
	binary.BigEndian.PutUint64(t[16:], uint64(b.Time))
	binary.BigEndian.PutUint32(t[24:], uint32(b.Open))
	if err := putUUID(t[28:44], b.DatabaseUUID); err != nil {
		return err
	}
	binary.BigEndian.PutUint32(t[44:], b.crc)
	binary.BigEndian.PutUint32(t[48:], crc32.Checksum(t[:48], castagnoli))
	if _, err := f.WriteAt(t, b.Size); err != nil {
		return fail("write", err)
	}
	if err := f.Sync(); err != nil {
		return fail("sync", err)
	}
	// A newer generation that is damaged does not push out an older one.
	if _, err := d.readTrailer(backupNames[0]); err == nil {
		if err := d.root.Rename(backupNames[0], backupNames[1]); err != nil {
			return fmt.Errorf("rename %s/%s: %w", d.path, backupNames[0], bare(err))
		}
	}
	if err := d.root.Rename(BackupTemp, backupNames[0]); err != nil {
		return fmt.Errorf("rename %s/%s: %w", d.path, BackupTemp, bare(err))
	}
	return d.Sync()
}

// ReadBackup writes the copied database to w, and fails at its end when it is
// not what was copied.
func (d *Disk) ReadBackup(b Backup, w io.Writer, progress func() error) error {
	f, err := d.root.Open(b.Name)
	if err != nil {
		return fmt.Errorf("open %s/%s: %w", d.path, b.Name, bare(err))
	}
	defer f.Close()
	n, crc, err := pour(w, f, b.Size, progress)
	switch {
	case err != nil:
		return fmt.Errorf("copy %s/%s: %w", d.path, b.Name, bare(err))
	case n != b.Size:
		return fmt.Errorf("copy %s/%s: %d bytes, expected %d", d.path, b.Name, n, b.Size)
	case crc != b.crc:
		return fmt.Errorf("copy %s/%s: checksum is %08x, expected %08x", d.path, b.Name, crc, b.crc)
	}
	return nil
}

// pour copies n bytes, all when n is negative.
func pour(w io.Writer, r io.Reader, n int64, progress func() error) (done int64, crc uint32, err error) {
	buf := make([]byte, 1<<20)
	for n < 0 || done < n {
		b := buf
		if n >= 0 {
			b = b[:min(int64(len(b)), n-done)]
		}
		got, rerr := r.Read(b)
		crc = crc32.Update(crc, castagnoli, b[:got])
		if _, err := w.Write(b[:got]); err != nil {
			return done, crc, err
		}
		done += int64(got)
		if rerr == io.EOF {
			break
		}
		if rerr != nil {
			return done, crc, rerr
		}
		if err := progress(); err != nil {
			return done, crc, err
		}
	}
	return done, crc, nil
}
