package store

import (
	"fmt"
	"strings"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/media"
)

// tellFlushed is the one line of a flush (R18): what it did in which directory,
// with the bytes of files that got a row and of those that lost theirs.
func (s *Store) tellFlushed(why string, batch *db.Batch, all []*share, drops []*drop, took time.Duration) {
	var add, del []db.Garbage
	var addBytes, delBytes int64
	for _, r := range batch.Add {
		add = append(add, db.Garbage{DirID: r.DirID, ID: r.ID})
	}
	for _, d := range drops {
		del = append(del, d.del...)
		delBytes += d.sum.bytes
	}
	for _, sh := range all {
		del = append(del, sh.del...)
		addBytes += sh.addSum.bytes
		delBytes += sh.delSum.bytes
	}
	s.log.Info("flushed", "flush", s.flushes, "why", why, "added", s.listedByDir(add), "addedBytes", addBytes,
		"deleted", s.listedByDir(del), "deletedBytes", delBytes, "collected", s.listedByDir(batch.Collected), "took", took.Round(time.Microsecond))
}

// listedByDir lists recordings for a line of the log, by directory where there are
// several.
func (s *Store) listedByDir(list []db.Garbage) string {
	var parts []string
	for _, d := range s.dirs {
		var ids []int64
		for _, g := range list {
			if g.DirID == d.id {
				ids = append(ids, g.ID)
			}
		}
		switch {
		case len(s.dirs) == 1:
			return listed(ids, mostListed)
		case len(ids) > 0:
			parts = append(parts, d.path+": "+listed(ids, max(4, mostListed/len(s.dirs))))
		}
	}
	return strings.Join(parts, "; ")
}

// mostListed is how many recordings a line of the log lists (R7, R18).
const mostListed = 16

// listed lists so many recordings for a line of the log.
func listed(ids []int64, most int) string {
	var b strings.Builder
	for i, id := range ids[:min(len(ids), most)] {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(idString(id))
	}
	return b.String() + more(len(ids)-most)
}

// more ends a list that is cut off, when n are left out.
func more(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n)
}

// length tells the media duration of a recording that is not committed, "54s ",
// and nothing of one without pictures.
func (st *Stream) length(no int32) string {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, rec := range st.recent {
		if rec.no == no && rec.video.Duration > 0 {
			return media.Duration(rec.video.Duration).Std().Round(time.Second).String() + " "
		}
	}
	return ""
}
