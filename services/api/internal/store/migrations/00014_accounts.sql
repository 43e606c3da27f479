-- +goose Up
-- People who sign in (docs/adr/0059). A user has a password, or comes from a provider, whose issuer and subject name him
-- there. An empty role allows nothing: the provider names no group any more that has one.
CREATE TABLE users (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name         text COLLATE "C" NOT NULL UNIQUE,
    role         text NOT NULL CHECK (role IN ('', 'viewer', 'editor', 'operator', 'admin')),
    bounds       jsonb NOT NULL DEFAULT '{}',
    password     text NOT NULL DEFAULT '', -- argon2id as PHC writes it; '' opens nothing
    issuer       text NOT NULL DEFAULT '',
    subject      text NOT NULL DEFAULT '',
    disabled     boolean NOT NULL DEFAULT false,
    created_at   timestamptz NOT NULL,
    changed_at   timestamptz NOT NULL,
    signed_in_at timestamptz
);
CREATE UNIQUE INDEX users_by_subject ON users (issuer, subject) WHERE subject <> '';

-- A user's own token is called user/token, and is gone with him. No constraint says so, as a restore fills tables by
-- themselves: a token whose user is not there opens nothing.
ALTER TABLE tokens ADD COLUMN user_id uuid;
CREATE INDEX tokens_by_user ON tokens (user_id);

-- A session is a token's or a user's. Its id names it to him; the secret's hash would be of use to who guesses.
ALTER TABLE sessions
    ALTER COLUMN token_id DROP NOT NULL,
    ADD COLUMN id      uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    ADD COLUMN user_id uuid,
    ADD COLUMN address text NOT NULL DEFAULT '',
    ADD COLUMN agent   text NOT NULL DEFAULT '',
    ADD CONSTRAINT sessions_of_one CHECK ((token_id IS NULL) <> (user_id IS NULL));
CREATE INDEX sessions_user ON sessions (user_id);

-- Wrong passwords, by account and by address. A tally is a few bits of a keyed hash: there are never more rows than tallies,
-- whatever names are tried. known are the accounts that have signed in from an address.
CREATE TABLE sign_in_attempts (
    tally     bytea PRIMARY KEY,
    failures integer NOT NULL,
    at       timestamptz NOT NULL
);
CREATE TABLE sign_in_known (
    sum bytea PRIMARY KEY,
    at  timestamptz NOT NULL
);
-- What a provider's answer was for is of use once.
CREATE TABLE sign_in_used (
    sum bytea PRIMARY KEY,
    at  timestamptz NOT NULL
);

-- What was done to users is in the audit as well.
ALTER TABLE token_changes
    ADD COLUMN kind text NOT NULL DEFAULT 'Token',
    DROP CONSTRAINT token_changes_action_check,
    ADD CONSTRAINT token_changes_action_check CHECK (action IN ('create', 'update', 'delete', 'refuse'));

-- +goose Down
DELETE FROM sessions WHERE token_id IS NULL;
DELETE FROM tokens WHERE user_id IS NOT NULL;
ALTER TABLE token_changes DROP CONSTRAINT token_changes_action_check, DROP COLUMN kind;
DROP TABLE sign_in_used, sign_in_known, sign_in_attempts;
ALTER TABLE sessions
    DROP CONSTRAINT sessions_of_one, DROP COLUMN id, DROP COLUMN user_id, DROP COLUMN address, DROP COLUMN agent,
    ALTER COLUMN token_id SET NOT NULL;
ALTER TABLE tokens DROP COLUMN user_id;
DROP TABLE users;
