-- Messages that are set aside: the database refuses to change them (a constraint of somebody's, a trigger, a foreign
-- key), or somebody had them locked when they were to be settled. Whatever takes several messages goes on without them;
-- this says what was to be done, why it was not, and when it is tried again. Nearly always empty.
create table integration.set_aside (
    id         bigint      primary key,
    target_app text collate "C" not null,
    -- Of the message: tells it from another that has its id after a failover.
    created_at timestamptz not null,
    -- claim, promote, rescue, release, archive, purge, redrive, cancel; or the outcome that is owed.
    verb       text        not null,
    sqlstate   text        not null,
    reason     text        not null,
    since      timestamptz not null,
    tries      integer     not null default 1,
    tried_at   timestamptz not null,
    next_look  timestamptz not null,
    -- A settle that is owed: the attempt has ended like that, and its consumer is rid of it. Null: nothing is owed.
    owner      text,
    attempt    integer,
    outcome    text        check (outcome in ('complete', 'retry', 'reject', 'snooze', 'release')),
    error      text,
    delay_ms   bigint,
    check (outcome is null or owner is not null and attempt is not null)
) with (fillfactor = 50);
-- Serves claim, which asks whether there is anything to be left out.
create index set_aside_target on integration.set_aside (target_app);
-- Serves settle_owed.
create index set_aside_owed on integration.set_aside (next_look) where outcome is not null;
