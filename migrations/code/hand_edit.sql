-- Editing rows by hand: legal edits are completed, illegal ones fail.

-- AFTER UPDATE, for changes of status that were not made by claim or settle: those always change owner, so the
-- machine path never enters; nor does it leave what the other conditions ask for. Legal hand edits are completed
-- (ownership cleared, fence moved, times set), illegal ones fail. AFTER and not BEFORE: a BEFORE trigger would lock
-- each row once more and log that, for every message.
-- SQLSTATEs: MQ003 for an illegal transition or an attempt that goes down.
create or replace function integration.guard_hand_edit() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_ended   boolean;
    v_waits   boolean;
    v_revived boolean;
    v_owned   boolean;
begin
    -- Before anything else: what a foreign row is compared with may be foreign code.
    if tg_relid <> 'integration.data_staging'::regclass then
        raise insufficient_privilege using message = 'this trigger belongs to integration.data_staging';
    end if;
    v_ended := old.status in ('completed', 'failed', 'cancelled');
    v_waits := new.status in ('pending', 'scheduled');
    v_revived := v_ended and v_waits;
    v_owned := new.owner is not null and new.status <> 'processing';
    if new.attempt < old.attempt then
        raise exception 'message %: attempt cannot go down from % to %', old.id, old.attempt, new.attempt
            using errcode = 'MQ003', hint = 'the attempt is the fence against late workers; leave it as it is';
    end if;
    if not (case old.status
            when 'pending' then true
            when 'processing' then true
            when 'scheduled' then new.status <> 'processing'
            when 'failed' then v_waits or new.status in ('completed', 'cancelled')
            when 'cancelled' then v_waits
            -- A failure reported after completion (retry_count raised) comes from a worker that lost its claim.
            when 'completed' then v_waits and new.retry_count = old.retry_count
        end) then
        raise exception 'message %: % cannot become %', old.id, old.status, new.status
            using errcode = 'MQ003', hint = case old.status
                when 'scheduled' then 'make it pending first; a consumer claims it then'
                when 'completed' then 'a completed message can only be put back: set status = ''pending'', or '
                    'select integration.redrive(id)'
                else 'put it back with status = ''pending'', or select integration.redrive(id)' end;
    end if;
    if v_owned or v_revived
        or (new.status = 'completed' and new.processed_at is null)
        or (new.status <> 'scheduled' and new.available_at is not null)
        or (new.status = 'pending' and not new.requeued)
        or new.updated_at = old.updated_at
    then
        update integration.data_staging d
           set owner = case when new.status = 'processing' then d.owner end,
               lease_until = case when new.status = 'processing' then d.lease_until end,
               attempt = least(d.attempt, 2147483646) + (v_owned or v_revived)::integer,
               redrive_count = least(d.redrive_count, 2147483646) + v_revived::integer,
               requeued = d.requeued or v_waits,
               retry_count = case when v_revived then 0 else d.retry_count end,
               crash_count = case when v_revived then 0 else d.crash_count end,
               processed_at = case when new.status = 'completed' then coalesce(d.processed_at, integration.clock())
                                   when v_waits then null else d.processed_at end,
               available_at = case when new.status = 'scheduled' then d.available_at end,
               updated_at = integration.clock()
         where d.id = new.id;
    end if;
    return null;
end $$;

create or replace trigger data_staging_hand_edit after update on integration.data_staging
    for each row when (
        old.status is distinct from new.status
            -- What a transaction held is completed under a new attempt.
            and (new.owner is not distinct from old.owner and new.attempt = old.attempt
                or old.status in ('completed', 'failed', 'cancelled')
                -- Edits that changed the owner as well, and left behind what no claim or settle leaves.
                or old.status = 'scheduled' and new.status = 'processing'
                or new.status = 'completed' and new.processed_at is null
                or new.status <> 'scheduled' and new.available_at is not null
                or new.status = 'pending' and not new.requeued
                or new.status <> 'processing' and (new.owner is not null or new.lease_until is not null))
        or new.attempt < old.attempt)
    execute function integration.guard_hand_edit();

-- A payload told from another without being told.
create or replace function integration.hash_of(p_data jsonb) returns text
    language sql immutable set search_path = pg_catalog, pg_temp as $$
    select encode(sha256(convert_to(p_data::text, 'UTF8')), 'hex')
$$;

-- AFTER UPDATE of what a message says, or between whom: our verbs never change it, so it is a hand; the history says
-- which columns (never their contents) and whose name stood there before.
-- SQLSTATEs: 23514 for a payload that grows beyond measure as text.
create or replace function integration.on_rewritten() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if tg_relid <> 'integration.data_staging'::regclass then
        raise insufficient_privilege using message = 'this trigger belongs to integration.data_staging';
    end if;
    -- As when it was published: every look measures it as text, and one that is too large for that would stop them all.
    if new.data <> old.data
            and octet_length(new.data::text) > least(67108864, 1024 + 32 * pg_column_size(new.data)) then
        raise exception 'data has % bytes, and % as text', pg_column_size(new.data), octet_length(new.data::text)
            using errcode = 'check_violation', column = 'data', constraint = 'data',
                hint = 'write numbers that large or that exact as strings';
    end if;
    if integration.audit_level() <> 'off' then
        insert into integration.audit_log
            (staging_id, app_name, action, owner, source_app, target_app, record_type, attempt, old_status,
                new_status, details)
        values (new.id, integration.actor(), 'rewritten', new.owner, new.source_app, new.target_app, new.record_type,
            new.attempt, old.status, new.status, jsonb_strip_nulls(jsonb_build_object(
                'columns', array_remove(array[case when new.data <> old.data then 'data' end,
                    case when new.headers is distinct from old.headers then 'headers' end,
                    case when new.source_app <> old.source_app then 'source_app' end,
                    case when new.target_app <> old.target_app then 'target_app' end,
                    case when new.record_type <> old.record_type then 'record_type' end], null),
                'data_sha256', case when new.data <> old.data then jsonb_build_object(
                    'before', integration.hash_of(old.data), 'after', integration.hash_of(new.data)) end,
                'source_app', case when new.source_app <> old.source_app then old.source_app end,
                'target_app', case when new.target_app <> old.target_app then old.target_app end,
                'record_type', case when new.record_type <> old.record_type then old.record_type end)));
    end if;
    return null;
end $$;

create or replace trigger data_staging_rewritten
    after update of data, headers, source_app, target_app, record_type on integration.data_staging
    for each row when (
        -- One by one: a comparison of rows reads otherwise after a restore, which the doctor would take for drift.
        old.data is distinct from new.data or old.headers is distinct from new.headers
        or old.source_app <> new.source_app or old.target_app <> new.target_app or old.record_type <> new.record_type)
    execute function integration.on_rewritten();
