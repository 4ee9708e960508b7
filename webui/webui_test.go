package webui

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func get(t *testing.T, method, target string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	var b strings.Builder
	if _, err := bufio.NewReader(r.Body).WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPageAndItsFilesAreServed(t *testing.T) {
	page := get(t, "GET", "/")
	if page.StatusCode != 200 || page.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("GET /: %d %s", page.StatusCode, page.Header.Get("Content-Type"))
	}
	if got := page.Header.Get("Cache-Control"); got != "no-cache" {
		t.Errorf("the page may be kept: Cache-Control %q", got)
	}
	refs := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(body(t, page), -1)
	if len(refs) != 3 {
		t.Fatalf("the page refers to %d files, want script, style and icon", len(refs))
	}
	want := map[string]string{".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
	for _, ref := range refs {
		f := get(t, "GET", ref[1])
		if f.StatusCode != 200 || f.Header.Get("Content-Type") != want[filepath.Ext(ref[1])] {
			t.Errorf("GET %s: %d %s", ref[1], f.StatusCode, f.Header.Get("Content-Type"))
		}
		if got := f.Header.Get("Cache-Control"); !strings.Contains(got, "immutable") {
			t.Errorf("GET %s: Cache-Control %q, want immutable", ref[1], got)
		}
		if f.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("GET %s: may be sniffed", ref[1])
		}
		again := get(t, "GET", ref[1], "If-None-Match", f.Header.Get("ETag"))
		if again.StatusCode != http.StatusNotModified {
			t.Errorf("GET %s with its ETag: %d, want 304", ref[1], again.StatusCode)
		}
	}
}

func TestPageMayLoadOnlyFromItsServer(t *testing.T) {
	page := get(t, "GET", "/")
	policy := page.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "connect-src 'self'", "media-src 'self' blob:", "frame-ancestors 'none'", "base-uri 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("policy lacks %q: %s", want, policy)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
		t.Errorf("policy is not strict: %s", policy)
	}
	html := body(t, page)
	if regexp.MustCompile(`(?i)<script(>|[^>]*>[^<]|[^>]*https?:)|\son\w+=|\sstyle=`).MatchString(html) {
		t.Errorf("the page has inline script or style, or one from elsewhere:\n%s", html)
	}
}

func TestOtherPathsAndMethodsAreRefused(t *testing.T) {
	for _, p := range []string{"/index.html", "/assets/", "/assets", "/sources.sha256", "/dist/index.html", "/nothing", "/assets/../index.html"} {
		if got := get(t, "GET", p).StatusCode; got != http.StatusNotFound {
			t.Errorf("GET %s: %d, want 404", p, got)
		}
	}
	if got := get(t, "POST", "/").StatusCode; got != http.StatusMethodNotAllowed {
		t.Errorf("POST /: %d, want 405", got)
	}
}

// The build itself is compared by npm test; this needs no Node.
func TestDistIsMadeOfTheseSources(t *testing.T) {
	want, err := os.ReadFile("dist/sources.sha256")
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"build.mjs", "package-lock.json", "package.json", "tsconfig.json"}
	err = fs.WalkDir(os.DirFS("."), "src", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	var got strings.Builder
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(b)
		fmt.Fprintf(&got, "%s  %s\n", hex.EncodeToString(sum[:]), name)
	}
	if got.String() != string(want) {
		t.Errorf("webui/dist is stale: build it with `make web` (npm ci && npm run build in webui)\nnow:\n%s\ndist was made of:\n%s", got.String(), want)
	}
}
