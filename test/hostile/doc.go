// Package hostile is what clients do to a server that mean it harm, or are very slow: connections on which nothing
// comes, headers and bodies byte by byte, more than a server should read, guesses, and floods of HTTP/2. None of them
// shows who it is.
package hostile
