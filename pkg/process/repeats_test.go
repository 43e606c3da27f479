package process

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// TestRepeats: a line that comes again and again is written once, and then once a minute with how often it came; lines
// that say something else are all written.
func TestRepeats(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	c := newRepeats(core)
	now := time.Now()
	say := func(after time.Duration, message string, fields ...zap.Field) {
		e := zapcore.Entry{Level: zapcore.ErrorLevel, Message: message, Time: now.Add(after)}
		if ce := c.Check(e, nil); ce != nil {
			ce.Write(fields...)
		}
	}
	for k := range 300 { // five times a second, with what differs each time
		say(time.Duration(k)*200*time.Millisecond, "it failed", zap.Error(fmt.Errorf("read 127.0.0.1:%d: refused", k)),
			zap.Int("request_id", k))
	}
	say(time.Minute, "it failed", zap.Error(errors.New("read 127.0.0.1:1: refused")))
	say(61*time.Second, "it failed", zap.Error(errors.New("read 127.0.0.1:1: refused")))
	say(61*time.Second, "it failed", zap.Error(errors.New("no space left")))
	say(61*time.Second, "refused", zap.String("resource", "one"))
	say(61*time.Second, "refused", zap.String("resource", "two"))
	var got []string
	for _, e := range logs.All() {
		m := e.ContextMap()
		got = append(got, strings.TrimSpace(fmt.Sprint(e.Message, " ", m["error"], m["resource"], " ", m["repeated"])))
	}
	want := []string{
		"it failed read 127.0.0.1:0: refused<nil> <nil>", "it failed read 127.0.0.1:1: refused<nil> 299",
		"it failed no space left<nil> <nil>",
		"refused <nil>one <nil>", "refused <nil>two <nil>",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for k := range 5000 {
		say(2*time.Minute, "line", zap.Int("k", k))
	}
	if n := len(c.(repeats).seen.last); n > maxLines {
		t.Errorf("%d lines are remembered", n)
	}
}
