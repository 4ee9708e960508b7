package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A database of version 1 is upgraded by the command, once, and the command
// makes none.
func TestUpgradeSaysWhatItDid(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Open("../../db/testdata/v1.db.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	old, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "db"), old, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (code int, stdout, stderr string) {
		var out, log bytes.Buffer
		code = command(append([]string{"upgrade"}, args...), &out, &log)
		return code, out.String(), log.String()
	}
	code, out, log := run("-data", dir)
	want := `^upgraded to version 2 in \S+: gaps, spans, retention by days\nthe database as it was: ` + regexp.QuoteMeta(filepath.Join(dir, "db.v1")) +
		`, for a week\nupgraded to version 3 in \S+: users, sessions, tokens\n` +
		`upgraded to version 4 in \S+: passwords of cameras encrypted\nupgraded to version 5 in \S+: passwords in clear overwritten\n` +
		`upgraded to version 6 in \S+: deleted cameras go by and by, preferences of users\n$`
	if code != 0 || !regexp.MustCompile(want).MatchString(out) || log != "" {
		t.Errorf("code %d, %q, log %q", code, out, log)
	}
	if code, out, log = run("-data", dir); code != 0 || out != "the database has version 6, which is that of this program\n" || log != "" {
		t.Errorf("a second time: code %d, %q, log %q", code, out, log)
	}
	none := t.TempDir()
	if code, _, log = run("-data", none); code != 1 || !strings.Contains(log, "is not the data directory of a recorder") {
		t.Errorf("no database: code %d, %q", code, log)
	}
	if names, err := os.ReadDir(none); err != nil || len(names) > 0 {
		t.Errorf("no database: %v, %v", names, err)
	}
	if code, _, log = run(); code != usageCode || !strings.Contains(log, "-data is missing") {
		t.Errorf("no directory: code %d, %q", code, log)
	}
}
