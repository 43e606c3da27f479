package security

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExplainKeepsNothing: what a request holds that is asked about is in no answer, and on no disk: not in the logs, the
// database or the event stream.
func TestExplainKeepsNothing(t *testing.T) {
	s := start(t)
	s.must("PUT", "/v1/auth-policies/staff", map[string]any{"spec": map[string]any{"tokens": []any{
		map[string]any{"name": "ci", "value": "YS10b2tlbi1vZi1hLW1hY2hpbmUtaGVyZQ=="},
	}}}, 201)
	s.must("PUT", "/v1/routes/staff", map[string]any{"spec": map[string]any{
		"hosts": []string{"staff.test"}, "auth_policy": "staff", "direct_response": map[string]any{"status": 200},
	}}, 201)
	viewer := s.token("looker", "viewer", nil)
	sentinels := []string{"SENTINELof-a-wrong-token", "SENTINELof-a-cookie", "YS10b2tlbi1vZi1hLW1hY2hpbmUtaGVyZQ=="}
	for _, token := range []string{sentinels[0], sentinels[2]} {
		for _, host := range []string{"staff.test", "nobody.test", "no..host"} {
			status, body := s.as(viewer, "POST", s.API+"/v1/explain", `{"host": "`+host+`", "headers": [
				{"name": "Authorization", "value": "Bearer `+token+`"}, {"name": "Cookie", "value": "`+sentinels[1]+`"}]}`)
			if status != 200 {
				t.Fatalf("%d %s", status, body)
			}
			for _, x := range sentinels {
				if strings.Contains(body, x) {
					t.Errorf("the answer has %s: %s", x, body)
				}
			}
		}
	}
	for _, body := range []string{ // refused, and told why
		`{"host": "a", "headers": [{"name": "Connection", "value": "` + sentinels[0] + `"}]}`,
		`{"host": "a", "headers": [{"name": "bad name", "value": "` + sentinels[0] + `"}]}`,
		`{"host": "a", "headers": [{"name": "x", "value": "` + sentinels[0] + `\u0001"}]}`,
	} {
		if status, answer := s.as(viewer, "POST", s.API+"/v1/explain", body); status != 422 ||
			strings.Contains(answer, sentinels[0]) {
			t.Errorf("%d %s", status, answer)
		}
	}
	if err := s.Stop(); err != nil { // so that all is on the disk
		t.Fatal(err)
	}
	defer func() { // the end of the test stops it again
		if err := s.System.Run(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	files := 0
	err := filepath.WalkDir(s.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for _, x := range sentinels {
			if bytes.Contains(raw, []byte(x)) {
				t.Errorf("%s is in %s", x, path)
			}
		}
		return nil
	})
	if err != nil || files < 100 {
		t.Fatalf("%d files were looked at: %v", files, err)
	}
	if strings.Contains(s.Output(), "SENTINEL") {
		t.Error("it is in what dev says")
	}
}
