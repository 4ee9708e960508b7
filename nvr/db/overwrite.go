package db

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
)

// What SQLite deletes stays where it was until something else is written there: in
// the gaps of pages, in free pages, in the log. Passwords that were in the
// database in clear are there many times, since a row of stream is written
// with each flush. overwrite takes them away, in place, on a database of any
// size: it writes zeros to where the file format says that nothing is
// (https://sqlite.org/fileformat2.html), so whatever part of them a power cut
// lets through, the file means the same.

// wholeOverwrite is up to which size of the file recording_playback takes part,
// bytes. Beyond it the table is nearly all of the file, and is left out as it is
// by fitForUpgrade: a page that was of stream once may have become one of it.
const wholeOverwrite = 256 << 20

// overwrite closes the writer, zeroes what is free in the file and all of the
// log, and opens the writer again. Nobody else has the file open.
func (d *DB) overwrite(ctx context.Context, cfg *Config) error {
	var roots []uint32
	fi, err := os.Stat(d.path)
	if err != nil {
		return err
	}
	err = query(ctx, d.writer, `SELECT rootpage FROM sqlite_schema WHERE rootpage > 0 AND (tbl_name != 'recording_playback' OR ?)`,
		[]any{fi.Size() <= wholeOverwrite}, func(scan func(...any) error) error {
			var root uint32
			err := scan(&root)
			roots = append(roots, root)
			return err
		})
	if err != nil {
		return err
	}
	if err := takeLog(ctx, d.writer); err != nil {
		return err
	}
	if err := d.closeWriter(); err != nil {
		return err
	}
	d.writer = nil
	if err := overwriteFree(d.path, append(roots, 1), cfg.Progress); err != nil {
		return err
	}
	cfg.at("free overwritten")
	// A look at the files between is what a power cut between would leave.
	at := func(what string) {
		cfg.Progress()
		cfg.at(what)
	}
	if err := overwriteLog(d.path+"-wal", at); err != nil {
		return err
	}
	cfg.at("log overwritten")
	d.writer, err = d.openPool(writerDSN(d.path), 1, d.setUpWriter)
	return err
}

// overwriteLog zeroes a log that was taken over whole. Its header goes first,
// durably: a log of which only some later frames are missing would be believed,
// and bring back pages of before.
func overwriteLog(name string, at func(string)) (err error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	const header = 32
	for from, to := int64(0), min(header, fi.Size()); from < fi.Size(); from, to = to, fi.Size() {
		for from < to {
			n, err := f.WriteAt(zeros[:min(to-from, int64(len(zeros)))], from)
			if err != nil {
				return &poisonError{err}
			}
			from += int64(n)
		}
		if err := f.Sync(); err != nil {
			return &poisonError{err}
		}
		at("part of the log overwritten")
	}
	return nil
}

// freeSpace walks the pages of a database file and zeroes what is free in them.
type freeSpace struct {
	f        *os.File
	size     int // of a page
	usable   int // of it
	pages    uint32
	seen     []bool // by page; one that comes twice is a damaged file
	progress func()
}

// overwriteFree zeroes what is free in the file at path: the pages of the list
// of free ones, and what no row takes in those of the b-trees with these roots.
func overwriteFree(path string, roots []uint32, progress func()) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	var header [100]byte
	if _, err := f.ReadAt(header[:], 0); err != nil {
		return err
	}
	s := &freeSpace{f: f, size: int(binary.BigEndian.Uint16(header[16:])), progress: progress}
	if s.size != pageSize {
		return fmt.Errorf("pages of %d bytes, expected %d", s.size, pageSize)
	}
	s.usable = s.size - int(header[20])
	s.pages = binary.BigEndian.Uint32(header[28:])
	s.seen = make([]bool, s.pages+1)
	if err := s.list(binary.BigEndian.Uint32(header[32:])); err != nil {
		return fmt.Errorf("overwrite free pages: %w", err)
	}
	for _, root := range roots {
		if err := s.tree(root); err != nil {
			return fmt.Errorf("overwrite what is free in the tree at page %d: %w", root, err)
		}
	}
	if err := f.Sync(); err != nil {
		return &poisonError{err}
	}
	return nil
}

// read reads a page, once.
func (s *freeSpace) read(no uint32) ([]byte, error) {
	if no == 0 || no > s.pages || s.seen[no] {
		return nil, fmt.Errorf("page %d of %d is not to be here", no, s.pages)
	}
	s.seen[no] = true
	s.progress()
	b := make([]byte, s.size)
	_, err := s.f.ReadAt(b, int64(no-1)*int64(s.size))
	return b, err
}

// part is from one byte of a page up to another.
type part struct{ from, to int }

// zero makes parts of a page zero, and writes the page when they were not.
func (s *freeSpace) zero(no uint32, page []byte, parts ...part) error {
	dirty := false
	for _, p := range parts {
		for i := p.from; i < p.to; i++ {
			dirty = dirty || page[i] != 0
			page[i] = 0
		}
	}
	if !dirty {
		return nil
	}
	if _, err := s.f.WriteAt(page, int64(no-1)*int64(s.size)); err != nil {
		return &poisonError{err}
	}
	return nil
}

// list zeroes the free pages: trunks, which name leaves and the next trunk, and
// leaves.
func (s *freeSpace) list(trunk uint32) error {
	for trunk != 0 {
		page, err := s.read(trunk)
		if err != nil {
			return err
		}
		next, n := binary.BigEndian.Uint32(page), int(binary.BigEndian.Uint32(page[4:]))
		end := 8 + 4*n
		if n < 0 || end > s.size {
			return fmt.Errorf("page %d lists %d pages", trunk, n)
		}
		for at := 8; at < end; at += 4 {
			no := binary.BigEndian.Uint32(page[at:])
			leaf, err := s.read(no)
			if err == nil {
				err = s.zero(no, leaf, part{0, s.size})
			}
			if err != nil {
				return err
			}
		}
		if err := s.zero(trunk, page, part{end, s.size}); err != nil {
			return err
		}
		trunk = next
	}
	return nil
}

// Types of pages of a b-tree.
const (
	interiorIndex = 0x02
	interiorTable = 0x05
	leafIndex     = 0x0a
	leafTable     = 0x0d
)

// tree zeroes what is free in the pages of a b-tree: between the pointers to the
// cells and the first of them, in the blocks between cells, and behind what the
// last page of a long row holds.
func (s *freeSpace) tree(no uint32) error {
	page, err := s.read(no)
	if err != nil {
		return err
	}
	h := page
	if no == 1 {
		h = page[100:] // behind the header of the file
	}
	at := len(page) - len(h)
	typ, pointers := h[0], at+8
	interior := typ == interiorIndex || typ == interiorTable
	if interior {
		pointers += 4
	} else if typ != leafIndex && typ != leafTable {
		return fmt.Errorf("page %d is of type %#x", no, typ)
	}
	cells := int(binary.BigEndian.Uint16(h[3:]))
	content := int(binary.BigEndian.Uint16(h[5:]))
	end := pointers + 2*cells
	if end > content || content > s.usable {
		return fmt.Errorf("page %d: %d cells, the first at %d", no, cells, content)
	}
	free := []part{{end, content}}
	for block, last := int(binary.BigEndian.Uint16(h[1:])), content; block != 0; {
		if block < last || block+4 > s.usable {
			return fmt.Errorf("page %d: free block at %d", no, block)
		}
		next, size := int(binary.BigEndian.Uint16(page[block:])), int(binary.BigEndian.Uint16(page[block+2:]))
		if last = block + size; size < 4 || last > s.usable {
			return fmt.Errorf("page %d: free block of %d bytes at %d", no, size, block)
		}
		free = append(free, part{block + 4, last})
		block = next
	}
	if err := s.zero(no, page, free...); err != nil {
		return err
	}
	for i := range cells {
		cell := int(binary.BigEndian.Uint16(page[pointers+2*i:]))
		if cell < content || cell+4 > s.usable {
			return fmt.Errorf("page %d: cell at %d", no, cell)
		}
		if interior {
			if err := s.tree(binary.BigEndian.Uint32(page[cell:])); err != nil {
				return err
			}
			cell += 4
		}
		if typ == interiorTable {
			continue
		}
		if err := s.long(page[cell:s.usable], typ == leafTable); err != nil {
			return fmt.Errorf("page %d: %w", no, err)
		}
	}
	if interior {
		return s.tree(binary.BigEndian.Uint32(h[8:]))
	}
	return nil
}

// long zeroes what is free behind a row that goes on in other pages. cell begins
// with its length.
func (s *freeSpace) long(cell []byte, table bool) error {
	length, n := varint(cell)
	most := (s.usable-12)*64/255 - 23 // in the page of the cell
	if table {
		most = s.usable - 35
		_, id := varint(cell[n:])
		n += id
	}
	if length <= uint64(most) {
		return nil
	}
	least := (s.usable-12)*32/255 - 23
	here := least + int((length-uint64(least))%uint64(s.usable-4))
	if here > most {
		here = least
	}
	if n+here+4 > len(cell) {
		return fmt.Errorf("a row of %d bytes ends behind its page", length)
	}
	left := length - uint64(here)
	for no := binary.BigEndian.Uint32(cell[n+here:]); left > 0; {
		page, err := s.read(no)
		if err != nil {
			return err
		}
		has := min(left, uint64(s.usable-4))
		if err := s.zero(no, page, part{4 + int(has), s.usable}); err != nil {
			return err
		}
		left -= has
		no = binary.BigEndian.Uint32(page)
	}
	return nil
}

// varint reads an integer of 1 to 9 bytes, and how many they are; b is padded by
// what follows in the page, or ends, which counts as 0.
func varint(b []byte) (v uint64, n int) {
	for n = range 8 {
		if n >= len(b) {
			return v, n
		}
		v = v<<7 | uint64(b[n]&0x7f)
		if b[n] < 0x80 {
			return v, n + 1
		}
	}
	if len(b) > 8 {
		v = v<<8 | uint64(b[8])
	}
	return v, min(9, len(b))
}
