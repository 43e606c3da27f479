-- +goose Up
-- Certificates that come from an authority by ACME (docs/adr/0045): how far each is. What is wanted of them is in the
-- configuration; here is what only the api that orders needs, which would make a revision of each step.
CREATE TABLE issuance (
    certificate text COLLATE "C" PRIMARY KEY,
    uid         text   NOT NULL, -- of the Certificate: one of the same name that is made later begins anew
    issuer      text   NOT NULL,
    wanted      text   NOT NULL, -- digest of what is asked for
    next_at     timestamptz NOT NULL, -- when there is something to do
    holder      text   NOT NULL DEFAULT '', -- the api that is at it, until leased_until
    leased_until timestamptz NOT NULL DEFAULT 'epoch',
    step        text   NOT NULL DEFAULT 'waiting',
    note        text   NOT NULL DEFAULT '', -- what it waits for, in a sentence
    -- The order that is under way, "" for none, what it is for, its key (sealed), and the account that has made it.
    order_url     text NOT NULL DEFAULT '',
    order_wanted  text NOT NULL DEFAULT '',
    order_account text NOT NULL DEFAULT '',
    order_key     text NOT NULL DEFAULT '',
    ordered_at    timestamptz,
    -- Failures since the last success, and the last of them.
    failures    integer NOT NULL DEFAULT 0,
    failed_at   timestamptz,
    problem     text NOT NULL DEFAULT '', -- the authority's word for it: rateLimited, caa, connection
    reason      text NOT NULL DEFAULT '',
    -- The last success, and what the authority says of the renewal (RFC 9773).
    issued_at   timestamptz,
    not_after   timestamptz,
    renew_at    timestamptz,
    look_at     timestamptz, -- when to ask for the renewal's time again
    explanation text NOT NULL DEFAULT ''
);
CREATE INDEX issuance_by_time ON issuance (next_at);

-- Accounts with authorities. One is of an issuer and its directory: another directory is another account.
CREATE TABLE issuance_accounts (
    issuer       text NOT NULL,
    directory    text NOT NULL,
    key          text NOT NULL, -- sealed
    url          text NOT NULL DEFAULT '',
    contacts     text NOT NULL DEFAULT '',
    paused_until timestamptz, -- as the authority has said
    paused_for   text NOT NULL DEFAULT '',
    PRIMARY KEY (issuer, directory)
);

-- When orders were made, for the limit of each issuer.
CREATE TABLE issuance_orders (
    issuer text NOT NULL,
    at     timestamptz NOT NULL
);
CREATE INDEX issuance_orders_by_time ON issuance_orders (issuer, at);

-- +goose Down
DROP TABLE issuance_orders, issuance_accounts, issuance;
