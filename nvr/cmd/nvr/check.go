package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"holdfast/nvr/db"
	"holdfast/nvr/store"
)

// errFindings is what a check ends with that found something. All there is to
// say has been said.
var errFindings = errors.New("not all is well")

// progressEvery is how often a long command says how far it is.
const progressEvery = 2 * time.Second

func checkCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := newFlags("nvr check")
	var cfg store.CheckConfig
	fs.StringVar(&cfg.Dir, "data", "", "data `directory` of the recorder, which must not be running")
	files := fs.String("compare-files", "full", "`how` to compare sample files: full reads every byte, quick looks at sizes")
	fs.BoolVar(&cfg.RepairSums, "repair-sums", false, "add up the totals of streams anew, and lift counters that are too low")
	fs.BoolVar(&cfg.RewriteRows, "rewrite-rows", false, "make rows and indexes anew that differ from a file that is whole")
	fs.BoolVar(&cfg.CutTails, "cut-tails", false, "cut off what files have behind the end that their rows say")
	fs.BoolVar(&cfg.TrashCorruptRows, "trash-corrupt-rows", false, "delete recordings whose files are damaged, with their files")
	fs.BoolVar(&cfg.DeleteOrphanRows, "delete-orphan-rows", false, "delete rows whose files are gone, and garbage rows that would take a recording")
	fs.BoolVar(&cfg.DeleteOrphanFiles, "delete-orphan-files", false, "delete sample files without rows that no start would adopt")
	fs.BoolVar(&cfg.Force, "force", false, "repair also when that is more than 1 % of the recordings")
	if _, err := parse(fs, args, stdout, ""); err != nil {
		return err
	}
	switch {
	case cfg.Dir == "":
		return fmt.Errorf("%w: -data is missing", errUsage)
	case *files != "full" && *files != "quick":
		return fmt.Errorf("%w: -compare-files %q: it is full or quick", errUsage, *files)
	}
	cfg.Quick = *files == "quick"
	if cfg.Quick && (cfg.RewriteRows || cfg.CutTails || cfg.TrashCorruptRows) {
		return fmt.Errorf("%w: -rewrite-rows, -cut-tails and -trash-corrupt-rows need -compare-files full", errUsage)
	}
	cfg.Log = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	cfg.Found = func(f store.Finding) {
		if f.Note {
			fmt.Fprintf(stdout, "note: %s\n", f)
			return
		}
		fmt.Fprintln(stdout, f)
	}
	last := time.Now()
	cfg.Progress = func(p store.CheckProgress) {
		if time.Since(last) >= progressEvery && p.TotalRows > 0 {
			last = time.Now()
			fmt.Fprintf(stderr, "checked %d of %d recordings, %d MB of files\n", p.Rows, p.TotalRows, p.Bytes/1e6)
		}
	}
	res, err := store.Check(ctx, cfg)
	if errors.Is(err, db.ErrLocked) {
		return fmt.Errorf("%w: check: %w; stop the recorder first", errUsage, err)
	}
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	fmt.Fprintf(stderr, "checked %d recordings, %d MB of files: %d findings", res.Rows, res.Bytes/1e6, res.Findings)
	if res.Repaired > 0 {
		fmt.Fprintf(stderr, ", repaired %d; check again", res.Repaired)
	}
	fmt.Fprintln(stderr)
	if res.Findings > 0 {
		return errFindings
	}
	return nil
}
