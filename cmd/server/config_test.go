package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestConfigProblemsAreToldTogether(t *testing.T) {
	t.Setenv("NOTEBOOKD_TEST_EMPTY", "")
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"empty", "", []string{"the file is empty; clouds are needed"}},
		{"no cloud", "drain: 5s\n", []string{"clouds: at least one is needed"}},
		{"not yaml", "a: [", []string{"line 1: did not find expected node content"}},
		{"unknown keys", "drian: 5s\ngrpc: {adr: x}\nclouds: []\n", []string{"line 1: drian: unknown key", "line 2: grpc.adr: unknown key", "line 3: clouds: at least one is needed"}},
		{"many at once", `
grpc: {address: nowhere}
drain: -1s
log: {level: loud}
clouds:
  - name: Core
    kind: coreshub
    poll: {fast: 1ms}
    breaker: {failure_ratio: 3}
    coreshub:
      zones: [xb3]
      user_id: usr-1
      access_key_id: {value: ak}
      secret_access_key: {value: sk}
`, []string{
			"line 2: grpc.address: must be host:port",
			"line 3: drain: must be a positive duration such as 10s",
			"line 4: log.level: must be one of debug, info, warn, error",
			"line 6: clouds[0].name: must begin with a lower-case letter and hold only a-z, 0-9 and -",
			"line 8: clouds[0].poll.fast: must be at least 100ms",
			"line 9: clouds[0].breaker.failure_ratio: must be above 0 and at most 1",
		}},
		{"doors", `
grpc: {address: 0.0.0.0:9090}
http:
  address: :8080
  trusted_proxies: [10.0.0.1, 10.0.0.0/8]
  cors: {origins: ["https://a.example/x", "https://a.example"]}
tls: {cert: nowhere.pem}
limits: {burst: -1, message_bytes: 1, header_bytes: 10000, url_bytes: 20000}
clouds: [{name: core, kind: coreshub, coreshub: {zones: [z], user_id: u, access_key_id: {value: a}, secret_access_key: {value: s}}}]
`, []string{
			"line 2: grpc.address: others can reach it, and nothing asks them who they are: add an auth section, or auth: {insecure: true} if something else keeps them out",
			"line 4: http.address: others can reach it, and nothing asks them who they are: add an auth section, or auth: {insecure: true} if something else keeps them out",
			"line 5: http.trusted_proxies[0]: must be a network such as 10.0.0.0/8",
			"line 6: http.cors.origins[0]: must be scheme and host, such as https://console.example",
			"line 7: tls: needs cert and key",
			"line 8: limits.burst: must be from 1 to 1073741824",
			"line 8: limits.message_bytes: must be from 65536 to 67108864",
			"line 8: limits.url_bytes: must not be above header_bytes, which it is a part of",
		}},
		{"auth", `
tls: {cert: nowhere.pem, key: nowhere.pem}
auth:
  tokens_file: nowhere.yaml
  certificates: {}
  oidc: [{issuer: "http://id.example", audiences: [a]}]
  policy: [{role: king, subjects: ["*"]}, {role: viewer}]
clouds: [{name: core, kind: coreshub, coreshub: {zones: [z], user_id: u, access_key_id: {value: a}, secret_access_key: {value: s}}}]
`, []string{
			"line 2: tls: cert and key: open nowhere.pem: no such file or directory",
			"line 4: auth.tokens_file: the file cannot be read",
			"line 5: auth.certificates: needs tls.client_ca, to know which client certificates to believe",
			"line 6: auth.oidc[0].issuer: must be an https URL (http only to this host itself)",
			"line 7: auth.policy[0].role: must be one of viewer, operator, admin",
			"line 7: auth.policy[1]: names nobody: subjects or groups are needed; the subject * is every caller who was authenticated",
		}},
		{"values of the wrong form", `
drain: 10
watch: {max_per_caller: many, slow_reader: 5}
grpc: yes
clouds:
  - name: [x]
    kind: coreshub
    timeout: 10
    coreshub:
      zones: xb3
`, []string{
			"line 2: drain: must be a time with its unit, such as 10s or 1h30m",
			"line 3: must be a time with its unit, such as 10s or 1h30m",
			"line 3: must be a whole number",
			"line 4: grpc: has a value of the wrong form",
			"line 6: clouds[0].name: must be a text",
			"line 8: clouds[0].timeout: must be a time with its unit, such as 10s or 1h30m",
			"line 10: clouds[0].coreshub.zones: must be a list of texts, such as [a, b]",
		}},
		{"secrets in the wrong place", `
auth: {nbd_Canary: x}
store: {nats: canarycanary}
clouds:
  - name: core
    kind: coreshub
    coreshub: {zones: canarycanary, user_id: u, access_key_id: {env: sk-canary}, secret_access_key: {value: s}}
`, []string{
			"line 2: auth.?: unknown key",
			"line 3: store.nats: has a value of the wrong form",
			"line 7: clouds[0].coreshub.access_key_id: environment variable is empty or not set",
			"line 7: must be a list of texts, such as [a, b]",
		}},
		{"secrets", `
clouds:
  - name: core
    kind: coreshub
    coreshub:
      zones: [xb3]
      user_id: usr-1
      access_key_id: canary
      secret_access_key: {env: NOTEBOOKD_TEST_EMPTY}
      sercet: {value: canary}
`, []string{
			"line 8: clouds[0].coreshub.access_key_id: must be {env: NAME}, {file: PATH} or {value: TEXT}",
			"line 9: clouds[0].coreshub.secret_access_key: environment variable NOTEBOOKD_TEST_EMPTY is empty or not set",
			"line 10: clouds[0].coreshub.sercet: unknown key",
		}},
		{"a cluster and a directory", `
store:
  data_dir: /tmp/somewhere
  sync: sometimes
  lease: 10ms
  nats_url: "nats://user:canary@host:4222, http://host"
  nats: {credentials: /does/not/exist, cert: /does/not/exist, replicas: 2, prefix: A.b, no: 1, password: canary}
clouds: []
`, []string{
			"line 3: store.data_dir: does not go with store.nats_url: the NATS cluster keeps everything",
			"line 4: store.sync: does not go with store.nats_url: the NATS cluster keeps everything",
			"line 4: store.sync: must be a positive duration such as 10s, or always",
			"line 5: store.lease: must be at least 1s",
			"line 6: store.nats_url: must be nats://host:port or tls://host:port, several separated by commas",
			"line 6: store.nats_url: must hold no user and no password: they go into store.nats.user and store.nats.password",
			"line 7: store.nats.cert: the file cannot be read",
			"line 7: store.nats.credentials: the file cannot be read",
			"line 7: store.nats.no: unknown key",
			"line 7: store.nats.password: must be {env: NAME}, {file: PATH} or {value: TEXT}",
			"line 7: store.nats.prefix: must begin with a lower-case letter and hold only a-z, 0-9 and -",
			"line 7: store.nats.replicas: must be 1, 3 or 5",
			"line 7: store.nats: cert and key belong together",
			"line 8: clouds: at least one is needed",
		}},
		{"of a cluster, without one", `
store: {lease: 5s, nats: {replicas: 3}}
clouds: []
`, []string{
			"line 2: store.lease: needs store.nats_url",
			"line 2: store.nats.replicas: needs store.nats_url",
			"line 3: clouds: at least one is needed",
		}},
		{"kinds", `
clouds:
  - name: a
    kind: none
  - name: b
    kind: scnet
    coreshub: {}
`, []string{
			"line 4: clouds[0].kind: must be one of coreshub, scnet",
			"line 5: clouds[1].scnet: is needed",
			"line 7: clouds[1].coreshub: does not belong to kind scnet",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "c.yaml")
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), []string{"--config", file}, &stdout, &stderr); code != 2 {
				t.Errorf("exit code %d, want 2", code)
			}
			var got []string
			for _, line := range strings.Split(stderr.String(), "\n")[1:] {
				if line != "" {
					got = append(got, strings.TrimSpace(line))
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if strings.Contains(stderr.String(), "canary") {
				t.Error("a problem shows a secret")
			}
		})
	}
}

func TestCheckConfig(t *testing.T) {
	t.Setenv("NOTEBOOKD_TEST_KEY", "ak")
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("sk\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "c.yaml")
	text := `
clouds:
  - name: core
    kind: coreshub
    timeout: 3s
    coreshub:
      zones: [xb3, xb2]
      user_id: usr-AbCdEf12
      access_key_id: {env: NOTEBOOKD_TEST_KEY}
      secret_access_key: {file: ` + secret + `}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"--config", file, "--check-config"}, &stdout, &stderr); code != 0 || stdout.String() != "configuration ok: 1 cloud\n" {
		t.Errorf("exit code %d, %s%s", code, stdout.String(), stderr.String())
	}
}

func TestCommandLine(t *testing.T) {
	for _, args := range [][]string{{"--no-such-flag"}, {"--config", "/does/not/exist"}} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), args, &stdout, &stderr); code != 2 || stderr.Len() == 0 {
			t.Errorf("%v: exit code %d, %q", args, code, stderr.String())
		}
	}
}

// TestCommandLineInChinese: what who starts a server is told is Chinese where the
// locale is, with the same keys, lines and exit codes.
func TestCommandLineInChinese(t *testing.T) {
	t.Setenv("LC_ALL", "zh_CN.UTF-8")
	t.Setenv("NOTEBOOKD_TEST_KEY", "")
	write := func(text string) string {
		file := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	const cloud = "clouds: [{name: core, kind: coreshub, coreshub: {zones: [xb3], user_id: usr-AbCdEf12, access_key_id: {value: ak}, secret_access_key: {value: sk}}}]\n"
	garbled, wrong, fine := write("clouds: [{\n"), write(`
http: {port: 1}
clouds:
  - name: core
    kind: coreshub
    timeout: 10
    coreshub: {zones: [xb3], user_id: u, access_key_id: {env: NOTEBOOKD_TEST_KEY}, secret_access_key: my-secret}
`), write(cloud)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	busy := write("grpc: {address: " + taken.Addr().String() + "}\n" + cloud)
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--config", wrong}, 2, wrong + `: 4 个问题
  第 2 行：http.port：未知的键
  第 6 行：clouds[0].timeout：必须是带单位的时长，如 10s 或 1h30m
  第 7 行：clouds[0].coreshub.access_key_id：环境变量 NOTEBOOKD_TEST_KEY 为空或未设置
  第 7 行：clouds[0].coreshub.secret_access_key：必须是 {env: 变量名}、{file: 路径} 或 {value: 文本}
`},
		{[]string{"--config", garbled}, 2, garbled + ": 1 个问题\n  第 1 行：缺少内容\n"},
		{[]string{"--config", "/does/not/exist"}, 2, "配置：无法打开 /does/not/exist：文件不存在\n"},
		{[]string{"--config", fine, "--check-config"}, 0, "配置无误：1 个云\n"},
		{[]string{"--config", busy}, 1, "notebookd: grpc：无法监听 " + taken.Addr().String() + "：端口已被占用\n"},
		{[]string{"nonsense"}, 2, "server：没有命令 \"nonsense\"\n用法：\n"},
		{[]string{"token", "-subject", "a\nb"}, 1, "token: subject：必须是不超过 1024 字节、不含控制字符的文本\n"},
		{[]string{"healthcheck", "-config", "/does/not/exist"}, 1, "healthcheck: 配置：无法打开 /does/not/exist：文件不存在\n"},
		{[]string{"healthcheck", "-h"}, 0, "server healthcheck 的用法：\n"},
		{[]string{"healthcheck", "-h"}, 0, "询问它是否存活"},
		{[]string{"--check"}, 2, "没有选项 -check\n用法：\n"},
		{[]string{"--config"}, 2, "选项 -config 需要一个值\n用法：\n"},
		{[]string{"--version=7"}, 2, "选项 -version 的值 \"7\" 无效：格式不对\n用法：\n"},
		{[]string{"token"}, 2, "用法：server token"},
		{[]string{"token", "-subject", "anna"}, 0, "令牌（仅此一次显示）: nbd_"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), tt.args, &stdout, &stderr)
		if got := stdout.String() + stderr.String(); code != tt.code || !strings.Contains(got, tt.want) {
			t.Errorf("%v: exit code %d, want %d; %s", tt.args, code, tt.code, got)
		}
	}
}
