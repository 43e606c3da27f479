package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/marchproxy/marchproxy/test/harness"
)

// The route's spec before a row's write, and the one that the write asks for.
const (
	ownedSpec = `{"hosts":["o.example.com"],"backends":[{"service":"web"}],"path":{"prefix":"/"}}`
	otherSpec = `{"hosts":["o.example.com"],"backends":[{"service":"web"}],"path":{"prefix":"/other"}}`
)

// owned is a route called o, and the doors to it.
type owned struct {
	*terminalOf
	owner string // as it was before the row's write
	port  string
	at    int // revision before the row's write
}

// reset makes the route an owner's, with a label, whatever the row before has left.
func (o *owned) reset(owner string) {
	o.Helper()
	o.owner = owner
	o.config("?allow_empty=true", `{"services":[],"routes":[]}`, 200)
	for _, path := range []string{"routes/o", "services/web", "routes/else", "services/x"} {
		status, raw, err := o.s.Call(o.Context(), "DELETE", o.s.API+"/v1/"+path, nil)
		if err != nil || (status != 200 && status != 404) {
			o.Fatalf("%d %s %v", status, raw, err)
		}
	}
	made := map[string]any{"owner": owner, "labels": map[string]string{"tier": "1"}, "spec": json.RawMessage(ownedSpec)}
	if owner == "xds-config" {
		o.config("", o.doc(true), 200)
		call(o.T, o.s, "PATCH", o.s.API+"/v1/routes/o", `{"labels":{"tier":"1"}}`, 200)
	} else {
		web := `{"spec":{"endpoints":[{"host":"127.0.0.1","port":` + o.port + `}]}}`
		call(o.T, o.s, "PUT", o.s.API+"/v1/services/web", web, 201)
		call(o.T, o.s, "PUT", o.s.API+"/v1/routes/o", made, 201)
	}
	o.at = int(call(o.T, o.s, "GET", o.s.API+"/v1/status", nil, 200)["revision"].(float64))
}

// doc is a document for POST /v1/config, with the route or with another one in its place.
func (o *owned) doc(with bool) string {
	name := "else"
	if with {
		name = "o"
	}
	return fmt.Sprintf(`{"services":[{"name":"x","hosts":["127.0.0.1"],"port":%s}],
		"routes":[{"name":%q,"prefix":"/","cluster_name":"x","hosts":["%s.example.com"]}]}`, o.port, name, name)
}

func (o *owned) send(method, path, body string, status int) map[string]any {
	o.Helper()
	var b any
	if body != "" {
		b = body
	}
	return call(o.T, o.s, method, o.s.API+"/v1/"+path, b, status)
}

func (o *owned) config(query, body string, status int) map[string]any {
	o.Helper()
	return call(o.T, o.s, "POST", o.s.XDS+"/v1/config"+query, body, status)
}

// said holds a refusal against the rule: it names the owner and the way to take over.
func (o *owned) said(text string) {
	o.Helper()
	o.says(text, o.owner, "take_over=true", "--take-over")
}

// rows are those of docs/ownership.md, by their first cell.
func (o *owned) rows() map[string]func(status int) {
	object := func(more string) string { return `{"spec":` + otherSpec + more + `}` }
	resource := func(more string) string { return `{"kind":"Route","name":"o","spec":` + otherSpec + more + `}` }
	another := `{"kind":"Route","name":"else","spec":{"hosts":["else.example.com"],"direct_response":{"status":200}}}`
	http := func(method, path, body string) func(int) {
		return func(status int) {
			o.Helper()
			answer := o.send(method, path, body, status)
			if text := fmt.Sprint(answer["errors"]); status == 409 {
				o.said(text)
			}
		}
	}
	apply := func(body string) func(int) { return http("POST", "apply", body) }
	list := func(owner, more string, resources ...string) func(int) {
		return apply(fmt.Sprintf(`{"owner":%q%s,"resources":[%s]}`, owner, more, strings.Join(resources, ",")))
	}
	door := func(query, body string) func(int) {
		return func(status int) {
			o.Helper()
			answer := o.config(query, body, status)
			switch text := fmt.Sprint(answer["errors"]); status {
			case 409:
				o.said(text)
				o.says(text, "$.routes[0]")
			case 422:
				o.says(text, "$.routes", "allow_empty=true")
			}
		}
	}
	then := func(first, second func(int)) func(int) {
		return func(status int) { o.Helper(); first(200); second(status) }
	}
	put := http("PUT", "routes/o", object(""))
	edit := http("PUT", "routes/o", `{"spec":{"direct_response":{"status":200}}}`)
	give := http("PATCH", "routes/o", `{"owner":null}`)
	const file = "kind: Route\nname: o\n%sspec: " + otherSpec + "\n"
	plain, its := fmt.Sprintf(file, ""), func(owner string) string { return fmt.Sprintf(file, "owner: "+owner+"\n") }
	terminal := func(stdin string, args ...string) func(int) {
		return func(code int) {
			o.Helper()
			_, stderr := o.in(stdin, code, args...)
			if code == 1 && strings.Contains(strings.Join(args, " ")+stdin, "team-b") {
				o.said(stderr)
			}
		}
	}
	do := func(command, stdin string) func(int) {
		return terminal(stdin, append(strings.Fields(command), "-f", "-")...)
	}
	const oB, takes = `,"owner":"team-b"`, "?take_over=true"
	out := map[string]func(int){}
	add := func(name string, f func(status int)) { out[name] = f }

	add("PUT of the spec alone", put)
	add("PUT of what was read", func(status int) {
		read, err := json.Marshal(o.send("GET", "routes/o", "", 200))
		if err != nil {
			o.Fatal(err)
		}
		o.send("PUT", "routes/o", string(read), status)
		o.unchanged()
	})
	add("PUT, owner `team-a`", http("PUT", "routes/o", object(`,"owner":"team-a"`)))
	add("PUT, empty owner and labels", http("PUT", "routes/o", object(`,"owner":"","labels":{}`)))
	add("PUT, owner `team-b`", http("PUT", "routes/o", object(oB)))
	add("PUT, owner `team-b`, `take_over=true`", http("PUT", "routes/o"+takes, object(oB)))
	add("PUT, owner `team-b`, of nobody's object", then(give, http("PUT", "routes/o", object(oB))))
	add("PATCH of the spec", http("PATCH", "routes/o", `{"spec":{"timeout":"3s"}}`))
	add("PATCH, owner `team-b`", http("PATCH", "routes/o", `{"owner":"team-b"}`))
	add("PATCH, owner `team-b`, `take_over=true`", http("PATCH", "routes/o"+takes, `{"owner":"team-b"}`))
	add("PATCH, owner `null`", give)
	add("DELETE", http("DELETE", "routes/o", ""))
	add("DELETE, `owner=team-a`", http("DELETE", "routes/o?owner=team-a", ""))
	add("DELETE, `owner=team-b`", http("DELETE", "routes/o?owner=team-b", ""))
	add("DELETE, `owner=team-b`, `take_over=true`", http("DELETE", "routes/o?owner=team-b&take_over=true", ""))

	add("apply without an owner", apply(`{"resources":[`+resource("")+`]}`))
	add("apply, the resource with an empty owner", apply(`{"resources":[`+resource(`,"owner":""`)+`]}`))
	add("apply, the resource with owner `team-b`", apply(`{"resources":[`+resource(oB)+`]}`))
	add("apply for `team-b`", list("team-b", "", resource("")))
	add("apply for `team-b`, `take_over`", list("team-b", `,"take_over":true`, resource("")))
	add("apply for `team-b`, `prune`, without it", list("team-b", `,"prune":true`, another))
	add("apply for `team-b`, `prune`, `take_over`, without it",
		list("team-b", `,"prune":true,"take_over":true`, another))
	gone := list("team-a", `,"prune":true`, another)
	add("apply for `team-a`, `prune`, without it", gone)
	add("PUT of the spec alone, then apply for `team-a`, `prune`, without it", then(put, gone))
	add("apply for `team-a`, `prune`, without `resources`", apply(`{"owner":"team-a","prune":true}`))
	add("apply for `team-a`, `prune`, empty `resources`", list("team-a", `,"prune":true`))
	add("apply for `team-a`, `prune`, empty `resources`, `allow_empty`",
		list("team-a", `,"prune":true,"allow_empty":true`))
	add("apply without `resources`", apply(`{}`))

	const mine, empty = "`xds-config`'s: ", `{"services":[],"routes":[]}`
	add("POST /v1/config with it", door("", o.doc(true)))
	add("POST /v1/config with it, `take_over=true`", door(takes, o.doc(true)))
	add("POST /v1/config without it", door("", o.doc(false)))
	add("POST /v1/config, `{}`", door("?allow_empty=true", `{}`))
	add(mine+"PUT of the spec alone, then POST /v1/config with it", then(edit, door("", o.doc(true))))
	add(mine+"PUT of the spec alone, then POST /v1/config without it", then(edit, door("", o.doc(false))))
	add(mine+"POST /v1/config, `{}`", door("", `{}`))
	add(mine+"POST /v1/config without `routes`", door("", `{"services":[{"name":"x","hosts":["127.0.0.1"],"port":1}]}`))
	add(mine+"POST /v1/config, empty lists", door("", empty))
	add(mine+"POST /v1/config, empty lists, `allow_empty=true`", door("?allow_empty=true", empty))
	add("rollback to before `team-b` took it over", func(status int) {
		o.send("PUT", "routes/o"+takes, object(oB), 200)
		o.send("POST", fmt.Sprintf("revisions/%d/rollback", o.at), "", status)
	})

	add("`marchproxy apply`", do("apply", plain))
	add("`marchproxy apply`, `owner: \"\"` in the file", do("apply", its(`""`)))
	add("`marchproxy apply --owner \"\"`", terminal(plain, "apply", "-f", "-", "--owner", ""))
	add("`marchproxy apply --owner team-b`", do("apply --owner team-b", plain))
	add("`marchproxy apply --owner team-b --take-over`", do("apply --owner team-b --take-over", plain))
	add("`marchproxy apply --owner team-a --prune` of an empty file", do("apply --owner team-a --prune", ""))
	add("`marchproxy apply --owner team-a --prune --allow-empty` of an empty file",
		do("apply --owner team-a --prune --allow-empty", ""))
	add("`marchproxy diff`", do("diff", strings.Replace(plain, otherSpec, ownedSpec, 1)))
	add("`marchproxy diff --owner team-b`", do("diff --owner team-b", plain))
	add("`marchproxy diff --owner team-b --take-over`", do("diff --owner team-b --take-over", plain))
	add("`marchproxy delete route NAME`", terminal("", "delete", "route", "o"))
	add("`marchproxy delete -f`, `owner: team-b` in the file", do("delete", its("team-b")))
	add("`marchproxy delete -f --take-over`, `owner: team-b` in the file", do("delete --take-over", its("team-b")))
	return out
}

// unchanged says that there is no revision since the row began.
func (o *owned) unchanged() {
	o.Helper()
	if now := int(call(o.T, o.s, "GET", o.s.API+"/v1/status", nil, 200)["revision"].(float64)); now != o.at {
		o.Errorf("revision %d was made", now)
	}
}

var owners = regexp.MustCompile("^`(.*)`'s")

// left holds the route against a row's last cell.
func (o *owned) left(cell string) {
	o.Helper()
	status, raw, err := o.s.Call(o.Context(), "GET", o.s.API+"/v1/routes/o", nil)
	if err != nil {
		o.Fatal(err)
	}
	if cell == "deleted" {
		if status != 404 {
			o.Errorf("it is still there: %s", raw)
		}
		return
	}
	var is struct {
		Owner    string
		Labels   map[string]string
		Revision int
	}
	if err := json.Unmarshal(raw, &is); err != nil || status != 200 {
		o.Fatalf("%d %s %v", status, raw, err)
	}
	want, label := "", !strings.Contains(cell, "without labels")
	switch m := owners.FindStringSubmatch(cell); {
	case m != nil:
		want = m[1]
	case cell == "as before":
		if want = o.owner; is.Revision > o.at {
			o.Errorf("it has been changed: %s", raw)
		}
	}
	if is.Owner != want || (is.Labels["tier"] == "1") != label {
		o.Errorf("%s, want %s", raw, cell)
	}
}

// TestOwners is the table of docs/ownership.md: who does what to whose object through which door.
func TestOwners(t *testing.T) {
	s := start(t, "--no-demo")
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(root + "/docs/ownership.md")
	if err != nil {
		t.Fatal(err)
	}
	port, tested := backend(t, "web"), 0
	total := len((&owned{terminalOf: &terminalOf{T: t, s: s}, port: port}).rows())
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) != 3 || strings.HasPrefix(line, "| the write") {
			continue
		}
		name, answer, after := strings.TrimSpace(cells[0]), strings.Fields(cells[1])[0], strings.TrimSpace(cells[2])
		tested++
		t.Run(name, func(t *testing.T) {
			o := &owned{terminalOf: &terminalOf{T: t, s: s, dir: t.TempDir()}, port: port}
			row := o.rows()[name]
			code, err := strconv.Atoi(strings.TrimSuffix(answer, ","))
			if row == nil || err != nil {
				t.Fatalf("the row is not tested (%v)", err)
			}
			owner := "team-a"
			if m := owners.FindStringSubmatch(name); m != nil {
				owner = m[1]
			}
			o.reset(owner)
			row(code)
			o.left(after)
			if code == 409 || code == 422 || code == 1 {
				o.unchanged() // nothing of the write is done
			}
		})
	}
	if tested != total {
		t.Errorf("%d rows in the table, and %d here", tested, total)
	}
}
