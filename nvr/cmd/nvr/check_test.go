package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// recordedData makes a data directory with recordings of one emulated camera.
func recordedData(t *testing.T) (data string) {
	t.Helper()
	_, config := cameras(t, 1, "")
	data = t.TempDir()
	if out, code := nvrCommand(t, "config", "import", config, "-data", data); code != 0 {
		t.Fatal(out)
	}
	p := start(t, "run", "-data", data, "-http", "127.0.0.1:0", "-allow-anonymous", "view")
	waitRecording(t, p.address(), 2)
	if out, code := nvrCommand(t, "check", "-data", data); code != usageCode || !strings.Contains(out, "in use") || !strings.Contains(out, "stop the recorder") {
		t.Errorf("check of a running recorder: exit code %d, %s", code, out)
	}
	p.terminate()
	return data
}

func TestCheckExitCodes(t *testing.T) {
	data := recordedData(t)
	if out, code := nvrCommand(t, "check", "-data", data); code != 0 || !strings.Contains(out, ": 0 findings") {
		t.Fatalf("clean: exit code %d, %s", code, out)
	}
	files, _ := filepath.Glob(filepath.Join(data, "sample", "*.mp4"))
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	want := "its file " + files[0] + " is not there\n"
	if out, code := nvrCommand(t, "check", "-data", data); code != 1 || !strings.HasPrefix(out, "orphan row ") || !strings.Contains(out, want) {
		t.Errorf("a file is gone: exit code %d, %s", code, out)
	}
	if out, code := nvrCommand(t, "check", "-data", data, "-delete-orphan-rows"); code != 1 || !strings.Contains(out, "more than 1 %") {
		t.Errorf("repair without force: exit code %d, %s", code, out)
	}
	if out, code := nvrCommand(t, "check", "-data", data, "-delete-orphan-rows", "-force"); code != 1 || !strings.Contains(out, "repaired 1; check again") {
		t.Errorf("repair: exit code %d, %s", code, out)
	}
	if out, code := nvrCommand(t, "check", "-data", data, "-compare-files", "quick"); code != 0 {
		t.Errorf("after the repair: exit code %d, %s", code, out)
	}
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"check"}, usageCode, "-data is missing"},
		{[]string{"check", "-data", data, "-compare-files", "some"}, usageCode, `"some"`},
		{[]string{"check", "-data", data, "-compare-files", "quick", "-rewrite-rows"}, usageCode, "full"},
		{[]string{"check", "-data", filepath.Join(data, "absent")}, 1, "absent"},
	} {
		if out, code := nvrCommand(t, tt.args...); code != tt.code || !strings.Contains(out, tt.want) {
			t.Errorf("nvr %v: exit code %d, %s", tt.args, code, out)
		}
	}
}

func TestRebuildFromSampleFilesAlone(t *testing.T) {
	data := recordedData(t)
	for _, name := range []string{"db", "db-wal", "db-shm"} {
		os.Remove(filepath.Join(data, name))
	}
	out, code := nvrCommand(t, "rebuild", "-data", data)
	if code != 0 || !strings.Contains(out, "recordings of 1 cameras") ||
		!strings.Contains(out, "not recorded until their cameras are given again, with url, user, password and limit: 1 main, 1 sub\n") {
		t.Fatalf("exit code %d, %s", code, out)
	}
	if out, code := nvrCommand(t, "check", "-data", data); code != 0 {
		t.Errorf("check after it: exit code %d, %s", code, out)
	}
	p := start(t, "run", "-data", data, "-http", "127.0.0.1:0", "-allow-anonymous", "view")
	if n := playAll(t, p.address()); n == 0 {
		t.Error("nothing is listed")
	}
	if out, code := nvrCommand(t, "rebuild", "-data", data); code != usageCode || !strings.Contains(out, "in use") {
		t.Errorf("rebuild of a running recorder: exit code %d, %s", code, out)
	}
	p.terminate()
	if out, code := nvrCommand(t, "rebuild"); code != usageCode || !strings.Contains(out, "-data is missing") {
		t.Errorf("exit code %d, %s", code, out)
	}
}

// A database that is damaged while the recorder is off, with a copy of it and
// without one.
func TestBackupAndRestore(t *testing.T) {
	data := recordedData(t)
	file := filepath.Join(t.TempDir(), "copy")
	if out, code := nvrCommand(t, "backup", "-data", data, "-to", file); code != 0 || !strings.Contains(out, "passwords") {
		t.Fatalf("exit code %d, %s", code, out)
	}
	for _, name := range []string{"db", "db-wal", "db-shm"} {
		os.Remove(filepath.Join(data, name))
	}
	out, code := nvrCommand(t, "run", "-data", data, "-http", "127.0.0.1:0")
	if code != 1 || !strings.Contains(out, "the database is lost") || !strings.Contains(out, "run nvr rebuild -data "+data) {
		t.Errorf("start without a copy: exit code %d, %s", code, out)
	}
	if out, code := nvrCommand(t, "restore", "-data", data, "-from", file); code != 0 || !strings.Contains(out, "comes in with the next start") {
		t.Fatalf("exit code %d, %s", code, out)
	}
	if out, code := nvrCommand(t, "check", "-data", data); code != 0 {
		t.Errorf("check after it: exit code %d, %s", code, out)
	}
	p := start(t, "run", "-data", data, "-http", "127.0.0.1:0", "-allow-anonymous", "view")
	if n := playAll(t, p.address()); n == 0 {
		t.Error("nothing is listed")
	}
	if out, code := nvrCommand(t, "backup", "-data", data, "-to", file); code != usageCode || !strings.Contains(out, "in use") {
		t.Errorf("backup of a running recorder: exit code %d, %s", code, out)
	}
	p.terminate()
	for _, args := range [][]string{{"backup", "-data", data}, {"restore", "-from", file}} {
		if out, code := nvrCommand(t, args...); code != usageCode || !strings.Contains(out, "is missing") {
			t.Errorf("nvr %v: exit code %d, %s", args, code, out)
		}
	}
}

// Relative paths, as a person types them who stands beside the data; first what README.md has.
func TestCommandsTakeRelativePaths(t *testing.T) {
	text, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var commands [][]string
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, " # ")
		if w := strings.Fields(line); len(w) > 3 && w[0] == "bin/nvr" && w[1] != "run" {
			commands = append(commands, w[1:])
		}
	}
	if len(commands) != 4 {
		t.Errorf("README.md has %q", commands)
	}
	mine := filepath.Join("data", "mine")
	commands = append(commands, [][]string{
		{"check", "-data", "./" + mine},
		{"rebuild", "-data", mine, "-dir", mine + "/sample"},
		{"check", "-data", mine},
		{"config", "export", "-data", mine, "cameras.json"},
		{"upgrade", "-data", mine},
	}...)
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "data"), 0o700), os.Rename(recordedData(t), filepath.Join(dir, mine))); err != nil {
		t.Fatal(err)
	}
	for _, args := range commands {
		if out, code := nvrIn(t, dir, args...); code != 0 {
			t.Errorf("nvr %v: exit code %d, %s", args, code, out)
		}
	}
}
