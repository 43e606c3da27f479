package server

import (
	"context"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/marchproxy/marchproxy/pkg/config"
	"github.com/marchproxy/marchproxy/services/api/internal/store"
)

// forgetEvery is the time between two looks for what need not be kept any more.
const forgetEvery = 10 * time.Minute

// forget deletes what need not be kept of the history, until the context ends. As long as it is not known what the
// stream has, everything stays: the relay compares the stream's last revision with the database's.
func forget(
	ctx context.Context, st *store.Store, keep store.Keep, published func() int64, done *atomic.Int64, log *zap.Logger,
) {
	done.Store(time.Now().Unix())
	pause := time.Minute // the start has more urgent things to do
	for {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = forgetEvery
		if err := adopt(ctx, st, log); err != nil {
			log.Warn("the audit cannot be chained", zap.Error(err))
			continue
		}
		if err := st.ForgetAttempts(ctx); err != nil && ctx.Err() == nil {
			log.Warn("old attempts to sign in cannot be deleted", zap.Error(err))
		}
		switch n, err := st.Coalesce(ctx, config.Found(), published(), time.Now()); {
		case err != nil && ctx.Err() == nil:
			log.Warn("the history of what was found cannot be coalesced", zap.Error(err))
		case n > 0:
			log.Info("coalesced the history of what was found", zap.Int64("revisions", n))
		}
		revisions, entries, err := st.Prune(ctx, keep, published(), time.Now())
		switch {
		case err != nil && ctx.Err() == nil:
			log.Warn("what need not be kept of the history cannot be deleted", zap.Error(err))
			continue
		case revisions+entries > 0:
			log.Info("deleted what need not be kept of the history", zap.Int64("revisions", revisions),
				zap.Int64("audit", entries))
		}
		done.Store(time.Now().Unix())
	}
}

// adopt chains the records of the audit that are not chained. What is older than the chain is many, once.
func adopt(ctx context.Context, st *store.Store, log *zap.Logger) error {
	began := time.Now()
	n, err := st.Adopt(ctx)
	if n > 0 {
		log.Info("chained records of the audit that were written without a chain", zap.Int64("records", n),
			zap.Duration("took", time.Since(began)))
	}
	return err
}
