package coreshub

import (
	"testing"
	"time"
)

// BenchmarkDecode reads one notebook as the simulated cloud sends it.
func BenchmarkDecode(b *testing.B) {
	row := []byte(`{"uuid":"nb-eiguqichl5hc","kuid":"b9a485e4-1672-45fa-a90e-5adf0016fe30","name":"容器实例-1","status":"Running","reason":"","namespace":"usr-5hy8xxxx","user_id":"usr-5HY8xxxx","root_user_id":"usr-5HY8xxxx","image":"xb3-dockerhub.coreshub.cn/aicp/public/pytorch:2.6.0-cuda12.4-jupyter","image_type":"official","server_type":"jupyter","envs":"[{\"name\":\"A\",\"value\":\"b\"}]","created_at":"2025-04-10T15:00:33","updated_at":"2025-04-10T17:33:41","stop_time":null,"auto_delete_time":null,"server":"https://nb-eiguqichl5hc.example.com/lab","pip":"","conda":"","apt":"","replica_specs":"{\"replicas\":1,\"specs\":\"x\",\"custom_cpu\":8,\"custom_memory\":60,\"custom_gpu\":1,\"custom_gpu_name\":\"NVIDIA A800\",\"custom_gpu_type\":\"gpu\",\"custom_system_disk_size\":20}","charge_mode":"elastic","duration":"","auto_renew":0,"next_charge_mode":"","user_name":"simulated","email":"team@example.com"}`)
	zone := time.FixedZone("", 8*3600)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := decodeNotebook(row, zone, "ns"); !ok {
			b.Fatal("not a notebook")
		}
	}
}
