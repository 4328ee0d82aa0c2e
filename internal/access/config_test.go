package access

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestProblemsOfConfigurations(t *testing.T) {
	const issuer = "{issuer: https://i.example, audiences: [a]}"
	empty := writeFile(t, "tokens.yaml", "[]")
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"nothing", "{}", nil},
		{"insecure", "insecure: true", nil},
		{"all", `
tokens_file: ` + empty + `
oidc:
- {issuer: "https://i.example/realm", audiences: [a, b], jwks_url: "https://k.example/keys?v=1", subject_claim: email, groups_claim: roles, prefix: "i:", algorithms: [RS256, EdDSA]}
- {issuer: "http://127.0.0.1:5556/dex", audiences: [a]}
- {issuer: "http://[::1]:5556", audiences: [a], prefix: "k:"}
- {issuer: "http://localhost", audiences: [a], prefix: "l:"}
certificates: {subject: uri, prefix: "spiffe:"}
policy:
- {role: viewer, subjects: ["*"]}
- {role: operator, groups: ["i:ops"], claims: {dept: d}, clouds: [coreshub]}
- {role: admin, subjects: ["*"], claims: {iss: "https://i.example/realm", dept: d}, locations: [coreshub/pek3a, scnet/11250]}`, nil},
		{"no policy", "oidc: [" + issuer + "]", []string{"policy: grants nothing to anybody"}},
		{"nobody to grant to", "policy: [{role: viewer, subjects: [a]}]", []string{"policy: needs tokens_file, oidc or certificates, to know who calls; certificates: {} takes their defaults"}},
		{"files", "{tokens_file: /nowhere/t, oidc: [{issuer: https://i.example, audiences: [a], ca: /nowhere/c}], policy: [{role: viewer, subjects: [a]}]}", []string{
			"tokens_file: the file cannot be read", "oidc[0].ca: the file cannot be read",
		}},
		{"no certificates", "{oidc: [{issuer: https://i.example, audiences: [a], ca: " + empty + "}], policy: [{role: viewer, subjects: [a]}]}", []string{"oidc[0].ca: holds no certificate in PEM"}},
		{"oidc", `
oidc:
- {}
- {issuer: "http://i.example", audiences: [""], prefix: "b:", jwks_url: "http://127.0.0.2.example/", algorithms: [RS256, none]}
- {issuer: "https://u:p@i.example", audiences: [a], prefix: "c:", algorithms: [HS256]}
- {issuer: "https://i.example?x", audiences: [a], prefix: "d:", jwks_url: "https://u@i.example"}
- {issuer: "https://", audiences: [a], prefix: "e:"}
- {issuer: "https://i.example?x", audiences: [a], prefix: "f:"}
policy: [{role: viewer, subjects: [a]}]`, []string{
			"oidc[0].issuer: must be an https URL (http only to this host itself)",
			"oidc[0].audiences: must name whom tokens are for: without, those for others would be taken too",
			"oidc[1].issuer: must be an https URL (http only to this host itself)",
			"oidc[1].jwks_url: must be an https URL (http only to this host itself)",
			"oidc[1].audiences: must name whom tokens are for: without, those for others would be taken too",
			"oidc[1].algorithms: must be of " + strings.Join(algorithms, ", "),
			"oidc[2].issuer: must have no user, query or fragment",
			"oidc[2].algorithms: must be of " + strings.Join(algorithms, ", "),
			"oidc[3].issuer: must have no user, query or fragment",
			"oidc[3].jwks_url: must have no user and no fragment",
			"oidc[4].issuer: must be an https URL (http only to this host itself)",
			"oidc[5].issuer: must have no user, query or fragment",
			"oidc[5].issuer: is used twice; one can have several audiences",
		}},
		{"consoles", `
oidc:
- {issuer: "https://i.example", audiences: [api, console], console: {client_id: console}}
- {issuer: "http://127.0.0.1:5556", audiences: [c], prefix: "b:", console: {client_id: c, scopes: [openid, "api://x/.default"], origins: ["https://t.example:8443", "http://localhost:1"]}}
policy: [{role: viewer, subjects: [a]}]`, nil},
		{"wrong consoles", `
oidc:
- {issuer: "https://i.example", audiences: [api], console: {client_id: console}}
- {issuer: "https://j.example", audiences: [api], prefix: "b:", console: {}}
- {issuer: "https://[2001:db8::1]", audiences: [c], prefix: "c:", console: {client_id: c, scopes: [profile, "a b", ""]}}
- {issuer: "https://k;script-src *", audiences: [c], prefix: "d:", console: {client_id: c}}
- {issuer: "https://k;script-src", audiences: [c], prefix: "e:", console: {client_id: c}}
- {issuer: "https://l.example", audiences: [c], prefix: "f:", console: {client_id: c, origins: ["http://t.example", "https://t.example/", "https://t.example; script-src *", "https://*.example", "'unsafe-inline'", "https://[::1]:1", "https://t.example:"]}}
policy: [{role: viewer, subjects: [a]}]`, []string{
			"oidc[0].console.client_id: must be one of audiences too: the console sends the ID token, which is for this client, and it would be refused",
			"oidc[1].console.client_id: is needed",
			"oidc[2].console: goes with an issuer that has a name or an address of IPv4: browsers take no other in a Content-Security-Policy",
			"oidc[2].console.scopes[1]: must be one scope: printable, without spaces and quotes",
			"oidc[2].console.scopes[2]: must be one scope: printable, without spaces and quotes",
			"oidc[2].console.scopes: must have openid: without, there is no ID token",
			"oidc[3].issuer: must be an https URL (http only to this host itself)",
			"oidc[4].console: goes with an issuer that has a name or an address of IPv4: browsers take no other in a Content-Security-Policy",
			"oidc[5].console.origins[0]: must be https and a host, such as https://token.example (http only to this host itself)",
			"oidc[5].console.origins[1]: must be https and a host, such as https://token.example (http only to this host itself)",
			"oidc[5].console.origins[2]: must be https and a host, such as https://token.example (http only to this host itself)",
			"oidc[5].console.origins[3]: must be https and a host, such as https://token.example (http only to this host itself)",
			"oidc[5].console.origins[4]: must be https and a host, such as https://token.example (http only to this host itself)",
			"oidc[5].console.origins[5]: must be https and a host, such as https://token.example (http only to this host itself)",
			"oidc[5].console.origins[6]: must be https and a host, such as https://token.example (http only to this host itself)",
		}},
		{"prefixes", `
oidc: [` + issuer + `, {issuer: "https://j.example", audiences: [a]}, {issuer: "https://k.example", audiences: [a], prefix: "oidc:k:"}, {issuer: "https://l.example", audiences: [a], prefix: ""}]
certificates: {}
policy: [{role: viewer, subjects: [a]}]`, []string{
			"oidc[1].prefix: begins with oidc[0].prefix, so that callers could be mistaken for each other",
			"oidc[2].prefix: begins with oidc[0].prefix, so that callers could be mistaken for each other",
			"oidc[2].prefix: begins with oidc[1].prefix, so that callers could be mistaken for each other",
			"oidc[3].prefix: must not be empty beside other ways to tell who calls",
		}},
		{"empty prefix beside tokens", "{tokens_file: " + empty + ", certificates: {prefix: ''}, policy: [{role: viewer, subjects: [a]}]}", []string{"certificates.prefix: must not be empty beside other ways to tell who calls"}},
		{"empty prefix alone", "{certificates: {prefix: ''}, policy: [{role: viewer, subjects: [a]}]}", nil},
		{"certificates", "{certificates: {subject: ip}, policy: [{role: viewer, subjects: [a]}]}", []string{"certificates.subject: must be one of common_name, dns, email, uri"}},
		{"policy", `
certificates: {}
policy:
- {role: root, subjects: [a]}
- {subjects: [a]}
- {role: viewer}
- {role: viewer, claims: {a: b}}
- {role: viewer, groups: ["*"], subjects: ["a*", ""]}
- {role: viewer, subjects: [a], clouds: [a, A, a/b, "*"], locations: [a/b]}
- {role: viewer, subjects: [a], locations: [a, a/, /b, a/b/c, A/b, a/-, "a/*"]}
`, []string{
			"policy[0].role: must be one of viewer, operator, admin",
			"policy[1].role: must be one of viewer, operator, admin",
			"policy[2]: names nobody: subjects or groups are needed; the subject * is every caller who was authenticated",
			"policy[3]: names nobody: subjects or groups are needed; the subject * is every caller who was authenticated",
			"policy[3].claims: needs oidc: only JWTs have claims",
			"policy[4].subjects[0]: * stands only for itself, not for a part of a name",
			"policy[4].subjects[1]: " + badName,
			"policy[4].groups[0]: * is a subject, not a group",
			"policy[5].locations: does not go with clouds: locations name their clouds",
			"policy[5].clouds[1]: must begin with a lower-case letter and hold only a-z, 0-9 and -",
			"policy[5].clouds[2]: must begin with a lower-case letter and hold only a-z, 0-9 and -",
			"policy[5].clouds[3]: must begin with a lower-case letter and hold only a-z, 0-9 and -",
			"policy[6].locations[0]: must be cloud/location", "policy[6].locations[1]: must be cloud/location",
			"policy[6].locations[2]: must be cloud/location", "policy[6].locations[3]: must be cloud/location",
			"policy[6].locations[4]: must be cloud/location", "policy[6].locations[5]: must be cloud/location",
			"policy[6].locations[6]: must be cloud/location",
		}},
		{"claims of several issuers", "{oidc: [" + issuer + ", {issuer: https://j.example, audiences: [a], prefix: 'j:'}], policy: [{role: viewer, subjects: ['*'], claims: {dept: d, x: ''}}]}", []string{
			"policy[0].claims: must have names and values",
			"policy[0].claims: must have iss too: every issuer says what it likes",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var cfg Config
			decoder := yaml.NewDecoder(strings.NewReader(tt.text))
			decoder.KnownFields(true)
			if err := decoder.Decode(&cfg); err != nil {
				t.Fatal(err)
			}
			err := cfg.Validate()
			if got := problems(err); !slices.Equal(got, tt.want) {
				t.Errorf("problems are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
			g, newErr := New(cfg, Options{})
			if fmt.Sprint(newErr) != fmt.Sprint(err) {
				t.Errorf("New finds %v", newErr)
			}
			if newErr == nil {
				g.Close()
			}
		})
	}
}

func TestBearer(t *testing.T) {
	for _, tt := range []struct{ header, want, cause string }{
		{"", "", ""},
		{"Bearer abc", "abc", ""},
		{"bearer  abc ", "abc", ""},
		{"Bearer", "", "empty"},
		{"Bearer  ", "", "empty"},
		{"Basic abc", "", "scheme"},
		{"abc", "", "scheme"},
		{" Bearer abc", "", "scheme"},
	} {
		got, err := Bearer(tt.header)
		if got != tt.want || (tt.cause == "") != (err == nil) {
			t.Errorf("%q: %q, %v", tt.header, got, err)
		}
		if tt.cause != "" {
			wantRejected(t, err, tt.cause)
		}
		if r, ok := errors.AsType[*Rejection](err); ok && r.Cause != tt.cause {
			t.Errorf("cause is %q", r.Cause)
		}
	}
}
