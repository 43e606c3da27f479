-- +goose Up
CREATE TABLE config_head (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch    uuid   NOT NULL,
    revision bigint NOT NULL,
    state    json   NOT NULL
);

-- The payload is of type json, which keeps the text: the bytes as published are what is hashed.
CREATE TABLE resources (
    kind     text   NOT NULL,
    name     text   NOT NULL,
    revision bigint NOT NULL,
    payload  json   NOT NULL,
    PRIMARY KEY (kind, name)
);

-- History, diff, rollback, audit and outbox.
CREATE TABLE revisions (
    revision     bigint PRIMARY KEY,
    at           timestamptz NOT NULL,
    actor        text   NOT NULL,
    message      text   NOT NULL,
    request_id   text   NOT NULL,
    traceparent  text   NOT NULL,
    state        json   NOT NULL,
    change_count integer NOT NULL
);

CREATE TABLE changes (
    revision bigint NOT NULL REFERENCES revisions,
    kind     text   NOT NULL,
    name     text   NOT NULL,
    before   json,
    after    json,
    PRIMARY KEY (revision, kind, name)
);
CREATE INDEX changes_by_object ON changes (kind, name, revision);

CREATE TABLE tokens (
    name       text PRIMARY KEY,
    role       text NOT NULL CHECK (role IN ('viewer', 'editor', 'admin')),
    sha256     bytea NOT NULL UNIQUE,
    created_at timestamptz NOT NULL
);

CREATE TABLE idempotency (
    key      text NOT NULL,
    actor    text NOT NULL,
    request  bytea NOT NULL,
    status   integer NOT NULL,
    response json NOT NULL,
    at       timestamptz NOT NULL,
    PRIMARY KEY (actor, key)
);

-- +goose Down
DROP TABLE idempotency, tokens, changes, revisions, resources, config_head;
