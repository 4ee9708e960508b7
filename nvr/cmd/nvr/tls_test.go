package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// browser trusts an authority alone, and follows nothing.
func browser(caPEM []byte) *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(caPEM)
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       2 * time.Minute,
	}
}

// From the fingerprint on the console to an owner who signs in over TLS, over a
// restart, and over to a certificate of the owner.
func TestRecorderServesTLS(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	p := start(t, "run", "-data", data, "-http", "127.0.0.1:0", "-https", "127.0.0.1:0")
	plain := p.address()
	secure := p.says("serving ")
	shown := p.says("for browsers to trust it, install /ca.pem where they run; its SHA-256 must be ")
	code := p.says("nobody owns this recorder yet: ")
	code = code[strings.LastIndexByte(code, ' ')+1:]
	ca := get(t, plain+"/ca.pem")
	block, _ := pem.Decode(ca)
	if block == nil {
		t.Fatalf("/ca.pem is %q", ca)
	}
	fingerprint := exec.Command("sha256sum")
	fingerprint.Stdin = strings.NewReader(string(block.Bytes))
	if out, err := fingerprint.Output(); err != nil || !strings.HasPrefix(string(out), strings.ToLower(strings.ReplaceAll(shown, ":", ""))+" ") {
		t.Errorf("the console shows %s, it is %s (%v)", shown, out, err)
	}
	ask := func(client *http.Client, method, url, body string) (*http.Response, string) {
		t.Helper()
		r, err := http.NewRequest(method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(b)
	}
	resp, text := ask(browser(ca), "POST", secure+"/api/claim", fmt.Sprintf(`{"code":%q,"username":"owner","password":"correct horse"}`, code))
	if set := resp.Header.Get("Set-Cookie"); resp.StatusCode != 204 || !strings.HasPrefix(set, "__Host-s=") || !strings.Contains(set, "; Secure") {
		t.Errorf("claim: %d %s, cookie %s", resp.StatusCode, text, set)
	}
	if resp.Header.Get("Strict-Transport-Security") != "" {
		t.Error("browsers that did not install the authority are locked out")
	}
	// The name that machines of the network know it by.
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ = strings.Cut(strings.ToLower(name), ".")
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(secure, "https://"))
	c, err := tls.Dial("tcp", "127.0.0.1:"+port, &tls.Config{RootCAs: browser(ca).Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: name + ".local"})
	if err != nil {
		t.Fatalf("%s.local: %v", name, err)
	}
	c.Close()
	p.kill() // what it made outlives it

	p = start(t, "run", "-data", data, "-http", "127.0.0.1:0", "-https", "127.0.0.1:0", "-https-redirect")
	plain, secure = p.address(), p.says("serving ")
	if resp, text := ask(browser(ca), "GET", secure+"/healthz", ""); resp.StatusCode != 200 || strings.Contains(text, `"tls"`) {
		t.Errorf("after a restart: %d %s", resp.StatusCode, text)
	}
	if resp, _ := ask(browser(ca), "GET", plain+"/login", ""); resp.StatusCode != 307 || resp.Header.Get("Location") != secure+"/login" {
		t.Errorf("plain HTTP: %d to %s, want %s", resp.StatusCode, resp.Header.Get("Location"), secure)
	}
	p.terminate()

	own := filepath.Join(t.TempDir(), "own.pem")
	b, err := os.ReadFile(filepath.Join(data, "tls", "leaf.pem"))
	if err == nil {
		err = os.WriteFile(own, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	p = start(t, "run", "-data", data, "-http", "127.0.0.1:0", "-https", "127.0.0.1:0", "-tls-cert", own, "-tls-key", own, "-https-redirect")
	plain, secure = p.address(), p.says("serving ")
	if resp, text := ask(browser(ca), "GET", secure+"/healthz", ""); resp.StatusCode != 200 || resp.Header.Get("Strict-Transport-Security") == "" {
		t.Errorf("a certificate of its owner: %d %s", resp.StatusCode, text)
	}
	if resp, _ := ask(browser(ca), "GET", plain+"/ca.pem", ""); resp.StatusCode != 404 {
		t.Errorf("the authority beside it: %d", resp.StatusCode)
	}
	if log := p.logged(); strings.Contains(log, "PRIVATE") {
		t.Error("the log tells a key")
	}
}

// A recorder records whatever becomes of its certificate.
func TestBadCertificateKeepsNoRecorderFromStarting(t *testing.T) {
	data, none := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "none")
	p := start(t, "run", "-data", data, "-http", "127.0.0.1:0", "-https", "127.0.0.1:0", "-tls-cert", none, "-tls-key", none)
	if health := get(t, p.address()+"/healthz"); !strings.Contains(string(health), `"tls":"open `+none) || !strings.Contains(string(health), "none to show") {
		t.Errorf("health: %s", health)
	}
	for _, args := range [][]string{
		{"-tls-cert", none, "-https", "127.0.0.1:0"}, {"-tls-key", none, "-https", "127.0.0.1:0"},
		{"-tls-cert", none, "-tls-key", none}, {"-https-redirect"}, {"-https", "nonsense"},
	} {
		args = append([]string{"run", "-data", filepath.Join(t.TempDir(), "data"), "-http", "127.0.0.1:0"}, args...)
		if out, code := nvrCommand(t, args...); code != usageCode || !strings.Contains(out, "-https") && !strings.Contains(out, "go together") {
			t.Errorf("%q: %d %s", args, code, out)
		}
	}
}
