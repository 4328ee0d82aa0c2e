// Thirdparty writes the third-party .proto files that this project's contract
// imports, so that code generation needs no schema registry.
//
// The files are printed from the descriptors inside Go modules that go.mod pins,
// which makes them as reproducible as the modules are. Comments are not part of
// a descriptor, so there are none.
//
// Usage: thirdparty DIR
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/jhump/protoreflect/v2/protoprint"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
)

// roots are the files that the contract imports, and those of the errors that it
// promises, for readers of its descriptors; what they import is added.
var roots = []protoreflect.FileDescriptor{
	validate.File_buf_validate_validate_proto,
	annotations.File_google_api_annotations_proto,
	annotations.File_google_api_client_proto,
	annotations.File_google_api_field_behavior_proto,
	annotations.File_google_api_resource_proto,
	errdetails.File_google_rpc_error_details_proto,
	status.File_google_rpc_status_proto,
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: thirdparty DIR")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "thirdparty:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	files := map[string]protoreflect.FileDescriptor{}
	for _, root := range roots {
		collect(root, files)
	}
	printer := &protoprint.Printer{SortElements: true}
	for name, file := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		text, err := printer.PrintProtoToString(file)
		if err != nil {
			return fmt.Errorf("print %s: %w", name, err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// collect adds a file and its imports. The well-known types come with buf.
func collect(file protoreflect.FileDescriptor, files map[string]protoreflect.FileDescriptor) {
	if _, done := files[file.Path()]; done || strings.HasPrefix(file.Path(), "google/protobuf/") {
		return
	}
	files[file.Path()] = file
	imports := file.Imports()
	for i := range imports.Len() {
		collect(imports.Get(i).FileDescriptor, files)
	}
}
