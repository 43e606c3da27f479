package dev

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

// Options are dev's flags.
type Options struct {
	StateDir, Cache                                                                          string
	APIPort, UIPort, GRPCPort, HTTPPort, ProxyPort, AdminPort, NatsPort, PGPort, BackendPort int
	Concurrency                                                                              int
	NoDemo                                                                                   bool
	// ProxyPortGiven says that the port was asked for, not just the default.
	ProxyPortGiven bool
	LogLevel       string
}

const defaultAPIPort = 8000

// Command is `marchproxy dev`.
func Command() *cobra.Command {
	var o Options
	cmd := &cobra.Command{
		Use: "dev", Short: "Run the whole system on this machine", Args: cobra.NoArgs,
		Long: "PostgreSQL, NATS, the api, the xDS server, Envoy and a demo backend, the same programs as in production, " +
			"on loopback.\n" +
			"What is not there is fetched once. Ctrl-C stops everything and loses nothing; the next run finds the " +
			"configuration;\n" +
			"of a run that was killed, the next one stops what is left.\n" +
			"The api takes the token in the file token of the state directory, which its user alone can read; the other " +
			"commands find it.\n" +
			"DATABASE_URL, where set, is used instead of a PostgreSQL of its own; an envoy of the pinned version on PATH, or " +
			"the one that ENVOY_PATH names, instead of a fetched one.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.StateDir == "" {
				o.StateDir = stateDir()
			}
			if o.Cache == "" {
				o.Cache = cacheDir()
			}
			o.ProxyPortGiven = cmd.Flags().Changed("proxy-port")
			return run(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.StateDir, "state-dir", "", "where everything is kept (/var/lib/marchproxy/dev for root, otherwise "+
		"~/.local/state/marchproxy)")
	f.StringVar(&o.Cache, "cache-dir", "", "where downloads are kept (MARCHPROXY_CACHE, otherwise /var/cache/marchproxy "+
		"for root and ~/.cache/marchproxy)")
	f.IntVar(&o.APIPort, "api-port", defaultAPIPort, "HTTP API")
	f.IntVar(&o.UIPort, "ui-port", 3000, "the web UI, which is below /ui of the HTTP API as well")
	f.IntVar(&o.GRPCPort, "xds-grpc-port", 18000, "xDS")
	f.IntVar(&o.HTTPPort, "xds-http-port", 19000, "POST /v1/config")
	f.IntVar(&o.ProxyPort, "proxy-port", 10000, "Envoy's listener; where it is not given, the one of the last run")
	f.IntVar(&o.AdminPort, "admin-port", 9901, "what Envoy's admin interface tells")
	f.IntVar(&o.NatsPort, "nats-port", 4222, "NATS")
	f.IntVar(&o.PGPort, "postgres-port", 5432, "PostgreSQL, unless DATABASE_URL is set")
	f.IntVar(&o.BackendPort, "backend-port", 8081, "the demo backend")
	f.IntVar(&o.Concurrency, "concurrency", 2, "Envoy's worker threads")
	f.BoolVar(&o.NoDemo, "no-demo", false, "no demo backend and no demo route")
	f.StringVar(&o.LogLevel, "log-level", "warn", "debug, info, warn or error")
	cmd.AddCommand(natsCommand(), backendCommand(), postgresCommand(), databaseCommand(), envoyCommand(), envoyPathCommand(), getCommand())
	return cmd
}

// stateDir is one that an unprivileged PostgreSQL can reach, also where root runs dev.
func stateDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/marchproxy/dev"
	}
	if d := os.Getenv("XDG_STATE_HOME"); d != "" {
		return filepath.Join(d, "marchproxy")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ".marchproxy"
	}
	return filepath.Join(home, ".local", "state", "marchproxy")
}

func cacheDir() string {
	if d := os.Getenv("MARCHPROXY_CACHE"); d != "" {
		return d
	}
	if os.Geteuid() == 0 {
		return "/var/cache/marchproxy"
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return ".cache"
	}
	return filepath.Join(d, "marchproxy")
}
