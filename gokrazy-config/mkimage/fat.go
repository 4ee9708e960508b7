package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// bootFAT is the boot file system, a FAT16. It only finds and overwrites;
// nothing moves, since the MBR of a PC knows where the kernel lies.
type bootFAT struct {
	b       []byte       // the whole file system, changed in place
	table   int          // where the table of clusters begins
	rootDir int          // where the top folder begins; it ends where data begin
	data    int          // where cluster 2 begins
	cluster int          // bytes
	seen    map[int]bool // folders settled, by their clusters
}

// fatSize reads from the first sector of a FAT how many bytes it spans. gok
// writes the next partition over what is too long, the sector stays.
func fatSize(image io.ReaderAt, start int64) (int64, error) {
	sector := make([]byte, 512)
	if _, err := image.ReadAt(sector, start); err != nil {
		return 0, fmt.Errorf("read boot file system: %w", err)
	}
	if !bytes.Equal(sector[510:], []byte{0x55, 0xAA}) || !bytes.Equal(sector[54:59], []byte("FAT16")) {
		return 0, fmt.Errorf("read boot file system: no FAT16 at byte %d", start)
	}
	if small := binary.LittleEndian.Uint16(sector[19:]); small != 0 {
		return int64(small) * 512, nil
	}
	return int64(binary.LittleEndian.Uint32(sector[32:])) * 512, nil
}

func openFAT(b []byte) (*bootFAT, error) {
	if len(b) < 512 || binary.LittleEndian.Uint16(b[11:]) != 512 || b[13] == 0 {
		return nil, fmt.Errorf("boot file system: not of 512-byte sectors")
	}
	reserved := int(binary.LittleEndian.Uint16(b[14:]))
	fats := int(b[16])
	f := &bootFAT{b: b, table: reserved * 512, cluster: int(b[13]) * 512}
	f.rootDir = (reserved + fats*int(binary.LittleEndian.Uint16(b[22:]))) * 512
	f.data = f.rootDir + (int(binary.LittleEndian.Uint16(b[17:]))*32+511)/512*512
	if f.data > len(b) {
		return nil, fmt.Errorf("boot file system: data begin at %d of %d bytes", f.data, len(b))
	}
	return f, nil
}

// settle makes each file and folder date from when, and the signatures of the
// EEPROM's files too, which carry the time of the file on the host.
func (f *bootFAT) settle(when time.Time) error {
	f.seen = map[int]bool{}
	return f.entries(f.b[f.rootDir:f.data], when.UTC())
}

// folder settles the entries of the folder that begins at a cluster.
func (f *bootFAT) folder(cluster int, when time.Time) error {
	for {
		if f.seen[cluster] {
			return fmt.Errorf("boot file system: cluster %d is of two folders", cluster)
		}
		f.seen[cluster] = true
		b, err := f.at(cluster, f.cluster)
		if err != nil {
			return err
		}
		if err := f.entries(b, when); err != nil {
			return err
		}
		next := f.table + 2*cluster
		if next+2 > f.rootDir {
			return fmt.Errorf("boot file system: cluster %d is not in the table", cluster)
		}
		const last = 0xFFF8
		if cluster = int(binary.LittleEndian.Uint16(f.b[next:])); cluster >= last {
			return nil
		}
	}
}

// at returns the first n bytes of a cluster and of those behind it.
func (f *bootFAT) at(cluster, n int) ([]byte, error) {
	start := f.data + (cluster-2)*f.cluster
	if cluster < 2 || start+n > len(f.b) {
		return nil, fmt.Errorf("boot file system: cluster %d, %d bytes: beyond its %d bytes", cluster, n, len(f.b))
	}
	return f.b[start:][:n], nil
}

func (f *bootFAT) entries(b []byte, when time.Time) error {
	day := uint16(when.Year()-1980)<<9 | uint16(when.Month())<<5 | uint16(when.Day())
	clock := uint16(when.Hour())<<11 | uint16(when.Minute())<<5 | uint16(when.Second()/2)
	for ; len(b) >= 32; b = b[32:] {
		const longName, label, folder = 0x0F, 0x08, 0x10
		e := b[:32]
		switch {
		case e[0] == 0:
			return nil
		case e[0] == 0xE5, e[11] == longName:
			continue
		}
		binary.LittleEndian.PutUint16(e[22:], clock)
		binary.LittleEndian.PutUint16(e[24:], day)
		cluster := int(binary.LittleEndian.Uint16(e[26:]))
		size := int(binary.LittleEndian.Uint32(e[28:]))
		switch {
		case e[0] == '.', e[11]&label != 0, cluster == 0:
		case e[11]&folder != 0:
			if err := f.folder(cluster, when); err != nil {
				return err
			}
		case bytes.EqualFold(e[8:11], []byte("sig")):
			sig, err := f.at(cluster, size)
			if err != nil {
				return err
			}
			if err := settleSignature(sig, when); err != nil {
				return err
			}
		}
	}
	return nil
}

// settleSignature overwrites the time in an EEPROM signature, two lines of which
// the second is "ts: SECONDS". The bootloader compares the first line.
func settleSignature(sig []byte, when time.Time) error {
	_, after, ok := bytes.Cut(sig, []byte("\nts: "))
	digits := []byte(fmt.Sprint(when.Unix()))
	if !ok || len(bytes.TrimSpace(after)) != len(digits) {
		return fmt.Errorf("boot file system: an EEPROM signature reads %q, not a hash and a time", sig)
	}
	copy(after, digits)
	return nil
}
