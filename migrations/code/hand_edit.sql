-- Editing rows by hand: legal edits are completed, illegal ones fail.

-- For on_changed: whether an edit is one that no claim and no settle makes, and that guard_hand_edit looks at. Those
-- change owner or attempt with the status and leave nothing behind that belongs to another status. p_requeued: it says
-- that it has become pending just now.
create or replace function integration.is_hand_edit(
    p_old text, p_new text, p_old_owner text, p_owner text, p_old_attempt integer, p_attempt integer,
    p_retry_count integer, p_available_at timestamptz, p_processed_at timestamptz, p_lease_until timestamptz,
    p_requeued boolean
) returns boolean
    language sql immutable parallel safe as $$
    select p_attempt < p_old_attempt or p_retry_count < 0
        or p_new = 'scheduled' and p_available_at is null
        or p_old is distinct from p_new
            -- What a transaction held is completed under a new attempt.
            and (p_owner is not distinct from p_old_owner and p_attempt = p_old_attempt
                or p_old in ('completed', 'failed', 'cancelled')
                or p_new not in ('pending', 'scheduled', 'processing', 'completed', 'failed', 'cancelled')
                -- Edits that changed the owner as well, and left behind what no claim or settle leaves.
                or p_old = 'scheduled' and p_new = 'processing'
                or p_new = 'completed' and p_processed_at is null
                or p_new <> 'scheduled' and p_available_at is not null
                or p_new = 'pending' and not p_requeued
                or p_new <> 'processing' and (p_owner is not null or p_lease_until is not null))
$$;

-- For on_changed: completes a legal edit by hand (ownership cleared, fence moved, times set), and refuses an illegal
-- one. It happens after the edit: a trigger before it would lock each row once more and log that, for every message.
-- p_old is null when no message had the id. SQLSTATEs: MQ003 for an illegal transition or an attempt that goes down;
-- 23514 for what no message may have, with the column as the constraint's name.
create or replace function integration.guard_hand_edit(
    p_id bigint, p_old text, p_new text, p_owner text, p_old_attempt integer, p_attempt integer,
    p_old_retry_count integer, p_retry_count integer, p_available_at timestamptz, p_processed_at timestamptz,
    p_requeued boolean, p_old_updated_at timestamptz, p_updated_at timestamptz, p_keyed boolean
) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_waits   boolean := p_new in ('pending', 'scheduled');
    v_revived boolean := p_old in ('completed', 'failed', 'cancelled') and v_waits;
    v_owned   boolean := p_owner is not null and p_new <> 'processing';
begin
    if p_old is null then
        raise exception 'the id of a message cannot be changed to %', p_id
            using errcode = 'MQ003', hint = 'history, claims and answers know it by its id; publish another one';
    elsif p_attempt < p_old_attempt then
        raise exception 'message %: attempt cannot go down from % to %', p_id, p_old_attempt, p_attempt
            using errcode = 'MQ003', hint = 'the attempt is the fence against late workers; leave it as it is';
    end if;
    perform integration.check_edited(p_new, p_retry_count, p_available_at);
    if not (case p_old
            when 'pending' then true
            when 'processing' then true
            when 'scheduled' then p_new <> 'processing'
            when 'failed' then v_waits or p_new in ('completed', 'cancelled')
            when 'cancelled' then v_waits
            -- A failure reported after completion (retry_count raised) comes from a worker that lost its claim.
            when 'completed' then v_waits and p_retry_count = p_old_retry_count
        end) then
        raise exception 'message %: % cannot become %', p_id, p_old, p_new
            using errcode = 'MQ003', hint = case p_old
                when 'scheduled' then 'make it pending first; a consumer claims it then'
                when 'completed' then 'a completed message can only be put back: set status = ''pending'', or '
                    'select integration.redrive(id)'
                else 'put it back with status = ''pending'', or select integration.redrive(id)' end;
    end if;
    if v_owned or v_revived
        or (p_new = 'completed' and p_processed_at is null)
        or (p_new <> 'scheduled' and p_available_at is not null)
        or (p_new = 'pending' and not p_requeued)
        or p_updated_at = p_old_updated_at or p_keyed
    then
        update integration.data_staging d
           set owner = case when p_new = 'processing' then d.owner end,
               lease_until = case when p_new = 'processing' then d.lease_until end,
               attempt = least(d.attempt, 2147483646) + (v_owned or v_revived)::integer,
               redrive_count = least(d.redrive_count, 2147483646) + v_revived::integer,
               requeued_at = case when v_waits then integration.clock() else d.requeued_at end,
               retry_count = case when v_revived then 0 else d.retry_count end,
               crash_count = case when v_revived then 0 else d.crash_count end,
               processed_at = case when p_new = 'completed' then coalesce(d.processed_at, integration.clock())
                                   when v_waits then null else d.processed_at end,
               available_at = case when p_new = 'scheduled' then d.available_at end,
               behind_at = null,
               -- Whoever takes a message by hand keeps no order, but its key is seen to be busy.
               series = case when d.ordering_key is null then null
                   when p_new = 'processing' then nextval('integration.series')
                   when p_new = 'pending' then 0
                   when p_new = 'scheduled' or d.series > 0 then d.series
                   else -1 end,
               updated_at = integration.clock()
         where d.id = p_id;
    end if;
end $$;

-- What every message must satisfy and an edit may break. SQLSTATEs: 23514 with the column as the constraint's name.
create or replace function integration.check_edited(p_status text, p_retry_count integer, p_available_at timestamptz)
    returns void
    language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    if p_status not in ('pending', 'scheduled', 'processing', 'completed', 'failed', 'cancelled') then
        raise exception 'status is "%"', left(p_status, 60)
            using errcode = 'check_violation', column = 'status', constraint = 'status',
                hint = 'there are pending, scheduled, processing, completed, failed and cancelled';
    elsif p_retry_count < 0 then
        raise exception 'retry_count is %; it cannot be negative', p_retry_count
            using errcode = 'check_violation', column = 'retry_count', constraint = 'retry_count';
    elsif p_status = 'scheduled' and p_available_at is null then
        raise exception 'a scheduled message has no available_at'
            using errcode = 'check_violation', column = 'available_at', constraint = 'available_at',
                hint = 'say when it is to become pending, or make it pending';
    end if;
end $$;

-- The same of what a message says: a payload has at most 64 MiB as text (clients apply their own, smaller limit, 1 MiB
-- by default, with a clearer message), and does not grow beyond measure when it becomes text (1e131000 is 12 bytes of
-- jsonb): that is how a claim's memory is bounded by what is cheap to ask. Headers are an object of at most 64 KiB.
create or replace function integration.check_contents(p_bytes integer, p_text_bytes integer, p_headers_type text,
    p_headers_bytes integer)
    returns void
    language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    if p_text_bytes > integration.text_bytes_max(p_bytes) then
        raise exception 'data has % bytes, and % as text', p_bytes, p_text_bytes
            using errcode = 'check_violation', column = 'data', constraint = 'data', hint = case
                when p_text_bytes > 67108864 then 'a payload has at most 67108864 bytes as text; put what is larger '
                    'elsewhere, and publish where that is'
                else 'write numbers that large or that exact as strings' end;
    elsif p_headers_type <> 'object' then
        raise exception 'headers are a JSON %', p_headers_type
            using errcode = 'check_violation', column = 'headers', constraint = 'headers',
                hint = 'headers are a JSON object: names and their values';
    elsif p_headers_bytes > 65536 then
        raise exception 'headers have % bytes; 65536 are allowed', p_headers_bytes
            using errcode = 'check_violation', column = 'headers', constraint = 'headers',
                hint = 'put what is large into the payload';
    end if;
end $$;

-- How many bytes a payload of so many bytes of jsonb may have as text.
create or replace function integration.text_bytes_max(p_bytes integer) returns integer
    language sql immutable parallel safe as $$
    select 65536 + 8 * least(p_bytes, 8380416)
$$;

-- A payload told from another without being told.
create or replace function integration.hash_of(p_data jsonb) returns text
    language sql immutable set search_path = pg_catalog, pg_temp as $$
    select encode(sha256(convert_to(p_data::text, 'UTF8')), 'hex')
$$;

-- AFTER UPDATE of what a message says, or between whom: it is a hand, or a publish that replaces what waits under its
-- coalesce key, which at level 'all' is written down; the history says which columns (never their contents) and whose
-- name stood there before. SQLSTATEs: see check_contents.
create or replace function integration.on_rewritten() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_level text := integration.audit_level();
    v_ours  boolean;
    v_stack text;
begin
    if tg_relid <> 'integration.data_staging'::regclass then
        raise insufficient_privilege using message = 'this trigger belongs to integration.data_staging';
    end if;
    perform integration.check_contents(integration.bytes_of(new.data), octet_length(new.data::text),
        jsonb_typeof(new.headers), pg_column_size(new.headers));
    get diagnostics v_stack = pg_context;
    v_ours := integration.is_within(v_stack, 'replace_waiting');
    if v_level = 'all' or v_level <> 'off' and not v_ours then
        insert into integration.audit_log
            (staging_id, app_name, action, owner, source_app, target_app, record_type, attempt, old_status,
                new_status, details)
        values (new.id, integration.actor(), case when v_ours then 'coalesced' else 'rewritten' end, new.owner,
            new.source_app, new.target_app, new.record_type, new.attempt, old.status, new.status,
            jsonb_strip_nulls(jsonb_build_object(
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

-- AFTER UPDATE, of messages that were given another key or target: where they stood does not count there, and whoever
-- stood behind them steps forward.
create or replace function integration.on_rekeyed() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if tg_relid <> 'integration.data_staging'::regclass then
        raise insufficient_privilege using message = 'this trigger belongs to integration.data_staging';
    end if;
    update integration.data_staging d
       set series = case when d.status = 'processing' and d.ordering_key is not null
               then nextval('integration.series') end,
           behind_at = null, status = case when d.behind_at is null then d.status else 'pending' end,
           available_at = case when d.behind_at is null then d.available_at end,
           requeued_at = case when d.behind_at is null then d.requeued_at else integration.clock() end
     where d.id = new.id and (d.series is not null or d.behind_at is not null);
    if old.ordering_key is not null then
        perform integration.step_forward(array[old.target_app], array[old.ordering_key], array[old.id]);
    end if;
    return null;
end $$;

create or replace trigger data_staging_rekeyed
    after update of target_app, ordering_key on integration.data_staging
    for each row when (
        old.target_app <> new.target_app or old.ordering_key is distinct from new.ordering_key)
    execute function integration.on_rekeyed();
