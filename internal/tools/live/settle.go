package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tally counts words.
type tally map[string]int

func (t tally) add(word string) { t[word]++ }

func (t tally) String() string {
	if len(t) == 0 {
		return "none"
	}
	var parts []string
	for _, word := range slices.Sorted(maps.Keys(t)) {
		parts = append(parts, fmt.Sprintf("%s × %d", word, t[word]))
	}
	return strings.Join(parts, ", ")
}

// object is a JSON object whose values are not read yet.
type object map[string]json.RawMessage

func parse(raw []byte) object {
	var o object
	_ = json.Unmarshal(raw, &o) // no object: nothing is known of it
	return o
}

func rowsOf(raw []byte) []object {
	var rows []object
	_ = json.Unmarshal(raw, &rows) // as above
	return rows
}

func (o object) text(name string) string {
	var s string
	if json.Unmarshal(o[name], &s) != nil {
		return string(o[name])
	}
	return s
}

// kind is the JSON type of a value.
func kind(raw json.RawMessage) string {
	if len(raw) == 0 {
		return "missing"
	}
	switch raw[0] {
	case '"':
		return "string"
	case '{':
		return "object"
	case '[':
		return "array"
	case 'n':
		return "null"
	case 't', 'f':
		return "bool"
	}
	return "number"
}

// others returns the fields of rows that are not in a list of known ones.
func others(rows []object, known string) string {
	list := strings.Fields(known)
	found := tally{}
	for _, row := range rows {
		for name := range row {
			if !slices.Contains(list, name) {
				found.add(name)
			}
		}
	}
	return found.String()
}

// limits names the headers that speak of a rate limit.
func limits(taped []exchange) string {
	found := tally{}
	for _, x := range taped {
		for name := range x.header {
			if l := strings.ToLower(name); strings.Contains(l, "ratelimit") || strings.Contains(l, "rate-limit") || l == "retry-after" {
				found.add(name)
			}
		}
	}
	return found.String()
}

const coresHubFields = `user_name email uuid kuid name status reason namespace user_id root_user_id image image_type server_type envs
	created_at create_at updated_at stop_time auto_delete_time server pip conda apt replica_specs charge_mode duration auto_renew next_charge_mode`

// settleCoresHub looks at the answers of list.
func settleCoresHub(taped []exchange, out io.Writer) {
	var rows []object
	counts, times, order, statuses := tally{}, tally{}, tally{}, tally{}
	accepted := 0
	for _, x := range taped {
		envelope := parse(x.body)
		statuses.add(fmt.Sprintf("HTTP %d with ret_code %s", x.status, string(envelope["ret_code"])))
		if x.status != 200 || envelope.text("ret_code") != "0" {
			continue
		}
		accepted++
		page := rowsOf(envelope["data"])
		rows = append(rows, page...)
		switch n, err := strconv.Atoi(envelope.text("counts")); {
		case err != nil:
			counts.add("counts is " + kind(envelope["counts"]))
		case n == len(page):
			counts.add("counts is the number of rows of the page")
		case n > len(page):
			counts.add("counts is more than the rows of the page")
		default:
			counts.add("counts is less than the rows of the page")
		}
		if _, ok := envelope["total_sum"]; ok {
			counts.add("total_sum is there")
		}
		for i, row := range page {
			created := row.text("created_at")
			if at := strings.LastIndexAny(created, "Zz+"); at > 10 || strings.Count(created, "-") > 2 {
				times.add("with a zone")
			} else {
				times.add("without a zone")
			}
			if i > 0 {
				switch before := page[i-1].text("created_at"); {
				case before < created:
					order.add("ascending")
				case before > created:
					order.add("descending")
				}
			}
		}
	}
	say(out, "CoresHub: answers: %s", statuses)
	if accepted == 0 {
		say(out, "CoresHub: nothing is settled; a code 1200 or 401 speaks against the signature (settings sign_encode, sign_body, path_prefix)")
		return
	}
	say(out, "CoresHub: the signature as configured, the path prefix and the lower-case namespace are accepted")
	say(out, "CoresHub: total: %s", counts)
	say(out, "CoresHub: order by created_at: %s", order)
	say(out, "CoresHub: times: %s", times)
	undocumented := tally{}
	for _, row := range rows {
		for _, name := range []string{"replica_specs", "charge_mode", "envs", "stop_time"} {
			undocumented.add(name + " is " + kind(row[name]))
		}
	}
	say(out, "CoresHub: fields that the list's page does not show: %s", undocumented)
	say(out, "CoresHub: fields that are not known: %s", others(rows, coresHubFields))
	say(out, "CoresHub: headers about limits: %s", limits(taped))
}

const scnetFields = `id notebookName notebookStatus imageName imagePath iamgePath cpuNumber acceleratorType acceleratorNumber resourceGroupCode
	acceleratorMode ramSize imageSize createTime releaseTime updateTime progress startType maxTimeout sshPassword serviceIp serviceUrl sshUrl taskId
	enoughResource containerId resourceGroupId containerType maxNumber freeNumber node command customizePort customsizePort errorMessage message`

// settleSCNet looks at the answers of login, center and list.
func settleSCNet(taped []exchange, out io.Writer) {
	var rows []object
	envelopes, pages, lifetimes, links, codes, release := tally{}, tally{}, tally{}, tally{}, tally{}, tally{}
	for _, x := range taped {
		envelope := parse(x.body)
		operation := x.path[strings.LastIndex(x.path, "/")+1:]
		codes.add(fmt.Sprintf("%s: HTTP %d with code %s", operation, x.status, envelope.text("code")))
		if envelope.text("code") != "0" {
			continue
		}
		switch operation {
		case "tokens":
			for _, entry := range rowsOf(envelope["data"]) {
				lifetimes.add(lifetime(entry))
			}
		case "center":
			for _, link := range rowsOf(parse(envelope["data"])["aiUrls"]) {
				form := "without /ai"
				if strings.HasSuffix(strings.TrimRight(link.text("url"), "/"), "/ai") {
					form = "with /ai"
				}
				links.add(fmt.Sprintf("%s, enable is a %s %s", form, kind(link["enable"]), link.text("enable")))
			}
		case "list":
			data := parse(envelope["data"])
			records, form := data["records"], "{total, records}"
			switch {
			case kind(envelope["data"]) != "object":
				records, form = envelope["data"], kind(envelope["data"])
			case records == nil && data["data"] != nil:
				records, form = data["data"], "{total, data}"
			case records == nil:
				form = "one record by itself"
				rows = append(rows, data)
			}
			envelopes.add(form)
			page := rowsOf(records)
			rows = append(rows, page...)
			pages.add(fmt.Sprintf("size %s gave %d rows", strings.Join(x.query["size"], ""), len(page)))
		}
	}
	spelling := tally{}
	for _, row := range rows {
		for _, name := range []string{"imagePath", "iamgePath", "customizePort", "customsizePort"} {
			if _, ok := row[name]; ok {
				spelling.add(name)
			}
		}
		release.add(row.text("notebookStatus") + " has releaseTime " + kind(row["releaseTime"]))
	}
	say(out, "SCNet: answers: %s", codes)
	say(out, "SCNet: tokens: %s", lifetimes)
	say(out, "SCNet: addresses of AI services: %s", links)
	say(out, "SCNet: form of the list: %s", envelopes)
	say(out, "SCNet: pages: %s", pages)
	say(out, "SCNet: spelling: %s", spelling)
	say(out, "SCNet: release: %s", release)
	say(out, "SCNet: fields that are not known: %s", others(rows, scnetFields))
	say(out, "SCNet: headers about limits: %s", limits(taped))
}

// lifetime says how long a token of a login lasts.
func lifetime(entry object) string {
	if kind(entry["token"]) == "null" {
		return "none for a region"
	}
	parts := strings.Split(entry.text("token"), ".")
	if len(parts) != 3 {
		return "one that is no JWT"
	}
	claims, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	ms, err2 := strconv.ParseInt(parse(claims).text("expireTime"), 10, 64)
	if err != nil || err2 != nil {
		return "one without expireTime"
	}
	return "lasts " + time.Until(time.UnixMilli(ms)).Round(time.Minute).String()
}
