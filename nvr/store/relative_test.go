package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The data directory as it is typed, relative to where the recorder is started:
// copies are made, and a start goes back to one.
func TestRelativeDataDirectory(t *testing.T) {
	t.Chdir(inMemory(t))
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(cfg *Config) { cfg.Dir = "data" })
		st := b.camera("front", plenty, 60)
		f := newFeed(st.Begin(nil))
		f.play(t, backupFirst+time.Minute)
		if l := b.log.String(); !strings.Contains(l, "backed up database") {
			t.Fatal("there is no copy")
		}
		f.run.End("test")
		time.Sleep(time.Minute)
		had := len(list(t, st))
		b.stop()
		for _, name := range []string{"db", "db-wal", "db-shm"} {
			if err := os.Remove(filepath.Join("data", name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
		b.start()
		if got := len(list(t, b.again("front"))); got != had {
			t.Errorf("%d of %d recordings are back", got, had)
		}
	})
}
