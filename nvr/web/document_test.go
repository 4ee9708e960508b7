package web

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"mime"
	"net/http"
	"net/textproto"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"holdfast/nvr/design"
)

// What is served is held to nvr/design/openapi.yaml. held stands before the
// handler of every test of this package and fails the test when an answer has a
// status, a header, a type or a field that the page does not describe, or lacks
// one that it promises.
//
// To add an operation: give it its row in routes and its place in the page, with
// every status that it can have, and run TestEveryOperationIsAsDescribed. It asks
// by itself for what each operation refuses in the same way, and names each
// status, parameter and field of the page that nothing has driven; those get a
// request in the table there. TestRoutesAreThoseOfThePage compares the sets.

// document is openapi.yaml. Its parts are named by JSON pointers.
type document struct {
	root map[string]any
	mux  *http.ServeMux
	ops  map[string]*operation // by method and shape of the path

	mu       sync.Mutex
	compiler *jsonschema.Compiler
	schemas  map[string]*jsonschema.Schema
}

// operation is one method of one path.
type operation struct {
	method, path string // as the page has them
	ptr          string
	users        bool // there only where there can be users
	endless      bool // its answer goes on until one side ends
	pages        bool // for people: parameters are passed over
	query        map[string]string
}

func (o *operation) String() string { return strings.ToUpper(o.method) + " " + o.path }

const (
	always      = "/x-always"
	documentURL = "holdfast:openapi"
)

var (
	pathParameter = regexp.MustCompile(`[^/]*\{[^/]*\}[^/]*`)
	methodNames   = []string{"get", "put", "post", "delete", "options", "head", "patch", "trace"}
)

// shape is a path with the names of its parameters gone.
func shape(path string) string {
	return pathParameter.ReplaceAllString(strings.TrimSuffix(path, "{$}"), "{}")
}

func readDocument(text string) (*document, error) {
	var root any
	if err := yaml.Unmarshal([]byte(text), &root); err != nil {
		return nil, err
	}
	b, err := json.Marshal(root) // the numbers of JSON
	if err != nil {
		return nil, err
	}
	if root, err = jsonschema.UnmarshalJSON(bytes.NewReader(b)); err != nil {
		return nil, err
	}
	d := &document{
		root: root.(map[string]any), mux: http.NewServeMux(), ops: make(map[string]*operation),
		compiler: jsonschema.NewCompiler(), schemas: make(map[string]*jsonschema.Schema),
	}
	d.compiler.AssertFormat()
	if err := d.compiler.AddResource(documentURL, root); err != nil {
		return nil, err
	}
	for path := range d.node("/paths") {
		pattern, n := shape(path), 0
		for strings.Contains(pattern, "{}") {
			pattern = strings.Replace(pattern, "{}", fmt.Sprintf("{p%d}", n), 1)
			n++
		}
		if strings.HasSuffix(pattern, "/") {
			pattern += "{$}"
		}
		d.mux.Handle(pattern, described(shape(path)))
		for _, method := range methodNames {
			ptr := pointer("/paths", path, method)
			node := d.node(ptr)
			if node == nil {
				continue
			}
			tags := fmt.Sprint(node["tags"])
			op := &operation{
				method: method, path: path, ptr: ptr, query: make(map[string]string),
				users: tags == "[users]" || tags == "[pages]", pages: tags == "[pages]", endless: d.at(pointer(ptr, "x-endless")) == true,
			}
			for _, list := range []string{pointer("/paths", path, "parameters"), ptr + "/parameters"} {
				parameters, _ := d.at(list).([]any)
				for i := range parameters {
					at := d.follow(pointer(list, strconv.Itoa(i)))
					if p := d.node(at); p["in"] == "query" {
						op.query[p["name"].(string)] = at
					}
				}
			}
			d.ops[strings.ToUpper(method)+" "+shape(path)] = op
		}
	}
	return d, nil
}

// operations are all of the page, in the order of their paths.
func (d *document) operations() []*operation {
	return slices.SortedFunc(maps.Values(d.ops), func(a, b *operation) int {
		return cmp.Or(strings.Compare(a.path, b.path), strings.Compare(a.method, b.method))
	})
}

// described is a path of the page, for the mux that finds it.
type described string

func (described) ServeHTTP(http.ResponseWriter, *http.Request) {}

// pointer is a JSON pointer to what stands below another.
func pointer(base string, names ...string) string {
	for _, name := range names {
		base += "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
	}
	return base
}

// at returns what a pointer points to, nil when there is nothing.
func (d *document) at(ptr string) any {
	var v any = d.root
	for _, name := range strings.Split(ptr, "/")[1:] {
		name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
		switch in := v.(type) {
		case map[string]any:
			v = in[name]
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(in) {
				return nil
			}
			v = in[i]
		default:
			return nil
		}
	}
	return v
}

func (d *document) node(ptr string) map[string]any {
	m, _ := d.at(ptr).(map[string]any)
	return m
}

// follow returns where a reference leads, or the place itself.
func (d *document) follow(ptr string) string {
	for {
		ref, ok := d.node(ptr)["$ref"].(string)
		if !ok {
			return ptr
		}
		ptr = strings.TrimPrefix(ref, "#")
	}
}

// valid checks a value by a schema of the page.
func (d *document) valid(ptr string, value any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.schemas[ptr]
	if s == nil {
		var err error
		if s, err = d.compiler.Compile(documentURL + "#" + (&url.URL{Fragment: ptr}).EscapedFragment()); err != nil {
			return err
		}
		d.schemas[ptr] = s
	}
	return s.Validate(value)
}

// validText checks a value of a header or a query, which is text, by a schema.
func (d *document) validText(ptr string, values []string) error {
	if d.node(d.follow(ptr))["type"] == "array" {
		list := make([]any, len(values))
		for i, v := range values {
			list[i] = v
		}
		return d.valid(ptr, list)
	}
	var err error
	for _, v := range values {
		if err = d.valid(ptr, v); err == nil {
			continue
		}
		// It may be the text of a number, or of true.
		var other any
		if json.Unmarshal([]byte(v), &other) != nil || d.valid(ptr, other) != nil {
			return err
		}
	}
	return nil
}

// find returns the operation of a request; known says that the path is one of
// the page.
func (d *document) find(method string, u *url.URL) (op *operation, known bool) {
	h, _ := d.mux.Handler(&http.Request{Method: "GET", URL: &url.URL{Path: u.Path, RawPath: u.RawPath}})
	path, known := h.(described)
	if method == http.MethodHead {
		method = http.MethodGet
	}
	return d.ops[method+" "+string(path)], known
}

// exchange is a request and its answer.
type exchange struct {
	method   string
	url      *url.URL
	sent     []byte // of the request's body
	sentType string
	status   int
	header   http.Header
	body     []byte // the beginning, where it is not JSON
	length   int64
	noUsers  bool // the recorder has none
}

// seen is what of the page was driven: statuses, parameters and fields, by
// their pointers.
type seen struct {
	mu sync.Mutex
	at map[string]bool
}

func (s *seen) mark(ptr string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at[ptr] = true
}

// check returns what of an exchange is not as the page has it.
func (d *document) check(e *exchange, s *seen) (breaches []string) {
	op, known := d.find(e.method, e.url)
	if op != nil && op.users && e.noUsers {
		op, known = nil, false
	}
	name := e.method + " " + e.url.Path
	breach := func(format string, args ...any) {
		breaches = append(breaches, fmt.Sprintf("%s: %d: ", name, e.status)+fmt.Sprintf(format, args...))
	}
	status := strconv.Itoa(e.status)
	var response string
	switch {
	case op != nil:
		response = pointer(op.ptr, "responses", status)
	case known && (e.status == 401 || e.status == 403 || e.status == 421):
		return nil // refused before anything looked at the method
	case !known:
		if strings.HasPrefix(e.url.Path, "/api/") && (e.status < 300 || e.status >= 500 && e.status != 503) {
			breach("of the API, and not in the page")
		}
		return breaches
	}
	if response == "" || d.at(response) == nil {
		response = pointer(always, "responses", status)
	}
	if d.at(response) == nil {
		breach("a status that the page does not describe")
		return breaches
	}
	s.mark(response)
	answer := d.follow(response)

	header := e.header.Clone()
	header.Del("Content-Type") // is that of the body
	for _, b := range d.checkHeaders(header, pointer(answer, "headers"), pointer(always, "headers")) {
		breach("%s", b)
	}
	for _, b := range d.checkBody(e, answer, s) {
		breach("%s", b)
	}
	if op != nil && e.status >= 200 && e.status < 400 {
		for _, b := range d.checkRequest(e, op, s) {
			breach("request: %s", b)
		}
	}
	return breaches
}

// checkHeaders returns which headers are not as described by the first of lists
// that has them, and which that must be there are not.
func (d *document) checkHeaders(header http.Header, lists ...string) (breaches []string) {
	described := make(map[string]string)
	for _, list := range lists {
		for name := range d.node(list) {
			key, at := http.CanonicalHeaderKey(name), d.follow(pointer(list, name))
			if described[key] == "" {
				described[key] = at
			}
			if d.node(at)["required"] == true && header.Get(name) == "" {
				breaches = append(breaches, fmt.Sprintf("header %s is missing", name))
			}
		}
	}
	for name, values := range header {
		at := described[name]
		if at == "" {
			breaches = append(breaches, fmt.Sprintf("header %s: %q is not described", name, values))
		} else if err := d.validText(pointer(at, "schema"), values); err != nil {
			breaches = append(breaches, fmt.Sprintf("header %s: %q: %v", name, values, err))
		}
	}
	slices.Sort(breaches)
	return breaches
}

// liveMessages is what the page says of the messages of live.m4s.
var liveMessages = pointer("/paths", "/api/cameras/{uuid}/{stream}/live.m4s", "get", "responses", "101", "x-messages")

// checkMessage returns what of a message of live.m4s is not as the page has it.
func (d *document) checkMessage(text bool, b []byte) (breaches []string) {
	if text {
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
		if err == nil {
			err = d.valid(pointer(liveMessages, "text"), value)
		}
		if err != nil {
			breaches = append(breaches, fmt.Sprintf("message %s: %v", b, err))
		}
		return breaches
	}
	head, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(b))).ReadMIMEHeader()
	if err != nil {
		return []string{fmt.Sprintf("headers of a picture: %v", err)}
	}
	return d.checkHeaders(http.Header(head), pointer(liveMessages, "binary", "headers"))
}

// mediaType finds the description of a content type: with its parameters where
// the page has them.
func (d *document) mediaType(content, typ string) string {
	if d.at(pointer(content, typ)) != nil {
		return pointer(content, typ)
	}
	base, _, err := mime.ParseMediaType(typ)
	if err != nil || d.at(pointer(content, base)) == nil {
		return ""
	}
	return pointer(content, base)
}

func (d *document) checkBody(e *exchange, answer string, s *seen) (breaches []string) {
	content := pointer(answer, "content")
	typ := e.header.Get("Content-Type")
	if d.at(content) == nil {
		if typ != "" || e.length > 0 {
			breaches = append(breaches, fmt.Sprintf("%d bytes of %q, where the page has no body", e.length, typ))
		}
		return breaches
	}
	if typ == "" {
		typ = http.DetectContentType(e.body) // as the server does
	}
	at := d.mediaType(content, typ)
	if at == "" {
		return append(breaches, fmt.Sprintf("type %q is not described", typ))
	}
	s.mark(at)
	switch {
	case e.method == http.MethodHead:
	case typ == "application/json":
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(e.body))
		if err == nil {
			err = d.valid(pointer(at, "schema"), value)
		}
		if err != nil {
			return append(breaches, fmt.Sprintf("%v in %.500s", err, e.body))
		}
		d.markFields(pointer(at, "schema"), value, s)
	case typ == "text/event-stream":
		for name, data := range eventsOf(e.body) {
			schema := pointer(at, "x-events", name)
			value, err := jsonschema.UnmarshalJSON(strings.NewReader(data))
			switch {
			case err != nil:
			case d.at(schema) == nil:
				err = errors.New("it is not in the page")
			default:
				err = d.valid(schema, value)
			}
			if err != nil {
				breaches = append(breaches, fmt.Sprintf("event %s: %v in %.500s", name, err, data))
				continue
			}
			d.markFields(schema, value, s)
		}
	case e.length == 0:
		breaches = append(breaches, "it says nothing")
	}
	return breaches
}

// eventsOf are the server-sent events of a body that came whole, as name and data.
func eventsOf(body []byte) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		blocks := strings.Split(string(body), "\n\n")
		for _, block := range blocks[:len(blocks)-1] {
			var name, data string
			for line := range strings.Lines(block) {
				field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
				switch field {
				case "event":
					name = value
				case "data":
					data = value
				}
			}
			if name != "" && !yield(name, data) {
				return
			}
		}
	}
}

// checkRequest checks what was asked by a request that got its way: the page
// must describe all that works.
func (d *document) checkRequest(e *exchange, op *operation, s *seen) (breaches []string) {
	for name, values := range e.url.Query() {
		at, ok := op.query[name]
		switch {
		case op.pages:
		case !ok:
			breaches = append(breaches, fmt.Sprintf("parameter %s is not described", name))
		default:
			if err := d.validText(pointer(at, "schema"), values); err != nil {
				breaches = append(breaches, fmt.Sprintf("parameter %s=%s: %v", name, values, err))
			}
			s.mark(op.ptr + " " + name)
		}
	}
	content := pointer(op.ptr, "requestBody", "content")
	if d.at(content) == nil || len(e.sent) == 0 {
		return breaches
	}
	at := d.mediaType(content, e.sentType)
	if at == "" {
		return append(breaches, fmt.Sprintf("a body of %q is not described", e.sentType))
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(e.sent))
	if strings.HasSuffix(at, "form-urlencoded") {
		form, _ := url.ParseQuery(string(e.sent))
		fields := make(map[string]any)
		for name := range form {
			fields[name] = form.Get(name)
		}
		value, err = fields, nil
	}
	if err == nil {
		err = d.valid(pointer(at, "schema"), value)
	}
	if err != nil {
		return append(breaches, fmt.Sprintf("%v in %s", err, e.sent))
	}
	d.markFields(pointer(at, "schema"), value, s)
	return breaches
}

// markFields marks each field of a schema that a valid value has.
func (d *document) markFields(ptr string, value any, s *seen) {
	if s == nil {
		return
	}
	schema := d.node(ptr)
	if schema["$ref"] != nil {
		d.markFields(d.follow(ptr), value, s)
	}
	switch value := value.(type) {
	case map[string]any:
		for name, v := range value {
			if at := pointer(ptr, "properties", name); d.at(at) != nil {
				s.mark(at)
				d.markFields(at, v, s)
			} else if schema["additionalProperties"] != nil {
				d.markFields(pointer(ptr, "additionalProperties"), v, s)
			}
		}
	case []any:
		for _, v := range value {
			d.markFields(pointer(ptr, "items"), v, s)
		}
	}
}

// fields lists the pointers of all fields that a schema describes.
func (d *document) fields(ptr string, into map[string]bool) {
	schema := d.node(ptr)
	if schema == nil {
		return
	}
	if schema["$ref"] != nil {
		d.fields(d.follow(ptr), into)
	}
	for name := range d.node(pointer(ptr, "properties")) {
		if at := pointer(ptr, "properties", name); !into[at] {
			into[at] = true
			d.fields(at, into)
		}
	}
	d.fields(pointer(ptr, "items"), into)
	d.fields(pointer(ptr, "additionalProperties"), into)
}

// undriven names each status, type, parameter and field of the page that was
// not seen.
func (d *document) undriven(s *seen) (breaches []string) {
	fields := make(map[string]bool)
	want := func(ptr, what string) {
		if !s.at[ptr] {
			breaches = append(breaches, what+" is in the page, and nothing drives it")
		}
	}
	bodies := func(content, name string, answer bool) {
		for typ := range d.node(content) {
			at := pointer(content, typ)
			if answer {
				want(at, name+": "+typ)
			}
			d.fields(pointer(at, "schema"), fields)
		}
	}
	responses := func(ptr, name string) {
		for status := range d.node(pointer(ptr, "responses")) {
			at := pointer(ptr, "responses", status)
			want(at, name+": "+status)
			bodies(pointer(d.follow(at), "content"), name+": "+status, true)
		}
	}
	for _, op := range d.ops {
		responses(op.ptr, op.String())
		for name, at := range op.query {
			if d.node(at)["x-given"] == true {
				continue // the drive does not have what another answer gave
			}
			want(op.ptr+" "+name, op.String()+": parameter "+name)
		}
		bodies(pointer(op.ptr, "requestBody", "content"), op.String(), false)
	}
	responses(always, "any path")
	for at := range fields {
		want(at, "field "+at)
	}
	slices.Sort(breaches)
	return slices.Compact(breaches)
}

// routesDiffer compares a table of routes with the operations of the page.
func (d *document) routesDiffer(routes []route) (breaches []string) {
	rights := map[string]route{}
	for _, r := range routes {
		name := r.method + " " + shape(r.pattern)
		rights[name] = r
		op := d.ops[name]
		if op == nil {
			breaches = append(breaches, r.method+" "+r.pattern+" is not in the page")
			continue
		}
		if right, _ := d.at(op.ptr + "/x-right").(string); right != rightOf(r) {
			breaches = append(breaches, fmt.Sprintf("%s asks for %q, the page has %q", op, rightOf(r), right))
		}
		if op.users != r.users {
			breaches = append(breaches, fmt.Sprintf("%s has the wrong tag for whether there can be no users: %t", op, r.users))
		}
	}
	for name, op := range d.ops {
		if _, ok := rights[name]; !ok {
			breaches = append(breaches, op.String()+" is in the page, and not served")
		}
	}
	slices.Sort(breaches)
	return breaches
}

var theDocument = sync.OnceValues(func() (*document, error) { return readDocument(design.OpenAPI()) })

func thePage(t testing.TB) *document {
	t.Helper()
	d, err := theDocument()
	if err != nil {
		t.Fatalf("openapi.yaml: %v", err)
	}
	return d
}

// held returns the handler of New, held to the page.
func held(t testing.TB, cfg Config) http.Handler {
	t.Helper()
	if _, ok := t.(*testing.B); ok {
		return New(cfg) // what is measured is the recorder
	}
	return hold(thePage(t), New(cfg), cfg.Access == nil, nil, func(breach string) { t.Error(breach) })
}

// hold tells of each answer of h that is not as the page has it.
func hold(d *document, h http.Handler, noUsers bool, s *seen, tell func(string)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := &exchange{method: r.Method, url: r.URL, sentType: r.Header.Get("Content-Type"), noUsers: noUsers}
		if r.Body != nil {
			r.Body = &overheard{r.Body, e}
		}
		k := &keeper{ResponseWriter: w, e: e}
		defer func() {
			if k.hijacked || e.status == 0 && r.Context().Err() != nil {
				return // keeper checked it; or nobody was there to answer
			}
			if e.status == 0 {
				k.keep(http.StatusOK)
			}
			for _, b := range d.check(e, s) {
				tell(b)
			}
		}()
		k.begun = func() {
			if e.status == http.StatusSwitchingProtocols { // the handler ends with the socket
				k.hijacked = true
				for _, b := range d.check(e, s) {
					tell(b)
				}
			}
		}
		h.ServeHTTP(k, r)
	})
}

// overheard is the body of a request as the handler reads it.
type overheard struct {
	io.ReadCloser
	e *exchange
}

func (o *overheard) Read(p []byte) (int, error) {
	n, err := o.ReadCloser.Read(p)
	o.e.sent = append(o.e.sent, p[:n]...)
	return n, err
}

// keeper keeps what a handler answers, and leaves it the ways to the connection.
type keeper struct {
	http.ResponseWriter
	e        *exchange
	begun    func()
	hijacked bool
}

const mostKept = 8 << 20 // bytes of an answer: more than any of JSON

func (k *keeper) keep(status int) {
	if k.e.status != 0 {
		return
	}
	k.e.status, k.e.header = status, k.Header().Clone()
	k.begun()
}

func (k *keeper) WriteHeader(status int) {
	k.keep(status)
	k.ResponseWriter.WriteHeader(status)
}

func (k *keeper) Write(p []byte) (int, error) {
	k.keep(http.StatusOK)
	n, err := k.ResponseWriter.Write(p)
	k.e.length += int64(n)
	if !strings.HasPrefix(k.e.header.Get("Content-Type"), "video/") && len(k.e.body) < mostKept {
		k.e.body = append(k.e.body, p[:n]...)
	}
	return n, err
}

func (k *keeper) ReadFrom(src io.Reader) (int64, error) {
	k.keep(http.StatusOK)
	n, err := io.Copy(k.ResponseWriter, src)
	k.e.length += n
	return n, err
}

func (k *keeper) Unwrap() http.ResponseWriter { return k.ResponseWriter }
