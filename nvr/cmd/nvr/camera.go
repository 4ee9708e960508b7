package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"

	"holdfast/nvr/camera/cameratest"
)

// cameraCommand is `nvr camera`: emulated cameras for people who want to try a
// recorder. It prints what it serves and runs until ctx is done.
func cameraCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFlags("nvr camera")
	listen := flags.String("listen", "127.0.0.1:8554", "serve RTSP on `HOST:PORT`")
	fixture := flags.String("fixture", "", "play `NAME|FILE.mp4`: one of "+strings.Join(cameratest.Names(), ", ")+
		", or an H.264 or H.265 file, with AAC or silent (default: each camera another)")
	cameras := flags.Int("n", 1, "serve this many `CAMERAS`, as /1/main, /1/sub, /2/main …")
	user := flags.String("user", "", "ask for this user `NAME`")
	password := flags.String("password", "", "and this `PASSWORD`")
	script := flags.String("script", "", "let go wrong what `FILE` says, a fault a line: 30s stall 15s")
	seed := flags.Uint64("seed", 0, "choose the random moments of the script by `NUMBER`")
	udp := flags.Bool("udp", false, "offer UDP as well as TCP")
	if _, err := parse(flags, args, stdout, ""); errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(stdout, "\nA script, with every fault:\n\n%s", cameratest.Help)
		return err
	} else if err != nil {
		return err
	}
	if *cameras < 1 {
		return fmt.Errorf("%w: nvr camera: -n %d: at least 1", errUsage, *cameras)
	}
	switch {
	case *password != "" && *user == "":
		return fmt.Errorf("%w: nvr camera: -password needs -user", errUsage)
	case *user != "" && *password == "":
		return fmt.Errorf("%w: nvr camera: -user needs -password", errUsage)
	}
	cfg := cameratest.Config{
		Listen: *listen, Cameras: *cameras, Fixture: *fixture,
		User: *user, Password: *password, Seed: *seed, UDP: *udp,
		Log: slog.New(slog.NewTextHandler(stderr, nil)),
	}
	if *script != "" {
		text, err := os.ReadFile(*script)
		if err != nil {
			return fmt.Errorf("nvr camera: script: %w", err)
		}
		if cfg.Script, err = cameratest.ParseScript(string(text)); err != nil {
			return fmt.Errorf("nvr camera: %s: %w", *script, err)
		}
	}
	srv, err := cameratest.Start(cfg)
	if err != nil {
		if errors.As(err, new(*net.OpError)) {
			return listenError(err, *listen, "-listen")
		}
		return fmt.Errorf("nvr camera: %w", err)
	}
	defer srv.Close()
	paths := srv.Paths()
	if *cameras == 1 {
		paths = []string{"main", "sub"}
	}
	for _, p := range paths {
		fmt.Fprintf(stdout, "%s  %s\n", srv.URL(p), srv.Fixture(p).Name)
	}
	<-ctx.Done()
	return nil
}
