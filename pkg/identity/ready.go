package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// askFor is how long a program may take to say whether it is ready.
const askFor = 3 * time.Second

// Ready asks a program of the same settings, which listens on addr (host:port, where no host is every interface), for
// /readyz, and returns its reason where it is not ready. It is what the health check of a container runs: the image has
// no shell and no curl. Files without a certificate ask without TLS.
func Ready(ctx context.Context, addr string, files Files) error {
	id, err := Open(files)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q is not host:port: %w", addr, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	t := &http.Transport{DisableKeepAlives: true}
	scheme := "http"
	if id.HasCert() {
		scheme = "https"
		t.TLSClientConfig = id.Client("")
		// Its own listener is asked by an address that the certificate need not have. Nothing secret is sent, and who
		// could answer in its place is inside of the container already.
		t.TLSClientConfig.InsecureSkipVerify = true
		t.TLSClientConfig.VerifyConnection = func(tls.ConnectionState) error { return nil }
	}
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		return fmt.Errorf("not ready: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // it was read, or is not wanted
	said, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return fmt.Errorf("not ready: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New("not ready: " + strings.TrimSpace(string(said)))
	}
	return nil
}
