// Package golden shows the pinned Envoy what is rendered without a running system: `envoy --mode validate`
// must accept every golden output of the translator, and the bootstrap in every form.
package golden
