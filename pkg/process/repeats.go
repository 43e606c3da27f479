package process

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	// calm is how long the same line is not written again.
	calm = time.Minute
	// maxLines is how many different lines are remembered.
	maxLines = 1000
)

// repeats writes a line that comes again and again once, and then once a minute, with how often it has come since: what
// is tried again several times a second, or asked for by many clients, would fill the log and hide everything else.
type repeats struct {
	zapcore.Core
	seen *lines
}

func newRepeats(c zapcore.Core) zapcore.Core { return repeats{c, &lines{last: map[string]*line{}}} }

// With implements [zapcore.Core].
func (r repeats) With(fields []zapcore.Field) zapcore.Core {
	return repeats{r.Core.With(fields), r.seen}
}

// Check implements [zapcore.Core].
func (r repeats) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if r.Enabled(e.Level) {
		return ce.AddCore(e, r)
	}
	return ce
}

// Write implements [zapcore.Core].
func (r repeats) Write(e zapcore.Entry, fields []zapcore.Field) error {
	times, write := r.seen.take(key(e, fields), e.Time)
	if !write {
		return nil
	}
	if times > 0 {
		fields = append(fields[:len(fields):len(fields)], zap.Int("repeated", times))
	}
	return r.Core.Write(e, fields)
}

// passing are the fields that are another each time, though the line says the same.
var passing = map[string]bool{"request_id": true, "stack": true, "after": true}

// numbers in a message and in an error are ports, sequences and times.
var numbers = regexp.MustCompile(`[0-9]+`)

// key is what makes a line the same as another.
func key(e zapcore.Entry, fields []zapcore.Field) string {
	m := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		if !passing[f.Key] {
			f.AddTo(m)
		}
	}
	var b strings.Builder
	fmt.Fprint(&b, e.Level, numbers.ReplaceAllString(e.Message, "#"))
	for _, name := range slices.Sorted(maps.Keys(m.Fields)) {
		value := fmt.Sprint(m.Fields[name])
		if name == "error" {
			value = numbers.ReplaceAllString(value, "#")
		}
		fmt.Fprint(&b, "\x00", name, "=", value)
	}
	return b.String()
}

// lines are those written lately.
type lines struct {
	mu   sync.Mutex
	last map[string]*line
}

type line struct {
	at    time.Time
	times int // that it was not written since
}

// take says whether a line is to be written, and how often it was not since it was last.
func (l *lines) take(key string, now time.Time) (times int, write bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.last[key]
	if x == nil {
		if len(l.last) >= maxLines {
			maps.DeleteFunc(l.last, func(_ string, x *line) bool { return now.Sub(x.at) >= calm })
		}
		if len(l.last) >= maxLines {
			clear(l.last)
		}
		l.last[key] = &line{at: now}
		return 0, true
	}
	if now.Sub(x.at) < calm {
		x.times++
		return 0, false
	}
	times = x.times
	*x = line{at: now}
	return times, true
}
