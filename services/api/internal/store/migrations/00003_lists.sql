-- +goose Up
-- What lists are filtered by has a column of its own, with an index. The columns are generated, so that an api of the
-- version before, which does not know them, may go on writing; and they are no expressions in the indexes, because a
-- change of the payload that leaves them as they are then touches no index. Names sort the same in every database.
ALTER TABLE resources
    ALTER COLUMN kind TYPE text COLLATE "C",
    ALTER COLUMN name TYPE text COLLATE "C",
    ADD COLUMN owner    text COLLATE "C" GENERATED ALWAYS AS (payload ->> 'owner') STORED,
    ADD COLUMN labels   jsonb GENERATED ALWAYS AS ((payload -> 'labels')::jsonb) STORED,
    ADD COLUMN hosts    jsonb GENERATED ALWAYS AS ((payload -> 'spec' -> 'hosts')::jsonb) STORED,
    ADD COLUMN services jsonb GENERATED ALWAYS AS (jsonb_path_query_array((payload -> 'spec' -> 'backends')::jsonb, '$[*].service')) STORED;

CREATE INDEX resources_by_owner ON resources (kind, owner, name) WHERE owner IS NOT NULL;
CREATE INDEX resources_by_label ON resources USING gin (labels jsonb_path_ops) WHERE labels IS NOT NULL;
CREATE INDEX resources_by_host ON resources USING gin (hosts jsonb_path_ops) WHERE hosts IS NOT NULL;
CREATE INDEX resources_by_service ON resources USING gin (services jsonb_path_ops) WHERE services IS NOT NULL;
CREATE INDEX revisions_by_actor ON revisions (actor, at, revision);

ANALYZE resources;

-- +goose Down
DROP INDEX revisions_by_actor;
ALTER TABLE resources DROP COLUMN owner, DROP COLUMN labels, DROP COLUMN hosts, DROP COLUMN services;
