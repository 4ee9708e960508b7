package sampledir

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// Meta says whose directory this is. It stands in the file "meta", in two
// slots that are written in turn, each with its own CRC, so that a power cut
// during a write leaves the slot before it. The file has its full size from
// the first write on and is only ever overwritten in place: it can be written
// on a full disk.
//
//	slot 0 at byte 0, slot 1 at byte 4096, each 512 bytes, big endian:
//	 0  magic "HFDIRv1\0"
//	 8  sequence u64            the higher one counts
//	16  database uuid 16
//	32  directory uuid 16
//	48  last complete open i32  the last open known to have finished starting
//	52  open in progress i32    the open that is, or was, starting
//	56  zero
//	508 CRC-32C of bytes 0 to 507
type Meta struct {
	DatabaseUUID   string
	DirUUID        string
	CompleteOpen   int32 // 0: none
	InProgressOpen int32 // 0: none
}

const (
	metaName  = "meta"
	slotSize  = 512
	slotSpace = 4096
	metaSize  = slotSpace + slotSize
	metaMagic = "HFDIRv1\x00"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ReadMeta reads the meta file; fs.ErrNotExist when there is none.
func (d *Disk) ReadMeta() (Meta, error) {
	m, _, err := d.readMeta()
	return m, err
}

func (d *Disk) readMeta() (Meta, uint64, error) {
	f, err := d.root.Open(metaName)
	if err != nil {
		return Meta{}, 0, fmt.Errorf("open %s/%s: %w", d.path, metaName, bare(err))
	}
	defer f.Close()
	var best Meta
	var seq uint64
	var b [slotSize]byte
	for i := range int64(2) {
		if _, err := f.ReadAt(b[:], i*slotSpace); err != nil {
			if err == io.EOF {
				continue
			}
			return Meta{}, 0, fmt.Errorf("read %s/%s: %w", d.path, metaName, bare(err))
		}
		if m, s, ok := decodeMeta(b[:]); ok && s > seq {
			best, seq = m, s
		}
	}
	if seq == 0 {
		return Meta{}, 0, fmt.Errorf("%w: %s/%s holds no valid slot", ErrMeta, d.path, metaName)
	}
	return best, seq, nil
}

// WriteMeta replaces the meta file durably.
func (d *Disk) WriteMeta(m Meta) error {
	_, seq, err := d.readMeta()
	created := err != nil
	if created {
		if _, serr := d.root.Stat(metaName); serr == nil {
			// There is one without a valid slot. Beside other files it is not
			// ours to overwrite; alone, it is what a power cut left of the
			// very first write.
			names, ferr := d.Foreign()
			if ferr != nil || len(names) > 0 {
				return err
			}
		}
	}
	b, err := encodeMeta(m, seq+1)
	if err != nil {
		return err
	}
	f, err := d.root.OpenFile(metaName, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("create %s/%s: %w", d.path, metaName, bare(err))
	}
	defer f.Close()
	if created {
		if err := f.Truncate(metaSize); err != nil {
			return fmt.Errorf("write %s/%s: %w", d.path, metaName, bare(err))
		}
		// Both slots, so that no later write has to allocate a block.
		if _, err := f.WriteAt(make([]byte, metaSize), 0); err != nil {
			return fmt.Errorf("write %s/%s: %w", d.path, metaName, bare(err))
		}
	}
	if _, err := f.WriteAt(b, int64((seq+1)%2)*slotSpace); err != nil {
		return fmt.Errorf("write %s/%s: %w", d.path, metaName, bare(err))
	}
	err = f.Sync()
	if err != nil {
		err = fmt.Errorf("sync %s/%s: %w", d.path, metaName, bare(err))
	} else if created {
		err = d.Sync()
	}
	if err != nil && created {
		// The next call would find the file, and not ask for its entry.
		return fmt.Errorf("%w: %w", ErrUnsynced, err)
	}
	return err
}

// Foreign returns the first few names in the directory that are not a new
// file system's own: a directory to be taken must have none.
func (d *Disk) Foreign() ([]string, error) {
	return d.names(func(name string) bool { return name != "lost+found" && name != metaName })
}

// names returns the first few names in the directory that count.
func (d *Disk) names(counts func(string) bool) ([]string, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("list sample directory %s: %w", d.path, bare(err))
	}
	defer f.Close()
	var out []string
	for len(out) < 3 {
		names, err := f.Readdirnames(8)
		for _, n := range names {
			if counts(n) && len(out) < 3 {
				out = append(out, n)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("list sample directory %s: %w", d.path, bare(err))
		}
	}
	return out, nil
}

// Retire makes a directory that holds no sample file one that anybody may take:
// copies of the database go, and then what says whose it was, durably. It fails
// when there is something else, or when it says that it is another one than uuid.
func (d *Disk) Retire(uuid string) error {
	if m, err := d.ReadMeta(); err == nil && m.DirUUID != uuid {
		return fmt.Errorf("sample directory %s is %s, and not %s any more", d.path, m.DirUUID, uuid)
	}
	names, err := d.names(func(name string) bool { return !ours(name) })
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return fmt.Errorf("sample directory %s holds %s", d.path, strings.Join(names, ", "))
	}
	for _, name := range append(slices.Clone(backupNames), BackupTemp, metaName) {
		if name == metaName { // a copy without it would be of nobody
			if err := d.Sync(); err != nil {
				return err
			}
		}
		if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s/%s: %w", d.path, name, bare(err))
		}
	}
	return d.Sync()
}

func encodeMeta(m Meta, seq uint64) ([]byte, error) {
	b := make([]byte, slotSize)
	copy(b, metaMagic)
	binary.BigEndian.PutUint64(b[8:], seq)
	if err := putUUID(b[16:32], m.DatabaseUUID); err != nil {
		return nil, err
	}
	if err := putUUID(b[32:48], m.DirUUID); err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint32(b[48:], uint32(m.CompleteOpen))
	binary.BigEndian.PutUint32(b[52:], uint32(m.InProgressOpen))
	binary.BigEndian.PutUint32(b[508:], crc32.Checksum(b[:508], castagnoli))
	return b, nil
}

func decodeMeta(b []byte) (Meta, uint64, bool) {
	if string(b[:8]) != metaMagic || crc32.Checksum(b[:508], castagnoli) != binary.BigEndian.Uint32(b[508:]) {
		return Meta{}, 0, false
	}
	return Meta{
		DatabaseUUID:   uuidText(b[16:32]),
		DirUUID:        uuidText(b[32:48]),
		CompleteOpen:   int32(binary.BigEndian.Uint32(b[48:])),
		InProgressOpen: int32(binary.BigEndian.Uint32(b[52:])),
	}, binary.BigEndian.Uint64(b[8:]), true
}

func putUUID(dst []byte, s string) error {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != 16 {
		return fmt.Errorf("%w: %q is not a uuid", ErrMeta, s)
	}
	copy(dst, b)
	return nil
}

func uuidText(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
