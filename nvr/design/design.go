// Package design is the pages that bind the recorder, for people. For programs
// it holds the one of them that the recorder serves: openapi.yaml, its HTTP API.
package design

import _ "embed"

//go:embed openapi.yaml
var openAPI string

// OpenAPI is the description of the recorder's HTTP API, OpenAPI 3.1 as YAML.
func OpenAPI() string { return openAPI }
