package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"holdfast/nvr/camera/cameratest"
)

// shell is a shell that is given one line after the other.
type shell struct {
	*testing.T
	dir string
	in  io.WriteCloser
	out *bufio.Reader
}

func newShell(t *testing.T) *shell {
	s := &shell{T: t, dir: t.TempDir()}
	cmd := exec.Command("sh", "-eu")
	cmd.Dir = s.dir
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.in, s.out = in, bufio.NewReader(out)
	go func() {
		w.CloseWithError(fmt.Errorf("the shell ended (%v)", cmd.Wait()))
	}()
	t.Cleanup(func() {
		in.Close()
		_, _ = io.Copy(io.Discard, s.out)
	})
	return s
}

// run runs a line and returns what it printed. One that fails ends the shell.
func (s *shell) run(line string) string {
	s.Helper()
	const end = "the line ends here"
	if _, err := fmt.Fprintf(s.in, "%s\necho; echo %s\n", line, end); err != nil {
		s.Fatalf("%s: %v", line, err)
	}
	var printed strings.Builder
	for {
		l, err := s.out.ReadString('\n')
		if err != nil {
			s.Fatalf("%s: %v: %s%s", line, err, printed.String(), l)
		}
		if strings.TrimSpace(l) == end {
			return strings.TrimSpace(printed.String())
		}
		printed.WriteString(l)
	}
}

// What README.md shows to do with curl does it, line by line, from a recorder
// that nobody owns to a clip that plays. Only the values of its first three
// lines are others here.
func TestCommandsOfTheReadmeMakeAClip(t *testing.T) {
	needFFmpeg(t)
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed: apt-get install curl")
	}
	text, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ = bytes.Cut(text, []byte("\nThe same by curl alone"))
	text, _, _ = bytes.Cut(text, []byte("\n## "))
	var lines []string
	for l := range strings.Lines(string(text)) {
		if l, ok := strings.CutPrefix(l, "    "); ok && !strings.HasPrefix(l, "#") {
			lines = append(lines, strings.TrimSpace(l))
		}
	}

	cams, err := cameratest.Start(cameratest.Config{Fixture: "harbour", User: "u", Password: "p"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cams.Close)
	p := start(t, "run", "-data", filepath.Join(t.TempDir(), "data"), "-http", "127.0.0.1:0")
	ours := map[string]string{"R": p.address(), "CODE": p.code(), "CAMERA": cams.URL("1/main")}
	value := regexp.MustCompile(`^(R|CODE|CAMERA)=\S+`)
	sh := newShell(t)
	done := make(map[string]int)
	for _, line := range lines {
		if m := value.FindStringSubmatch(line); m != nil {
			line = value.ReplaceAllLiteralString(line, m[1]+"="+ours[m[1]])
			done[m[1]]++
		}
		if strings.Contains(line, " -N ") { // its answer does not end
			line = strings.Replace(line, " -N ", " -N -m 2 ", 1) + " || :"
		}
		answer := sh.run(line)
		switch _, path, _ := strings.Cut(line, "$R"); {
		case strings.HasPrefix(path, "/api/claim"), strings.HasPrefix(path, "/api/login"):
			done["session"]++
			if answer != "" {
				t.Errorf("%s: %s", line, answer)
			}
		case strings.HasPrefix(path, "/api/cameras/ "):
			done["camera"]++
			// The line that lists recordings is for when there are some.
			for limit := time.Now().Add(2 * time.Minute); !strings.Contains(sh.run("curl -fsS -b jar $R/api/cameras/$UUID/main/recordings"), `"startId"`); <-time.After(100 * time.Millisecond) {
				if time.Now().After(limit) {
					t.Fatalf("nothing is recorded: %s", sh.run("curl -fsS -b jar $R/api/"))
				}
			}
		case path == "/api/":
			done["cameras"]++
			if !strings.Contains(answer, `"shortName":"front"`) || !strings.Contains(answer, `"phase":"recording"`) {
				t.Errorf("%s: %s", line, answer)
			}
		case strings.HasSuffix(path, "/recordings"):
			done["recordings"]++
			if !strings.Contains(answer, `"startId":0`) {
				t.Errorf("%s: %s", line, answer)
			}
		case strings.Contains(path, "view.mp4"):
			done["clip"]++
			ffmpegReadsFile(t, line, filepath.Join(sh.dir, "clip.mp4"))
		}
	}
	for what, times := range map[string]int{"R": 1, "CODE": 1, "CAMERA": 1, "session": 2, "camera": 1, "cameras": 1, "recordings": 1, "clip": 1} {
		if done[what] != times {
			t.Errorf("of %s there are %d lines, want %d, in:\n%s", what, done[what], times, strings.Join(lines, "\n"))
		}
	}
	if strings.Contains(p.logged(), "correct horse") {
		t.Error("the log tells the password")
	}
}
