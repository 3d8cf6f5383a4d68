-- What may be said of how messages of a target are handled, beyond how many at a time.

-- At most rate_max claims begin within any rate_per. null: as many as one likes.
alter table integration.targets
    add column rate_max integer check (rate_max >= 1),
    add column rate_per interval not null default '1 s' check (rate_per between '10 ms' and '31 days');

-- For targets with rate_max: when claims began within the last rate_per, and how many; those of a twentieth of it are
-- one entry, with the time of the last.
alter table integration.turns
    add column claimed_at timestamptz[] not null default '{}',
    add column claimed    integer[]     not null default '{}';
alter table integration.turns set (fillfactor = 50);

-- What steps of handlers have returned: one row per step of a message, since it was published or last redriven.
-- Written by save_step; deleted with the message.
create table integration.steps (
    id            bigint      not null,
    -- Which message of that id: ids are given out again after an asynchronous failover.
    created_at    timestamptz not null,
    redrive_count integer     not null,
    name          text collate "C" not null check (char_length(name) between 1 and 200),
    output        jsonb       not null,
    attempt       integer     not null,
    saved_at      timestamptz not null,
    primary key (id, created_at, redrive_count, name)
);
