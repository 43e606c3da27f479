-- +goose Up
-- Tokens are no resources and make no revisions, but who made and deleted them is part of the audit.
CREATE TABLE token_changes (
    at         timestamptz NOT NULL,
    actor      text NOT NULL,
    request_id text NOT NULL,
    action     text NOT NULL CHECK (action IN ('create', 'delete')),
    name       text NOT NULL,
    role       text NOT NULL
);
CREATE INDEX token_changes_by_time ON token_changes (at, name);
CREATE INDEX revisions_by_time ON revisions (at, revision);
CREATE INDEX idempotency_by_age ON idempotency (at);

-- +goose Down
DROP INDEX idempotency_by_age, revisions_by_time;
DROP TABLE token_changes;
