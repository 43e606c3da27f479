package dev

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/spf13/cobra"

	"github.com/marchproxy/marchproxy/pkg/process"
	"github.com/marchproxy/marchproxy/pkg/supervisor"
	"github.com/marchproxy/marchproxy/services/cli/internal/envoybin"
)

// self is a command of this program.
func (s *system) self(env []string, args ...string) func() *exec.Cmd {
	return func() *exec.Cmd {
		path, err := os.Executable()
		if err != nil {
			path = os.Args[0]
		}
		cmd := exec.Command(path, append([]string{"dev"}, args...)...)
		cmd.Env = s.environ(env...)
		return cmd
	}
}

// Hidden commands: the children that are this program itself. Secrets come in the environment, where
// other users do not see them.

func natsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "nats PORT DIR", Hidden: true, Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			port, err := strconv.Atoi(args[0])
			if err != nil {
				return err
			}
			opts := &server.Options{}
			if err := opts.ProcessConfigString(os.Getenv(natsUsersSetting)); err != nil {
				return fmt.Errorf("%s: %w", natsUsersSetting, err)
			}
			if len(opts.Nkeys) == 0 {
				return errors.New(natsUsersSetting + " has no users; marchproxy dev starts this")
			}
			opts.Host, opts.Port, opts.JetStream, opts.StoreDir = "127.0.0.1", port, true, args[1]
			opts.NoSigs, opts.MaxPayload, opts.MaxPending = true, 64<<20, 256<<20
			s, err := server.NewServer(opts)
			if err != nil {
				return err
			}
			s.ConfigureLogger()
			go s.Start()
			if !s.ReadyForConnections(30 * time.Second) {
				return errors.New("nats does not start")
			}
			err = watchNats(cmd.Context(), s, args[1])
			s.Shutdown()
			s.WaitForShutdown()
			return err
		},
	}
}

func backendCommand() *cobra.Command {
	return &cobra.Command{
		Use: "backend PORT|ADDRESS", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			addr := args[0]
			if !strings.Contains(addr, ":") {
				addr = net.JoinHostPort("127.0.0.1", addr)
			}
			lis, err := process.Listen(cmd.Context(), addr, "--backend-port")
			if err != nil {
				return err
			}
			hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/plain")
				_, _ = io.WriteString(w, "Hello from backend\n") // the client is gone: nobody is left to tell
			})
			return process.ServeHTTP(cmd.Context(), lis, hello, time.Minute, 0)
		},
	}
}

// postgresCommand runs the embedded PostgreSQL; dev starts it as an unprivileged user where it is root
// itself, because PostgreSQL refuses root.
func postgresCommand() *cobra.Command {
	return &cobra.Command{Use: "postgres " +
		"PORT DIR", Hidden: true, Args: cobra.ExactArgs(2), RunE: func(cmd *cobra.Command, args []string) error {
		port, err := strconv.ParseUint(args[0], 10, 16)
		if err != nil {
			return err
		}
		dir := args[1]
		data, programs := filepath.Join(dir, "data"), "binaries-"+postgresVersion
		pg := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
			Version(postgresVersion).Port(uint32(port)).Database("marchproxy").Username("marchproxy").Password(
			os.Getenv("MARCHPROXY_PG_PASSWORD"),
		).
			DataPath(data).RuntimePath(filepath.Join(dir, "runtime")).BinariesPath(filepath.Join(dir, programs)).CachePath(
			filepath.Join(dir, "cache"),
		).
			BinaryRepositoryURL(nowhere).StartTimeout(60 * time.Second).Logger(os.Stderr).Locale("C").Encoding("UTF8").
			StartParameters(map[string]string{
				"listen_addresses": "127.0.0.1", "shared_buffers": "128MB", "max_connections": "100", "wal_level": "replica",
				// No socket in a directory that others use too: their lock file would keep the server from starting. And no
				// shared memory files, which a server that is killed leaves behind.
				"unix_socket_directories": "", "dynamic_shared_memory_type": "mmap",
			}))
		kept := filepath.Join(dir, "cache", programs)
		ready := filepath.Join(dir, readyMarker)
		if err := os.Remove(ready); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := discardUnfinished(dir, map[string]string{"data": "PG_VERSION", programs: "bin/pg_ctl"}); err != nil {
			return err
		}
		fresh := !isFile(filepath.Join(dir, programs, "bin", "pg_ctl"))
		if fresh {
			if err := removeOthers(dir, "binaries*", programs); err != nil {
				return err
			}
			if err := postgres.take(cmd.Context(), kept, filepath.Join(dir, programs)); err != nil {
				return err
			}
		}
		// A server that was killed leaves children behind for a moment; dev tries again.
		if err := pg.Start(); err != nil {
			if fresh {
				err = errors.Join(err, os.RemoveAll(kept)) // it may be why
			}
			return err
		}
		if err := keep(filepath.Join(dir, programs), kept); err != nil {
			return err
		}
		if err := errors.Join(os.Remove(filepath.Join(dir, unfinished)), os.WriteFile(ready, nil, 0o644)); err != nil {
			return err
		}
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
		for {
			select {
			case <-stop:
				return pg.Stop()
			case <-time.After(100 * time.Millisecond):
				if !postmasterLives(data) {
					return errors.New("the server has died")
				}
			}
		}
	}}
}

// databaseCommand runs dev's PostgreSQL and nothing else, and prints its URL when it is ready: for tests.
func databaseCommand() *cobra.Command {
	var o Options
	cmd := &cobra.Command{
		Use: "database", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := &system{
				Options: o, logs: o.StateDir, ownDatabase: true,
				say: func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), line) },
			}
			closed, err := s.alone(cmd.Context())
			if err != nil {
				return err
			}
			defer closed()
			fmt.Fprintln(cmd.OutOrStdout(), s.databaseURL())
			<-cmd.Context().Done()
			return nil
		},
	}
	cmd.Flags().StringVar(&o.StateDir, "state-dir", stateDir(), "where it is kept")
	cmd.Flags().StringVar(&o.Cache, "cache-dir", cacheDir(), "where PostgreSQL's archive is kept")
	cmd.Flags().IntVar(&o.PGPort, "postgres-port", 5432, "its port")
	return cmd
}

// readyMarker is a file that is there while the database is: the port opens before the database is made.
const readyMarker = "ready"

func postgresReady(dir string, dial func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if _, err := os.Stat(filepath.Join(dir, readyMarker)); errors.Is(err, fs.ErrNotExist) {
			return errors.New("the database is being made or started")
		} else if err != nil {
			return err
		}
		return dial(ctx)
	}
}

func postmasterLives(data string) bool {
	pid := pidIn(filepath.Join(data, pidFile))
	return pid != 0 && syscall.Kill(pid, 0) == nil
}

// envoyCommand becomes Envoy, whose access log is for this user alone, as the other logs are: it asks for a file that
// everybody may read, and has addresses and paths to write.
func envoyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "envoy PATH ARG...", Hidden: true, DisableFlagParsing: true, Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return supervisor.Become(0o077, args)
		},
	}
}

// envoyPathCommand prints where the pinned Envoy is.
func envoyPathCommand() *cobra.Command {
	var fetched bool
	arch := ""
	cmd := &cobra.Command{
		Use: "envoy-path", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			openMask() // of the cache that it may be the first to make
			find := envoybin.Find
			if fetched {
				find = envoybin.Fetched
			}
			if arch != "" {
				find = func(ctx context.Context, cache string, say func(string)) (string, error) {
					return envoybin.FetchedFor(ctx, arch, cache, say)
				}
			}
			path, err := find(cmd.Context(), cacheDir(), func(s string) { fmt.Fprintln(os.Stderr, s) })
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), path)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&fetched, "fetched", false, "the one in the cache, whatever else there is: for tests")
	cmd.Flags().StringVar(&arch, "arch", "", "the one in the cache for another architecture, amd64 or arm64: for images")
	return cmd
}

// getCommand asks a URL, in images that have no curl: the health check of the demo.
func getCommand() *cobra.Command {
	return &cobra.Command{
		Use: "get URL", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return httpOK(args[0])(cmd.Context())
		},
	}
}

func httpOK(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }() // read only
		if resp.StatusCode != http.StatusOK {
			raw, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // without it the status alone is said
			return fmt.Errorf("%s answers %s: %s", url, resp.Status, said(raw))
		}
		return nil
	}
}

// said is what an answer says in words: a problem's detail, or its first line.
func said(raw []byte) string {
	var p struct{ Detail string }
	if json.Unmarshal(raw, &p) == nil && p.Detail != "" {
		return p.Detail
	}
	line, _, _ := bytes.Cut(bytes.TrimSpace(raw), []byte("\n"))
	return string(line)
}

func tcpOK(addr string) func(context.Context) error {
	return func(ctx context.Context) error {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return c.Close()
	}
}
