// Package openapi holds the generated OpenAPI description of the REST API.
package openapi

import _ "embed"

// YAML is the OpenAPI 3 document.
//
//go:embed openapi.yaml
var YAML []byte
