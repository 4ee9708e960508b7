// Command nvr is the network video recorder: it records RTSP cameras to disk
// and serves what it recorded. It is also the emulated camera to try it with,
// and the tools to look at what it wrote.
//
// Here are flags and wiring only; what a command does is in the packages.
//
// Output: a command prints what it was asked for to standard output. Errors
// are one line on standard error, "nvr: what, on which object, why", without
// capitals and full stops. The log goes to standard error.
//
// Exit codes: 0 done; 1 an error; 3 the storage cannot be trusted until the page
// cache is dropped, which is for the supervisor to do before it starts the
// recorder again; 64 wrong usage. 2 is Go's own: a panic, or SIGABRT.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	_ "time/tzdata" // the machine may have no time zones of its own

	"holdfast/nvr/store"
)

const usage = `usage:
  nvr run -data DIR [-http ADDR] [-https ADDR]                   record and serve
  nvr demo [-data DIR] [-http ADDR] [-cameras N]                 the same, with emulated cameras
  nvr camera [-listen ADDR] [-fixture NAME|FILE.mp4] [-n N]      emulated cameras alone
  nvr config import|export -data DIR FILE                        cameras from and to a JSON file, merged by name
  nvr upgrade -data DIR                                          bring an older database up to date, as run does
  nvr check -data DIR [-compare-files quick]                     compare database and sample files, repair by flags
  nvr rebuild -data DIR [-dir DIR ...]                           make the database anew from the sample files
  nvr backup -data DIR -to FILE                                  copy the database
  nvr restore -data DIR -from FILE                               put such a copy in the place of the database
  nvr dump FILE.mp4                                              what a sample file holds
  nvr version

"nvr COMMAND -h" lists the flags of a command.
`

// errUsage is the kind of an error in the command line.
var errUsage = errors.New("wrong usage")

// usageCode is the exit code of wrong usage, EX_USAGE of sysexits.h. A
// supervisor does not start again what ended with it, so it must be none that Go
// ends with by itself.
const usageCode = 64

// poisonedCode is the exit code after which the page cache has to be dropped before
// the recorder starts again (storage.md rule 14).
const poisonedCode = 3

func main() {
	os.Exit(command(os.Args[1:], os.Stdout, os.Stderr))
}

// command runs one command until it is done or a signal ends it, and returns
// the exit code.
func command(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signalContext()
	defer stop()
	err := dispatch(ctx, args, stdout, stderr)
	code, told := exitCode(err)
	if !told {
		fmt.Fprintf(stderr, "nvr: %v\n", err)
	}
	return code
}

// exitCode is what a process ends with for an error, and whether all of that was
// told before.
func exitCode(err error) (code int, told bool) {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0, true
	case errors.Is(err, store.ErrPoisoned):
		return poisonedCode, false
	case errors.Is(err, errFindings):
		return 1, true
	case errors.Is(err, errUsage):
		return usageCode, false
	}
	return 1, false
}

func dispatch(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return fmt.Errorf("%w: no command", errUsage)
	}
	name, args := args[0], args[1:]
	switch name {
	case "run":
		return runCommand(ctx, args, stdout, stderr)
	case "demo":
		return demoCommand(ctx, args, stdout, stderr)
	case "camera":
		return cameraCommand(ctx, args, stdout, stderr)
	case "config":
		return configCommand(ctx, args, stdout, stderr)
	case "upgrade":
		return upgradeCommand(ctx, args, stdout, stderr)
	case "check":
		return checkCommand(ctx, args, stdout, stderr)
	case "rebuild":
		return rebuildCommand(ctx, args, stdout, stderr)
	case "backup":
		return backupCommand(ctx, args, stdout, stderr)
	case "restore":
		return restoreCommand(ctx, args, stdout, stderr)
	case "dump":
		return dumpCommand(args, stdout)
	case "version":
		fmt.Fprintln(stdout, "nvr", version())
		return nil
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, usage)
		return nil
	}
	return fmt.Errorf("%w: there is no command %q; \"nvr help\" lists them", errUsage, name)
}

// signalContext ends with the first SIGINT or SIGTERM. The second one ends
// the process on the spot, as a power cut would.
func signalContext() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		<-signals
		os.Exit(1)
	}()
	return ctx, func() { signal.Stop(signals); cancel() }
}

// newFlags returns the flags of a command. What it has to say, parse says.
func newFlags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

// parse parses the flags of a command and returns what stands before, between
// and behind them: as many words as operands names, space between. -h prints
// the flags, below the lines of about.
func parse(fs *flag.FlagSet, args []string, stdout io.Writer, operands string, about ...string) (words []string, err error) {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s: %w; %s -h lists the flags", errUsage, fs.Name(), fmt.Errorf(format, args...), fs.Name())
	}
	want := strings.Fields(operands)
	for {
		err := fs.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(stdout, strings.TrimSpace("usage: "+fs.Name()+" [flags] "+operands))
			for _, line := range about {
				fmt.Fprintln(stdout, line)
			}
			fs.SetOutput(stdout)
			fs.PrintDefaults()
			return nil, err
		}
		if err != nil {
			return nil, wrong("%w", err)
		}
		if fs.NArg() == 0 {
			break
		}
		if len(words) == len(want) {
			return nil, wrong("unexpected %q", fs.Arg(0))
		}
		words, args = append(words, fs.Arg(0)), fs.Args()[1:]
	}
	if len(words) < len(want) {
		return nil, wrong("%s is missing", want[len(words)])
	}
	return words, nil
}

// stamp is git describe, which make gives by -ldflags: the build info lacks it
// in a work tree of git, or in the clone of another user.
var stamp string

// version is that of the module, with the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if stamp != "" {
		return stamp + " " + info.GoVersion
	}
	v, dirty := info.Main.Version, ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			v = s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+dirty"
		}
	}
	return v + dirty + " " + info.GoVersion
}
