package dev

import (
	"os"
	"strings"
)

// environ is a child's environment: this process's, with what dev decides in place of what is there. Of a setting
// that dev makes, NAME_FILE goes too: the services refuse both at once.
func (s *system) environ(own ...string) []string {
	decided := map[string]bool{marker: true}
	for _, setting := range own {
		name, _, _ := strings.Cut(setting, "=")
		decided[name], decided[name+"_FILE"] = true, true
	}
	var out []string
	for _, setting := range os.Environ() {
		name, _, _ := strings.Cut(setting, "=")
		// What psql's user has set is for another server than dev's own.
		if decided[name] || s.ownDatabase && strings.HasPrefix(name, "PG") {
			continue
		}
		out = append(out, setting)
	}
	return append(append(out, own...), s.mark())
}

// postgresEnviron is that of PostgreSQL: the databases of all machines have one locale, whatever the user's is and
// whether this machine has it.
func (s *system) postgresEnviron(own ...string) []string {
	var out []string
	for _, setting := range s.environ(own...) {
		if !strings.HasPrefix(setting, "LC_") && !strings.HasPrefix(setting, "LANG") {
			out = append(out, setting)
		}
	}
	return append(out, "LC_ALL=C")
}
