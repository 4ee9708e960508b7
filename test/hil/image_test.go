package hil

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// builds are the images made in this run, by board and mutants.
var builds struct {
	sync.Mutex
	dir   string
	files map[string]string
}

// A mutant is one change to the source, for one image of the lab. It is laid
// over the source when the image is built, so that what ships has no hook.
type mutant struct {
	file     string // in the repository
	old, new string // exactly one place; old empty: new is a file of its own
}

// image returns the file of a board's image, made for the lab: anybody is an
// administrator, the serial console speaks, and the source has the mutants.
func image(t *testing.T, board string, mutants ...mutant) string {
	t.Helper()
	for _, s := range strings.Split(*imageFlag, ",") {
		if name, file, ok := strings.Cut(s, "="); ok && name == board && len(mutants) == 0 {
			return file
		}
	}
	return built(t, fmt.Sprintf("%s %q", board, mutants), func(dir string) error {
		overlay, err := lay(dir, mutants)
		if err != nil {
			return err
		}
		flags := os.Getenv("GOFLAGS")
		if overlay != "" {
			flags += " -overlay=" + overlay
		}
		return mkimage(dir, flags, "-board", board, "-lab")
	})
}

// releasedImage returns the file of a board's image as people get it: nobody is
// an administrator.
func releasedImage(t *testing.T, board string) string {
	t.Helper()
	return built(t, board+" as released", func(dir string) error {
		if err := mkimage(dir, os.Getenv("GOFLAGS"), "-board", board); err != nil {
			return err
		}
		files, err := filepath.Glob(filepath.Join(dir, "*.img.zst"))
		if err != nil || len(files) != 1 {
			return fmt.Errorf("mkimage made %q, %v", files, err)
		}
		out, err := exec.Command("zstd", "-q", "-d", "--sparse", files[0]).CombinedOutput()
		if err != nil {
			return fmt.Errorf("zstd: %w: %s", err, out)
		}
		return nil
	})
}

// mkimage makes an image in a folder.
func mkimage(dir, goflags string, args ...string) error {
	cmd := exec.Command("go", append([]string{"run", "./gokrazy-config/mkimage", "-out", dir, "-version", "lab"}, args...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOFLAGS="+goflags)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mkimage: %w\n%s", err, out)
	}
	return nil
}

// built returns the one image that a way of making it leaves in a folder. Each
// key is made once in a run.
func built(t *testing.T, key string, build func(dir string) error) string {
	t.Helper()
	builds.Lock()
	defer builds.Unlock()
	if file := builds.files[key]; file != "" {
		return file
	}
	if builds.dir == "" {
		dir, err := os.MkdirTemp("", "hil-images")
		if err != nil {
			t.Fatal(err)
		}
		builds.dir, builds.files = dir, map[string]string{}
	}
	dir, err := os.MkdirTemp(builds.dir, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := build(dir); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.img"))
	if err != nil || len(files) != 1 {
		t.Fatalf("mkimage made %q, %v", files, err)
	}
	builds.files[key] = files[0]
	return files[0]
}

// root of the repository, from here.
const root = "../.."

// lay writes mutated files and the list of them that go build takes. Names in
// it are relative to where the go command runs, the repository's root.
func lay(dir string, mutants []mutant) (overlay string, err error) {
	if len(mutants) == 0 {
		return "", nil
	}
	replace := map[string]string{}
	for i, m := range mutants {
		source := m.new
		if m.old != "" {
			at := filepath.Join(root, m.file)
			if before := replace[m.file]; before != "" {
				at = before
			}
			b, err := os.ReadFile(at)
			if err != nil {
				return "", err
			}
			if n := strings.Count(string(b), m.old); n != 1 {
				return "", fmt.Errorf("mutant of %s: %q stands there %d times: has the source changed?", m.file, m.old, n)
			}
			source = strings.Replace(string(b), m.old, m.new, 1)
		}
		replace[m.file] = filepath.Join(dir, fmt.Sprintf("%d.go", i))
		if err := os.WriteFile(replace[m.file], []byte(source), 0o600); err != nil {
			return "", err
		}
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, errors.Join(err, os.WriteFile(overlay, b, 0o600))
}

func TestMutantIsLaidOverTheSource(t *testing.T) {
	dir := t.TempDir()
	for _, list := range [][]mutant{noSync, noDirSync, commitFirst, slices.Concat(trustSync, trustJournal), slices.Concat(hooks, lazy, smallRing, staleCopy, copySoon, noDrop)} {
		overlay, err := lay(dir, list)
		if err != nil {
			t.Fatal(err)
		}
		if testing.Short() {
			continue // it fits; that it builds takes half a minute
		}
		build := exec.Command("go", "build", "-overlay", overlay, "-o", dir, "./nvr/cmd/nvr", "./appliance/init")
		build.Dir = root
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build with mutants: %v\n%s", err, out)
		}
	}
	if _, err := lay(dir, []mutant{{"go.mod", "holdfast is not there", ""}}); err == nil {
		t.Error("a mutant that fits nowhere was laid")
	}
}
