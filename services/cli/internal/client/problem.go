package client

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/marchproxy/marchproxy/pkg/api"
)

// Problem is the api's refusal.
type Problem struct {
	api.Problem
	// Hint says what to do about it, for somebody at a command line; it may be empty.
	Hint string
}

// Error is the refusal with every violation on a line of its own, and the hint.
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Detail)
	for _, v := range p.Errors {
		fmt.Fprintf(&b, "\n  %s", strings.TrimPrefix(v.Path+" "+v.Message, "$ "))
	}
	if p.Hint != "" {
		b.WriteString("\n" + p.Hint)
	}
	return b.String()
}

func problemOf(resp *http.Response, raw []byte, c *Client) error {
	p := &Problem{}
	ours := strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json")
	if err := json.Unmarshal(raw, &p.Problem); err != nil || p.Status == 0 || !ours {
		foreign := &foreignError{c.URL, "it answers " + resp.Status + ", and not with application/problem+json"}
		if resp.StatusCode < 500 {
			return foreign
		}
		// a proxy before the api, which may come back
		p.Problem = api.Problem{Status: int32(resp.StatusCode), Detail: foreign.Error()}
		return p
	}
	if p.Detail == "" {
		p.Detail = p.Title
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		if c.Token == "" {
			p.Hint = "Set MARCHPROXY_TOKEN, or MARCHPROXY_TOKEN_FILE to a file that holds the token. The api's first start " +
				"prints one;\nan admin makes more with: marchproxy token create NAME --role editor"
		} else {
			p.Hint = "The token that was sent is unknown there: it was deleted, it belongs to another system, or it " +
				"was not copied whole."
		}
	case http.StatusForbidden:
		p.Hint = "Use a token with that role; an admin makes one with: marchproxy token create NAME --role ROLE"
	case http.StatusPreconditionFailed:
		p.Hint = "Somebody changed it in the meantime (it is at " + p.CurrentETag + " now). Look at it with get, then run " +
			"the command again."
	case http.StatusServiceUnavailable, http.StatusInternalServerError:
		p.Hint = "The api's log has it under request_id " + p.RequestID + "."
	}
	return p
}
