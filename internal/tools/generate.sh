#!/usr/bin/env bash
# Usage: generate.sh DIR. Makes DIR/gen of proto/.
set -euo pipefail
cd "$(dirname "$0")/../.."
gen=$1/gen
go tool -modfile=tools/go.mod buf generate -o "$1"
go run ./internal/tools/openapi internal/tools/openapi/examples internal/tools/openapi/zh-CN.yaml "$gen/openapi/openapi.yaml"
cp internal/tools/openapi.go.txt "$gen/openapi/openapi.go"
# With the comments, which tools show to whoever asks for a description.
mkdir -p "$gen/descriptor"
go tool -modfile=tools/go.mod buf build --as-file-descriptor-set -o "$gen/descriptor/notebook.binpb"
cp internal/tools/descriptor.go.txt "$gen/descriptor/descriptor.go"
