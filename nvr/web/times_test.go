package web

import (
	"testing"
	"time"

	"holdfast/nvr/media"
)

func TestTimesOfQueries(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	at := func(s string) media.Time {
		u, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return media.TimeOf(u)
	}
	for text, want := range map[string]media.Time{
		"0":                               0,
		"-5":                              -5,
		"160000000000000":                 160000000000000,
		"2026-11-23":                      at("2026-11-23T00:00:00+01:00"),
		"2026-07-01":                      at("2026-07-01T00:00:00+02:00"),
		"2026-11-23Z":                     at("2026-11-23T00:00:00Z"),
		"2026-11-23-05:30":                at("2026-11-23T00:00:00-05:30"),
		"2026-11-23T08:05":                at("2026-11-23T08:05:00+01:00"),
		"2026-11-23T08:05Z":               at("2026-11-23T08:05:00Z"),
		"2026-11-23T08:05:11":             at("2026-11-23T08:05:11+01:00"),
		"2026-11-23T08:05:11+09:00":       at("2026-11-23T08:05:11+09:00"),
		"2026-11-23T08:05:11:00123":       at("2026-11-23T08:05:11+01:00") + 123,
		"2026-11-23T08:05:11:89999-07:00": at("2026-11-23T08:05:11-07:00") + 89999,
	} {
		if got, err := parseTime(text, berlin); err != nil || got != want {
			t.Errorf("%s: %d %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "x", "2026-11", "2026-13-01", "2026-02-30", "26-11-23", "2026-11-23T", "2026-11-23T8:05", "2026-11-23T25:00",
		"2026-11-23T08:05:11:9000", "2026-11-23T08:05:11:90000", "2026-11-23T08:05:11:-0001", "2026-11-23T08:05:11.5",
		"2026-11-23T08:05:11+9", "2026-11-23+25:00:00", "9223372036854775807", "-9223372036854775808", "1e9", " 1",
	} {
		if got, err := parseTime(text, berlin); err == nil {
			t.Errorf("%q: read as %v", text, got)
		}
	}
}

// Fails when the flag is not that of the store.
func TestClockThatIsBehindIsShown(t *testing.T) {
	r := newRecorder(t, "view")
	var top topLevel
	if r.json("/api/", &top); !top.Clock.Set {
		t.Error("a clock that is right is shown as not set")
	}
	r.ahead.Store(int64(time.Unix(100, 0).Sub(start)))
	r.restart()
	if r.json("/api/", &top); top.Clock.Set {
		t.Error("a clock at 1970 is shown as set")
	}
}
