package access

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// Preferences is what a user's clients keep for themselves: a JSON object in its
// one form, so that equal objects are equal texts. The recorder reads nothing in
// it. "" is that of a user who has none, {}.
type Preferences string

// What SQLite's functions of JSON bear is deeper; see schema.sql for the size.
const (
	mostPreferences   = 16 << 10 // bytes of the one form
	deepestPreference = 64
)

// ParsePreferences returns the one form of an object, or an *InvalidError.
func ParsePreferences(text []byte) (Preferences, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // 0.1 stays 0.1, and 2^60 is not rounded
	var object map[string]any
	if err := d.Decode(&object); err != nil || object == nil {
		return "", &InvalidError{"preferences is not a JSON object"}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return "", &InvalidError{"preferences is more than one JSON object"}
	}
	if deeper(object, deepestPreference) {
		return "", &InvalidError{fmt.Sprintf("preferences is nested more than %d times", deepestPreference)}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // & is one byte
	err := e.Encode(object)
	one := bytes.TrimSpace(b.Bytes())
	switch {
	case err != nil:
		return "", fmt.Errorf("preferences: %w", err)
	case len(one) > mostPreferences:
		return "", &InvalidError{fmt.Sprintf("preferences has %d bytes, and at most %d fit", len(one), mostPreferences)}
	case len(object) == 0:
		return "", nil
	}
	return Preferences(one), nil
}

// JSON is the object as its text.
func (p Preferences) JSON() json.RawMessage { return json.RawMessage(cmp.Or(p, "{}")) }

// deeper reports whether a value has more levels of objects and arrays than most.
func deeper(v any, most int) bool {
	deeper := func(e any) bool { return deeper(e, most-1) }
	switch v := v.(type) {
	case map[string]any:
		return most == 0 || slices.ContainsFunc(slices.Collect(maps.Values(v)), deeper)
	case []any:
		return most == 0 || slices.ContainsFunc(v, deeper)
	}
	return false
}
