package db

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"modernc.org/sqlite"

	"holdfast/nvr/media"
)

// helperEnv makes the test binary another process that works on a database:
// "what path".
const helperEnv = "HOLDFAST_DB_TEST_HELPER"

func TestMain(m *testing.M) {
	what, path, ok := strings.Cut(os.Getenv(helperEnv), " ")
	if !ok {
		os.Exit(m.Run())
	}
	if err := helper(what, path); err != nil {
		fmt.Fprint(os.Stderr, err)
		os.Exit(1)
	}
}

func helper(what, path string) error {
	ctx := context.Background()
	d, err := Open(ctx, Config{Path: path})
	if err != nil {
		return err
	}
	s, err := d.State(ctx)
	if err != nil {
		return err
	}
	h := &house{DB: d, open: OpenRow{ID: 1}}
	b := &Batch{OpenID: 1, Streams: []StreamUpdate{{ID: 1, NextNo: 2}}, Add: []NewRecording{h.recording(s.Streams[0], 1)}}
	switch what {
	case "flush-and-die":
		if err := d.Flush(ctx, b); err != nil {
			return err
		}
		return syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "fail-to-write":
		// Beyond the limit a write gives EFBIG, which SQLite takes for a
		// failed medium.
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 4096, Max: 4096}); err != nil {
			return err
		}
		err := d.Flush(ctx, b)
		if !Poisoned(err) {
			return fmt.Errorf("flush: got %v, expected a failed medium", err)
		}
		if err := d.Flush(ctx, b); !Poisoned(err) || !strings.Contains(err.Error(), "nothing is written after: ") {
			return fmt.Errorf("flush again: got %v, expected a refusal", err)
		}
		if _, err := d.BeginOpen(ctx, OpenRow{}); !Poisoned(err) {
			return fmt.Errorf("begin open: got %v, expected a refusal", err)
		}
		if _, err := d.Playback(ctx, CompositeID(1, 0)); err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if err := d.Close(); !Poisoned(err) {
			return fmt.Errorf("close: got %v, expected a refusal", err)
		}
		if _, err := Open(ctx, Config{Path: path}); !errors.Is(err, ErrLocked) {
			return fmt.Errorf("open again: got %v, expected %v", err, ErrLocked)
		}
		return nil
	}
	return d.Close()
}

func runHelper(t *testing.T, what, path string) (stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"="+what+" "+path)
	var b bytes.Buffer
	cmd.Stderr = &b
	err = cmd.Run()
	return b.String(), err
}

func TestSecondOpenIsRefused(t *testing.T) {
	h := newHouse(t)
	before := h.dump()
	if _, err := Open(t.Context(), Config{Path: h.path}); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), h.path) ||
		!strings.Contains(err.Error(), fmt.Sprintf("process %d holds", os.Getpid())) {
		t.Errorf("in the same process: got %v, expected %v with the path and the process", err, ErrLocked)
	}
	out, err := runHelper(t, "open", h.path)
	if want := fmt.Sprintf("open database %s: database is in use: process %d holds %s.lock", h.path, os.Getpid(), h.path); err == nil || out != want {
		t.Errorf("in another process: got %q, %v, expected %q", out, err, want)
	}
	if diff := cmp.Diff(before, h.dump()); diff != "" {
		t.Error(diff)
	}
	h.add(h.main, 0, 1) // the refused ones took nothing away
	h.must(h.Close())
	if out, err := runHelper(t, "open", h.path); err != nil {
		t.Errorf("after Close: %v: %s", err, out)
	}
}

func TestFlushSurvivesKill(t *testing.T) {
	h := newHouse(t)
	h.add(h.main, 0, 1)
	h.must(h.Close())
	out, err := runHelper(t, "flush-and-die", h.path)
	if err == nil || err.Error() != "signal: killed" {
		t.Fatalf("%v: %s", err, out)
	}
	h.DB = nil
	h.reopen()
	if diff := cmp.Diff([]int32{0, 1}, h.numbers(h.main)); diff != "" {
		t.Error(diff)
	}
	h.sane()
}

func TestNothingIsWrittenAfterAFailedWrite(t *testing.T) {
	h := newHouse(t)
	h.add(h.main, 0, 1)
	before := h.dump()
	h.must(h.Close())
	if out, err := runHelper(t, "fail-to-write", h.path); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	h.DB = nil
	h.reopen()
	if diff := cmp.Diff(before, h.dump()); diff != "" {
		t.Error(diff)
	}
	h.sane()
}

func TestFullDatabaseIsNotAFailedMedium(t *testing.T) {
	h := newHouse(t)
	h.add(h.main, 0, 1)
	before := h.dump()
	if _, err := h.writer.Exec(`PRAGMA max_page_count = 1`); err != nil { // as many as there are
		t.Fatal(err)
	}
	b := h.batch(h.main, 1, 2)
	b.Add[0].Video = make([]byte, 1<<20)
	if err := h.Flush(t.Context(), b); err == nil || Poisoned(err) || !isCode(err, 13) {
		t.Errorf("got %v, expected a full database", err)
	}
	if diff := cmp.Diff(before, h.dump()); diff != "" {
		t.Error(diff)
	}
	// What makes room still works.
	h.must(h.Flush(t.Context(), &Batch{OpenID: h.open.ID, Delete: []int64{CompositeID(h.main.ID, 0)}}))
	if _, err := h.writer.Exec(`PRAGMA max_page_count = 1073741823`); err != nil {
		t.Fatal(err)
	}
	h.must(h.Flush(t.Context(), b))
	h.sane()
}

func TestForeignFileIsLeftAlone(t *testing.T) {
	sqliteFile := func(statements string) []byte {
		path := filepath.Join(t.TempDir(), "x")
		if _, err := sqlite.OFDLocking(true); err != nil { // before the first lock of the process
			t.Fatal(err)
		}
		p, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Exec(statements); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, c := range map[string]struct {
		content []byte
		is      error
		want    string
	}{
		"text":                      {bytes.Repeat([]byte("not a database\n"), 1000), ErrForeign, "not a database of this program"},
		"short text":                {[]byte("x"), ErrForeign, "not a database of this program"},
		"another program's":         {sqliteFile(`PRAGMA application_id = 0x11223344; CREATE TABLE t (a)`), ErrForeign, "application id 0x11223344, expected 0x48466473"},
		"another's without a mark":  {sqliteFile(`CREATE TABLE t (a)`), ErrForeign, "application id 0x00000000"},
		"another's of version 1":    {sqliteFile(`PRAGMA user_version = 1; CREATE TABLE t (a)`), ErrForeign, "application id"},
		"of a newer program":        {sqliteFile(fmt.Sprintf(`PRAGMA application_id = %d; PRAGMA user_version = %d; CREATE TABLE t (a)`, applicationID, schemaVersion+1)), ErrNewer, fmt.Sprintf("it has schema version %d, this program knows version %d; start the newer program that made it", schemaVersion+1, schemaVersion)},
		"of an older program":       {sqliteFile(fmt.Sprintf(`PRAGMA application_id = %d; CREATE TABLE t (a)`, applicationID)), ErrOlder, "it has schema version 0, from which no upgrade leads to version"},
		"half a header of a sqlite": {[]byte("SQLite format 3\x00abcdefgh"), ErrForeign, "not a database"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "db")
			if err := os.WriteFile(path, c.content, 0o600); err != nil {
				t.Fatal(err)
			}
			d, err := Open(t.Context(), Config{Path: path})
			if err == nil {
				d.Close()
			}
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, expected %v …%s… with the path", err, c.is, c.want)
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, c.content) {
				t.Errorf("the file changed (%v)", err)
			}
		})
	}
}

// A crash while the database is created leaves a file without content.
func TestEmptyFileBecomesTheDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	p, err := openPool(writerDSN(path), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.PingContext(t.Context()); err != nil { // as far as the log's mode in the header
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := Open(t.Context(), Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if len(d.UUID()) != 36 {
		t.Errorf("uuid is %q", d.UUID())
	}
	uuid := d.UUID()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err = Open(t.Context(), Config{Path: path}); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.UUID() != uuid {
		t.Errorf("uuid is %s after a second opening, was %s", d.UUID(), uuid)
	}
}

func TestPathMayHaveAnyCharacter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?c=d&mode=memory#e%20f;'ü", "db")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, path: path}
	h.reopen()
	uuid := h.UUID()
	h.reopen()
	if h.UUID() != uuid {
		t.Error("another database was opened")
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestMissingDirectoryIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "db")
	if _, err := Open(t.Context(), Config{Path: path}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
}

func TestFilesAreNotReadableByOthers(t *testing.T) {
	h := newHouse(t)
	h.add(h.main, 0, 1)
	entries, err := os.ReadDir(filepath.Dir(h.path))
	h.must(err)
	for _, e := range entries {
		if fi, err := e.Info(); err != nil || fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", e.Name(), fi.Mode(), err)
		}
	}
	if len(entries) != 5 {
		t.Errorf("files are %v, expected db, its log, the log's index, the key and the lock", entries)
	}
}

// The settings that make commits durable and rows consistent hold on every
// connection, also on those that the pools make later.
func TestEveryConnectionHasItsSettings(t *testing.T) {
	h := newHouse(t)
	if !sqlite.OFDLockingEnabled() {
		t.Error("no open file description locks")
	}
	check := func(p *sql.DB, n int, want map[string]string) {
		t.Helper()
		for range n {
			c, err := p.Conn(t.Context())
			h.must(err)
			defer c.Close()
			for name, want := range want {
				var got string
				h.must(c.QueryRowContext(t.Context(), "PRAGMA "+name).Scan(&got))
				if got != want {
					t.Errorf("%s is %s, expected %s", name, got, want)
				}
			}
		}
	}
	both := map[string]string{"foreign_keys": "1", "journal_mode": "wal", "trusted_schema": "0", "cell_size_check": "1",
		"busy_timeout": "5000", "mmap_size": "0", "temp_store": "2", "page_size": "4096", "auto_vacuum": "0", "recursive_triggers": "0"}
	check(h.reader, Readers, both)
	check(h.reader, Readers, map[string]string{"query_only": "1"})
	for range 2 {
		check(h.writer, 1, both)
		check(h.writer, 1, map[string]string{"synchronous": "3", "journal_size_limit": "8388608", "wal_autocheckpoint": "0",
			"application_id": fmt.Sprint(applicationID), "user_version": fmt.Sprint(schemaVersion)})
		c, err := h.writer.Conn(t.Context())
		h.must(err)
		h.must(c.Raw(func(dc any) error {
			mode, err := dc.(sqlite.FileControl).FileControlPersistWAL("main", -1)
			if mode != 1 {
				t.Error("the log goes with its last connection")
			}
			return err
		}))
		h.writer.SetMaxIdleConns(0) // the next connection is new
		h.must(c.Close())
		h.writer.SetMaxIdleConns(1)
	}
	h.add(h.main, 0, 1) // statements follow to a new connection
	if _, err := h.reader.Exec(`DELETE FROM camera`); err == nil {
		t.Error("a reading connection writes")
	}
}

func TestReadersRunDuringAWrite(t *testing.T) {
	h := newHouse(t)
	h.add(h.main, 0, 3)
	inside := make(chan error)
	h.writing.Lock()
	err := h.transact(t.Context(), func(x *tx) error {
		b := h.batch(h.main, 3, 4)
		if err := x.flush(b); err != nil {
			return err
		}
		go func() {
			var numbers []int32
			err := h.Recordings(t.Context(), h.main.ID, 0, 1<<60, func(r *Recording) error {
				numbers = append(numbers, r.No())
				_, err := h.Playback(t.Context(), r.ID) // nested in a list, as a handler does
				return err
			})
			if err == nil && fmt.Sprint(numbers) != "[0 1 2]" {
				err = fmt.Errorf("a reader sees %v, expected what was committed", numbers)
			}
			if _, state := h.State(t.Context()); state != nil {
				err = errors.Join(err, state)
			}
			inside <- errors.Join(err, h.Check(&b.Add[0]))
		}()
		return <-inside
	})
	h.writing.Unlock()
	h.must(err)
	if n := len(h.numbers(h.main)); n != 4 {
		t.Errorf("%d recordings after the commit, expected 4", n)
	}
}

func TestWriteWaitsForNoReader(t *testing.T) {
	h := newHouse(t)
	h.add(h.main, 0, 3)
	n := 0
	h.must(h.Recordings(t.Context(), h.main.ID, 0, 1<<60, func(r *Recording) error {
		n++
		if n == 1 {
			h.add(h.main, 3, 4)
		}
		return nil
	}))
	if n != 3 {
		t.Errorf("the list that was begun has %d recordings, expected 3", n)
	}
}

func TestLogStaysAllocated(t *testing.T) {
	h := newHouse(t)
	allocated := func() int64 {
		var st unix.Stat_t
		h.must(unix.Stat(h.path+"-wal", &st))
		return st.Blocks * 512
	}
	probe, err := os.Create(filepath.Join(t.TempDir(), "probe"))
	h.must(err)
	defer probe.Close()
	if err := unix.Fallocate(int(probe.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, walSize); err != nil {
		t.Skipf("the file system does not reserve blocks: %v", err)
	}
	if got := allocated(); got < walSize {
		t.Errorf("%d bytes of the log are allocated, expected %d", got, walSize)
	}
	h.fill(1500, h.main) // several checkpoints
	if got := allocated(); got < walSize {
		t.Errorf("%d bytes of the log are allocated after checkpoints, expected %d", got, walSize)
	}
	h.must(h.Close())
	if got := allocated(); got < walSize/2 {
		t.Errorf("%d bytes of the log are allocated after Close, expected at least %d", got, walSize/2)
	}
	h.DB = nil
	h.reopen()
	if got := allocated(); got < walSize {
		t.Errorf("%d bytes of the log are allocated after the next Open, expected %d", got, walSize)
	}
	h.sane()
}

func TestClosedDatabaseSaysSo(t *testing.T) {
	h := newHouse(t)
	h.must(h.Close())
	h.must(h.Close())
	ctx := t.Context()
	_, begin := h.BeginOpen(ctx, OpenRow{})
	_, state := h.State(ctx)
	_, playback := h.Playback(ctx, 1)
	_, _, _, rng := h.Range(ctx, 1)
	_, integrity := h.Integrity(ctx)
	for i, err := range []error{begin, state, playback, rng, integrity,
		h.Flush(ctx, &Batch{OpenID: h.open.ID}), h.ApplyConfig(ctx, new(Change)), h.CompleteOpen(ctx, h.open.ID),
		h.Spans(ctx, 1, 0, 1, 1, nil), h.Gaps(ctx, 1, 0, 1, nil),
		h.Recordings(ctx, 1, 0, 1, nil), h.RecordingsByNo(ctx, 1, 0, 1, nil), h.Opens(ctx, nil)} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("call %d: got %v, expected %v", i, err, ErrClosed)
		}
	}
}

func TestOpensAreNumberedForEver(t *testing.T) {
	h := newHouse(t)
	first := h.open
	second, err := h.BeginOpen(t.Context(), OpenRow{BootID: "b", Start: testEpoch + 1})
	h.must(err)
	if second.ID <= first.ID || second.UUID == first.UUID || len(second.UUID) != 36 {
		t.Errorf("opens are %+v and %+v", first, second)
	}
	h.must(h.CompleteOpen(t.Context(), second.ID, h.dirs[0].ID, h.dirs[1].ID))
	for _, d := range h.state().Dirs {
		if d.LastCompleteOpen != second.ID || d.LastCompleteOpenUUID != second.UUID {
			t.Errorf("directory is %+v", d)
		}
	}
	if err := h.CompleteOpen(t.Context(), 99, h.dirs[0].ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("of no open: got %v", err)
	}
	if err := h.CompleteOpen(t.Context(), first.ID, h.dirs[0].ID, 99); !errors.Is(err, ErrNotFound) {
		t.Errorf("in no directory: got %v", err)
	}
	if d := h.state().Dirs[0]; d.LastCompleteOpen != second.ID {
		t.Errorf("a refused change was half made: %+v", d)
	}
	var got []OpenRow
	h.must(h.Opens(t.Context(), func(o OpenRow) error { got = append(got, o); return nil }))
	if diff := cmp.Diff([]OpenRow{second, first}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := h.BeginOpen(t.Context(), OpenRow{Duration: -1 * media.Second}); err == nil {
		t.Error("an open of negative duration")
	}
}

func TestIntegrityFindsDamage(t *testing.T) {
	h := newHouse(t)
	h.add(h.main, 0, 2)
	h.sane()
	c, err := h.writer.Conn(t.Context())
	h.must(err)
	for _, s := range []string{`PRAGMA foreign_keys = 0`, `DELETE FROM recording WHERE composite_id & 1`, `PRAGMA foreign_keys = 1`} {
		_, err := c.ExecContext(t.Context(), s)
		h.must(err)
	}
	h.must(c.Close())
	found, err := h.Integrity(t.Context())
	h.must(err)
	if len(found) != 2 || !strings.Contains(strings.Join(found, ";"), fmt.Sprintf("row %d of recording_playback refers to a missing row of recording", CompositeID(h.main.ID, 1))) {
		t.Errorf("found %q", found)
	}
}

// A transaction that finds no room is tried again when there is more, once, and
// the second try knows nothing of the first.
func TestFullDatabaseIsTriedAgainOnce(t *testing.T) {
	h := newHouse(t)
	h.add(h.main, 0, 1)
	pages := func(n int) {
		t.Helper()
		if _, err := h.writer.Exec(fmt.Sprintf(`PRAGMA max_page_count = %d`, n)); err != nil {
			t.Fatal(err)
		}
	}
	var asked []error
	room := false
	h.full = func(err error) bool {
		asked = append(asked, err)
		if room {
			pages(1 << 30)
		}
		return true
	}
	long := strings.Repeat("x", 1<<20)
	big := func(name string) *Change {
		return &Change{Cameras: []CameraChange{
			{Camera: Camera{Name: name}, Streams: []Stream{{Type: "main", DirID: h.dirs[0].ID, URL: "rtsp://camera/main"}}},
			{Camera: Camera{Name: name + " 2", Description: long}},
		}}
	}
	before := h.dump()
	pages(1)
	if err := h.ApplyConfig(t.Context(), big("side")); !Full(err) || Poisoned(err) {
		t.Errorf("got %v, expected a full database", err)
	}
	if len(asked) != 1 || !Full(asked[0]) {
		t.Errorf("room was asked for %d times: %v", len(asked), asked)
	}
	if diff := cmp.Diff(before, h.dump()); diff != "" {
		t.Error(diff)
	}
	room = true
	h.must(h.ApplyConfig(t.Context(), big("side")))
	pages(1)
	b := h.batch(h.main, 1, 3)
	b.Add[0].Video = make([]byte, 1<<20)
	h.must(h.Flush(t.Context(), b))
	if len(asked) != 3 {
		t.Errorf("room was asked for %d times", len(asked))
	}
	h.sane()
	h.reopen()
	h.sane()
}

func TestErrorsOfAFullDisk(t *testing.T) {
	for err, full := range map[error]bool{
		nil:         false,
		ErrNotFound: false,
		unix.EIO:    false,
		unix.ENOSPC: true,
		&poisonError{errors.New("input/output error")}: false,
	} {
		if Full(err) != full {
			t.Errorf("%v is a full disk: %v", err, !full)
		}
	}
}
