package command

import (
	"fmt"
	"io"
	"strings"

	"github.com/marchproxy/marchproxy/pkg/api"
	"github.com/marchproxy/marchproxy/pkg/status"
)

// names shows the DNS names that do not resolve.
func (r report) names(w io.Writer) {
	for _, n := range r.Names {
		fmt.Fprintf(w, "\nname: %s (%s)\n", nameText(n), "Service/"+strings.Join(n.Services, ", Service/"))
	}
	if more := int(r.UnresolvedNames) - len(r.Names); more > 0 {
		fmt.Fprintf(w, "\nand %s more that do not resolve\n", plural(more, "name"))
	}
}

func nameText(n api.UnresolvedName) string {
	s := status.NameStatus{
		Host: n.Host, Problem: status.Problem(n.Problem), Reason: n.Reason, Addresses: n.Addresses, Since: n.Since,
	}.String()
	if n.Addresses == 0 {
		s += "; it has no address yet"
	}
	return s
}

// unaddressed is an error where a name has no address; one that has just been written is waited for by --wait.
func (r report) unaddressed() error {
	count := 0
	for _, n := range r.Names {
		if n.Addresses == 0 && n.Problem != string(status.NamePending) {
			count++
		}
	}
	if count == 0 {
		return nil
	}
	return &codeError{exitNotLive, plural(count, "name") + " without an address; " +
		"the services that have it keep the endpoints that they had"}
}
