-- +goose Up
-- The chain of the audit (docs/adr/0029). A row is a record: a revision, or a token made or deleted. What it says stays
-- where it was, in revisions and changes, in audit, or in token_changes; here is the hash of it and of the record before.
-- Records that there are already are chained by the api at its start, which has the key to sign them with.
CREATE TABLE audit_chain (
    n         bigint PRIMARY KEY,
    revision  bigint NOT NULL, -- 0 for tokens
    at        timestamptz NOT NULL,
    entries   integer NOT NULL,
    state     text NOT NULL, -- digest of the configuration
    adopted   timestamptz, -- when it was chained, where that was not when it was written
    hash      bytea NOT NULL,
    key       text NOT NULL, -- names the SECRET_KEY that has signed the hash
    signature bytea NOT NULL
);

-- Where the chain begins: after the record that retention has deleted last.
CREATE TABLE audit_anchor (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    n          bigint NOT NULL,
    revision   bigint NOT NULL, -- the last one in it
    hash       bytea NOT NULL,
    at         timestamptz NOT NULL, -- of that record
    deleted_at timestamptz NOT NULL,
    keep       text NOT NULL, -- API_KEEP_AUDIT at that time
    key        text NOT NULL,
    signature  bytea NOT NULL
);
INSERT INTO audit_anchor (n, revision, hash, at, deleted_at, keep, key, signature) VALUES (0, 0, '', 'epoch', 'epoch', '', '', '');

-- Where it ends, and the last revision in it. An api of the version before, which writes on, leaves them behind.
ALTER TABLE config_head
    ADD COLUMN chain_n        bigint NOT NULL DEFAULT 0,
    ADD COLUMN chain_hash     bytea  NOT NULL DEFAULT '',
    ADD COLUMN chain_revision bigint NOT NULL DEFAULT 0;

-- The record; none while it is not chained.
ALTER TABLE token_changes ADD COLUMN n bigint UNIQUE;

CREATE INDEX audit_by_revision ON audit (revision);

-- +goose Down
DROP INDEX audit_by_revision;
ALTER TABLE token_changes DROP COLUMN n;
ALTER TABLE config_head DROP COLUMN chain_n, DROP COLUMN chain_hash, DROP COLUMN chain_revision;
DROP TABLE audit_anchor, audit_chain;
