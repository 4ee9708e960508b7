// Package certificate keeps what the recorder shows over TLS: the certificate of
// its owner, read anew when its files change, or one of an authority of this
// recorder alone (nvr/design/access.md, "TLS").
//
//	DIR/ca.pem      the authority, 10 years: for people to install
//	DIR/leaf.pem    what it signed, 397 days: for the names and addresses of the moment
//
// Each file holds a certificate and its key, so that one rename replaces both.
// Nothing here ends or holds up the recorder: what goes wrong is told, what was
// shown until then is shown, and a minute later there is another try.
//
// It knows no HTTP, and nothing of the recorder but its names.
package certificate

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	lookEvery = time.Minute
	// Of a certificate of the owner, how long before its end that is a fault.
	ownWarning = 7 * 24 * time.Hour
)

// Config says where certificates come from.
type Config struct {
	// Dir is that of the authority; it is made in one that is there, for its
	// owner alone.
	Dir string

	// Cert and Key are files in PEM that the owner of the recorder keeps; "" and
	// "": the recorder has an authority of its own.
	Cert, Key string

	// Names are those that the recorder goes by. Those that no certificate can
	// have are left out; addresses among them are taken as such.
	Names []string

	// Addresses returns those of the machine; nil asks the system. Private ones
	// get into the certificate (RFC 1918, RFC 6598, RFC 4193, and those of one link in IPv4).
	Addresses func() ([]netip.Addr, error)

	// NotBefore is earlier than any recorder is that has this program.
	NotBefore time.Time

	// Now is the wall clock; nil is time.Now. ClockGood reports whether it is
	// known to be right; nil: it is. Until it is, nothing expires.
	Now       func() time.Time
	ClockGood func() bool

	Log *slog.Logger // nil: no log
}

// Keeper keeps the certificate. Its methods may be called from any goroutine.
type Keeper struct {
	cfg Config
	log *slog.Logger

	looking sync.Mutex       // held through a look; guards the next three
	tried   [2][]byte        // the owner's files when they were last looked at
	ca      *tls.Certificate // nil: not read yet
	leaf    *tls.Certificate // nil: none

	mu    sync.Mutex // guards what follows; taken inside looking
	shown *tls.Certificate
	caPEM []byte
	fault string
}

// Open looks at the certificate for the first time. What is wrong with it is
// Fault's to say.
func Open(cfg Config) *Keeper {
	k := &Keeper{cfg: cfg, log: cfg.Log}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	if k.cfg.Now == nil {
		k.cfg.Now = time.Now
	}
	if k.cfg.ClockGood == nil {
		k.cfg.ClockGood = func() bool { return true }
	}
	if k.cfg.Addresses == nil {
		k.cfg.Addresses = machineAddresses
	}
	k.look()
	return k
}

// Keep looks once a minute, until ctx is done.
func (k *Keeper) Keep(ctx context.Context) {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			k.look()
		}
	}
}

// look brings the certificate up to date, where it is not.
func (k *Keeper) look() {
	k.looking.Lock()
	defer k.looking.Unlock()
	look := k.lookAtOwn
	if k.cfg.Cert == "" {
		look = k.lookAtIssued
	}
	fault := ""
	if err := look(); err != nil {
		fault = err.Error()
	}
	k.mu.Lock()
	was, none := k.fault, k.shown == nil
	if fault != "" && none {
		fault += "; there is none to show"
	}
	k.fault = fault
	k.mu.Unlock()
	switch {
	case fault == was:
	case fault == "":
		k.log.Info("certificate is well again")
	default:
		k.log.Error("certificate", "err", fault)
	}
}

// lookAtOwn reads the files of the owner.
func (k *Keeper) lookAtOwn() error {
	cert, err := os.ReadFile(k.cfg.Cert)
	if err != nil {
		return err
	}
	key, err := os.ReadFile(k.cfg.Key)
	if err != nil {
		return err
	}
	if string(cert) != string(k.tried[0]) || string(key) != string(k.tried[1]) || k.leaf == nil {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return fmt.Errorf("certificate %s with key %s: %w", k.cfg.Cert, k.cfg.Key, err)
		}
		k.tried, k.leaf = [2][]byte{cert, key}, &pair
		k.show(&pair, nil)
	}
	if left := k.leaf.Leaf.NotAfter.Sub(k.cfg.Now()); left < ownWarning && k.cfg.ClockGood() {
		return fmt.Errorf("certificate %s: it ends on %s", k.cfg.Cert, k.leaf.Leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	return nil
}

// show has a certificate shown from now on.
func (k *Keeper) show(c *tls.Certificate, caPEM []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.shown, k.caPEM = c, caPEM
	k.log.Info("certificate is shown", "names", strings.Join(c.Leaf.DNSNames, " "), "addresses", fmt.Sprint(c.Leaf.IPAddresses),
		"until", c.Leaf.NotAfter.UTC().Format(time.DateOnly))
}

// TLS returns the configuration of a listener: at least TLS 1.2, and HTTP/1.1,
// whose connections are what web.Limit counts.
func (k *Keeper) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			k.mu.Lock()
			defer k.mu.Unlock()
			if k.shown == nil {
				return nil, errors.New("there is no certificate to show")
			}
			return k.shown, nil
		},
	}
}

// Own reports whether the certificate is that of the recorder's owner.
func (k *Keeper) Own() bool { return k.cfg.Cert != "" }

// CA returns the certificate of the recorder's authority in PEM; nil when there
// is none.
func (k *Keeper) CA() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.caPEM
}

// Fingerprint is the SHA-256 of the authority's certificate as browsers show
// it; "" when there is none.
func (k *Keeper) Fingerprint() string {
	block, _ := pem.Decode(k.CA())
	if block == nil {
		return ""
	}
	return fingerprint(block.Bytes)
}

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return strings.ReplaceAll(fmt.Sprintf("% X", sum[:]), " ", ":")
}

// Fault says what is wrong with the certificate, for people; "" when nothing is.
func (k *Keeper) Fault() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.fault
}

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}
