package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// From the code on the console to an owner, over a restart: what the console
// shows is what the file holds and what claims, once.
func TestRecorderIsClaimedByTheCodeOnItsConsole(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	ask := func(address, method, path, body, cookie string) (int, string, string) {
		t.Helper()
		r, err := http.NewRequest(method, address+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Cookie", cookie)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		set, _, _ := strings.Cut(resp.Header.Get("Set-Cookie"), ";")
		return resp.StatusCode, string(b), set
	}
	file := filepath.Join(data, "claim-code")
	p := start(t, "run", "-data", data, "-http", "127.0.0.1:0")
	address := p.address()
	code := p.code()
	if b, err := os.ReadFile(file); err != nil || string(b) != code+"\n" {
		t.Fatalf("the console shows %q, the file holds %q (%v)", code, b, err)
	}
	if status, text, _ := ask(address, "GET", "/api/", "", ""); status != 401 || !strings.Contains(text, "/claim") {
		t.Errorf("unclaimed: %d %s", status, text)
	}
	status, text, cookie := ask(address, "POST", "/api/claim", fmt.Sprintf(`{"code":%q,"username":"owner","password":"correct horse"}`, code), "")
	if status != 204 || cookie == "" {
		t.Fatalf("claim: %d %s", status, text)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is there: %v", err)
	}
	if strings.Contains(p.logged(), code) || strings.Contains(p.logged(), "correct horse") {
		t.Error("the log tells the code or the password")
	}
	p.kill() // what was claimed outlives it

	p = start(t, "run", "-data", data, "-http", "127.0.0.1:0")
	address = p.address()
	if status, text, _ := ask(address, "GET", "/api/users/", "", cookie); status != 200 || !strings.Contains(text, `"owner"`) {
		t.Errorf("the session: %d %s", status, text)
	}
	if status, text, _ := ask(address, "GET", "/api/claim", "", ""); status != 404 {
		t.Errorf("claim again: %d %s", status, text)
	}
	if status, text, _ := ask(address, "GET", "/api/", "", ""); status != 401 || !strings.Contains(text, "/login") {
		t.Errorf("nobody: %d %s", status, text)
	}
	select {
	case line := <-p.line:
		t.Errorf("the console shows %q", line)
	default:
	}
}
