package web

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"holdfast/nvr/media"
	"holdfast/nvr/mp4"
)

// A file over a growing recording is another one at each look. A browser that
// plays it asks for one piece after the other, and means the version it began
// with, which it names by its entity tag. versions remembers those that were
// served lately, so that it gets what it means.
type versions struct {
	mu   sync.Mutex
	kept []version
}

type version struct {
	uri  string
	name string // for Content-Disposition
	file *mp4.File
	used time.Time

	// Of a media segment: what the stream had recorded before its first recording,
	// and how many runs it had begun.
	prevMedia media.Duration
	runs      int32
}

// Bounds of what is remembered. One version takes half a KB for each
// recording, and a second or two of samples of one that grows. Of files whose
// recordings have rows nothing needs to be remembered.
const (
	mostVersions = 16
	mostSegments = 1 << 15  // of all but the newest one
	mostTails    = 16 << 20 // bytes of samples, of all but the newest one
	versionTime  = 10 * time.Minute
)

// find returns the version of a request that names one.
func (v *versions) find(r *http.Request, now time.Time) (version, bool) {
	tags := r.Header.Get("If-Match") + "," + r.Header.Get("If-Range")
	if tags == "," {
		return version{}, false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range v.kept {
		k := &v.kept[i]
		if k.uri == r.URL.RequestURI() && strings.Contains(tags, k.file.ETag()) && now.Sub(k.used) < versionTime {
			k.used = now
			return *k, true
		}
	}
	return version{}, false
}

// keep remembers a version, and forgets those unused longest that are too many
// then.
func (v *versions) keep(k version) {
	v.mu.Lock()
	defer v.mu.Unlock()
	slices.SortFunc(v.kept, func(a, b version) int { return b.used.Compare(a.used) })
	n, segments, bytes := 0, k.file.Segments(), int64(0)
	for _, old := range v.kept {
		segments += old.file.Segments()
		bytes += old.file.InMemory()
		if n == mostVersions-1 || segments > mostSegments || bytes > mostTails {
			break
		}
		n++
	}
	clear(v.kept[n:])
	v.kept = append(v.kept[:n], k)
}
