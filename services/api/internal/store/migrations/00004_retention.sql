-- +goose Up
-- What the audit says of revisions that are not kept any more.
CREATE TABLE audit (
    at         timestamptz NOT NULL,
    revision   bigint NOT NULL,
    kind       text   NOT NULL,
    name       text   NOT NULL,
    action     text   NOT NULL,
    actor      text   NOT NULL,
    request_id text   NOT NULL,
    message    text   NOT NULL
);
CREATE INDEX audit_by_time ON audit (at, revision, kind, name);
CREATE INDEX audit_by_object ON audit (kind, name, at);
CREATE INDEX audit_by_actor ON audit (actor, at);

-- Rows go in small batches all the time; with the server's default, a fifth of a table would have to go first.
ALTER TABLE revisions SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE changes SET (autovacuum_vacuum_scale_factor = 0.02);

-- A change is written and deleted with its revision, in one statement or transaction; looking each of them up took a third
-- of the time of a revision with 10,000, for which other writes wait.
ALTER TABLE changes DROP CONSTRAINT changes_revision_fkey;

-- Room for the next version of an object in the page of the one before: then its indexes stay as they are.
ALTER TABLE resources SET (fillfactor = 85);

-- +goose Down
ALTER TABLE resources RESET (fillfactor);
ALTER TABLE changes ADD FOREIGN KEY (revision) REFERENCES revisions;
ALTER TABLE revisions RESET (autovacuum_vacuum_scale_factor);
ALTER TABLE changes RESET (autovacuum_vacuum_scale_factor);
DROP TABLE audit;
