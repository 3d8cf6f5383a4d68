-- What operators do: cancel, redrive, retry, pause.

-- Makes messages pending whose status is one of p_from, and returns the ids that were; what redrive and retry share.
-- The hand-edit trigger does the rest: one rule for these functions and for psql.
-- Locks: the rows, in id order.
create or replace function integration.put_back(p_ids bigint[], p_from text[]) returns setof bigint
    language sql set search_path = pg_catalog, pg_temp as $$
    update integration.data_staging d set status = 'pending', updated_at = integration.clock()
     where d.id = any (array(
        select x.id from integration.data_staging x
         where x.id = any (p_ids) and x.status = any (p_from)
         order by x.id for no key update))
    returning d.id
$$;

-- Puts ended messages back (failed, cancelled, completed): pending, with all retries, a higher fence, and a
-- redrive_count that says so. Returns the ids that were; others are not ended or not there.
-- Locks: the rows, in id order.
create or replace function integration.redrive(p_ids bigint[]) returns setof bigint
    language sql security definer set search_path = pg_catalog, pg_temp as $$
    select integration.put_back(p_ids, array['failed', 'cancelled', 'completed'])
$$;

-- Puts one ended message back. SQLSTATEs: MQ004 when there is none, MQ003 when it has not ended.
create or replace function integration.redrive(p_id bigint) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
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

-- Tries messages again now: a scheduled one is pending at once and keeps the retries it has used; a failed one is
-- redriven. Returns the ids that were; others do not wait, or are not there.
-- Locks: the rows, in id order.
create or replace function integration.retry(p_ids bigint[]) returns setof bigint
    language sql security definer set search_path = pg_catalog, pg_temp as $$
    select integration.put_back(p_ids, array['scheduled', 'failed'])
$$;

-- Cancels messages that have not ended; the settle of a running one will find its lease lost. Returns the ids.
-- Locks: the rows, in id order.
create or replace function integration.cancel(p_ids bigint[], p_reason text default null) returns setof bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
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

-- Stops claiming for a target, fleet-wide and across restarts; running messages finish. p_for: it ends by itself after
-- so long, and consumers go on with their next sweep; null: when it is resumed.
create or replace function integration.pause(p_target text, p_reason text default null, p_for interval default null)
    returns void
    language sql security definer set search_path = pg_catalog, pg_temp as $$
    insert into integration.targets (target_app, paused_at, paused_by, pause_reason, paused_until)
    values (p_target, integration.clock(), integration.actor(), p_reason, integration.clock() + p_for)
    on conflict (target_app) do update
       set paused_at = excluded.paused_at, paused_by = excluded.paused_by, pause_reason = excluded.pause_reason,
           paused_until = excluded.paused_until;
    insert into integration.audit_log (app_name, action, target_app, details)
    values (integration.actor(), 'paused', p_target, jsonb_strip_nulls(jsonb_build_object('reason', p_reason,
        'until', integration.clock() + p_for)));
$$;

-- Lets a paused target be claimed again and rings. False: it was not paused.
create or replace function integration.resume(p_target text) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    update integration.targets t set paused_at = null, paused_by = null, pause_reason = null, paused_until = null
     where t.target_app = p_target and t.paused_at is not null;
    if not found then
        return false;
    end if;
    insert into integration.audit_log (app_name, action, target_app) values (integration.actor(), 'resumed', p_target);
    perform integration.ring(p_target);
    return true;
end $$;
