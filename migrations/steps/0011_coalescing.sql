-- Messages of which only the latest counts, for as long as they wait.

-- One row per coalesce key: which message was last published under it. Beside data_staging, so that messages without
-- such a key, which is nearly all, pay nothing. Whoever publishes under a key locks its row, so they do so one after
-- the other. Written by replace_waiting and coalesce_into; deleted by forget_coalesced, once its message does not wait.
create table integration.coalescing (
    source_app   text collate "C" not null,
    target_app   text collate "C" not null,
    record_type  text collate "C" not null,
    coalesce_key text collate "C" not null,
    -- 0: it is about to be published.
    staging_id   bigint      not null default 0,
    -- Which message of that id: ids are given out again after an asynchronous failover.
    created_at   timestamptz not null,
    -- How often what the message says was replaced.
    replaced     integer     not null default 0,
    -- When to look whether it still waits.
    look_at      timestamptz not null,
    primary key (source_app, target_app, record_type, coalesce_key)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        autovacuum_vacuum_cost_delay = 0);
-- Serves explain: whether what a message says was replaced.
create index coalescing_staging_id on integration.coalescing (staging_id);
-- Serves purge.
create index coalescing_look_at on integration.coalescing using brin (look_at);
