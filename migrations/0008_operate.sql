-- What operators do: edit rows by hand, cancel, redrive, pause.

-- AFTER UPDATE, for changes of status that were not made by claim or settle: those always change claimed_by, so the
-- machine path never enters; nor does it leave what the other conditions ask for. Legal hand edits are completed (ownership cleared, fence moved, times set), illegal ones fail.
-- AFTER and not BEFORE: a BEFORE trigger would lock each row once more and log that, for every message.
-- SQLSTATEs: MQ003 for an illegal transition or an attempt that goes down.
create function integration.guard_hand_edit() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_ended   boolean := old.status in ('completed', 'failed', 'cancelled');
    v_waits   boolean := new.status in ('pending', 'scheduled');
    v_revived boolean := v_ended and v_waits;
    v_owned   boolean := new.claimed_by is not null and new.status <> 'processing';
begin
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
                when 'completed' then 'a completed message can only be put back: set status = ''pending'', or select integration.redrive(id)'
                else 'put it back with status = ''pending'', or select integration.redrive(id)' end;
    end if;
    if v_owned or v_revived
        or (new.status = 'completed' and new.processed_at is null)
        or (new.status <> 'scheduled' and new.available_at is not null)
        or (new.status = 'pending' and not new.requeued)
        or new.updated_at = old.updated_at
    then
        update integration.data_staging d
           set claimed_by = case when new.status = 'processing' then d.claimed_by end,
               lease_until = case when new.status = 'processing' then d.lease_until end,
               attempt = d.attempt + (v_owned or v_revived)::integer,
               redrive_count = d.redrive_count + v_revived::integer,
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

create trigger data_staging_hand_edit after update on integration.data_staging
    for each row when (
        old.status is distinct from new.status
            -- What a transaction held is completed under a new attempt.
            and (new.claimed_by is not distinct from old.claimed_by and new.attempt = old.attempt
                or old.status in ('completed', 'failed', 'cancelled')
                -- Edits that changed the owner as well, and left behind what no claim or settle leaves.
                or old.status = 'scheduled' and new.status = 'processing'
                or new.status = 'completed' and new.processed_at is null
                or new.status <> 'scheduled' and new.available_at is not null
                or new.status = 'pending' and not new.requeued
                or new.status <> 'processing' and (new.claimed_by is not null or new.lease_until is not null))
        or new.attempt < old.attempt)
    execute function integration.guard_hand_edit();

-- Makes messages pending whose status is one of p_from, and returns the ids that were; what redrive and retry share. The
-- hand-edit trigger does the rest: one rule for these functions and for psql.
-- Locks: the rows, in id order.
create function integration.put_back(p_ids bigint[], p_from text[]) returns setof bigint
    language sql
    begin atomic
        update integration.data_staging d set status = 'pending', updated_at = integration.clock()
         where d.id = any (array(
            select x.id from integration.data_staging x
             where x.id = any (p_ids) and x.status = any (p_from)
             order by x.id for no key update))
        returning d.id;
    end;

-- Puts ended messages back (failed, cancelled, completed): pending, with all retries, a higher fence, and a redrive_count
-- that says so. Returns the ids that were; others are not ended or not there.
-- Locks: the rows, in id order.
create function integration.redrive(p_ids bigint[]) returns setof bigint
    language sql
    return integration.put_back(p_ids, array['failed', 'cancelled', 'completed']);

-- Tries messages again now: a scheduled one is pending at once and keeps the retries it has used; a failed one is redriven.
-- Returns the ids that were; others do not wait, or are not there.
-- Locks: the rows, in id order.
create function integration.retry(p_ids bigint[]) returns setof bigint
    language sql
    return integration.put_back(p_ids, array['scheduled', 'failed']);

-- Puts one ended message back. SQLSTATEs: MQ004 when there is none, MQ003 when it has not ended.
create function integration.redrive(p_id bigint) returns void
    language plpgsql as $$
declare
    v_status text;
begin
    perform integration.redrive(array[p_id]);
    if not found then
        select d.status into v_status from integration.data_staging d where d.id = p_id;
        if v_status is null then
            raise exception 'there is no message %', p_id using errcode = 'MQ004';
        end if;
        raise exception 'message % is %, it has not ended', p_id, v_status
            using errcode = 'MQ003', hint = 'only failed, cancelled and completed messages can be redriven';
    end if;
end $$;

-- Cancels messages that have not ended; the settle of a running one will find its lease lost. Returns the ids.
-- Locks: the rows, in id order.
create function integration.cancel(p_ids bigint[], p_reason text default null) returns setof bigint
    language plpgsql as $$
begin
    return query
        update integration.data_staging d
           set status = 'cancelled', updated_at = integration.clock(),
               error_message = coalesce(integration.clean_text(p_reason), d.error_message)
         where d.id = any (array(
            select x.id from integration.data_staging x
             where x.id = any (p_ids) and x.status in ('pending', 'scheduled', 'processing')
             order by x.id for no key update))
        returning d.id;
end $$;

-- Stops claiming for a target, fleet-wide and across restarts; running messages finish.
create function integration.pause(p_target text, p_reason text default null) returns void
    language sql
    begin atomic
        insert into integration.targets (target_app, paused_at, paused_by, pause_reason)
        values (p_target, integration.clock(), integration.actor(), p_reason)
        on conflict (target_app) do update
           set paused_at = excluded.paused_at, paused_by = excluded.paused_by, pause_reason = excluded.pause_reason;
        insert into integration.audit_log (app_name, action, target_app, details)
        values (integration.actor(), 'paused', p_target, jsonb_strip_nulls(jsonb_build_object('reason', p_reason)));
    end;

-- Lets a paused target be claimed again and rings. False: it was not paused.
create function integration.resume(p_target text) returns boolean
    language plpgsql as $$
begin
    update integration.targets t set paused_at = null, paused_by = null, pause_reason = null
     where t.target_app = p_target and t.paused_at is not null;
    if not found then
        return false;
    end if;
    insert into integration.audit_log (app_name, action, target_app) values (integration.actor(), 'resumed', p_target);
    perform integration.ring(p_target);
    return true;
end $$;
