package web

import "github.com/marchproxy/marchproxy/pkg/api"

// maxNames is how many names the status lists that do not resolve: while DNS is away that may be all of them.
const maxNames = 100

func (a *API) unresolved(most int) ([]api.UnresolvedName, int32) {
	list, count := a.Board.Names(most)
	return list, int32(count)
}
