package nvr_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The checks of house_test.go. Each takes what it judges and returns one line
// for each breach, so that house_mutants_test.go can hand it bad input.

const module = "holdfast"

// tracked returns the path of each file that is neither in .git nor ignored by
// the top .gitignore, of which it knows what ours uses: "/dir/", "dir/",
// "*.ext" and plain names.
func tracked(fsys fs.FS) ([]string, error) {
	ignore, err := fs.ReadFile(fsys, ".gitignore")
	if err != nil {
		return nil, err
	}
	patterns := append(strings.Fields(string(ignore)), "/.git/", ".git")
	ignored := func(p string, dir bool) bool {
		for _, pattern := range patterns {
			name, onlyDir := strings.CutSuffix(pattern, "/")
			name, atTop := strings.CutPrefix(name, "/")
			subject := path.Base(p)
			if atTop {
				subject = p
			}
			if ok, _ := path.Match(name, subject); ok && (dir || !onlyDir) {
				return true
			}
		}
		return false
	}
	var files []string
	err = fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case p != "." && ignored(p, d.IsDir()):
			if d.IsDir() {
				return fs.SkipDir
			}
		case d.Type().IsRegular(): // a link is a name of what stands elsewhere
			files = append(files, p)
		}
		return nil
	})
	return files, err
}

// topLevel checks that the top of the repository is exactly the house.
func topLevel(files, want []string) (breaches []string) {
	var got []string
	for _, f := range files {
		top, _, _ := strings.Cut(f, "/")
		got = append(got, top)
	}
	slices.Sort(got)
	got = slices.Compact(got)
	for _, name := range got {
		if !slices.Contains(want, name) {
			breaches = append(breaches, name+": the top level is fixed; find it a place in one of its folders")
		}
	}
	for _, name := range want {
		if !slices.Contains(got, name) {
			breaches = append(breaches, name+": missing from the top level")
		}
	}
	return breaches
}

// A goFile is one Go source file, whatever its build tags.
type goFile struct {
	path string
	src  []byte
	ast  *ast.File
}

func (f goFile) dir() string  { return path.Dir(f.path) }
func (f goFile) test() bool   { return strings.HasSuffix(f.path, "_test.go") }
func (f goFile) name() string { return f.ast.Name.Name }

func (f goFile) imports() []string {
	var list []string
	for _, spec := range f.ast.Imports {
		p, _ := strconv.Unquote(spec.Path.Value)
		list = append(list, p)
	}
	return list
}

// parseGo parses the Go files among files.
func parseGo(fsys fs.FS, files []string) ([]goFile, error) {
	var list []goFile
	for _, p := range files {
		if !strings.HasSuffix(p, ".go") || strings.Contains(p, "testdata/") {
			continue
		}
		src, err := fs.ReadFile(fsys, p)
		if err != nil {
			return nil, err
		}
		tree, err := parser.ParseFile(token.NewFileSet(), p, src, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		list = append(list, goFile{p, src, tree})
	}
	return list, nil
}

// A place is a package of the house: what of ours it may import, what its tests
// may import beside all that it reaches, and why no more. "nvr/..." is every
// package under nvr.
type place struct {
	dir   string
	may   []string
	tests []string
	why   string
}

func within(list []string, dir string) bool {
	return slices.ContainsFunc(list, func(pattern string) bool {
		if top, ok := strings.CutSuffix(pattern, "/..."); ok {
			return dir == top || strings.HasPrefix(dir, top+"/")
		}
		return dir == pattern
	})
}

// reach returns all that dir imports by the table, through others.
func reach(house []place, dir string, seen map[string]bool) map[string]bool {
	for _, p := range house {
		if p.dir != dir {
			continue
		}
		for _, q := range p.may {
			if !seen[q] {
				seen[q] = true
				reach(house, q, seen)
			}
		}
	}
	return seen
}

// arrows checks that each import of ours goes the way of the table.
func arrows(files []goFile, house []place) (breaches []string) {
	for _, f := range files {
		i := slices.IndexFunc(house, func(p place) bool { return p.dir == f.dir() })
		if i < 0 {
			breaches = append(breaches, f.path+": its folder has no place in the house: give it one sentence in design and one row in house_test.go")
			continue
		}
		here := house[i]
		for _, imported := range f.imports() {
			dir, ours := strings.CutPrefix(imported, module+"/")
			if !ours || within(here.may, dir) {
				continue
			}
			if f.test() && (dir == here.dir || within(here.tests, dir) || reach(house, here.dir, map[string]bool{})[dir]) {
				continue
			}
			breaches = append(breaches, fmt.Sprintf("%s: imports %s, but %s", f.path, dir, here.why))
		}
	}
	return breaches
}

// An owner says which folders may import a library of others, by path prefix.
type owner struct {
	library string
	dirs    []string
	tests   bool // any test may
	why     string

	onlyTests bool // and those of dirs alone: it is in no program
}

// owners checks that each library of others is imported by its owner alone.
func owners(files []goFile, table []owner) (breaches []string) {
	for _, f := range files {
		for _, imported := range f.imports() {
			if imported == "C" {
				breaches = append(breaches, f.path+": imports C, but the recorder is pure Go: it is built for other machines without their compiler")
			}
			host, _, _ := strings.Cut(imported, "/")
			if !strings.Contains(host, ".") {
				continue
			}
			i := slices.IndexFunc(table, func(o owner) bool {
				return imported == o.library || strings.HasPrefix(imported, o.library+"/")
			})
			switch {
			case i < 0:
				breaches = append(breaches, fmt.Sprintf("%s: imports %s, which has no owner: name one in house_test.go", f.path, imported))
			case within(table[i].dirs, f.dir()) && (f.test() || !table[i].onlyTests), table[i].tests && f.test():
			default:
				breaches = append(breaches, fmt.Sprintf("%s: imports %s, but %s; it belongs to %s",
					f.path, imported, table[i].why, strings.Join(append(slices.Clone(table[i].dirs), map[bool][]string{true: {"tests"}}[table[i].tests || table[i].onlyTests]...), ", ")))
			}
		}
	}
	return breaches
}

var emptyComment = regexp.MustCompile(`(?i)^(package|command) (\w+) (contains|provides|implements|is|has|holds|handles) (the |a |an )?\w+( \w+)?\.?$`)

// packageComments checks that each package has exactly one comment, and that it
// says something.
func packageComments(files []goFile) (breaches []string) {
	type pkg struct{ dir, name string }
	comments := map[pkg][]string{}
	var order []pkg
	where := map[pkg][]string{}
	for _, f := range files {
		if f.test() {
			continue
		}
		p := pkg{f.dir(), f.name()}
		if _, ok := comments[p]; !ok {
			comments[p], order = nil, append(order, p)
		}
		if text := strings.TrimSpace(f.ast.Doc.Text()); text != "" {
			comments[p] = append(comments[p], text)
			where[p] = append(where[p], f.path)
		}
	}
	for _, p := range order {
		switch n := len(comments[p]); {
		case n == 0:
			breaches = append(breaches, p.dir+": has no package comment: say what it is for and what does not belong")
			continue
		case n > 1:
			breaches = append(breaches, fmt.Sprintf("%s: has %d package comments (%s); one tells the story", p.dir, n, strings.Join(where[p], ", ")))
			continue
		}
		text := comments[p][0]
		begin := "Package " + p.name + " "
		if p.name == "main" {
			begin = "Command " + path.Base(p.dir) + " "
		}
		if !strings.HasPrefix(text, begin) {
			breaches = append(breaches, fmt.Sprintf("%s: its comment begins otherwise than %q", where[p][0], begin))
		}
		if emptyComment.MatchString(text) || len(strings.Fields(text)) < 20 {
			breaches = append(breaches, where[p][0]+": its comment says too little: what is it for, what does not belong, which order or format does it keep?")
		}
	}
	return breaches
}

var forbiddenNames = regexp.MustCompile(`^(utils?|commons?|helpers?|misc|types?|models?|cores?|bases?)$`)

// packageNames checks that no package has a name that would hold anything.
func packageNames(files []goFile) (breaches []string) {
	seen := map[string]bool{}
	for _, f := range files {
		for _, name := range append(strings.Split(f.dir(), "/"), strings.TrimSuffix(f.name(), "_test")) {
			breach := fmt.Sprintf("%s: %s says nothing of what belongs there; name it for what it does", f.dir(), name)
			if forbiddenNames.MatchString(strings.ToLower(name)) && !seen[breach] {
				seen[breach] = true
				breaches = append(breaches, breach)
			}
		}
	}
	return breaches
}

// formatted checks that gofmt would change nothing.
func formatted(files []goFile) (breaches []string) {
	for _, f := range files {
		if want, err := format.Source(f.src); err != nil {
			breaches = append(breaches, fmt.Sprintf("%s: gofmt: %v", f.path, err))
		} else if !bytes.Equal(f.src, want) {
			breaches = append(breaches, f.path+": gofmt would change it")
		}
	}
	return breaches
}

// habits checks what the style guide asks of every function: no init, no sleep
// in real time in a test, no error that begins with "failed to".
func habits(files []goFile) (breaches []string) {
	for _, f := range files {
		fake := slices.Contains(f.imports(), "testing/synctest")
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv == nil && n.Name.Name == "init" {
					breaches = append(breaches, f.path+": has an init function: nothing happens before main but by the caller's will")
				}
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && n.Sel.Name == "Sleep" && f.test() && !fake {
					breaches = append(breaches, f.path+": sleeps in real time: use testing/synctest, or wait for the event")
				}
			case *ast.BasicLit:
				if strings.HasPrefix(strings.ToLower(strings.Trim(n.Value, "\"`")), "failed"+" to ") {
					breaches = append(breaches, f.path+": an error says "+n.Value+": write operation, object, cause")
				}
			}
			return true
		})
	}
	return breaches
}

// requirements returns the version of each module that a go.mod requires.
func requirements(gomod string) map[string]string {
	versions := map[string]string{}
	line := regexp.MustCompile(`^\s*(?:require\s+)?([\w.~-]+(?:/[\w.~-]+)+)\s+(v\S+)`)
	for l := range strings.Lines(gomod) {
		if m := line.FindStringSubmatch(l); m != nil && !strings.Contains(l, "=>") {
			versions[m[1]] = m[2]
		}
	}
	return versions
}

// noReplace checks that a go.mod has no replace directive: it would hold only
// here, and not for who builds us as a dependency or reads the pins.
func noReplace(gomod string) (breaches []string) {
	for l := range strings.Lines(gomod) {
		if l, _, _ = strings.Cut(l, "//"); regexp.MustCompile(`^\s*replace\b|=>`).MatchString(l) {
			breaches = append(breaches, "go.mod: "+strings.TrimSpace(l)+": no replace")
		}
	}
	return breaches
}

// samePin checks that ours requires a module in the very version that theirs,
// the go.mod of library, does.
func samePin(ours, theirs, library, mod string) (breaches []string) {
	got, want := requirements(ours)[mod], requirements(theirs)[mod]
	if want == "" {
		return []string{fmt.Sprintf("go.mod of %s: requires no %s; is the check out of date?", library, mod)}
	}
	if got != want {
		return []string{fmt.Sprintf("go.mod: requires %s %q, %s was translated for %s and may corrupt with another", mod, got, library, want)}
	}
	return nil
}

// A text is a tracked file that is not binary.
type text struct{ path, body string }

func texts(fsys fs.FS, files []string) ([]text, error) {
	var list []text
	for _, p := range files {
		body, err := fs.ReadFile(fsys, p)
		if err != nil {
			return nil, err
		}
		if bytes.IndexByte(body, 0) < 0 {
			list = append(list, text{p, string(body)})
		}
	}
	return list, nil
}

// Absolute paths of the machine something was written on. What may precede one
// is anything that does not make it the end of a longer path.
var machinePath = regexp.MustCompile(`(?m)(?:^|[^\w./~-])(/(?:work|root|farm|home/\w+)/[\w./-]*)`)

func machinePaths(list []text) (breaches []string) {
	for _, t := range list {
		for _, m := range machinePath.FindAllStringSubmatch(t.body, -1) {
			breaches = append(breaches, fmt.Sprintf("%s: names %s, a path of one machine", t.path, m[1]))
		}
	}
	return breaches
}

var (
	citation = regexp.MustCompile(`\b([a-z][a-z-]*)\.md,? rules? (\d+(?:(?:, and |, | and | to |–|-)\d+)*)`)
	number   = regexp.MustCompile(`\d+`)
	newLine  = regexp.MustCompile(`[ \t]*\n[ \t]*(?:(?://|--|#|\*)[ \t]*)?`)
	// "1. Each file must …", "**Rule 1.** …", "### Rule 1: …", "* **1.** …"
	ruleLine = regexp.MustCompile(`(?m)^[ \t]{0,3}(?:[-*>|] |#{1,6} )?(?:\*\*|__)?([Rr]ule )?(\d+)(?:\*\*|__)?[.:)]`)
)

// rules returns the numbers of the rules that a page defines, in their order.
// Where a page writes "Rule 1", other numbered lists of it are no rules.
func rules(page string) []string {
	var marked, plain []string
	for _, m := range ruleLine.FindAllStringSubmatch(page, -1) {
		if plain = append(plain, m[2]); m[1] != "" {
			marked = append(marked, m[2])
		}
	}
	if marked != nil {
		return marked
	}
	return plain
}

// citations checks that each rule that a file cites ("page.md", the word rule, a
// number) stands in that page, whose text pages has by name, and that no rule
// has two texts.
func citations(list []text, pages map[string]string) (breaches []string) {
	for _, t := range list {
		for _, m := range citation.FindAllStringSubmatch(newLine.ReplaceAllString(t.body, " "), -1) {
			page, ok := pages[m[1]+".md"]
			if !ok {
				breaches = append(breaches, fmt.Sprintf("%s: cites %q, but there is no such design page", t.path, m[0]))
				continue
			}
			defined := rules(page)
			for _, n := range number.FindAllString(m[2], -1) {
				switch count := len(slices.DeleteFunc(slices.Clone(defined), func(r string) bool { return r != n })); {
				case count == 0:
					breaches = append(breaches, fmt.Sprintf("%s: cites %s.md rule %s, which does not exist", t.path, m[1], n))
				case count > 1:
					breaches = append(breaches, fmt.Sprintf("%s: cites %s.md rule %s, of which there are %d", t.path, m[1], n, count))
				}
			}
		}
	}
	return breaches
}

var (
	fence     = regexp.MustCompile("(?ms)^```.*?^```|`[^`\n]+`")
	fenceOnly = regexp.MustCompile("(?ms)^```.*?^```")
	mdLink    = regexp.MustCompile(`\]\(([^)\s]+)(?: "[^"]*")?\)`)
	heading   = regexp.MustCompile(`(?m)^#{1,6} +(.+?)[ #]*$`)
	notSlug   = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
	designRef = regexp.MustCompile(`\bnvr/design/[\w-]+\.(?:md|yaml)\b`)
)

// anchors returns the names by which a page's headings can be linked.
func anchors(page string) (names []string) {
	count := map[string]int{}
	for _, m := range heading.FindAllStringSubmatch(fenceOnly.ReplaceAllString(page, ""), -1) {
		slug := strings.ReplaceAll(notSlug.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")
		if n := count[slug]; n > 0 {
			names = append(names, fmt.Sprintf("%s-%d", slug, n))
		} else {
			names = append(names, slug)
		}
		count[slug]++
	}
	return names
}

// links checks each link of a Markdown page to a file or heading of ours, and
// each mention of a design page anywhere.
func links(fsys fs.FS, list []text) (breaches []string) {
	body := map[string]string{}
	for _, t := range list {
		body[t.path] = t.body
	}
	for _, t := range list {
		for _, ref := range designRef.FindAllString(t.body, -1) {
			if _, err := fs.Stat(fsys, ref); err != nil {
				breaches = append(breaches, fmt.Sprintf("%s: names %s, which does not exist", t.path, ref))
			}
		}
		if path.Ext(t.path) != ".md" {
			continue
		}
		for _, m := range mdLink.FindAllStringSubmatch(fence.ReplaceAllString(t.body, ""), -1) {
			if regexp.MustCompile(`^(https?|mailto):`).MatchString(m[1]) {
				continue
			}
			to, anchor, _ := strings.Cut(m[1], "#")
			target := t.path
			if to != "" {
				target = path.Join(path.Dir(t.path), to)
			}
			if _, err := fs.Stat(fsys, target); err != nil {
				breaches = append(breaches, fmt.Sprintf("%s: links to %s, which does not exist", t.path, m[1]))
			} else if anchor != "" && path.Ext(target) == ".md" && !slices.Contains(anchors(body[target]), anchor) {
				breaches = append(breaches, fmt.Sprintf("%s: links to %s, where there is no such heading", t.path, m[1]))
			}
		}
	}
	return breaches
}

// The field's words that a glossary owes an entry as soon as the schema uses
// them; those of two words first, since they are not uses of their parts.
var vocabulary = []string{
	"access unit", "nal unit", "parameter sets", "key frame", "sample entry", "sample table", "edit list",
	"sample file", "sample directory", "wall duration", "media duration",
	"gop", "sample", "fragment", "stream", "run", "recording", "segment", "open", "flush", "retention", "garbage",
	"watermark",
}

var (
	createTable = regexp.MustCompile(`(?mi)^\s*CREATE TABLE (?:IF NOT EXISTS )?(\w+)`)
	definition  = regexp.MustCompile(`(?m)^(?:#{2,6} +(.+?)|[-*] +\*\*(.+?)\*\*.*|\*\*(.+?)\*\*.*|\| *([^|]+?) *\|.*)$`)
	notWord     = regexp.MustCompile(`[^\p{L}\p{N} ]+`)
)

// glossary checks that each table of a schema, and each of the field's words in
// it, is defined. A table is, when its name read as words is a term, or when
// the glossary names it in backticks.
func glossary(schema, page string) (breaches []string) {
	terms := map[string]bool{}
	for _, m := range definition.FindAllStringSubmatch(page, -1) {
		for term := range strings.FieldsFuncSeq(m[1]+m[2]+m[3]+m[4], func(r rune) bool { return strings.ContainsRune("/,·;()", r) }) {
			terms[strings.Join(strings.Fields(notWord.ReplaceAllString(strings.ToLower(term), " ")), " ")] = true
		}
	}
	for _, m := range createTable.FindAllStringSubmatch(schema, -1) {
		if name := strings.ReplaceAll(m[1], "_", " "); !terms[name] && !strings.Contains(page, "`"+m[1]+"`") {
			breaches = append(breaches, "schema.sql: table "+m[1]+" is not in the glossary")
		}
	}
	words := strings.Join(strings.Fields(notWord.ReplaceAllString(strings.ToLower(schema), " ")), " ")
	for _, word := range vocabulary {
		rest := regexp.MustCompile(`\b`+word+`s?\b`).ReplaceAllString(words, ".")
		used := rest != words
		if words = rest; used && !terms[word] && !terms[word+"s"] {
			breaches = append(breaches, "schema.sql: says "+strconv.Quote(word)+", which the glossary does not define")
		}
	}
	return breaches
}
