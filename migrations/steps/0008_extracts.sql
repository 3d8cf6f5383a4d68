-- Extracts: what is read out of tables and queries of applications, and how far.

-- One row per extract. Written by set_extract, set_foreign_extract, forget_extract, pause_extract, next_extract and
-- extract_take.
create table integration.extracts (
    name         text collate "C" primary key check (char_length(name) between 1 and 100),
    -- What is read: a table, or what a query says; of another database always a query.
    table_id     regclass,
    query        text,
    -- Of another database, which somebody reads who knows the way there. label: what messages call its table.
    is_foreign   boolean     not null default false,
    label        text,
    source_app   text collate "C" not null check (char_length(source_app) between 1 and 50),
    target_app   text collate "C" not null check (char_length(target_app) between 1 and 50),
    -- What the record type begins with; behind it comes .read.
    record_type  text collate "C" not null check (char_length(record_type || '.read') between 6 and 50),
    -- The columns that tell rows apart.
    keys         text[]      not null check (cardinality(keys) > 0),
    -- The column that grows with every change, and its type. Null: all rows are read once, by their keys.
    watermark    text,
    mark_type    text        check (mark_type in ('timestamptz', 'timestamp', 'bigint', 'integer', 'smallint')),
    every        interval    check (every >= interval '1 s'),
    -- How late a clock may be that writes the watermark: the place stays so far behind ours.
    grace        interval    check (grace >= interval '0'),
    -- All rows up to here were read: a watermark, or the keys of a row as an array.
    place        text,
    -- Where the place goes when all have ended who may still commit something before it: the transactions that ran
    -- then and, where one of them may have been prepared, the first xid that is none of theirs.
    reached      text,
    running      text[],
    barrier      bigint,
    -- How many rows the planner expected when it was made.
    estimate     bigint,
    published    bigint      not null default 0,
    -- Rows that could not be published; the audit log says which and why.
    skipped      bigint      not null default 0,
    -- How often it was looked: what was read as of another look is not published.
    looks        bigint      not null default 0,
    next_at      timestamptz,
    -- Of the look that is under way, or did not come to its end.
    began_at     timestamptz,
    looked_at    timestamptz,
    ended_at     timestamptz,
    last_error   text,
    paused_at    timestamptz,
    paused_by    text,
    created_at   timestamptz not null default integration.clock(),
    created_by   text        not null default integration.role_name(),
    check ((table_id is null) <> (query is null) and (table_id is null or not is_foreign)
        and (label is null or is_foreign)),
    check ((watermark is null) = (mark_type is null) and (watermark is null) = (every is null)
        and (watermark is null) = (grace is null))
) with (fillfactor = 50);

-- What was published in front of a place, so that it is known when it is read again. Deleted when the place passes it.
create table integration.extract_seen (
    name      text collate "C" not null,
    key       text collate "C" not null,
    watermark text collate "C" not null,
    primary key (name, key, watermark)
);
