// Package monitoring has the tests of what is told to whoever watches the system: metrics, alerts, dashboards, traces.
package monitoring
