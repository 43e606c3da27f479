// Package e2e tests the system as its users meet it.
package e2e
