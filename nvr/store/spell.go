package store

import (
	"context"
	"log/slog"
	"time"
)

// A directory that fails is tried each second, and may do well in between, for
// days. The log says that it fails, and how, once; then after pauses that grow;
// and when it is over. Nothing is forgotten in between that is not shown.

// A spell of trouble is over when the directory has done well for spellOver. Its
// first line is followed by one after spellPause, and twice that, and so on.
const (
	spellOver      = time.Minute
	spellPause     = 10 * time.Second
	mostSpellPause = time.Hour
)

// spell is a time in which steps of a directory fail. The directory's goroutine
// alone knows of it.
type spell struct {
	began    time.Time // zero: there is none
	said     time.Time // when the log last had a line
	pause    time.Duration
	well     time.Time // since when no step has failed; zero: the last one did
	failed   int       // steps
	detailed int       // what single files met, before it, too
	detail   time.Time // the last of that
}

// report tells the log of the end of a step.
func (d *directory) report(err error) {
	sp, log := &d.spell, d.store.log.With("dir", d.path)
	now := time.Now()
	if err != nil {
		sp.failed++
		sp.well = time.Time{}
	}
	switch {
	case err != nil && sp.began.IsZero():
		sp.began, sp.said, sp.pause = now, now, spellPause
		log.Error("sample directory does not take writes; trying again every second", "err", shorten(err.Error()))
	case err != nil && now.Sub(sp.said) >= sp.pause:
		sp.said, sp.pause = now, min(2*sp.pause, mostSpellPause)
		log.Error("sample directory goes on failing", "for", now.Sub(sp.began).Round(time.Second), "steps", sp.failed,
			"files", sp.detailed, "err", shorten(err.Error()))
	case err != nil:
	case sp.began.IsZero():
		if now.Sub(sp.detail) >= spellOver {
			sp.detailed = 0 // it made no spell
		}
		d.reportLost()
	case sp.well.IsZero():
		sp.well = now
	case now.Sub(sp.well) >= spellOver:
		log.Info("sample directory takes writes again", "after", sp.well.Sub(sp.began).Round(time.Second), "steps", sp.failed, "files", sp.detailed)
		*sp = spell{}
		d.reportLost()
	}
}

// detail logs what a single file met: the first of a spell as it is, the others
// for who asks for everything.
func (d *directory) detail(level slog.Level, msg string, args ...any) {
	if d.spell.detailed++; d.spell.detailed > 1 {
		level = slog.LevelDebug
	}
	d.spell.detail = time.Now()
	d.store.log.Log(context.Background(), level, msg, args...)
}
