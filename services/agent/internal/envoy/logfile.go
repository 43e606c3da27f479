package envoy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/marchproxy/marchproxy/pkg/bootstrap"
)

// placeLog makes the place of the access log's file in the directory that Envoy is started in: the file itself, or a
// link to where it is to be. Envoy opens it together with each listener, and takes no listener where it cannot, so that
// it is tried beforehand.
func placeLog(dir, file string) error {
	place := filepath.Join(dir, bootstrap.AccessLogFile)
	if to, err := os.Readlink(place); err == nil && to != file {
		if err := os.Remove(place); err != nil {
			return fmt.Errorf("ACCESS_LOG_FILE: %w", err)
		}
	}
	if file == "" {
		file = place
	} else if to, err := os.Readlink(place); err != nil || to != file {
		// What was logged while the file was here stays beside the link.
		if err := os.Rename(place, place+".before"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("ACCESS_LOG_FILE: %w", err)
		}
		if err := os.Symlink(file, place); err != nil {
			return fmt.Errorf("ACCESS_LOG_FILE: %w", err)
		}
	}
	f, err := os.OpenFile(place, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("ACCESS_LOG_FILE: %s cannot be written: %w", file, err)
	}
	return f.Close()
}
