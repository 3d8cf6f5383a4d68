-- Captures: tables of applications whose changes are published.

-- One row per table. Written by capture and uncapture; on_captured publishes nothing for a table that is not here.
create table integration.captures (
    table_id    regclass    primary key,
    source_app  text collate "C" not null check (char_length(source_app) between 1 and 50),
    target_app  text collate "C" not null check (char_length(target_app) between 1 and 50),
    -- What the record types begin with; behind it comes .insert, .update, .delete or .truncate.
    record_type text collate "C" not null check (char_length(record_type || '.truncate') between 10 and 50),
    -- The columns that tell rows apart: those of the primary key when it was captured.
    keys        text[]      not null,
    -- Only these columns, and the keys; null: all.
    columns     text[],
    -- Only changes of which this is true; null: all.
    condition   jsonpath,
    created_at  timestamptz not null default integration.clock(),
    created_by  text        not null default integration.role_name()
);
