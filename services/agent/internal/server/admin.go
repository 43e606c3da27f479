package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/marchproxy/marchproxy/pkg/envoyadmin"
	"github.com/marchproxy/marchproxy/pkg/process"
)

// Admin asks Envoy's admin interface on its socket, and prints the answer; the exit status is 1 where Envoy refuses.
func Admin(ctx context.Context, lookup func(string) (string, bool), method, path string, out io.Writer) (int, error) {
	e := process.NewEnv(lookup)
	socket := adminSocket(e, runDir(e))
	if err := e.Err(); err != nil {
		return 1, err
	}
	if !strings.HasPrefix(path, "/") {
		return 1, fmt.Errorf("the path %q does not begin with /; /help lists what there is", path)
	}
	status, body, err := envoyadmin.New(socket).Do(ctx, strings.ToUpper(method), path)
	switch {
	case errors.Is(err, os.ErrPermission):
		return 1, fmt.Errorf("%s is for the user that Envoy runs as: %w", socket, err)
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return 1, fmt.Errorf("no Envoy listens on %s; start the agent, or set ENVOY_ADMIN_SOCKET or MARCHPROXY_RUN_DIR as "+
			"it has them: %w", socket, err)
	case err != nil:
		return 1, err
	}
	if _, err := out.Write(body); err != nil {
		return 1, err
	}
	if status >= http.StatusBadRequest {
		return 1, fmt.Errorf("the answer of Envoy is %d %s", status, http.StatusText(status))
	}
	return 0, nil
}
