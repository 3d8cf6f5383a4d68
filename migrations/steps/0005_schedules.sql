-- Schedules: what is published again and again, at its time.

-- One row per schedule. Written by schedule, unschedule, pause_schedule, resume_schedule and fire_due.
create table integration.schedules (
    name         text collate "C" primary key check (char_length(name) between 1 and 100),
    -- What is published, and to whom.
    source_app   text collate "C" not null check (char_length(source_app) between 1 and 50),
    target_app   text collate "C" not null check (char_length(target_app) between 1 and 50),
    record_type  text collate "C" not null check (char_length(record_type) between 1 and 50),
    data         jsonb       not null,
    headers      jsonb       check (jsonb_typeof(headers) = 'object'),
    priority     integer     not null default 0,
    ordering_key text collate "C",
    max_retries  integer     check (max_retries >= 0),
    -- When: five fields of cron in a time zone, or every so long from starts_at.
    cron         text,
    every        interval,
    time_zone    text        not null default 'UTC',
    starts_at    timestamptz not null default integration.clock(),
    -- Each tick is due at a random time within so long after it.
    jitter       interval    not null default '0' check (jitter >= interval '0'),
    -- Ticks at which nobody fired: the latest is made up for, all are (missed_max of them at most), or those that are
    -- later than grace are not.
    missed       text        not null default 'latest' check (missed in ('latest', 'all', 'skip')),
    missed_max   integer     not null default 100 check (missed_max between 1 and 1000),
    grace        interval    not null default '1 min' check (grace >= interval '0'),
    -- skip: no tick while the message of the one before has not ended.
    overlap      text        not null default 'allow' check (overlap in ('allow', 'skip')),
    paused_at    timestamptz,
    paused_by    text,
    next_at      timestamptz not null,
    -- The last tick for which something was published, its message, and how many were.
    last_at      timestamptz,
    last_id      bigint,
    fired        bigint      not null default 0,
    created_at   timestamptz not null default integration.clock(),
    created_by   text        not null default integration.role_name(),
    check ((cron is null) <> (every is null))
) with (fillfactor = 50);
-- Serves fire_due and next_due: which schedules of a target are due next.
create index schedules_due on integration.schedules (target_app, next_at) where paused_at is null;
