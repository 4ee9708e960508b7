package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// The parts of a GUID partition table that growing needs (UEFI 2.10, 5.3).
const (
	sector       = 512
	headerLBA    = 1
	entriesLBA   = 2
	entrySize    = 128
	entries      = 128
	arraySectors = entries * entrySize / sector
)

// header is a GPT header, in the first 92 bytes of its sector.
type header struct {
	Signature                             [8]byte
	Revision, Size, CRC, Reserved         uint32
	Self, Alternate, FirstUsable, LastUse uint64
	GUID                                  [16]byte
	Entries                               uint64
	Count, EntrySize, EntriesCRC          uint32
}

const headerSize = 92

func (h *header) bytes() []byte {
	b := make([]byte, sector)
	h.CRC = 0
	put := func() {
		// Encode fails only for types without a fixed size.
		if _, err := binary.Encode(b, binary.LittleEndian, h); err != nil {
			panic("disk: " + err.Error())
		}
	}
	put()
	h.CRC = crc32.ChecksumIEEE(b[:headerSize])
	put()
	return b
}

// readTable reads the header at LBA 1 and the entries that it names.
func readTable(r io.ReaderAt) (header, []byte, error) {
	var h header
	b := make([]byte, sector)
	if _, err := r.ReadAt(b, headerLBA*sector); err != nil {
		return h, nil, err
	}
	if _, err := binary.Decode(b, binary.LittleEndian, &h); err != nil {
		return h, nil, err
	}
	if string(h.Signature[:]) != "EFI PART" || h.Size != headerSize || h.Count != entries || h.EntrySize != entrySize || h.Self != headerLBA {
		return h, nil, errors.New("the first partition table is not one that the image brings")
	}
	sum := h.CRC
	binary.LittleEndian.PutUint32(b[16:], 0)
	if got := crc32.ChecksumIEEE(b[:headerSize]); got != sum {
		return h, nil, fmt.Errorf("the first partition table has checksum %08x, and says %08x", got, sum)
	}
	array := make([]byte, entries*entrySize)
	if h.Entries > 1<<50 {
		return h, nil, fmt.Errorf("the partition table names sector %d for its entries", h.Entries)
	}
	if _, err := r.ReadAt(array, int64(h.Entries)*sector); err != nil {
		return h, nil, err
	}
	if got := crc32.ChecksumIEEE(array); got != h.EntriesCRC {
		return h, nil, fmt.Errorf("the entries of the partition table have checksum %08x, expected %08x", got, h.EntriesCRC)
	}
	return h, array, nil
}

// table is what a disk has to offer for its partition table to be rewritten.
type table interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// grow makes a partition, which must be the last on the disk, end where the
// disk ends, and puts the second partition table there. It returns the
// partition's place, in sectors, and does nothing when all is so already.
//
// Each sector is written whole or not at all, in any order between two syncs.
// So the first header, one sector, decides: it names the old entries, then the
// new ones at the end of the disk, then their copy at their usual place. A power
// cut at any moment leaves a first table whose checksums hold.
func grow(d table, sectors uint64, number int) (start, length uint64, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("grow partition %d: %w", number, err)
		}
	}()
	h, array, err := readTable(d)
	if err != nil {
		return 0, 0, err
	}
	if sectors < 2*(arraySectors+2) {
		return 0, 0, fmt.Errorf("the disk has only %d sectors", sectors)
	}
	last, lastUsable := sectors-1, sectors-arraySectors-2
	entry := array[(number-1)*entrySize : number*entrySize]
	start = binary.LittleEndian.Uint64(entry[32:])
	end := binary.LittleEndian.Uint64(entry[40:])
	if start == 0 || bytes.Equal(entry[:16], make([]byte, 16)) {
		return 0, 0, errors.New("there is no such partition")
	}
	for i := range entries {
		if first := binary.LittleEndian.Uint64(array[i*entrySize+32:]); i != number-1 && first > start {
			return 0, 0, fmt.Errorf("partition %d lies behind it", i+1)
		}
	}
	if start > lastUsable || end > lastUsable {
		return 0, 0, fmt.Errorf("it ends at sector %d, the disk at %d: is the image larger than the disk?", end, last)
	}
	length = lastUsable - start + 1
	if end == lastUsable && h.Alternate == last && h.LastUse == lastUsable && h.Entries == entriesLBA {
		return start, length, nil
	}

	binary.LittleEndian.PutUint64(entry[40:], lastUsable)
	h.Alternate, h.LastUse = last, lastUsable
	h.EntriesCRC = crc32.ChecksumIEEE(array)
	second := h
	second.Self, second.Alternate, second.Entries = last, headerLBA, lastUsable+1
	h.Entries = second.Entries
	steps := []struct {
		data []byte
		lba  uint64
	}{
		{array, second.Entries},
		{second.bytes(), last},
		{h.bytes(), headerLBA}, // from here on the partition is large
		{array, entriesLBA},
	}
	h.Entries = entriesLBA
	steps = append(steps, struct {
		data []byte
		lba  uint64
	}{h.bytes(), headerLBA})
	for _, s := range steps {
		if _, err := d.WriteAt(s.data, int64(s.lba)*sector); err != nil {
			return 0, 0, err
		}
		if err := d.Sync(); err != nil {
			return 0, 0, err
		}
	}
	return start, length, nil
}
