package events

import (
	"fmt"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
)

// permissions are what a durable consumer needs and may have.
func permissions(durable string) *server.Permissions {
	const stream = "MARCHPROXY_CONFIG"
	return &server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{
			"$JS.API.STREAM.INFO." + stream,
			"$JS.API.DIRECT.GET." + stream + ".marchproxy.config.v1.>",
			"$JS.API.CONSUMER.CREATE." + stream + "." + durable,
			"$JS.API.CONSUMER.DURABLE.CREATE." + stream + "." + durable,
			"$JS.API.CONSUMER.INFO." + stream + "." + durable,
			"$JS.API.CONSUMER.DELETE." + stream + "." + durable,
			"$JS.API.CONSUMER.MSG.NEXT." + stream + "." + durable,
			"$JS.ACK." + stream + "." + durable + ".>",
		}},
		Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
	}
}

// permissionsText is the same as a user of a NATS configuration file.
func permissionsText(durable string) string {
	list := func(subjects []string) string {
		var b strings.Builder
		for _, s := range subjects {
			fmt.Fprintf(&b, "        %q\n", s)
		}
		return b.String()
	}
	p := permissions(durable)
	return fmt.Sprintf("{ user: reader, password: $READER_PASSWORD, permissions: {\n    publish: [\n%s    ]\n    "+
		"subscribe: [\n%s    ]\n} }\n",
		list(p.Publish.Allow), list(p.Subscribe.Allow))
}
