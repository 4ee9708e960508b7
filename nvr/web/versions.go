package web

import (
	"net/http"
	"strings"
	"sync"
	"time"

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
}

// Bounds of what is remembered. One version takes some hundred bytes for each
// recording, and a second or two of samples of one that grows.
const (
	mostVersions = 16
	versionTime  = 10 * time.Minute

	// settledAfter is when no recording grows any more that ended so long ago.
	settledAfter = 6 * time.Minute
)

// mayGrow reports whether the file may be another one at the next look.
func (v *version) mayGrow(now time.Time) bool { return now.Sub(v.file.ModTime()) < settledAfter }

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

// keep remembers a version, in the place of the one unused longest.
func (v *versions) keep(k version) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.kept) < mostVersions {
		v.kept = append(v.kept, k)
		return
	}
	oldest := 0
	for i := range v.kept {
		if v.kept[i].used.Before(v.kept[oldest].used) {
			oldest = i
		}
	}
	v.kept[oldest] = k
}
