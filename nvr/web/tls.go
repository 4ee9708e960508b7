package web

import (
	"net"
	"net/http"
	"slices"
	"strings"
)

// TLS is what there is to say of the listener for it. Its certificates are
// package certificate's.
type TLS struct {
	// CA returns the certificate of the recorder's own authority, PEM, or nil when
	// it has none; Fault what is wrong with the certificate shown, or "". Both
	// must be set.
	CA    func() []byte
	Fault func() string

	// Own: the certificate is one that the owner of the recorder keeps, which
	// browsers take without more ado.
	Own bool

	// Port is that of the listener. Redirect: plain HTTP leads there, and does
	// nothing else but what has no secret.
	Port     string
	Redirect bool
}

// plainPaths are answered on plain HTTP whatever Redirect says: they have no
// secret, and who asks may not trust the certificate yet.
var plainPaths = []string{"/ca.pem", "/healthz", "/metrics"}

// hsts is how long browsers do not ask by plain HTTP again, on any port: so long
// a name is lost to it.
const hsts = "max-age=2592000"

// promise has browsers come by TLS alone, where they can without a warning that
// nobody could pass over, and plain HTTP leads there anyway.
func (t *TLS) promise(h http.Header, r *http.Request) {
	if t.Own && t.Redirect && r.TLS != nil {
		h.Set("Strict-Transport-Security", hsts)
	}
}

// redirects reports whether a request is to come by TLS instead. What a proxy
// of ours passes on is the proxy's concern.
func (t *TLS) redirects(r *http.Request, s *server) bool {
	if !t.Redirect || r.TLS != nil || slices.Contains(plainPaths, r.URL.Path) {
		return false
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	return err != nil || !s.isProxy(host)
}

// redirect leads a request to the listener for TLS. The Host is one of ours. What
// changes something is refused: its secrets are on the network already, and are
// to be seen to be.
func (t *TLS) redirect(w http.ResponseWriter, r *http.Request, s *server) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead || r.Host == "" {
		s.fail(w, r, &httpError{http.StatusForbidden, "this recorder takes changes over https alone"})
		return
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = net.JoinHostPort(strings.Trim(host, "[]"), t.Port)
	if t.Port == "443" {
		host = strings.TrimSuffix(host, ":443")
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, "https://"+host+r.URL.RequestURI(), http.StatusTemporaryRedirect)
}

// authority gives the certificate of the recorder's own authority, for people to
// install. It is no secret. Nobody can tell from it that it came unchanged: that
// is what the fingerprint on the console is for.
func (s *server) authority(w http.ResponseWriter, r *http.Request) error {
	if _, err := parameters(r, nil); err != nil {
		return err
	}
	if s.TLS != nil {
		if pem := s.TLS.CA(); pem != nil {
			w.Header().Set("Content-Type", "application/x-x509-ca-cert")
			w.Header().Set("Content-Disposition", `attachment; filename="holdfast-ca.pem"`)
			_, _ = w.Write(pem) // the caller has gone: nobody to tell
			return nil
		}
	}
	return &httpError{http.StatusNotFound, "this recorder has no certificate authority of its own"}
}
