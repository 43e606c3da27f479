// Package upgrade runs the programs of the last release and those of this one side by side, and replaces the ones by the
// others under load.
package upgrade
