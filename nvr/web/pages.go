package web

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"html/template"
	"net/http"

	"holdfast/nvr/access"
)

// The pages to sign in and to claim stand before the user interface and need no
// script, so they work where that does not.

const pageStyle = `
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}
main{max-width:22rem;margin:12vh auto;padding:0 1rem}
label{display:block;margin:.8rem 0}
input{display:block;width:100%;box-sizing:border-box;font:inherit;padding:.5rem}
button{font:inherit;padding:.5rem 1.2rem;margin:.4rem 0}
[role=alert]{border-left:.3rem solid #c33;padding-left:.7rem}
`

// pagePolicy lets a page have its style and send its form.
var pagePolicy = func() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}()

var pageTemplate = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{{.Title}} · Holdfast</title><style>` + pageStyle + `</style></head><body><main>
<h1>{{.Title}}</h1>
{{with .Problem}}<p role="alert">{{.}}</p>
{{end}}{{with .User}}<p>You are signed in as {{.}}.</p>
<p><a href="/">To the cameras</a></p>
<form method="post" action="/logout"><button>Sign out</button></form>
{{else}}{{if .Claim}}<p>This recorder has no owner yet. Its console shows a code: who has that makes the first user, an administrator.</p>
{{end}}<form method="post">
{{if .Claim}}<label>Code <input name="code" required autofocus autocomplete="off" autocapitalize="characters" spellcheck="false"></label>
{{end}}<label>User name <input name="username" required autocomplete="username" autocapitalize="none" spellcheck="false" maxlength="64" value="{{.Name}}"></label>
<label>{{if .Claim}}Password, {{.Least}} characters or more <input name="password" type="password" required minlength="{{.Least}}" autocomplete="new-password">{{else}}Password <input name="password" type="password" required autocomplete="current-password">{{end}}</label>
<button>{{.Title}}</button>
</form>
{{end}}</main></body></html>
`))

type page struct {
	Title, Problem, User, Name string
	Claim                      bool
}

// Least is how long a new password must be, characters.
func (page) Least() int { return access.LeastPassword }

func showPage(w http.ResponseWriter, status int, p page) error {
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, p); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Security-Policy", pagePolicy)
	// With no-referrer a browser sends the form as of origin null, which is none
	// of ours where it tells Sec-Fetch-Site only to the trustworthy: not to a
	// plain address on a network.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
	return nil
}

func (s *server) loginPage(w http.ResponseWriter, r *http.Request) error {
	if s.Access.Unclaimed() && !s.Access.HasUsers() {
		http.Redirect(w, r, "/claim", http.StatusSeeOther)
		return nil
	}
	return showPage(w, http.StatusOK, page{Title: "Sign in", User: callerOf(r).Name})
}

func (s *server) claimPage(w http.ResponseWriter, r *http.Request) error {
	if !s.Access.Unclaimed() {
		return access.ErrClaimed
	}
	p := page{Title: "Claim", Claim: true}
	if _, left := s.Access.ClaimCode(); left == 0 {
		p.Problem = access.ErrClaimOver.Error()
	}
	return showPage(w, http.StatusOK, p)
}

// submit takes the form of a page: try returns the secret of a new session.
func (s *server) submit(w http.ResponseWriter, r *http.Request, p page, try func(name, password string) (string, error)) error {
	if err := r.ParseForm(); err != nil {
		if errors.As(err, new(*http.MaxBytesError)) {
			return err
		}
		return badRequest("form: %v", err)
	}
	p.Name = r.PostForm.Get("username")
	secret, err := try(p.Name, r.PostForm.Get("password"))
	if status, text, ok := accessError(err); ok && !errors.Is(err, access.ErrClaimed) {
		retryAfter(w, err)
		p.Problem = text
		return showPage(w, status, p)
	}
	if err != nil {
		return err
	}
	setCookie(w, callerOf(r), secret)
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return nil
}

func (s *server) loginForm(w http.ResponseWriter, r *http.Request) error {
	return s.submit(w, r, page{Title: "Sign in"}, func(name, password string) (string, error) {
		c := callerOf(r)
		return s.Access.Login(r.Context(), name, password, c.peer, c.Subject)
	})
}

func (s *server) claimForm(w http.ResponseWriter, r *http.Request) error {
	if !s.Access.Unclaimed() {
		return access.ErrClaimed
	}
	return s.submit(w, r, page{Title: "Claim", Claim: true}, func(name, password string) (string, error) {
		return s.Access.Claim(r.Context(), r.PostForm.Get("code"), name, password, callerOf(r).peer)
	})
}

func (s *server) logoutForm(w http.ResponseWriter, r *http.Request) error {
	c := callerOf(r)
	if err := s.Access.Logout(r.Context(), c.Subject); err != nil {
		return err
	}
	setCookie(w, c, "")
	http.Redirect(w, r, "/login", http.StatusSeeOther)
	return nil
}

// page answers what is not the API: the user interface, and before it the way in
// where nobody may anything who has not signed in.
func (s *server) page(ui http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.Access != nil && r.URL.Path == "/" && !callerOf(r).May(access.LookAround, 0) {
			to := "/login"
			if s.Access.Unclaimed() {
				to = "/claim"
			}
			w.Header().Set("Cache-Control", "no-store")
			http.Redirect(w, r, to, http.StatusSeeOther)
			return
		}
		ui.ServeHTTP(w, r)
	})
}
