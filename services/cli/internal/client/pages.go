package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/marchproxy/marchproxy/pkg/api"
)

// pageSize is the largest that the api gives.
const pageSize = 1000

// Pages follows cursors: it hands over each page's items until there are no more, or until take wants no
// more.
func Pages[T any](
	ctx context.Context, c *Client, path string, query url.Values,
	take func(items []T, revision int64) (more bool, err error),
) error {
	q := url.Values{"limit": {fmt.Sprint(pageSize)}}
	for k, v := range query {
		q[k] = v
	}
	for {
		var page struct {
			Items      []T    `json:"items"`
			NextCursor string `json:"next_cursor"`
			Revision   int64  `json:"revision"`
		}
		if _, err := c.Do(ctx, Request{Method: http.MethodGet, Path: path, Query: q}, &page); err != nil {
			return err
		}
		more, err := take(page.Items, page.Revision)
		if err != nil || !more || page.NextCursor == "" {
			return err
		}
		q.Set("cursor", page.NextCursor)
	}
}

// List reads all objects of a kind's path that a query lets through. The revision is that of the last
// page; same says that it was that of all pages, so that the list is of one moment.
func (c *Client) List(
	ctx context.Context, path string, query url.Values,
) (objects []api.Object, revision int64, same bool, err error) {
	same, revision = true, -1
	err = Pages(ctx, c, "/v1/"+path, query, func(items []api.Object, at int64) (bool, error) {
		same = same && (revision == -1 || revision == at)
		revision = at
		objects = append(objects, items...)
		return true, nil
	})
	return objects, revision, same, err
}

// Get reads one object and its ETag.
func (c *Client) Get(ctx context.Context, path, name string) (o api.Object, etag string, err error) {
	head, err := c.Do(ctx, Request{Method: http.MethodGet, Path: "/v1/" + path + "/" + url.PathEscape(name)}, &o)
	return o, head.Get("ETag"), err
}
