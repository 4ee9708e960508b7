// Package webui is the web interface as the recorder serves it: the files that
// build.mjs makes of src/, embedded, with the headers a browser needs to treat
// them well.
//
// dist/ is committed, so a Go build needs no Node; a test tells when it is not
// what src/ gives. Names in dist/assets carry a hash of what is in them and
// are kept by browsers for ever; the page itself is asked for anew each time.
// No API, no session and no decision belongs here: the page gets everything
// it knows from nvr/web.
package webui

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed dist/index.html dist/licenses.txt dist/assets
var dist embed.FS

// policy lets the page load what this server serves and nothing else. blob: is
// for live video, which a script hands to the video element. Camera names come
// from cameras and users: no text may become script (reliability.md 5.1).
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
	"media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'self'; " +
	"frame-ancestors 'none'; require-trusted-types-for 'script'"

// contentType goes by the name: the table of the machine differs from machine
// to machine.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".css":
		return "text/css; charset=utf-8"
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".txt":
		return "text/plain; charset=utf-8"
	}
	return ""
}

type file struct {
	body         []byte
	contentType  string
	etag         string
	cacheControl string
}

// Handler serves the page at / and the files it needs. Anything else is 404:
// the page keeps its place in the part of the address after #.
func Handler() http.Handler {
	files := make(map[string]file)
	root, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(fmt.Sprintf("webui: %v", err)) // embedded by the compiler
	}
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		f := file{body, contentType(name), `"` + hex.EncodeToString(sum[:12]) + `"`, "no-cache"}
		if f.contentType == "" {
			return fmt.Errorf("no content type for %s", name)
		}
		if strings.HasPrefix(name, "assets/") {
			f.cacheControl = "public, max-age=31536000, immutable"
		}
		files["/"+name] = f
		return nil
	})
	if err != nil {
		panic(fmt.Sprintf("webui: embedded files: %v", err))
	}
	files["/"] = files["/index.html"]
	delete(files, "/index.html")

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, ok := files[r.URL.Path]
		if !ok {
			http.Error(w, "there is no such page", http.StatusNotFound)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "pages can only be read", http.StatusMethodNotAllowed)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("Content-Type", f.contentType)
		h.Set("Cache-Control", f.cacheControl)
		h.Set("ETag", f.etag)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.body))
	})
}
