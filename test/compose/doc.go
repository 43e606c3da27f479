// Package compose holds what is promised of deployments/: by reading the files, which takes no engine. That the system
// comes up, is upgraded and loses nothing is shown by test/cmd/check-compose.
package compose
