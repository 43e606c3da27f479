// Package nomad looks at the jobs of deployments/nomad, and runs them: Nomad itself is not to be had here, so a small
// stand-in does what docs/deploy-nomad.md says of it, with the very commands, environments, files, users, capabilities
// and checks of the jobs, on three clients that are network namespaces.
package nomad
