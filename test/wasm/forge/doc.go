// Package forge makes tokens and header sets for the auth filter: good ones, nearly good ones, and mutations
// of both. A case is made from a seed and its number alone, so that every run can be repeated, and any one
// case made again by itself.
package forge
