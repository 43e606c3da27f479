// Package process is the plumbing of a long-running part: typed configuration from the environment, the
// logger, and a group of parts that stop together.
package process
