package main

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/squashfs"
)

// A node is a file, a symbolic link or a directory of the root file system.
// Owner is root; a directory may be read and entered, nothing written.
type node struct {
	name string
	data []byte // of a file
	exec bool   // of a file: may be executed
	link string // of a symbolic link: where to
	dir  []*node
	kind nodeKind
}

type nodeKind uint16

// The values are those of squashfs's basic inodes.
const (
	isDir  nodeKind = 1
	isFile nodeKind = 2
	isLink nodeKind = 3
)

// find returns the node at a slash-separated path, or nil.
func (n *node) find(name string) *node {
	for part := range strings.SplitSeq(name, "/") {
		i := slices.IndexFunc(n.dir, func(c *node) bool { return c.name == part })
		if i < 0 {
			return nil
		}
		n = n.dir[i]
	}
	return n
}

// put makes name a file with this content, and the folders above it.
func (n *node) put(name string, data []byte) {
	parts := strings.Split(name, "/")
	for _, part := range parts[:len(parts)-1] {
		next := n.find(part)
		if next == nil {
			next = &node{name: part, kind: isDir}
			n.dir = append(n.dir, next)
		}
		n = next
	}
	last := parts[len(parts)-1]
	if old := n.find(last); old != nil {
		old.kind, old.data = isFile, data
		return
	}
	n.dir = append(n.dir, &node{name: last, kind: isFile, data: data})
}

// remove takes name away, and says whether it was there.
func (n *node) remove(name string) bool {
	parent := n
	if dir := path.Dir(name); dir != "." {
		if parent = n.find(dir); parent == nil {
			return false
		}
	}
	before := len(parent.dir)
	parent.dir = slices.DeleteFunc(parent.dir, func(c *node) bool { return c.name == path.Base(name) })
	return len(parent.dir) < before
}

// walk calls f for each node below n with its path, folders before what is in
// them, in the order of names.
func (n *node) walk(f func(name string, n *node) error) error { return n.walkFrom("", f) }

func (n *node) walkFrom(at string, f func(string, *node) error) error {
	n.sort()
	for _, c := range n.dir {
		name := path.Join(at, c.name)
		if err := f(name, c); err != nil {
			return err
		}
		if err := c.walkFrom(name, f); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) sort() {
	slices.SortFunc(n.dir, func(a, b *node) int { return strings.Compare(a.name, b.name) })
}

// readRoot reads the squashfs that begins at start and fills at most size bytes.
func readRoot(image fs.File, start, size int64) (*node, error) {
	sq, err := squashfs.Read(file.New(image, true), size, start, 0)
	if err != nil {
		return nil, fmt.Errorf("read root file system: %w", err)
	}
	root := &node{kind: isDir}
	err = fs.WalkDir(sq, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		n := &node{name: d.Name(), kind: isFile, exec: d.Type().IsRegular() && info.Mode()&0o111 != 0}
		switch {
		case d.IsDir():
			n.kind = isDir
		case d.Type() == fs.ModeSymlink:
			n.kind = isLink
			if n.link, err = info.(interface{ Readlink() (string, error) }).Readlink(); err != nil {
				return err
			}
		case d.Type().IsRegular():
			if n.data, err = fs.ReadFile(sq, name); err != nil {
				return err
			}
			if int64(len(n.data)) != info.Size() {
				return fmt.Errorf("%s: %d bytes read of %d", name, len(n.data), info.Size())
			}
		default:
			return fmt.Errorf("%s: is a %v, which nothing puts into an image", name, d.Type())
		}
		parent := root
		if dir := path.Dir(name); dir != "." {
			parent = root.find(dir)
		}
		parent.dir = append(parent.dir, n)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read root file system: %w", err)
	}
	return root, nil
}

const (
	squashBlock    = 128 << 10
	squashMetadata = 8 << 10
	// Metadata is not compressed; no fragments, no extended attributes.
	squashFlags = 1 | 8 | 16 | 256 | 512
	none32      = 0xFFFFFFFF
	none64      = 0xFFFFFFFFFFFFFFFF
)

// squashWriter lays out the subset of squashfs that the writer of gok uses, so
// that the kernels of all boards read it: zlib, whole blocks, basic inodes. It
// stands here because gok's takes the time of its run and of files on the host
// into the image, and those of libraries do so too.
//
//	superblock, blocks of files, inodes, directories, table of ids
//
// Equal trees and times give equal bytes, with the same version of Go.
type squashWriter struct {
	data   bytes.Buffer // from the superblock on
	inodes bytes.Buffer
	dirs   bytes.Buffer
	number map[*node]uint32
	time   uint32
}

// writeRoot returns root as a squashfs in which everything dates from when.
func writeRoot(root *node, when time.Time) ([]byte, error) {
	w := &squashWriter{number: map[*node]uint32{}, time: uint32(when.Unix())}
	// A folder's number must be known to those in it.
	w.number[root] = 1
	if err := root.walk(func(_ string, n *node) error {
		w.number[n] = uint32(len(w.number) + 1)
		return nil
	}); err != nil {
		return nil, err
	}
	w.data.Write(make([]byte, 96))
	ref, err := w.node(root, uint32(len(w.number)+1))
	if err != nil {
		return nil, err
	}

	inodeTable := w.table(w.inodes.Bytes())
	dirTable := w.table(w.dirs.Bytes())
	fragmentTable := w.data.Len()
	ids := w.table([]byte{0, 0, 0, 0}) // one id: root
	idTable := w.data.Len()
	w.put64(&w.data, uint64(ids))
	used := w.data.Len()
	w.data.Write(make([]byte, -used&4095)) // the kernel reads whole pages

	var super bytes.Buffer
	for _, v := range []any{
		uint32(0x73717368), uint32(len(w.number)), w.time, uint32(squashBlock), uint32(0),
		uint16(1 /* zlib */), uint16(17 /* log2 of the block */), uint16(squashFlags), uint16(1 /* ids */), uint16(4), uint16(0),
		uint64(ref), uint64(used), uint64(idTable), uint64(none64), uint64(inodeTable), uint64(dirTable), uint64(fragmentTable), uint64(none64),
	} {
		if err := binary.Write(&super, binary.LittleEndian, v); err != nil {
			return nil, err
		}
	}
	image := w.data.Bytes()
	copy(image, super.Bytes())
	return image, nil
}

// A squashRef is where an inode is: the place of its metadata block in the
// table, and its offset in the block when read.
type squashRef uint64

func (r squashRef) block() uint32  { return uint32(r >> 16) }
func (r squashRef) offset() uint16 { return uint16(r) }

// metadataRef is the place of the n-th byte of a table of metadata blocks, each
// of which has a header of two bytes.
func metadataRef(n int) squashRef {
	return squashRef(uint64(n/squashMetadata*(squashMetadata+2))<<16 | uint64(n%squashMetadata))
}

// node writes n and all below it and returns where its inode is.
func (w *squashWriter) node(n *node, parent uint32) (squashRef, error) {
	switch n.kind {
	case isFile:
		start := w.data.Len()
		sizes, err := w.blocks(n.data)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", n.name, err)
		}
		if uint64(start) > none32 || uint64(len(n.data)) > none32 {
			return 0, fmt.Errorf("%s: the root file system is beyond 4 GiB", n.name)
		}
		ref := w.inode(n, map[bool]uint16{false: 0o444, true: 0o555}[n.exec])
		w.put32(&w.inodes, uint32(start), none32 /* fragment */, 0, uint32(len(n.data)))
		w.put32(&w.inodes, sizes...)
		return ref, nil
	case isLink:
		ref := w.inode(n, 0o777)
		w.put32(&w.inodes, 1, uint32(len(n.link)))
		w.inodes.WriteString(n.link)
		return ref, nil
	}
	n.sort()
	refs := make([]squashRef, len(n.dir))
	subdirs := 0
	for i, c := range n.dir {
		var err error
		if refs[i], err = w.node(c, w.number[n]); err != nil {
			return 0, err
		}
		if c.kind == isDir {
			subdirs++
		}
	}
	listing := metadataRef(w.dirs.Len())
	size := w.listing(n.dir, refs) + 3 // the kernel counts "." and ".." as three bytes
	if size > 0xFFFF {
		return 0, fmt.Errorf("%s: too many files in one folder", n.name)
	}
	ref := w.inode(n, 0o555)
	w.put32(&w.inodes, listing.block(), uint32(2+subdirs))
	w.put16(&w.inodes, uint16(size), listing.offset())
	w.put32(&w.inodes, parent)
	return ref, nil
}

func (w *squashWriter) inode(n *node, mode uint16) squashRef {
	ref := metadataRef(w.inodes.Len())
	w.put16(&w.inodes, uint16(n.kind), mode, 0, 0)
	w.put32(&w.inodes, w.time, w.number[n])
	return ref
}

// listing writes the entries of a folder, in groups: those of one group have
// their inodes in one metadata block and near each other in number.
func (w *squashWriter) listing(children []*node, refs []squashRef) (size int) {
	before := w.dirs.Len()
	for first := 0; first < len(children); {
		base := w.number[children[first]]
		end := first
		for end < len(children) && end-first < 256 && refs[end].block() == refs[first].block() &&
			w.number[children[end]]-base < 1<<15 {
			end++
		}
		w.put32(&w.dirs, uint32(end-first-1), refs[first].block(), base)
		for i := first; i < end; i++ {
			c := children[i]
			w.put16(&w.dirs, refs[i].offset(), uint16(w.number[c]-base), uint16(c.kind), uint16(len(c.name)-1))
			w.dirs.WriteString(c.name)
		}
		first = end
	}
	return w.dirs.Len() - before
}

// blocks writes a file's content and returns the size of each block.
func (w *squashWriter) blocks(data []byte) (sizes []uint32, err error) {
	var packed bytes.Buffer
	z, err := zlib.NewWriterLevel(&packed, zlib.BestCompression)
	if err != nil {
		return nil, err
	}
	for block := range slices.Chunk(data, squashBlock) {
		packed.Reset()
		z.Reset(&packed)
		if _, err := z.Write(block); err != nil {
			return nil, err
		}
		if err := z.Close(); err != nil {
			return nil, err
		}
		// Linux refuses a compressed block that is not smaller.
		if packed.Len() >= len(block) {
			w.data.Write(block)
			sizes = append(sizes, uint32(len(block))|1<<24)
			continue
		}
		sizes = append(sizes, uint32(packed.Len()))
		if _, err := io.Copy(&w.data, &packed); err != nil {
			return nil, err
		}
	}
	return sizes, nil
}

// table writes b as metadata blocks and returns where they begin.
func (w *squashWriter) table(b []byte) (start int) {
	start = w.data.Len()
	for block := range slices.Chunk(b, squashMetadata) {
		w.put16(&w.data, uint16(len(block))|0x8000 /* not compressed */)
		w.data.Write(block)
	}
	return start
}

func (*squashWriter) put16(b *bytes.Buffer, values ...uint16) {
	for _, v := range values {
		b.Write(binary.LittleEndian.AppendUint16(nil, v))
	}
}

func (*squashWriter) put32(b *bytes.Buffer, values ...uint32) {
	for _, v := range values {
		b.Write(binary.LittleEndian.AppendUint32(nil, v))
	}
}

func (*squashWriter) put64(b *bytes.Buffer, v uint64) {
	b.Write(binary.LittleEndian.AppendUint64(nil, v))
}
