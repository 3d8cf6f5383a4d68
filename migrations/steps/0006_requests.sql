-- Messages that are wanted for a while only, and requests: messages whose publisher waits for the answer.

-- One row per message that is not wanted any more after a time. Beside data_staging, so that those that are always
-- wanted, which is nearly all, pay nothing. Written by expire_after; deleted by expire, which cancels what still waits.
create table integration.expiring (
    id         bigint      primary key,
    -- Which message of that id: ids are given out again after an asynchronous failover.
    created_at timestamptz not null,
    expires_at timestamptz not null,
    -- When to look: later than it expires where it was being handled then, and may be put back.
    look_at    timestamptz not null,
    -- Its target's expire_after says so, and nobody else has.
    by_default boolean     not null default false
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
-- Serves expire, and claims: what is over, if anything is.
create index expiring_expires_at on integration.expiring (expires_at);

-- After how long messages of a target that say nothing else are not wanted any more; null: always.
alter table integration.targets add column expire_after interval check (expire_after > interval '0');
-- Whether any target has ever had one: what publishes asks for that first. Kept by on_first.
alter table integration.settings add column has_expiry boolean not null default false;

-- One row per request that was replied to, for settings.reply_retention. Written by reply, in the transaction that
-- completes the request.
create table integration.replies (
    id         bigint      primary key,
    created_at timestamptz not null,
    -- As the request's header of that name has it: who knows it may read the reply.
    reply_to   text collate "C" not null,
    reply      jsonb       not null,
    replied_at timestamptz not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
-- Serves purge.
create index replies_replied_at on integration.replies using brin (replied_at);

alter table integration.settings
    add column reply_retention interval not null default '1 hour' check (reply_retention >= interval '0');
