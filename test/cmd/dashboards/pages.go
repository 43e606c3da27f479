package main

// number is a figure of now.
func number(title, about, expr, unit string, bad float64) panel {
	return panel{title: title, about: about, unit: unit, now: true, bad: bad, queries: []query{{expr, ""}}}
}

// curve is a figure over time.
func curve(title, about, unit string, queries ...query) panel {
	return panel{title: title, about: about, unit: unit, queries: queries}
}

// quantile is that of a histogram's rate.
func quantile(q, of, by string) string {
	return "histogram_quantile(" + q + ", sum by (le" + by + ") (rate(" + of + "[$__rate_interval])))"
}

var pages = []page{
	{
		file: "fleet", title: "fleet", about: "Whether all parts are there and well.",
		rows: []row{
			{"Now", []panel{
				number("Envoys", "Connected Envoys.", "max(marchproxy_api_proxies)", "short", 0),
				number("Absent", "Envoys that were connected and are not.", "max(marchproxy_api_absent_proxies)", "short", 1),
				number("Lagging", "Envoys that have lacked something for more than 5 s.", "max(marchproxy_api_lagging_proxies)",
					"short", 1),
				number("Refused", "Objects that an Envoy refused.", "max(marchproxy_api_rejected_objects)", "short", 1),
				number("Names", "DNS names that do not resolve.", "max(marchproxy_api_unresolved_names)", "short", 1),
				number("Next certificate", "Until the first certificate ends.",
					"min(marchproxy_api_certificate_expiry_timestamp_seconds) - time()", "s", 0),
			}},
			{"Parts", []panel{
				curve("Envoys by xDS server", "", "short", query{"marchproxy_xds_proxies", "{{instance}}"}),
				curve("Troubles", "1 where something is wrong; the runbooks say what to do.", "short",
					query{"max(marchproxy_api_stream_trouble)", "stream"}, query{"max(marchproxy_api_database_trouble)", "database"},
					query{"marchproxy_xds_unsaved", "{{instance}} unsaved"}, query{
						"marchproxy_xds_hash_mismatch",
						"{{instance}} hash",
					},
					query{"1 - marchproxy_xds_nats_connected", "{{instance}} without NATS"}),
				curve("Clocks", "How far a part's clock is ahead of the api's.", "s", query{
					"marchproxy_api_clock_offset_seconds",
					"{{part}}",
				}),
				curve("Refused credentials", "", "cps", query{
					"rate(marchproxy_api_refused_credentials_total[$__rate_interval])",
					"api {{instance}}",
				},
					query{"rate(marchproxy_xds_refused_credentials_total[$__rate_interval])", "xds {{instance}}"}),
				curve("Memory", "Resident memory of each process.", "bytes",
					query{`process_resident_memory_bytes{job=~"marchproxy-.*"}`, "{{job}} {{instance}}"}),
				curve("CPU", "Cores that each process uses.", "short",
					query{`rate(process_cpu_seconds_total{job=~"marchproxy-.*"}[$__rate_interval])`, "{{job}} {{instance}}"}),
			}},
		},
	},
	{
		file: "propagation", title: "propagation", about: "How a change comes from the api to the Envoys.",
		rows: []row{
			{"Where the newest revision is", []panel{
				curve("Revisions", "Stored, published, served and live: where one stands, the part before it is to blame.", "short",
					query{"max(marchproxy_api_revision)", "stored"}, query{"max(marchproxy_api_published_revision)", "published"},
					query{"marchproxy_xds_revision", "served by {{instance}}"}, query{"max(marchproxy_api_live_revision)", "live"}),
				curve("Behind", "Revisions that are stored and not live.", "short",
					query{"max(marchproxy_api_revision) - max(marchproxy_api_published_revision)", "not published"},
					query{"max(marchproxy_api_revision) - max(marchproxy_api_live_revision)", "not live"}),
				curve("Lag of the worst Envoys", "", "s", query{"marchproxy_xds_proxy_lag_seconds", "{{proxy}} ({{gateway}})"}),
				curve("Still to do", "Messages, where a part has been behind for 5 s.", "short", query{
					"marchproxy_api_unpublished",
					"to publish",
				},
					query{"marchproxy_xds_unread", "to read by {{instance}}"}, query{
						"marchproxy_agent_unread",
						"to read by {{instance}}",
					}),
			}},
			{"Writes", []panel{
				curve("Requests by operation", "", "reqps",
					query{"sum by (operation) (rate(marchproxy_api_requests_total[$__rate_interval]))", "{{operation}}"}),
				curve("Time to answer, p99", "With wait=live that is the time to be live.", "s",
					query{quantile("0.99", "marchproxy_api_request_duration_seconds_bucket", ", operation"), "{{operation}}"}),
				curve("Answers that are errors", "", "reqps",
					query{
						`sum by (operation, code) (rate(marchproxy_api_requests_total{code=~"[45].."}[$__rate_interval]))`,
						"{{operation}} {{code}}",
					}),
				curve("Writes that wait", "", "short", query{"marchproxy_api_waiting_writes", "{{instance}}"}),
			}},
		},
	},
	{
		file: "route", title: "one route", about: "What clients meet at a route, and its service.",
		variables: map[string]string{"route": "marchproxy_requests_total", "service": "marchproxy_requests_total"},
		order:     []string{"route", "service"},
		rows: []row{{"Requests", []panel{
			curve("By status", "", "reqps", query{`sum by (status) (rate(marchproxy_requests_total{route=~"$route",` +
				`service=~"$service"}[$__rate_interval]))`, "{{status}}"}),
			curve("Share of errors", "5xx among all.", "percentunit",
				query{`sum by (route) (rate(marchproxy_requests_total{route=~"$route",service=~"$service",` +
					`status="5xx"}[$__rate_interval])) / sum by (route) (rate(marchproxy_requests_total{route=~"$route",` +
					`service=~"$service"}[$__rate_interval]))`, "{{route}}"}),
			curve("Duration", "From a request's first byte to its answer's last one.", "µs",
				query{quantile("0.5", `marchproxy_request_duration_us_bucket{route=~"$route",service=~"$service"}`, ""), "p50"},
				query{quantile("0.95", `marchproxy_request_duration_us_bucket{route=~"$route",service=~"$service"}`, ""), "p95"},
				query{quantile("0.99", `marchproxy_request_duration_us_bucket{route=~"$route",service=~"$service"}`, ""), "p99"}),
			curve("By method", "", "reqps", query{`sum by (method) (rate(marchproxy_requests_total{route=~"$route",` +
				`service=~"$service"}[$__rate_interval]))`, "{{method}}"}),
			curve("Bytes", "", "Bps", query{`sum(rate(marchproxy_request_bytes_total{route=~"$route",` +
				`service=~"$service"}[$__rate_interval]))`, "from clients"},
				query{
					`sum(rate(marchproxy_response_bytes_total{route=~"$route",service=~"$service"}[$__rate_interval]))`,
					"to clients",
				}),
			curve("Endpoints", "Of the service, as Envoy finds them.", "short", query{
				`sum by (envoy_cluster_name) (envoy_cluster_membership_healthy{envoy_cluster_name=~"$service"})`,
				"{{envoy_cluster_name}} healthy",
			},
				query{
					`sum by (envoy_cluster_name) (envoy_cluster_membership_total{envoy_cluster_name=~"$service"})`,
					"{{envoy_cluster_name}} all",
				}),
		}}},
	},
	{
		file: "xdp", title: "XDP", about: "What the kernel lets in.",
		variables: map[string]string{"instance": "marchproxy_agent_revision"}, order: []string{"instance"},
		rows: []row{{"Packets", []panel{
			curve("Dropped, by reason", "", "pps",
				query{`sum by (reason) (rate(marchproxy_agent_packets_total{instance=~"$instance",` +
					`verdict="dropped"}[$__rate_interval]))`, "{{reason}}"}),
			curve("Passed, by reason", "", "pps",
				query{`sum by (reason) (rate(marchproxy_agent_packets_total{instance=~"$instance",` +
					`verdict="passed"}[$__rate_interval]))`, "{{reason}}"}),
			curve("Above their policy's limit", "", "pps",
				query{`sum by (policy) (rate(marchproxy_agent_policy_packets_total{instance=~"$instance",` +
					`limit="above"}[$__rate_interval]))`, "{{policy}}"}),
			curve("Below their policy's limit", "", "pps",
				query{`sum by (policy) (rate(marchproxy_agent_policy_packets_total{instance=~"$instance",` +
					`limit="below"}[$__rate_interval]))`, "{{policy}}"}),
			curve("Guarded", "1 where the interface is guarded in the mode that was asked for.", "short",
				query{`marchproxy_agent_xdp_attached{instance=~"$instance"}`, "{{instance}} {{interface}} {{asked}}"}),
			curve("Revision of the policies", "", "short", query{
				`marchproxy_agent_revision{instance=~"$instance"}`,
				"{{instance}}",
			}),
		}}},
	},
	{
		file: "filters", title: "filters", about: "What the proxies' filters decide.",
		rows: []row{{"Decisions", []panel{
			curve("Who may pass", "", "reqps",
				query{
					"sum by (decision, reason) (rate(marchproxy_auth_decisions_total[$__rate_interval]))",
					"{{decision}} {{reason}}",
				}),
			curve("Licenses", "", "reqps",
				query{
					"sum by (decision, reason) (rate(marchproxy_license_decisions_total[$__rate_interval]))",
					"{{decision}} {{reason}}",
				}),
			curve("Connections refused", "Of addresses that had too many.", "cps",
				query{"sum by (instance) (rate(marchproxy_connections_refused_total[$__rate_interval]))", "{{instance}}"}),
			curve("In flight", "Requests that are not answered, with metrics_engine wasm.", "short",
				query{"sum by (instance) (marchproxy_requests_in_flight)", "{{instance}}"}),
		}}},
	},
	{
		file: "nodes", title: "nodes", about: "The machines of the proxies.",
		variables: map[string]string{"instance": "marchproxy_agent_envoy_up"}, order: []string{"instance"},
		rows: []row{{"Agent and Envoy", []panel{
			curve("Envoy serves", "", "short", query{`marchproxy_agent_envoy_up{instance=~"$instance"}`, "{{instance}}"}),
			curve("Envoy ended by itself", "", "short",
				query{`increase(marchproxy_agent_envoy_restarts_total{instance=~"$instance"}[$__rate_interval])`, "{{instance}}"}),
			curve("Connections", "Of clients, by Envoy.", "short", query{
				"sum by (instance) (envoy_http_downstream_cx_active)",
				"{{instance}}",
			}),
			curve("Requests", "", "reqps", query{
				"sum by (instance) (rate(marchproxy_requests_total[$__rate_interval]))",
				"{{instance}}",
			}),
			curve("Envoy's memory", "", "bytes", query{"envoy_server_memory_allocated", "{{instance}}"}),
			curve("Trouble", "1 where something is wrong.", "short", query{
				`1 - marchproxy_agent_nats_connected{instance=~"$instance"}`, "{{instance}} without NATS",
			},
				query{`marchproxy_agent_unsaved{instance=~"$instance"}`, "{{instance}} unsaved"},
				query{`marchproxy_agent_hash_mismatch{instance=~"$instance"}`, "{{instance}} hash"}),
			curve("Own certificate", "Until it ends.", "s",
				query{
					`(marchproxy_agent_identity_expiry_timestamp_seconds{instance=~"$instance"} - time()) < +Inf`,
					"{{instance}}",
				}),
		}}},
	},
}
