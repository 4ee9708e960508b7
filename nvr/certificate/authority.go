package certificate

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	day = 24 * time.Hour
	// Clocks of clients may be behind.
	backdated = day
	// What browsers take at most from anybody is 398 days.
	leafTime  = 397 * day
	leafRenew = leafTime / 3 // left of it
	caYears   = 10
	caRenew   = leafTime + 30*day

	mostNames = 64 // of each kind in a certificate
)

// private are the networks whose addresses are in certificates. Others belong
// to others tomorrow.
var private = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("fc00::/7"),
}

func machineAddresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr())
		}
	}
	return out, nil
}

// subjects are names and addresses of a certificate, each once and in order.
type subjects struct {
	names []string
	ips   []netip.Addr // of the machine, and given
	given []netip.Addr // among the names
}

func (k *Keeper) subjects() (s subjects, err error) {
	for _, n := range k.cfg.Names {
		if a, err := netip.ParseAddr(n); err == nil {
			s.given = append(s.given, a.Unmap().WithZone(""))
		} else if n = strings.ToLower(strings.TrimSuffix(n, ".")); isName(n) {
			s.names = append(s.names, n)
		}
	}
	addresses, err := k.cfg.Addresses()
	if err != nil {
		return s, fmt.Errorf("addresses of this machine: %w", err)
	}
	for _, a := range addresses {
		if a = a.Unmap().WithZone(""); slices.ContainsFunc(private, func(p netip.Prefix) bool { return p.Contains(a) }) {
			s.ips = append(s.ips, a)
		}
	}
	s.ips = append(s.ips, s.given...)
	slices.Sort(s.names)
	s.names = slices.Compact(s.names)
	slices.SortFunc(s.ips, netip.Addr.Compare)
	s.ips = slices.Compact(s.ips)
	s.names, s.ips = s.names[:min(len(s.names), mostNames)], s.ips[:min(len(s.ips), mostNames)]
	return s, nil
}

// isName reports whether a certificate can have a name: in lower case, of
// letters, digits, hyphens and underscores.
func isName(n string) bool {
	if len(n) > 253 {
		return false
	}
	for label := range strings.SplitSeq(n, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// lookAtIssued makes authority and certificate, or makes them anew where they
// do not fit what is wanted of them.
func (k *Keeper) lookAtIssued() error {
	want, err := k.subjects()
	if err != nil {
		return err
	}
	if k.ca == nil {
		if k.ca, err = k.read("ca"); err != nil {
			return err
		}
		if k.leaf, err = k.read("leaf"); err != nil {
			return err
		}
		if k.ca != nil && k.leaf != nil && k.leaf.Leaf.CheckSignatureFrom(k.ca.Leaf) == nil {
			k.showIssued() // should it not do, and nothing better be possible
		}
	}
	ca := k.ca
	switch {
	case ca == nil || !permits(ca.Leaf, want):
		if ca, err = k.newAuthority(want); err != nil {
			return err
		}
		if k.ca != nil {
			k.log.Warn("the certificate authority did not permit a name of this recorder: there is another, to be installed anew")
		}
		k.log.Info("made certificate authority", "sha256", fingerprint(ca.Leaf.Raw))
	case k.cfg.ClockGood() && !lasts(ca.Leaf, k.cfg.Now(), caRenew):
		// Of the same key and name: what was installed goes on to do.
		if ca, err = k.authority(ca.PrivateKey.(crypto.Signer), ca.Leaf); err != nil {
			return err
		}
		k.log.Info("renewed certificate authority", "sha256", fingerprint(ca.Leaf.Raw))
	}
	leaf := k.leaf
	if leaf == nil || leaf.Leaf.CheckSignatureFrom(ca.Leaf) != nil || !covers(leaf.Leaf, want) ||
		k.cfg.ClockGood() && !lasts(leaf.Leaf, k.cfg.Now(), leafRenew) {
		if leaf, err = k.newLeaf(ca, want); err != nil {
			return err
		}
	}
	if ca != k.ca || leaf != k.leaf {
		k.ca, k.leaf = ca, leaf
		k.showIssued()
	}
	return nil
}

func (k *Keeper) showIssued() {
	shown := *k.leaf
	shown.Certificate = [][]byte{k.leaf.Certificate[0], k.ca.Certificate[0]}
	k.show(&shown, certPEM(k.ca.Leaf))
}

func (k *Keeper) path(name string) string { return filepath.Join(k.cfg.Dir, name+".pem") }

// lasts reports whether a certificate is valid and will be for so long.
func lasts(c *x509.Certificate, now time.Time, left time.Duration) bool {
	return !now.Before(c.NotBefore) && c.NotAfter.Sub(now) > left
}

// permits reports whether an authority may sign for all of these.
func permits(ca *x509.Certificate, want subjects) bool {
	for _, n := range want.names {
		if !slices.ContainsFunc(ca.PermittedDNSDomains, func(d string) bool { return n == d || strings.HasSuffix(n, "."+d) }) {
			return false
		}
	}
	for _, a := range want.given {
		if !slices.ContainsFunc(ca.PermittedIPRanges, func(n *net.IPNet) bool { return n.Contains(a.AsSlice()) }) {
			return false
		}
	}
	return true
}

// covers reports whether a certificate is for all of these. Addresses of earlier
// do no harm until it is made anew.
func covers(c *x509.Certificate, want subjects) bool {
	return !slices.ContainsFunc(want.names, func(n string) bool { return !slices.Contains(c.DNSNames, n) }) &&
		!slices.ContainsFunc(want.ips, func(a netip.Addr) bool {
			return !slices.ContainsFunc(c.IPAddresses, func(ip net.IP) bool { return ip.Equal(a.AsSlice()) })
		})
}

// begins is when a certificate that is made now begins. A clock that is not set
// shows no time at which it may be valid.
func (k *Keeper) begins(after ...*tls.Certificate) time.Time {
	now := k.cfg.Now()
	if !k.cfg.ClockGood() {
		now = latest(now, k.cfg.NotBefore)
		for _, c := range after {
			if c != nil {
				now = latest(now, c.Leaf.NotBefore.Add(backdated))
			}
		}
	}
	return now.Add(-backdated).UTC().Truncate(time.Second)
}

func latest(a, b time.Time) time.Time { return slices.MaxFunc([]time.Time{a, b}, time.Time.Compare) }

// newAuthority makes an authority that can sign for the names of this recorder
// and private addresses alone: who steals its key does not become everybody's
// bank.
func (k *Keeper) newAuthority(want subjects) (*tls.Certificate, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	id := make([]byte, 4)
	_, _ = rand.Read(id) // never fails
	t := &x509.Certificate{
		Subject:             pkix.Name{Organization: []string{"Holdfast"}, CommonName: fmt.Sprintf("Holdfast recorder %x", id)},
		PermittedDNSDomains: want.names,
	}
	if len(want.names) == 0 {
		t.PermittedDNSDomains = []string{"localhost"} // none would be all
	}
	for _, p := range private {
		t.PermittedIPRanges = append(t.PermittedIPRanges, ipNet(p))
	}
	for _, a := range want.given {
		t.PermittedIPRanges = append(t.PermittedIPRanges, ipNet(netip.PrefixFrom(a, a.BitLen())))
	}
	return k.authority(key, t)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// authority signs an authority of a key, with subject and limits of like, and
// keeps it.
func (k *Keeper) authority(key crypto.Signer, like *x509.Certificate) (*tls.Certificate, error) {
	begins := k.begins(k.ca)
	t := &x509.Certificate{
		RawSubject:                  like.RawSubject,
		Subject:                     like.Subject,
		NotBefore:                   begins,
		NotAfter:                    begins.AddDate(caYears, 0, 0),
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage:                 []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid:       true,
		IsCA:                        true,
		MaxPathLenZero:              true,
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         like.PermittedDNSDomains,
		PermittedIPRanges:           like.PermittedIPRanges,
	}
	return k.sign("ca", t, t, key, key)
}

// newLeaf makes and keeps what is shown.
func (k *Keeper) newLeaf(ca *tls.Certificate, want subjects) (*tls.Certificate, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	begins := k.begins(ca, k.leaf)
	t := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"Holdfast"}, CommonName: "Holdfast recorder"},
		NotBefore:             begins,
		NotAfter:              begins.Add(leafTime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              want.names,
	}
	for _, a := range want.ips {
		t.IPAddresses = append(t.IPAddresses, a.AsSlice())
	}
	return k.sign("leaf", t, ca.Leaf, key, ca.PrivateKey.(crypto.Signer))
}

func newKey() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// sign signs a certificate of key and puts both into the file of that name.
func (k *Keeper) sign(name string, t, parent *x509.Certificate, key, by crypto.Signer) (*tls.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), by)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("key of certificate: %w", err)
	}
	text := append(certPEM(c), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...)
	if err := k.write(name, text); err != nil {
		return nil, fmt.Errorf("keep certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: c}, nil
}

// read reads a certificate and its key. There is none when there is no file, or
// one that makes no sense: then it is made anew. One that cannot be read is an
// error, because another authority would have to be installed anew.
func (k *Keeper) read(name string) (*tls.Certificate, error) {
	b, err := os.ReadFile(k.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c, err := tls.X509KeyPair(b, b)
	if err != nil {
		k.log.Warn("certificate makes no sense and is made anew", "path", k.path(name), "cause", err)
		return nil, nil
	}
	return &c, nil
}

// write puts a file in the place of another, durably: after a power cut it is
// the one or the other. A sync that failed is not tried again: the next try is
// another file.
func (k *Keeper) write(name string, b []byte) error {
	if err := os.Mkdir(k.cfg.Dir, 0o700); err == nil {
		if err := syncDir(filepath.Dir(k.cfg.Dir)); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	temp := k.path(name) + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, k.path(name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(k.cfg.Dir)
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
