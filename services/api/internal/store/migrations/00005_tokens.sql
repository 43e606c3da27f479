-- +goose Up
-- A token has an id that no other ever has, may end, and may be bound to what it writes. Roles are by what can be harmed:
-- an editor writes routes and services, and what was not those an operator. Editors that there are stay editors: what
-- needs more says so, and an admin decides who gets it (docs/operations.md, "Tokens").
ALTER TABLE tokens
    ADD COLUMN id           uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    ADD COLUMN expires_at   timestamptz,
    ADD COLUMN last_used_at timestamptz,
    ADD COLUMN bounds       jsonb NOT NULL DEFAULT '{}',
    DROP CONSTRAINT tokens_role_check,
    ADD CONSTRAINT tokens_role_check CHECK (role IN ('viewer', 'editor', 'operator', 'admin'));

-- Who did it, where a name was given to several tokens one after another.
ALTER TABLE revisions ADD COLUMN actor_id text NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN actor_id text NOT NULL DEFAULT '';
ALTER TABLE token_changes
    ADD COLUMN actor_id text NOT NULL DEFAULT '',
    ADD COLUMN message  text NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE token_changes DROP COLUMN actor_id, DROP COLUMN message;
ALTER TABLE audit DROP COLUMN actor_id;
ALTER TABLE revisions DROP COLUMN actor_id;
DELETE FROM tokens WHERE role = 'operator';
ALTER TABLE tokens
    DROP CONSTRAINT tokens_role_check,
    ADD CONSTRAINT tokens_role_check CHECK (role IN ('viewer', 'editor', 'admin')),
    DROP COLUMN id, DROP COLUMN expires_at, DROP COLUMN last_used_at, DROP COLUMN bounds;
