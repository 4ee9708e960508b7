package sampledirtest

// Cut is the directory at this moment, should the power fail now.
func (d *Dir) Cut() *Cut {
	d.mu.Lock()
	defer d.mu.Unlock()
	return At(d.begin, d.log, len(d.log))
}

// Sizes are how many bytes each file holds.
func (d *Dir) Sizes() map[int64]int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	sizes := make(map[int64]int64)
	for id, in := range d.entries {
		sizes[id] = int64(len(in.data))
	}
	return sizes
}

// Forget drops from the log what no power cut can take any more, so that a
// directory may live for long: it is as if the directory had held it at first.
// Moments before, and State as New was given it, say nothing any more; Cut
// does. A file with an operation whose fate is open keeps its whole history.
func (d *Dir) Forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := At(d.begin, d.log, len(d.log))
	open := make(map[int]bool) // inodes with an operation whose fate is open
	gone := make(map[int]bool) // unlinked for good
	metaOpen := false
	for _, i := range c.open {
		open[c.ops[i].Inode] = true
		metaOpen = metaOpen || c.ops[i].Kind == WriteMeta
	}
	for i := range c.ops {
		if op := &c.ops[i]; op.Kind == Unlink && c.sure[i] {
			gone[op.Inode] = true
		}
	}
	for n := range gone {
		delete(open, n)
	}
	back := make(map[int64]bool) // names of files that may come back
	for i := range c.ops {
		if op := &c.ops[i]; op.Kind == Unlink && op.Err == nil && open[op.Inode] {
			back[op.ID] = true
		}
	}
	begin := State{Files: make(map[int64][]byte), numbers: make(map[int64]int), Meta: d.begin.Meta, BadMeta: d.begin.BadMeta}
	d.begin.each(func(id int64, n int) {
		if !gone[n] {
			begin.Files[id], begin.numbers[id] = d.begin.Files[id], n
		}
	})
	for id, in := range d.entries {
		if open[in.n] = open[in.n] || back[id]; !open[in.n] {
			if n := len(in.data); cap(in.data) > n {
				in.data = append(make([]byte, 0, n), in.data...) // it takes no more than it needs
			}
			begin.Files[id], begin.numbers[id] = in.data, in.n
		}
	}
	if !metaOpen {
		begin.Meta, begin.BadMeta = d.meta, d.badMeta
	}
	var log []Op
	entries := false // one of the log waits for a sync of the directory
	for _, op := range c.ops {
		keep := false
		switch op.Kind {
		case Create, Unlink:
			keep = op.Err == nil && open[op.Inode]
			entries = entries || keep
		case Append, Truncate, Sync:
			keep = open[op.Inode]
		case WriteMeta, SyncMeta:
			keep = metaOpen
			entries = entries || keep
		case DirSync:
			keep, entries = entries, false
		}
		if keep {
			log = append(log, op)
		}
	}
	d.begin, d.log = begin, log
}
