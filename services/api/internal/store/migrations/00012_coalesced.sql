-- +goose Up
-- A change into which earlier ones of the same object were coalesced says the revision of the first of these, and what
-- the object was before it (NULL for nothing), so that a diff across them is whole.
ALTER TABLE changes
    ADD COLUMN since bigint,
    ADD COLUMN was   json;

-- +goose Down
ALTER TABLE changes DROP COLUMN since, DROP COLUMN was;
