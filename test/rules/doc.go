// Package rules holds the rules about the code itself, and about its documents, that a test can keep.
package rules
