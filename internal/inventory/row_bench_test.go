package inventory

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/notebookd/notebookd/internal/upstream"
)

// BenchmarkUnchangedRow compares a notebook that was decoded anew with its row.
func BenchmarkUnchangedRow(b *testing.B) {
	free := int32(3)
	n := &upstream.Notebook{
		ID: "nb-1", DisplayName: "a", State: upstream.StateRunning, CloudState: "Running", Image: upstream.Image{URI: "registry.example.com/ml/pytorch:2.9.0", Type: "official"},
		ServerType: "jupyter", Namespace: "usr", OwnerID: "usr", CreateTime: time.Unix(1e9, 0), UpdateTime: time.Unix(1e9, 0),
		Resources:  upstream.Resources{CPUCores: 8, Accelerator: upstream.Accelerator{Type: "gpu", Model: "A800", Count: 1, Available: &free}},
		Attributes: map[string]string{"kuid": "b9a485e4", "charge_mode": "elastic", "replica_specs.custom_cpu": "8", "replica_specs.specs": "x"},
	}
	key := rowKey{"core", "xb3", "nb-1"}
	before := toContract(key, n, time.Unix(2e9, 0))
	encode := proto.MarshalOptions{Deterministic: true}
	was, err := encode.Marshal(before)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		after := toContract(key, n, time.Unix(3e9, 0))
		is, err := encode.Marshal(after)
		if err != nil {
			b.Fatal(err)
		}
		if paths := changedPaths(before, after, was, is, nil); len(paths) != 0 {
			b.Fatal(paths)
		}
	}
}
