package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/marchproxy/marchproxy/test/bench"
	"github.com/marchproxy/marchproxy/test/probe"
)

// backup takes a backup while the system runs, deletes one of its routes, restores it under the running system, and asks
// for what was deleted. Meanwhile Envoy goes on serving another route.
func (m *scale) backup(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "marchproxy-backup-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // below the temporary directory
	path := filepath.Join(dir, "backup")
	began := time.Now()
	if out, err := m.CLI(ctx, "backup", "--state-dir", m.Dir, path).CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	took := time.Since(began)
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	m.table.Bar(fmt.Sprintf("backup of %d hosts, and its size", m.loaded), "< 30 s", took.Seconds() < m.slack*30,
		"%.1f s, %.1f MB", took.Seconds(), float64(info.Size())/(1<<20))
	gone := bench.Host(m.loaded - 1)
	status, raw, err := m.Call(ctx, http.MethodDelete, m.API+"/v1/routes/"+bench.Name(m.loaded-1)+"?wait=live", nil)
	if err != nil || status != http.StatusOK {
		return errors.Join(fmt.Errorf("delete a route: %d %s", status, raw), err)
	}
	p, other := probe.New(m.Proxy), probe.New(m.Proxy)
	defer p.Close()
	defer other.Close()
	served := make(chan error, 1)
	under, stop := context.WithCancel(ctx)
	go func() { served <- steady(under, other, bench.Host(0)) }()
	began = time.Now()
	if out, err := m.CLI(ctx, "restore", "--replace", "--state-dir", m.Dir, path).CombinedOutput(); err != nil {
		stop()
		return fmt.Errorf("%w\n%s", err, out)
	}
	took = time.Since(began)
	for t0 := time.Now(); ; {
		a, _, err := p.Get(gone, "/")
		if err == nil && a.Status == http.StatusOK {
			break
		}
		if time.Since(t0) > 2*time.Minute {
			stop()
			return errors.Join(fmt.Errorf("%s answers %d after the restore", gone, a.Status), err)
		}
		time.Sleep(5 * time.Millisecond) // the next look
	}
	live := time.Since(began)
	stop()
	if err := <-served; err != nil {
		return fmt.Errorf("during the restore: %w", err)
	}
	m.table.Bar(fmt.Sprintf("restore of %d hosts under the running system", m.loaded), "< 60 s", took.Seconds() < m.slack*60,
		"%.1f s, served after %.1f s, 0 requests failed", took.Seconds(), live.Seconds())
	return nil
}

// steady asks for a route until the context ends; the first answer that is not right ends it.
func steady(ctx context.Context, p *probe.Conn, host string) error {
	for ctx.Err() == nil {
		if a, _, err := p.Get(host, "/"); err != nil || a.Status != http.StatusOK {
			return errors.Join(fmt.Errorf("%s answers %d", host, a.Status), err)
		}
		time.Sleep(10 * time.Millisecond) // a hundred requests a second
	}
	return nil
}
