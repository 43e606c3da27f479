package process

import (
	"fmt"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Logger returns a JSON logger on standard error for one of the levels debug, info, warn and error. A line that comes
// again and again is written once a minute, with how often it came.
func Logger(level string) (*zap.Logger, error) {
	l, err := zapcore.ParseLevel(level)
	if err != nil || l > zapcore.ErrorLevel {
		return nil, fmt.Errorf("LOGLEVEL is %q; it must be debug, info, warn or error", level)
	}
	c := zap.NewProductionConfig()
	c.Level = zap.NewAtomicLevelAt(l)
	c.Sampling = nil
	c.DisableStacktrace = true
	c.EncoderConfig.TimeKey = "time"
	c.EncoderConfig.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	log, err := c.Build(zap.WrapCore(newRepeats))
	if err != nil {
		return nil, fmt.Errorf("logger: %w", err)
	}
	return log, nil
}
