package writer_test

import (
	"bytes"
	"io"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
)

// cutter stands between an api and its database. When armed, it lets the next statements through, and cuts the
// connection instead of their answer.
type cutter struct {
	url   string
	armed atomic.Bool
}

func cutting(t *testing.T, database string) *cutter {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lis.Close() })
	server := u.Host
	u.Host = lis.Addr().String()
	c := &cutter{url: u.String()}
	go func() {
		for {
			client, err := lis.Accept()
			if err != nil {
				return
			}
			db, err := net.Dial("tcp", server)
			if err != nil {
				t.Error(err)
				return
			}
			go func() { _, _ = io.Copy(db, client); _ = db.Close() }()
			go c.answers(client, db)
		}
	}()
	return c
}

func (c *cutter) answers(client, db net.Conn) {
	defer func() { _ = client.Close() }()
	buf := make([]byte, 64<<10)
	for {
		n, err := db.Read(buf)
		if err != nil {
			return
		}
		// The answer ends with what says that the server is ready, outside a transaction.
		if c.armed.Load() {
			if bytes.HasSuffix(buf[:n], []byte("Z\x00\x00\x00\x05I")) {
				c.armed.Store(false)
				return
			}
			continue
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}
