package web

import (
	"strconv"
	"time"

	"holdfast/nvr/media"
)

// Times beyond these are refused: sums with them would overflow.
const (
	minTime media.Time = -1 << 60
	maxTime media.Time = 1 << 60
)

// parseTime reads a time of a query: 90 kHz units since 1970, or
//
//	YYYY-mm-dd[THH:MM[:SS[:FFFFF]]][Z|±HH:MM]
//
// where FFFFF is in 90,000ths of a second. Without a zone it is local to the
// recorder.
func parseTime(text string, zone *time.Location) (media.Time, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		if t := media.Time(n); t >= minTime && t <= maxTime {
			return t, nil
		}
		return 0, badRequest("time %q is out of range", text)
	}
	wrong := func() (media.Time, error) {
		return 0, badRequest("time %q is neither 90 kHz units since 1970 nor YYYY-mm-dd[THH:MM[:SS[:FFFFF]]][Z|±HH:MM]", text)
	}
	// Split off the zone, then FFFFF, and leave the rest to package time.
	rest := text
	if n := len(rest); n > 0 && rest[n-1] == 'Z' {
		rest, zone = rest[:n-1], time.UTC
	} else if n >= len("2006-01-02+00:00") && rest[n-3] == ':' && (rest[n-6] == '+' || rest[n-6] == '-') {
		off, err := time.Parse("-07:00", rest[n-6:])
		if err != nil {
			return wrong()
		}
		rest, zone = rest[:n-6], off.Location()
	}
	var fraction int64
	const seconds = "2006-01-02T15:04:05"
	if len(rest) == len(seconds)+6 && rest[len(seconds)] == ':' {
		n, err := strconv.ParseUint(rest[len(seconds)+1:], 10, 32)
		if err != nil || n >= uint64(media.Second) {
			return wrong()
		}
		rest, fraction = rest[:len(seconds)], int64(n)
	}
	for _, layout := range []string{"2006-01-02", "2006-01-02T15:04", seconds} {
		if len(layout) != len(rest) {
			continue
		}
		if t, err := time.ParseInLocation(layout, rest, zone); err == nil {
			return media.TimeOf(t).Add(media.Duration(fraction)), nil
		}
	}
	return wrong()
}
