package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"holdfast/nvr/access"
	"holdfast/nvr/certificate"
	"holdfast/nvr/record"
	"holdfast/nvr/store"
	"holdfast/nvr/web"
	"holdfast/webui"
)

// options are those of a recorder, by flags or by the demo.
type options struct {
	data      string
	http      string
	https     string // "": there is none
	cert, key string // files of the owner's certificate; "": the recorder has its own
	redirect  bool   // http leads to https
	anonymous string // "", "view" or "admin"
	zone      string
	hosts     []string       // names it goes by
	proxies   []netip.Prefix // that it believes
	dirs      []string       // below which sample directories may be, beside the data directory

	// ready is called when the recorder listens; prepare before that, when
	// the store is open.
	prepare func(context.Context, *store.Store) error
	ready   func(serving)
}

// serving is what a recorder that listens has to say of it.
type serving struct {
	http, https net.Addr // https nil: there is none
	fingerprint string   // of the authority to install for it; "": there is none
	claim       string   // the code that makes the first user; "": there is none
}

// clockNotBefore is earlier than any recorder is that has this program. A clock
// that shows less was not set since the machine started.
var clockNotBefore = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

func (o *options) flags(fs *flag.FlagSet) {
	fs.StringVar(&o.data, "data", o.data, "data `directory`; it is created")
	fs.StringVar(&o.http, "http", o.http, "`address` to serve on, unless a supervisor passes a socket (LISTEN_FDS)")
	fs.StringVar(&o.https, "https", o.https, "`address` to serve TLS on, unless a supervisor passes a socket named https (default: none)")
	fs.StringVar(&o.cert, "tls-cert", o.cert, "`file` of a certificate of your own, PEM, with what links it to its authority; it is read again when it changes")
	fs.StringVar(&o.key, "tls-key", o.key, "`file` of its key, PEM")
	fs.BoolVar(&o.redirect, "https-redirect", o.redirect, "have plain HTTP lead to TLS, but for /healthz, /metrics and /ca.pem")
	fs.StringVar(&o.anonymous, "allow-anonymous", o.anonymous, "what anybody may do without signing in: `view|admin`")
	fs.Func("host", "`names` the recorder goes by, beside its addresses, localhost and this machine's name; commas between", func(v string) error {
		for name := range strings.SplitSeq(v, ",") {
			if name = strings.TrimSpace(name); name == "" || strings.ContainsAny(name, ":/ ") {
				return fmt.Errorf("%q is not a name", name)
			}
			o.hosts = append(o.hosts, name)
		}
		return nil
	})
	fs.Func("trust-proxy", "`addresses` of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed; commas between", func(v string) error {
		for text := range strings.SplitSeq(v, ",") {
			p, err := netip.ParsePrefix(strings.TrimSpace(text))
			if err != nil {
				var a netip.Addr
				if a, err = netip.ParseAddr(strings.TrimSpace(text)); err != nil {
					return fmt.Errorf("%q is not an address, nor a block of them", text)
				}
				p = netip.PrefixFrom(a, a.BitLen())
			}
			o.proxies = append(o.proxies, p)
		}
		return nil
	})
	fs.Func("sample-dirs", "`directories` below which sample directories may be added over the network, beside the data directory; commas between", func(v string) error {
		for dir := range strings.SplitSeq(v, ",") {
			if dir = strings.TrimSpace(dir); !filepath.IsAbs(dir) {
				return fmt.Errorf("%q is not an absolute path", dir)
			}
			o.dirs = append(o.dirs, dir)
		}
		return nil
	})
	fs.StringVar(&o.zone, "time-zone", o.zone, "time `zone` of days, for example Europe/Zurich (default: the machine's)")
}

func (o *options) check() error {
	if o.data == "" {
		return fmt.Errorf("%w: -data is missing: name the directory to record to", errUsage)
	}
	if (o.cert == "") != (o.key == "") {
		return fmt.Errorf("%w: -tls-cert and -tls-key go together", errUsage)
	}
	switch o.anonymous {
	case "", "view", "admin":
		return nil
	}
	return fmt.Errorf("%w: -allow-anonymous %q: it is view or admin", errUsage, o.anonymous)
}

func runCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o := options{http: "127.0.0.1:8080"}
	fs := newFlags("nvr run")
	o.flags(fs)
	if _, err := parse(fs, args, stdout, ""); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	o.ready = func(s serving) {
		fmt.Fprintf(stdout, "serving http://%s\n", s.http)
		if s.https != nil {
			fmt.Fprintf(stdout, "serving https://%s\n", s.https)
		}
		if s.fingerprint != "" {
			fmt.Fprintf(stdout, "for browsers to trust it, install /ca.pem where they run; its SHA-256 must be %s\n", s.fingerprint)
		}
		if s.claim != "" {
			fmt.Fprintf(stdout, "nobody owns this recorder yet: within %d minutes, open its page and claim it with the code %s\n",
				int(access.ClaimTime.Minutes()), s.claim)
		}
	}
	return run(ctx, o, slog.New(slog.NewTextHandler(stderr, nil)))
}

// claimCode is the file of the data directory with the code that makes the first
// user. A kill leaves it.
const claimCode = "claim-code"

// tlsDir is the directory of the data directory with the certificates that the
// recorder makes.
const tlsDir = "tls"

// memory is what the collector of garbage works towards: samples pass through
// once, so a small heap costs little time.
const (
	memoryLimit    = 512 << 20
	garbagePercent = 50
)

// Times to stop in: the whole has to be done in 5 s.
const stopHTTP = time.Second

var stopStore = 3500 * time.Millisecond // tests have longer

// run is the recorder, from its start to its end:
//
//	store ─► web ─► records                 start
//	web ─► records ─► store (drain, flush)  stop
func run(ctx context.Context, o options, log *slog.Logger) error {
	debug.SetMemoryLimit(memoryLimit)
	debug.SetGCPercent(garbagePercent)

	zone, err := time.LoadLocation(zoneName(o.zone))
	if err != nil {
		return fmt.Errorf("%w: time zone: %w", errUsage, err)
	}
	if err := refuseForeign(o.data); err != nil {
		return err
	}
	plain, secure, err := listen(o.http, o.https)
	if err != nil {
		return err
	}
	defer plain.Close()
	listeners := []net.Listener{plain}
	if secure != nil {
		defer secure.Close()
		listeners = append(listeners, secure)
	} else if o.cert != "" || o.redirect {
		return fmt.Errorf("%w: -tls-cert, -tls-key and -https-redirect are for -https", errUsage)
	}
	box, err := machine(os.Getenv("HOLDFAST_BOOT"))
	if err != nil {
		log.Warn("the machine is not shown", "err", err)
	}
	notify := notifier(log)
	opening, opened := context.WithCancel(ctx)
	defer opened()
	s, err := store.Open(ctx, store.Config{
		Dir: o.data, DirRoots: append([]string{o.data}, o.dirs...), OwnNames: []string{claimCode, tlsDir}, Log: log, TimeZone: zone, ClockNotBefore: clockNotBefore, Progress: starting(opening, notify),
	})
	opened()
	if err != nil && ctx.Err() != nil && !errors.Is(err, store.ErrPoisoned) {
		log.Info("stopped while it started", "cause", err)
		return nil
	}
	if err != nil {
		return err
	}
	if o.prepare != nil {
		if err := o.prepare(ctx, s); err != nil {
			return errors.Join(err, closeStore(s))
		}
	}

	users, err := access.Open(context.WithoutCancel(ctx), access.Config{
		DB: s.Database(), Failed: s.DatabaseFailed, Log: log, Everybody: web.Everybody(o.anonymous), Claim: true, ClaimFile: filepath.Join(o.data, claimCode),
		ClockGood: s.ClockGood,
	})
	if err != nil {
		return errors.Join(err, closeStore(s))
	}
	defer users.Close()

	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	recorder := &record.Recorder{Store: s, Log: log}
	var work sync.WaitGroup
	var shown *certificate.Keeper
	var ofTLS *web.TLS
	if secure != nil {
		shown = certificate.Open(certificate.Config{
			Dir: filepath.Join(o.data, tlsDir), Cert: o.cert, Key: o.key, Names: web.Names(o.hosts),
			NotBefore: clockNotBefore, ClockGood: s.ClockGood, Log: log,
		})
		work.Go(func() { shown.Keep(ctx) })
		_, port, _ := net.SplitHostPort(secure.Addr().String())
		ofTLS = &web.TLS{CA: shown.CA, Fault: shown.Fault, Own: shown.Own(), Port: port, Redirect: o.redirect}
	}
	handler := web.New(web.Config{
		Store: s, Log: log, Access: users, Hosts: o.hosts, Proxies: o.proxies,
		TLS: ofTLS, TryStream: recorder.Try, UI: webui.Handler(), Version: version(), Machine: box,
	})
	server := web.Server(ctx, handler, log)
	serve := []func(net.Listener) error{server.Serve, func(l net.Listener) error { return server.ServeTLS(l, "", "") }}
	if shown != nil {
		server.TLSConfig = shown.TLS()
	}
	for i, l := range web.Limit(listeners, o.proxies...) {
		work.Go(func() {
			if err := serve[i](l); !errors.Is(err, http.ErrServerClosed) {
				fail(err)
			}
		})
	}
	work.Go(func() {
		recorder.Serve(ctx, "recorder stopped")
	})
	if interval := watchdogInterval(log); interval > 0 {
		work.Go(func() { watchdog(ctx, interval, s.Healthy, notify, log) })
	}
	notify(daemon.SdNotifyReady)
	now := serving{http: plain.Addr()}
	now.claim, _ = users.ClaimCode()
	if shown != nil {
		now.https, now.fingerprint = secure.Addr(), shown.Fingerprint()
	}
	if now.https != nil {
		log.Info("serving TLS", "https", now.https, "authority", now.fingerprint)
	}
	log.Info("started", "data", o.data, "http", now.http, "cameras", len(s.Cameras()), "version", version())
	if o.ready != nil {
		o.ready(now)
	}

	select {
	case <-ctx.Done():
	case err := <-s.Fatal():
		// Nothing is closed: closing the database would write to it.
		log.Error("stopping at once", "err", err)
		return err
	case err := <-s.Again():
		fail(err)
	}
	notify(daemon.SdNotifyStopping)
	log.Info("stopping")
	err = context.Cause(ctx)
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	stop, cancel := context.WithTimeout(context.Background(), stopHTTP)
	defer cancel()
	if server.Shutdown(stop) != nil {
		server.Close() // viewers of long files would go on for ever
	}
	work.Wait()
	err = errors.Join(err, closeStore(s))
	log.Info("stopped")
	return err
}

// refuseForeign returns an error when a directory is not empty and was never
// the data directory of a recorder: most likely its name is a mistake. An empty
// disk holds lost+found.
func refuseForeign(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	foreign := ""
	for _, e := range entries {
		switch name := e.Name(); {
		case name == "db":
			return nil
		case store.OwnName(name), name == claimCode, name == tlsDir:
		case foreign == "":
			foreign = name
		}
	}
	if foreign != "" {
		return fmt.Errorf("data directory %s: it holds %s and no database of a recorder: name an empty or a new one with -data", dir, foreign)
	}
	return nil
}

func closeStore(s *store.Store) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopStore)
	defer cancel()
	return s.Close(ctx)
}

// zoneName is the name of the time zone: the one asked for, else that of the
// machine. Package time knows the machine's zone only as "Local", which says
// nothing to a browser.
func zoneName(asked string) string {
	if asked != "" {
		return asked
	}
	if tz := os.Getenv("TZ"); tz != "" {
		return strings.TrimPrefix(tz, ":")
	}
	if link, err := os.Readlink("/etc/localtime"); err == nil {
		if _, name, ok := strings.Cut(link, "zoneinfo/"); ok {
			return name
		}
	}
	return "UTC"
}
