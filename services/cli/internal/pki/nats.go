package pki

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/marchproxy/marchproxy/pkg/accesslog"
	"github.com/marchproxy/marchproxy/pkg/bus"
	"github.com/marchproxy/marchproxy/pkg/resource"
	"github.com/marchproxy/marchproxy/pkg/rpc"
	"github.com/marchproxy/marchproxy/pkg/status"
	"github.com/marchproxy/marchproxy/pkg/stream"
)

// allow is a list of subjects.
type allow struct {
	Allow []string `json:"allow"`
}

// grants are a user's permissions, in the words of NATS's configuration.
type grants struct {
	Publish   allow `json:"publish"`
	Subscribe allow `json:"subscribe"`
	// Responses lets it answer who has asked it, where it may not publish otherwise.
	Responses *responses `json:"allow_responses,omitempty"`
}

type responses struct {
	Max     int    `json:"max"`
	Expires string `json:"expires"`
}

// permissions are what a part does at NATS, and nothing else: the subjects of JetStream's API are those of our two
// streams, never all of them, which would be everybody's. Answers come to an inbox that is the user's own. Nil for who
// does not speak to NATS.
func permissions(i Issued) *grants {
	const js = "$JS.API."
	config := func(what ...string) (out []string) {
		for _, w := range what {
			out = append(out, js+w)
		}
		return out
	}
	const c, s = stream.Name, status.StreamName
	// Who reads all of the configuration makes consumers with random names, and may read it all anyway.
	everything := config("STREAM.INFO."+c, "CONSUMER.MSG.NEXT."+c+".*", "CONSUMER.DELETE."+c+".*", "CONSUMER.INFO."+c+".*",
		"CONSUMER.CREATE."+c+".>", "DIRECT.GET."+c+".>")
	// Who does not has consumers whose names are its own, each with what it may deliver: by another's consumer it would
	// read what that reads.
	own := func(name, filter string) []string {
		return config("CONSUMER.CREATE."+c+"."+name+filter, "CONSUMER.INFO."+c+"."+name, "CONSUMER.MSG.NEXT."+c+"."+name,
			"CONSUMER.DELETE."+c+"."+name)
	}
	reports := config("STREAM.INFO."+s, "STREAM.CREATE."+s, "STREAM.UPDATE."+s, "DIRECT.GET."+s+".>")
	g := &grants{}
	switch i.Role {
	case API:
		g.Publish.Allow = slices.Concat(everything, reports, []string{
			stream.SubjectPrefix + ">",
			accesslog.WatchSubject,
		}, config("STREAM.CREATE."+c, "STREAM.UPDATE."+c, "STREAM.DELETE."+c, "CONSUMER.LIST."+c))
		g.Subscribe.Allow = []string{rpc.Subject, status.SubjectPrefix + ">", accesslog.EntriesPrefix + "*"}
		g.Responses = &responses{Max: 1, Expires: "2m"}
	case XDS:
		mine := status.SubjectPrefix + "xds." + i.Name
		g.Publish.Allow = slices.Concat(everything, reports, []string{rpc.Subject, mine, mine + ".*", status.SubjectPrefix +
			"names." + i.Name})
		// The other servers' Envoys, and what agents have measured.
		g.Subscribe.Allow = []string{status.SubjectPrefix + "xds.>", status.SubjectPrefix + "agent.*"}
	case Agent:
		g.Publish.Allow = append([]string{status.SubjectPrefix + "agent." + i.Name, accesslog.EntriesPrefix + i.Name},
			config("STREAM.INFO."+c, "DIRECT.GET."+c+"."+stream.RevisionSubject)...)
		for _, f := range []string{stream.RevisionSubject, stream.KindSubjects(resource.KindRateLimit)} {
			g.Publish.Allow = append(g.Publish.Allow, own(stream.ConsumerName(i.Name, f), "."+f)...)
		}
		g.Subscribe.Allow = []string{accesslog.WatchSubject}
	case Operator:
		g.Publish.Allow = everything
		g.Subscribe.Allow = []string{stream.SubjectPrefix + ">", status.SubjectPrefix + ">"}
	case Reader:
		g.Publish.Allow = slices.Concat(config("STREAM.INFO."+c, "DIRECT.GET."+c+"."+stream.SubjectPrefix+">",
			"CONSUMER.DURABLE.CREATE."+c+"."+i.Name),
			own(i.Name, ""), own(i.Name, ".>")[:1], []string{"$JS.ACK." + c + "." + i.Name + ".>"})
		g.Subscribe.Allow = []string{stream.SubjectPrefix + ">"}
	default:
		return nil
	}
	g.Subscribe.Allow = append(g.Subscribe.Allow, bus.InboxPrefix(i.NKey)+".>")
	return g
}

// NATSUsers are the users of these parts, as nats-server's configuration has them, and one with a password who may do
// everything, where there is one.
func NATSUsers(all []Issued, owner, password string) ([]byte, error) {
	type user struct {
		NKey        string  `json:"nkey,omitempty"`
		User        string  `json:"user,omitempty"`
		Password    string  `json:"password,omitempty"`
		Permissions *grants `json:"permissions,omitempty"`
	}
	users := []user{}
	for _, i := range all {
		if g := permissions(i); g != nil {
			users = append(users, user{NKey: i.NKey, Permissions: g})
		}
	}
	if owner != "" {
		users = append(users, user{User: owner, Password: password})
	}
	var out bytes.Buffer
	out.WriteString("authorization: ")
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(map[string]any{"users": users})
	return out.Bytes(), err
}

// aboutUsers begins the file that nats.conf includes.
const aboutUsers = "# Made by marchproxy pki, anew with every part that is issued or revoked. Reload NATS after it:\n" +
	"# nats-server --signal reload, or SIGHUP.\n"

// natsConf is for a server of its own; what is below it can be edited.
const natsConf = `# Made by marchproxy pki once; it is yours to edit. Start it in this directory: nats-server -c nats.conf
listen: "0.0.0.0:4222"
max_payload: 64MB
jetstream {
  store_dir: "jetstream"
  # A message counts as stored when it is on the disk.
  sync_interval: always
}
tls {
  cert_file: "cert.pem"
  key_file: "key.pem"
  ca_file: "ca.pem"
  # Who connects must show a certificate of the authority, and prove its key as one of the users.
  verify: true
}
include "users.conf"
`
