package sampledirtest

import (
	"math/rand/v2"
	"slices"

	"holdfast/nvr/store/internal/sampledir"
)

// Fate is what a power cut makes of an operation that was not synced.
type Fate int

// Fates. Those from Torn on are of appended bytes; other operations happened.
const (
	Lost    Fate = iota // as if it never happened
	Kept                // it happened
	Torn                // a beginning of it happened
	Zeroed              // zeros stand where it wrote
	Garbled             // anything stands there, from some byte on
	Stale               // what another file held at the same place stands there
	fates
)

// Any is a fate by chance.
func Any(rng *rand.Rand) Fate { return Fate(rng.IntN(int(fates))) }

// Cut is a directory at the moment at which the power fails.
type Cut struct {
	begin State
	ops   []Op
	sure  []bool // by operation: it is durable
	open  []int  // operations that are not, and would change something
}

// At is the moment after the first n operations of the log of a directory that
// held begin at first.
func At(begin State, log []Op, n int) *Cut {
	c := &Cut{begin: begin, ops: log[:n], sure: make([]bool, n)}
	gone := make([]bool, n) // a sync that failed has dropped it
	settle := func(i int, of func(*Op) bool, err error) {
		for j := range i {
			if c.sure[j] || gone[j] || !of(&c.ops[j]) {
				continue
			}
			if err == nil {
				c.sure[j] = true
			} else {
				gone[j] = true
			}
		}
	}
	entry := begin.Meta != nil || begin.BadMeta // that of the meta file is durable
	written := false
	synced := make([]bool, n)
	for i := range c.ops {
		switch op := &c.ops[i]; op.Kind {
		case WriteMeta:
			written = written || op.Err == nil
		case Sync:
			settle(i, func(o *Op) bool { return o.Inode == op.Inode && (o.Kind == Append || o.Kind == Truncate) }, op.Err)
		case DirSync:
			settle(i, func(o *Op) bool { return o.Kind == Create || o.Kind == Unlink }, op.Err)
			if written && op.Err == nil {
				entry = true
				for j := range i {
					c.sure[j] = c.sure[j] || synced[j]
				}
			}
		case SyncMeta:
			for j := range i {
				if c.ops[j].Kind == WriteMeta && !gone[j] && !synced[j] {
					synced[j], gone[j] = op.Err == nil, op.Err != nil
					c.sure[j] = synced[j] && entry
				}
			}
		}
	}
	for i := range c.ops {
		switch op := &c.ops[i]; op.Kind {
		case Create, Unlink, Truncate, WriteMeta:
			if op.Err == nil && !c.sure[i] {
				c.open = append(c.open, i)
			}
		case Append:
			if len(op.Data) > 0 && !c.sure[i] {
				c.open = append(c.open, i)
			}
		}
	}
	return c
}

// Unsynced is how many operations have their fate open.
func (c *Cut) Unsynced() int { return len(c.open) }

// Op is one of them.
func (c *Cut) Op(i int) Op { return c.ops[c.open[i]] }

// State is what the directory holds when the power is back, when the i-th
// unsynced operation has the fate that fate tells.
func (c *Cut) State(fate func(i int) Fate, rng *rand.Rand) State {
	fates := make(map[int]Fate, len(c.open))
	for i, at := range c.open {
		fates[at] = fate(i)
	}
	entries := make(map[int64]int) // inode by name
	data := make(map[int][]byte)
	c.begin.each(func(id int64, n int) { entries[id], data[n] = n, c.begin.Files[id] })
	st := State{Files: make(map[int64][]byte), Meta: c.begin.Meta, BadMeta: c.begin.BadMeta}
	for i := range c.ops {
		op, f := &c.ops[i], Kept
		if !c.sure[i] {
			var open bool
			if f, open = fates[i]; !open || f == Lost {
				continue
			}
		}
		switch op.Kind {
		case Create:
			entries[op.ID] = op.Inode
		case Unlink:
			if entries[op.ID] == op.Inode {
				delete(entries, op.ID)
			}
		case Truncate:
			data[op.Inode] = cut(data[op.Inode], op.At)
		case Append:
			data[op.Inode] = put(data[op.Inode], op.At, c.bytes(op, f, rng))
		case WriteMeta:
			if f == Kept || st.Meta != nil {
				st.Meta, st.BadMeta = &op.Meta, false
			} else {
				st.BadMeta = true
			}
		}
	}
	for id, in := range entries {
		st.Files[id] = data[in]
	}
	return st
}

// bytes is what a fate makes of appended bytes.
func (c *Cut) bytes(op *Op, f Fate, rng *rand.Rand) []byte {
	const sector = 512
	b := slices.Clone(op.Data)
	// Half of the tears are at a sector of the disk.
	tear := rng.IntN(len(b) + 1)
	if at := (op.At+int64(tear))/sector*sector - op.At; at > 0 && rng.IntN(2) == 0 {
		tear = int(at)
	}
	switch f {
	case Torn:
		b = b[:tear]
	case Zeroed:
		clear(b)
	case Garbled:
		for i := tear; i < len(b); i++ {
			b[i] = byte(rng.Uint32())
		}
	case Stale:
		old := c.another(op, rng)
		for i := range b {
			if at := op.At + int64(i); at < int64(len(old)) {
				b[i] = old[at]
			}
		}
	}
	return b
}

// another is the content of some other file.
func (c *Cut) another(op *Op, rng *rand.Rand) []byte {
	files := make(map[int][]byte)
	c.begin.each(func(id int64, n int) {
		if id != op.ID {
			files[n] = c.begin.Files[id]
		}
	})
	for i := range c.ops {
		if o := &c.ops[i]; o.Kind == Append && o.ID != op.ID {
			files[o.Inode] = put(files[o.Inode], o.At, o.Data)
		}
	}
	var all []int
	for in := range files {
		all = append(all, in)
	}
	if len(all) == 0 {
		return nil
	}
	slices.Sort(all)
	return files[all[rng.IntN(len(all))]]
}

// put writes b into a copy of a file, with a hole of zeros before it where
// there is nothing.
func put(f []byte, at int64, b []byte) []byte {
	out := make([]byte, max(int64(len(f)), at+int64(len(b))))
	copy(out, f)
	copy(out[at:], b)
	return out
}

func sortedIDs(files map[int64][]byte) []int64 {
	ids := make([]int64, 0, len(files))
	for id := range files {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Durable is what a power cut cannot take: the state in which everything that
// was not synced is lost.
func (c *Cut) Durable() State {
	return c.State(func(int) Fate { return Lost }, rand.New(rand.NewPCG(0, 0)))
}

// Equal reports whether two states are the same.
func (st State) Equal(other State) bool {
	if len(st.Files) != len(other.Files) || st.BadMeta != other.BadMeta || (st.Meta == nil) != (other.Meta == nil) {
		return false
	}
	if st.Meta != nil && *st.Meta != *other.Meta {
		return false
	}
	for id, b := range st.Files {
		if o, ok := other.Files[id]; !ok || !slices.Equal(b, o) {
			return false
		}
	}
	return true
}

var _ sampledir.Dir = (*Dir)(nil)
