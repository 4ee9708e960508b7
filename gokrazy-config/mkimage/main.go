// Command mkimage makes the image of a board that is written to a disk or card
// to boot from: stock gok, at the version of go.mod, makes it from the instance
// gokrazy-config/<board>, and mkimage finishes it.
//
//	MBR, GPT | 1 boot, FAT16, 100 MiB | 2 root A, squashfs, 500 MiB | 3 root B, empty | 4 /perm
//
// It refuses what does not fit its partition (gok would let it run into the
// next) and a release image that holds anything not on the list of image.go. It
// takes from the image whatever comes from the machine it was built on: times,
// time zone, certificate store, paths. And it begins /perm with the marker by
// which PID 1 knows a disk that was never used, the only one it may format.
//
// Written are <out>/holdfast-<board>-<version>.img.zst, its .sha256, the list of
// its parts .cdx.json (CycloneDX) and .NOTICE.txt, the licences and where the
// sources are. Same commit, same version of Go, same bytes; ../README.md lists
// what else counts. The version is `git describe`, the time that of the commit;
// -version and SOURCE_DATE_EPOCH stand in where there is no git.
//
// What the running machine does is not here: see appliance.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"holdfast/board"
	"holdfast/board/amd64"
	"holdfast/board/rpi4"
)

// options are the flags.
type options struct {
	board   board.Board
	source  string // a folder of the repository; empty: the current one
	out     string
	version string
	debug   bool
	lab     bool
	verbose bool
}

func main() {
	if err := command(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintf(os.Stderr, "mkimage: %v\n", err)
		}
		os.Exit(1)
	}
}

func boards() []board.Board { return []board.Board{amd64.Board, rpi4.Board} }

func command(args []string, stdout, stderr io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var o options
	var name string
	flags := flag.NewFlagSet("mkimage", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&name, "board", "", "`name` of the board: amd64 or rpi4")
	flags.StringVar(&o.out, "out", "out", "`folder` to write to")
	flags.StringVar(&o.version, "version", "", "`text` instead of git describe")
	flags.BoolVar(&o.debug, "debug", false, "add a shell on the serial console: whoever is at the device is its administrator")
	flags.BoolVar(&o.lab, "lab", false, "for test/hil: everyone is an administrator over HTTP too; not compressed, only the .img; GOFLAGS of the environment count")
	flags.BoolVar(&o.verbose, "v", false, "show what gok says")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var names []string
	for _, b := range boards() {
		names = append(names, b.Name)
		if b.Name == name {
			o.board = b
		}
	}
	if name != "" && o.board.Name == "" {
		return fmt.Errorf("board %q: it is %s", name, strings.Join(names, " or "))
	}
	if name == "" || flags.NArg() > 0 {
		return fmt.Errorf("usage: mkimage -board amd64|rpi4 [-out DIR] [-debug] [-lab] [-version TEXT]")
	}
	if o.lab && o.debug {
		return fmt.Errorf("-lab -debug: the lab tests what is released, and a shell is not")
	}
	log := io.Discard
	if o.verbose {
		log = stderr
	}
	files, err := build(ctx, o, log)
	if err == nil { // at once, so that a reader of the first line may go
		fmt.Fprintln(stdout, strings.Join(files, "\n"))
	}
	return err
}

// build makes the files of an image and returns their paths.
func build(ctx context.Context, o options, log io.Writer) ([]string, error) {
	repository, err := findRepository(ctx, o.source)
	if err != nil {
		return nil, err
	}
	s, err := stampOf(ctx, repository, o.version)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.out, 0o777); err != nil {
		return nil, err
	}
	out, err := filepath.Abs(o.out)
	if err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(out, ".mkimage-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)

	c, err := instance(work, repository, o.board, o.debug)
	if err != nil {
		return nil, err
	}
	goflags := ""
	if o.lab {
		goflags = os.Getenv("GOFLAGS")
	}
	env, err := toolEnvironment(ctx, repository, work, goflags)
	if err != nil {
		return nil, err
	}
	image := filepath.Join(work, "disk.img")
	if err := gok(ctx, repository, work, o.board, env, c, image, log); err != nil {
		return nil, err
	}
	root, err := finish(image, o, s)
	if err != nil {
		return nil, err
	}

	name := "holdfast-" + o.board.Name + "-" + s.version
	if o.lab {
		lab := filepath.Join(out, name+"-lab.img")
		return []string{lab}, os.Rename(image, lab)
	}
	if o.debug {
		name += "-debug"
	}
	stem := filepath.Join(out, name)
	parts, err := partsOf(ctx, repository, env, root, c)
	if err != nil {
		return nil, err
	}
	bom, err := cycloneDX(parts, o.board, s)
	if err != nil {
		return nil, err
	}
	notice, err := noticeOf(parts, repository, o.board, s)
	if err != nil {
		return nil, err
	}
	sum, err := compress(image, stem+".img.zst")
	if err != nil {
		return nil, err
	}
	files := []string{stem + ".img.zst", stem + ".img.zst.sha256", stem + ".cdx.json", stem + ".NOTICE.txt"}
	return files, errors.Join(
		os.WriteFile(files[1], fmt.Appendf(nil, "%x  %s.img.zst\n", sum, name), 0o666),
		os.WriteFile(files[2], bom, 0o666),
		os.WriteFile(files[3], notice, 0o666),
	)
}

// findRepository returns the folder of go.mod, of which dir is part.
func findRepository(ctx context.Context, dir string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "holdfast")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find the repository: go list -m holdfast: %w", err)
	}
	return filepath.EvalSymlinks(strings.TrimSpace(string(out)))
}

// A stamp is what tells one build from another: nothing else of where and when
// it was made is in an image.
type stamp struct {
	version string
	time    time.Time
}

func stampOf(ctx context.Context, repository, version string) (stamp, error) {
	git := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "safe.directory=" + repository, "-C", repository}, args...)...)
		out, err := cmd.Output()
		return strings.TrimSpace(string(out)), err
	}
	s := stamp{version: version}
	var err error
	if s.version == "" {
		if s.version, err = git("describe", "--tags", "--always", "--dirty", "--abbrev=12"); err != nil {
			return s, fmt.Errorf("version: git describe: %w; -version gives it", err)
		}
	}
	if strings.Trim(s.version, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.+-") != "" {
		return s, fmt.Errorf("version: %q is no part of a file name", s.version)
	}
	seconds, where := os.Getenv("SOURCE_DATE_EPOCH"), "SOURCE_DATE_EPOCH"
	if seconds == "" {
		where = "git log"
		if seconds, err = git("log", "-1", "--format=%ct"); err != nil {
			return s, fmt.Errorf("time of the commit: git log: %w; SOURCE_DATE_EPOCH gives it", err)
		}
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return s, fmt.Errorf("time of the commit: %s: %w", where, err)
	}
	s.time = time.Unix(n, 0).UTC()
	if s.time.Year() < 2001 || s.time.Year() > 2037 { // ten digits, and what squashfs and FAT hold
		return s, fmt.Errorf("time of the commit: %s says %s", where, s.time.Format(time.RFC3339))
	}
	return s, nil
}

// compress writes a file anew as Zstandard and returns the SHA-256 of that. One
// thread, so that equal input gives equal output.
func compress(from, to string) (sum [32]byte, err error) {
	in, err := os.Open(from)
	if err != nil {
		return sum, err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	hash := sha256.New()
	z, err := zstd.NewWriter(io.MultiWriter(out, hash), zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20))
	if err != nil {
		return sum, err
	}
	if _, err := io.Copy(z, in); err != nil {
		return sum, fmt.Errorf("compress image: %w", errors.Join(err, z.Close()))
	}
	if err := z.Close(); err != nil {
		return sum, fmt.Errorf("compress image: %w", err)
	}
	return [32]byte(hash.Sum(nil)), nil
}
