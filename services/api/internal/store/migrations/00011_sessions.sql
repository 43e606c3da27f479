-- +goose Up
-- Who is signed in with a browser: a session stands for a token, and is nothing without it. The cookie has its secret, here
-- is the secret's hash. No backup has them: after a restore people sign in again. So nothing refers to tokens here, which a
-- restore fills by themselves.
CREATE TABLE sessions (
    sha256     bytea PRIMARY KEY,
    token_id   uuid NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX sessions_token ON sessions (token_id);
CREATE INDEX sessions_expires ON sessions (expires_at);

-- +goose Down
DROP TABLE sessions;
