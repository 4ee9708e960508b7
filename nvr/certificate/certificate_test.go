package certificate

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// house is a recorder whose certificate is kept.
type house struct {
	*testing.T
	*Keeper
	cfg       Config
	addresses []netip.Addr
	wall      time.Time
	good      bool
	log       bytes.Buffer
}

var floor = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

func newHouse(t *testing.T) *house {
	h := &house{T: t, wall: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), good: true}
	h.addresses = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.168.1.20"), netip.MustParseAddr("fd00::20"),
		netip.MustParseAddr("fe80::1"), netip.MustParseAddr("2001:db8::20"), netip.MustParseAddr("198.51.100.20")}
	h.cfg = Config{
		Dir:   filepath.Join(t.TempDir(), "tls"),
		Names: []string{"localhost", "holdfast", "Holdfast.local", "nvr.example.org.", "203.0.113.7", "kein name", "", "höhle.example.org"},
		Addresses: func() ([]netip.Addr, error) {
			return h.addresses, nil
		},
		NotBefore: floor, Now: func() time.Time { return h.wall }, ClockGood: func() bool { return h.good },
		Log: slog.New(slog.NewTextHandler(&h.log, nil)),
	}
	return h
}

// open is a start of the recorder.
func (h *house) open() {
	h.Helper()
	h.Keeper = Open(h.cfg)
	if f := h.Fault(); f != "" {
		h.Fatal(f)
	}
}

func roots(caPEM []byte) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(caPEM)
	return pool
}

func parse(t *testing.T, caPEM []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(caPEM)
	if block == nil {
		t.Fatalf("no certificate in %q", caPEM)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// connect is a browser that installed an authority: what it says of a
// connection to a name.
func (h *house) connect(caPEM []byte, name string, change func(*tls.Config)) (tls.ConnectionState, error) {
	h.Helper()
	near, far := net.Pipe()
	defer near.Close()
	var served sync.WaitGroup
	defer served.Wait()
	served.Go(func() {
		defer far.Close()
		_ = tls.Server(far, h.TLS()).Handshake()
	})
	cfg := &tls.Config{RootCAs: roots(caPEM), ServerName: name, Time: func() time.Time { return h.wall }, NextProtos: []string{"h2", "http/1.1"}}
	if change != nil {
		change(cfg)
	}
	c := tls.Client(near, cfg)
	err := c.Handshake()
	state := c.ConnectionState()
	near.Close()
	return state, err
}

func (h *house) shownLeaf() *x509.Certificate {
	h.Helper()
	c, err := h.TLS().GetCertificate(nil)
	if err != nil {
		h.Fatal(err)
	}
	return c.Leaf
}

// Who installed the authority may connect by each name and address, and the
// authority is good for nothing else.
func TestAuthorityIsGoodForThisRecorder(t *testing.T) {
	h := newHouse(t)
	h.open()
	for name, want := range map[string]bool{
		"localhost": true, "holdfast": true, "holdfast.local": true, "nvr.example.org": true,
		"127.0.0.1": true, "192.168.1.20": true, "fd00::20": true, "203.0.113.7": true,
		"192.168.1.21": false, "2001:db8::20": false, "198.51.100.20": false, "fe80::1": false, "example.org": false,
	} {
		state, err := h.connect(h.CA(), name, nil)
		if (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
		if want && (state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != "http/1.1") {
			t.Errorf("%s: %s, %q", name, tls.VersionName(state.Version), state.NegotiatedProtocol)
		}
	}
	if _, err := h.connect(nil, "localhost", nil); err == nil {
		t.Error("a browser without the authority connects")
	}
	if _, err := h.connect(h.CA(), "localhost", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }); err == nil {
		t.Error("TLS 1.1 connects")
	}
	ca := parse(t, h.CA())
	if key, ok := ca.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve.Params().Name != "P-256" || !ca.IsCA || ca.NotAfter.Sub(h.wall).Round(24*time.Hour) != 3652*24*time.Hour {
		t.Errorf("authority %T until %v", ca.PublicKey, ca.NotAfter)
	}
	if !ca.MaxPathLenZero || !ca.PermittedDNSDomainsCritical || !slices.Equal(ca.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) {
		t.Errorf("authority %+v", ca)
	}
	if leaf := h.shownLeaf(); leaf.NotAfter.Sub(leaf.NotBefore) > 397*24*time.Hour || !leaf.NotBefore.Before(h.wall) {
		t.Errorf("from %v to %v", leaf.NotBefore, leaf.NotAfter)
	}
	// What a thief of its key signs is worth nothing.
	for name, want := range map[string]subjects{
		"bank.example": {names: []string{"bank.example"}}, "fritz.box": {names: []string{"fritz.box"}},
		"8.8.8.8": {ips: []netip.Addr{netip.MustParseAddr("8.8.8.8")}}, "2001:4860:4860::8888": {ips: []netip.Addr{netip.MustParseAddr("2001:4860:4860::8888")}},
	} {
		thief, err := h.newLeaf(h.ca, want)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := thief.Leaf.Verify(x509.VerifyOptions{Roots: roots(h.CA()), DNSName: name, CurrentTime: h.wall}); err == nil {
			t.Errorf("the authority vouches for %s", name)
		}
	}
	if f := h.Fingerprint(); len(f) != 95 || f != fingerprint(ca.Raw) || !strings.Contains(h.log.String(), f) {
		t.Errorf("fingerprint %q; the log says %s", f, h.log.String())
	}
}

// The keys are for the recorder alone, and outlive it.
func TestCertificateIsKept(t *testing.T) {
	h := newHouse(t)
	h.open()
	ca, leaf := h.Fingerprint(), h.shownLeaf().SerialNumber
	h.open()
	if h.Fingerprint() != ca || h.shownLeaf().SerialNumber.Cmp(leaf) != 0 {
		t.Error("made anew by a start")
	}
	entries, err := os.ReadDir(h.cfg.Dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("%v, %v", entries, err)
	}
	for _, e := range entries {
		if fi, err := e.Info(); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", e.Name(), fi.Mode(), err)
		}
		b, err := os.ReadFile(filepath.Join(h.cfg.Dir, e.Name()))
		if err != nil || !bytes.Contains(b, []byte("PRIVATE KEY")) || bytes.Contains(h.CA(), []byte("PRIVATE")) {
			t.Errorf("%s: %v", e.Name(), err)
		}
	}
	if fi, err := os.Stat(h.cfg.Dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", fi, err)
	}
	// What makes no sense is made anew, and that is said.
	for _, name := range []string{"leaf", "ca"} {
		if err := os.WriteFile(h.path(name), []byte("-----BEGIN"), 0o600); err != nil {
			t.Fatal(err)
		}
		h.open()
		if same := h.Fingerprint() == ca; same != (name == "leaf") || h.shownLeaf().SerialNumber.Cmp(leaf) == 0 {
			t.Errorf("damaged %s: the authority is the same: %t", name, same)
		}
		if _, err := h.connect(h.CA(), "localhost", nil); err != nil {
			t.Errorf("damaged %s: %v", name, err)
		}
	}
	if n := strings.Count(h.log.String(), "makes no sense"); n != 2 {
		t.Errorf("said %d times:\n%s", n, h.log.String())
	}
}

// keep has f see what is shown a minute later, as often as it likes.
func (h *house) keep(f func(minute func())) {
	ctx, cancel := context.WithCancel(h.Context())
	var kept sync.WaitGroup
	kept.Go(func() { h.Keep(ctx) })
	f(func() {
		time.Sleep(lookEvery)
		synctest.Wait()
	})
	cancel()
	kept.Wait()
}

// Fails when the certificate is not for the addresses and names of the moment, or
// is made anew without a reason.
func TestCertificateFollowsNamesAndAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.open()
		installed, first := h.CA(), h.shownLeaf()
		h.keep(func(minute func()) {
			minute()
			h.addresses = h.addresses[:1]
			minute()
			if h.shownLeaf() != first {
				t.Error("made anew for an address that is gone")
			}
			h.addresses = []netip.Addr{netip.MustParseAddr("192.168.1.99"), netip.MustParseAddr("2001:db8::99")}
			if _, err := h.connect(installed, "192.168.1.99", nil); err == nil {
				t.Error("an address of the future")
			}
			minute()
			if _, err := h.connect(installed, "192.168.1.99", nil); err != nil {
				t.Error(err)
			}
			if _, err := h.connect(installed, "192.168.1.20", nil); err == nil {
				t.Error("an address of the past")
			}
		})
		h.cfg.Names = append(h.cfg.Names, "www.nvr.example.org") // which the authority permits
		h.open()
		if _, err := h.connect(installed, "www.nvr.example.org", nil); err != nil {
			t.Error(err)
		}
		if strings.Contains(h.log.String(), "installed anew") {
			t.Errorf("another authority:\n%s", h.log.String())
		}
		for _, name := range []string{"other.example.org", "203.0.113.8"} {
			h.cfg.Names = append(h.cfg.Names, name)
			before := h.Fingerprint()
			h.open()
			if _, err := h.connect(h.CA(), name, nil); err != nil {
				t.Error(err)
			}
			if h.Fingerprint() == before || !strings.Contains(h.log.String(), "installed anew") {
				t.Errorf("%s: %s", name, h.log.String())
			}
		}
	})
}

// Fails when what is shown comes near its end, or what was installed has to be
// installed again for that.
func TestCertificateIsRenewed(t *testing.T) {
	h := newHouse(t)
	h.open()
	installed, made := h.CA(), h.wall
	var leaves, authorities int
	last, lastCA := h.shownLeaf(), h.Fingerprint()
	for h.wall.Before(made.AddDate(12, 0, 0)) {
		h.wall = h.wall.Add(30 * day)
		h.look()
		now := h.shownLeaf()
		if now != last {
			leaves++
		}
		if h.Fingerprint() != lastCA {
			authorities++
		}
		last, lastCA = now, h.Fingerprint()
		if left := now.NotAfter.Sub(h.wall); left < leafRenew || now.NotAfter.Sub(now.NotBefore) > leafTime {
			t.Fatalf("%v: from %v to %v", h.wall, now.NotBefore, now.NotAfter)
		}
		if ca := parse(t, h.CA()); ca.NotAfter.Before(now.NotAfter) {
			t.Fatalf("%v: the authority ends before what it signed", h.wall)
		}
		trusted := [][]byte{h.CA()}
		if h.wall.Before(made.AddDate(caYears, 0, -2)) {
			trusted = append(trusted, installed)
		}
		for _, ca := range trusted {
			if _, err := h.connect(ca, "holdfast.local", nil); err != nil {
				t.Fatalf("%v: %v", h.wall, err)
			}
		}
	}
	if leaves < 14 || leaves > 18 || authorities != 1 {
		t.Errorf("in 12 years %d certificates, %d authorities", leaves, authorities)
	}
}

// A clock that is not set makes nothing that is not valid when it is, as far as
// can be, ends nothing, and costs no authority.
func TestCertificateOfAClockThatIsNotSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.wall, h.good = time.Unix(100, 0), false
		h.open()
		installed, first := h.CA(), h.shownLeaf()
		if first.NotBefore.After(floor) || first.NotAfter.Before(floor.AddDate(1, 0, 0)) {
			t.Errorf("from %v to %v", first.NotBefore, first.NotAfter)
		}
		h.open()
		if h.shownLeaf().SerialNumber.Cmp(first.SerialNumber) != 0 {
			t.Error("made anew by a start")
		}
		h.wall, h.good = time.Date(2029, 5, 1, 0, 0, 0, 0, time.UTC), true
		h.keep(func(minute func()) { minute() })
		if _, err := h.connect(installed, "holdfast.local", nil); err != nil {
			t.Errorf("the clock is set: %v", err)
		}
		if !bytes.Equal(h.CA(), installed) {
			t.Error("another authority")
		}
		// The next start does not know the time again, and the address is another.
		h.wall, h.good = time.Unix(100, 0), false
		h.addresses = []netip.Addr{netip.MustParseAddr("10.0.0.9")}
		h.open()
		h.wall = time.Date(2029, 6, 1, 0, 0, 0, 0, time.UTC) // as the browser has it
		if _, err := h.connect(installed, "10.0.0.9", nil); err != nil {
			t.Errorf("after a start with another address: %v", err)
		}
		// An authority of a clock that was ahead is made anew, of the same key.
		h.wall, h.good = time.Date(2060, 1, 1, 0, 0, 0, 0, time.UTC), true
		h.look()
		h.wall = time.Date(2029, 7, 1, 0, 0, 0, 0, time.UTC)
		h.look()
		for _, ca := range [][]byte{h.CA(), installed} {
			if _, err := h.connect(ca, "10.0.0.9", nil); err != nil {
				t.Errorf("a clock that was ahead: %v", err)
			}
		}
	})
}

// A disk that takes no file leaves what was shown, and is tried again.
func TestCertificateThatCannotBeKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		dir := h.cfg.Dir
		h.cfg.Dir = filepath.Join(dir, "tls") // in one that is not there
		h.Keeper = Open(h.cfg)
		if !strings.Contains(h.Fault(), "there is none to show") || h.CA() != nil || h.Fingerprint() != "" {
			t.Errorf("fault %q", h.Fault())
		}
		if _, err := h.connect(nil, "localhost", func(c *tls.Config) { c.InsecureSkipVerify = true }); err == nil {
			t.Error("something is shown")
		}
		h.keep(func(minute func()) {
			minute()
			if n := strings.Count(h.log.String(), "level=ERROR"); n != 1 {
				t.Errorf("said %d times:\n%s", n, h.log.String())
			}
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			minute()
		})
		if _, err := h.connect(h.CA(), "localhost", nil); err != nil || h.Fault() != "" || !strings.Contains(h.log.String(), "well again") {
			t.Errorf("%v; fault %q", err, h.Fault())
		}
		// Nothing can stand where the next one is written.
		if err := os.MkdirAll(filepath.Join(h.cfg.Dir, "leaf.pem.new", "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		h.addresses = append(h.addresses, netip.MustParseAddr("10.0.0.9"))
		for range 2 { // after a start, too
			h.Keeper = Open(h.cfg)
			if _, err := h.connect(h.CA(), "192.168.1.20", nil); err != nil || h.Fault() == "" {
				t.Errorf("%v; fault %q", err, h.Fault())
			}
		}
	})
}

// pair writes a certificate of an owner, and returns who trusts it.
func (h *house) pair(cert, key string, until time.Duration) (caPEM []byte) {
	h.Helper()
	maker := newHouse(h.T)
	maker.wall = h.wall.Add(until - leafTime + backdated)
	maker.cfg.Names = []string{"nvr.example.org"}
	maker.open()
	b, err := os.ReadFile(maker.path("leaf"))
	if err != nil {
		h.Fatal(err)
	}
	for path, kind := range map[string]string{cert: "CERTIFICATE", key: "PRIVATE KEY"} {
		for rest := b; path != ""; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			if block.Type == kind {
				if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
					h.Fatal(err)
				}
			}
		}
	}
	return maker.CA()
}

// Fails when files that changed are not taken, or those that make no sense are.
func TestOwnCertificateIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		dir := t.TempDir()
		h.cfg.Cert, h.cfg.Key = filepath.Join(dir, "cert"), filepath.Join(dir, "key")
		h.Keeper = Open(h.cfg)
		if !strings.Contains(h.Fault(), "there is none to show") || !h.Own() {
			t.Errorf("without files: %q", h.Fault())
		}
		h.keep(func(minute func()) {
			shows := func(ca []byte, fault string) {
				t.Helper()
				minute()
				if _, err := h.connect(ca, "nvr.example.org", nil); err != nil {
					t.Error(err)
				}
				if got := h.Fault(); (got == "") != (fault == "") || !strings.Contains(got, fault) {
					t.Errorf("fault %q, want %q", got, fault)
				}
			}
			first := h.pair(h.cfg.Cert, h.cfg.Key, 100*day)
			shows(first, "")
			second := h.pair(h.cfg.Cert, "", 100*day) // half of it
			shows(first, "private key does not match")
			if err := os.WriteFile(h.cfg.Key, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			shows(first, "key")
			if err := os.Remove(h.cfg.Key); err != nil {
				t.Fatal(err)
			}
			shows(first, "no such file")
			second = h.pair(h.cfg.Cert, h.cfg.Key, 8*day)
			shows(second, "")
			h.wall = h.wall.Add(3 * day)
			shows(second, "it ends on 2026-11-09")
			h.good = false
			shows(second, "")
		})
		if h.CA() != nil || h.Fingerprint() != "" {
			t.Error("there is an authority")
		}
		if _, err := os.Stat(h.cfg.Dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("there are files of an authority: %v", err)
		}
	})
}
