package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"holdfast/board"
)

// config is what is read of an instance's config.json; the rest passes through
// unread. https://gokrazy.org/userguide/instance-config/ describes all of it.
type config struct {
	Hostname        string
	Update          struct{ NoPassword bool }
	Packages        []string
	GokrazyPackages []string
	PackageConfig   map[string]json.RawMessage
	Environment     []string

	KernelPackage, FirmwarePackage, EEPROMPackage, SerialConsole string
	KernelExtraArgs                                              []string

	InternalCompatibilityFlags struct{ InitPkg string }
}

// agrees checks that an instance is of this board.
func (c *config) agrees(b board.Board) error {
	var wrong []error
	differ := func(field, got, want string) {
		if got != want {
			wrong = append(wrong, fmt.Errorf("%s is %q, board %s says %q", field, got, b.Name, want))
		}
	}
	differ("KernelPackage", c.KernelPackage, b.Kernel)
	differ("FirmwarePackage", c.FirmwarePackage, b.Firmware)
	differ("EEPROMPackage", c.EEPROMPackage, b.EEPROM)
	differ("SerialConsole", c.SerialConsole, b.SerialConsole)
	differ("KernelExtraArgs", strings.Join(c.KernelExtraArgs, " "), strings.Join(b.KernelArgs, " "))
	if want := "GOARCH=" + b.GOARCH; !slices.Contains(c.Environment, want) {
		wrong = append(wrong, fmt.Errorf("Environment is %q, without %s", c.Environment, want))
	}
	return errors.Join(wrong...)
}

// packages returns the import path of each package that an image is made of.
func (c *config) packages() []string {
	list := slices.Concat(c.Packages, c.GokrazyPackages,
		[]string{c.InternalCompatibilityFlags.InitPkg, c.KernelPackage, c.FirmwarePackage, c.EEPROMPackage})
	return slices.DeleteFunc(list, func(p string) bool { return p == "" })
}

const busybox = "github.com/gokrazy/serial-busybox"

// instance makes the gokrazy instance of an image in dir: the committed
// config.json, for a debug image with a shell, and the repository as its
// builddir, so that its go.mod pins everything. It returns the file's content.
func instance(dir, repository string, b board.Board, debug bool) (*config, error) {
	committed := filepath.Join("gokrazy-config", b.Name, "config.json")
	raw, err := os.ReadFile(filepath.Join(repository, committed))
	if err != nil {
		return nil, err
	}
	if debug {
		var all map[string]any
		if err := json.Unmarshal(raw, &all); err != nil {
			return nil, fmt.Errorf("%s: %w", committed, err)
		}
		packages, _ := all["Packages"].([]any)
		all["Packages"] = append(packages, busybox)
		if raw, err = json.MarshalIndent(all, "", "    "); err != nil {
			return nil, err
		}
	}
	var c config
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, fmt.Errorf("%s: %w", committed, err)
	}
	if err := c.agrees(b); err != nil {
		return nil, fmt.Errorf("%s: %w", committed, err)
	}
	here := filepath.Join(dir, b.Name)
	return &c, errors.Join(
		os.MkdirAll(here, 0o777),
		os.WriteFile(filepath.Join(here, "config.json"), raw, 0o666),
		os.Symlink(repository, filepath.Join(here, "builddir")),
	)
}

// toolEnvironment is the environment of gok and of the go command it calls: no
// setting of this machine's user reaches the image but where modules are kept
// and come from. goflags are added to those of every image.
func toolEnvironment(ctx context.Context, repository, home, goflags string) ([]string, error) {
	names := []string{"GOENV", "GOPATH", "GOMODCACHE", "GOCACHE", "GOPROXY", "GOSUMDB", "GONOSUMDB", "GOTOOLCHAIN"}
	cmd := exec.CommandContext(ctx, "go", append([]string{"env"}, names...)...)
	cmd.Dir = repository
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	env := []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + home, // gok looks there for passwords and certificates
		"TMPDIR=" + home,
		"TZ=UTC",
		"CGO_ENABLED=0",
		// Symbols and DWARF are a third of the programs; a goroutine's stack
		// reads the same without. The commit is stamped where git knows it.
		`GOFLAGS=-trimpath "-ldflags=-s -w" ` + goflags,
		// git refuses the clone of another user, which the repository may be.
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=" + repository,
	}
	for i, value := range strings.Split(strings.TrimSuffix(string(out), "\n"), "\n") {
		if i < len(names) {
			env = append(env, names[i]+"="+value)
		}
	}
	return env, nil
}

// gok runs the stock tool at its pinned version, and makes the whole image.
func gok(ctx context.Context, repository, parent string, b board.Board, env []string, c *config, image string, log io.Writer) error {
	// gok fetches what go.mod does not pin, in whatever version there is, and
	// writes it into go.mod. So everything must be there beforehand.
	list := exec.CommandContext(ctx, "go", append([]string{"list", "-mod=readonly", "-deps", "-tags=gokrazy,netgo,osusergo", "-f", "{{with .Error}}{{.}}{{end}}"}, c.packages()...)...)
	list.Dir = repository
	list.Env = append(slices.Clone(env), "GOOS=linux", "GOARCH="+b.GOARCH)
	if out, err := list.CombinedOutput(); err != nil {
		return fmt.Errorf("packages of the image: %w\n%s", err, bytes.TrimSpace(out))
	}
	cmd := exec.CommandContext(ctx, "go", "tool", "gok", "-i", b.Name, "--parent_dir", parent,
		"overwrite", "--full", image, "--target_storage_bytes", fmt.Sprint(imageSize))
	cmd.Dir = repository
	cmd.Env = env
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, log), io.MultiWriter(&out, log)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("gok: %w\n%s", err, bytes.TrimSpace(out.Bytes()))
	}
	if bytes.Contains(out.Bytes(), []byte("getting incomplete packages")) {
		return fmt.Errorf("gok: fetched packages that go.mod does not pin:\n%s", bytes.TrimSpace(out.Bytes()))
	}
	return nil
}
