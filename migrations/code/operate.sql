-- What operators do: cancel, redrive, retry, pause.

-- What redrive, retry and cancel of several messages share: does it to those whose status is one of p_from, by p_call,
-- a statement over $1, their ids. Returns the ids it was done to. Rows that somebody has locked are waited for after
-- all others, together for about a second; those, and what the database refuses, are named in a warning, and set aside
-- for explain to say so; where nothing was done the reason is raised.
-- Locks: the rows, in id order, SKIP LOCKED; then those that were, one by one. SQLSTATEs: 55P03 when all were locked;
-- that of the refusal when all were refused.
create or replace function integration.operate_on(p_verb text, p_ids bigint[], p_from text[], p_call text)
    returns setof bigint
    language plpgsql set search_path = pg_catalog, pg_temp set jit = off set lock_timeout = '250 ms' as $$
declare
    v_free    bigint[];
    v_done    bigint[];
    v_locked  bigint[] := '{}';
    v_id      bigint;
    v_refused record;
begin
    v_free := array(
        select x.id from integration.data_staging x where x.id = any (p_ids) and x.status = any (p_from)
         order by x.id for no key update skip locked);
    v_done := array(select integration.in_parts(p_verb, p_call, v_free));
    for v_id in
        select x.id from integration.data_staging x
         where x.id = any (p_ids) and x.id <> all (v_free) and x.status = any (p_from) order by x.id
    loop
        if cardinality(v_locked) >= 4 then
            v_locked := v_locked || v_id;
            continue;
        end if;
        begin
            perform from integration.data_staging x where x.id = v_id and x.status = any (p_from) for no key update;
            if found then
                v_free := v_free || v_id;
                v_done := v_done || array(select integration.in_parts(p_verb, p_call, array[v_id]));
            end if;
        exception when lock_not_available or deadlock_detected then
            v_locked := v_locked || v_id;
        end;
    end loop;
    select s.id, s.sqlstate, s.reason into v_refused
      from integration.set_aside s where s.id = any (v_free) and s.id <> all (v_done) and s.verb = p_verb limit 1;
    if v_refused.id is not null then
        if v_done = '{}' then
            raise exception 'message %: the database refuses to % it: %', v_refused.id, p_verb, v_refused.reason
                using errcode = v_refused.sqlstate;
        end if;
        raise warning '% of % messages are refused by the database, among them %: %',
            cardinality(v_free) - cardinality(v_done), cardinality(v_free), v_refused.id, v_refused.reason;
    end if;
    if v_locked <> '{}' then
        if v_done = '{}' then
            raise exception 'message % is locked by another transaction', v_locked[1]
                using errcode = 'lock_not_available', hint = format('doorbell explain %s says whose', v_locked[1]);
        end if;
        raise warning '% messages are locked by other transactions, among them %', cardinality(v_locked), v_locked[1];
    end if;
    return query select unnest(v_done);
end $$;

-- Makes messages pending, or due at times spread evenly over p_spread, those of one key at the same; what redrive and
-- retry share. The hand-edit trigger does the rest: one rule for these functions and for psql.
create or replace function integration.put_back_rows(p_ids bigint[], p_spread interval default null)
    returns setof bigint
    language sql set search_path = pg_catalog, pg_temp as $$
    update integration.data_staging d
       set status = case when p_spread > '0' then 'scheduled' else 'pending' end,
           -- By a hash: no batch need know how many there are, and one that is repeated comes out the same.
           available_at = case when p_spread > '0' then integration.clock()
               + least(p_spread, '30 days') * ((hashtextextended(coalesce(d.ordering_key, d.id::text), 0) & 1048575)
                                               / 1048576.0) end,
           updated_at = integration.clock()
     where d.id = any (p_ids)
    returning d.id
$$;

create or replace function integration.cancel_rows(p_ids bigint[], p_reason text) returns setof bigint
    language sql set search_path = pg_catalog, pg_temp as $$
    update integration.data_staging d
       set status = 'cancelled', updated_at = integration.clock(), behind_at = null, available_at = null,
           error_message = coalesce(integration.clean_text(p_reason), d.error_message)
     where d.id = any (p_ids)
    returning d.id
$$;

-- Puts ended messages back (failed, cancelled, completed): pending, with all retries, a higher fence, and a
-- redrive_count that says so. p_spread, of 30 days at most: they are scheduled, and due one after another within that
-- time, so that what has just recovered is not flooded. Returns the ids that were; others are not ended or not there.
-- Locks and SQLSTATEs: those of operate_on.
create or replace function integration.redrive_many(p_ids bigint[], p_spread interval default null)
    returns setof bigint
    language sql security definer set search_path = pg_catalog, pg_temp as $$
    select integration.operate_on('redrive', p_ids, array['failed', 'cancelled', 'completed'],
        format('select integration.put_back_rows($1, %L)', p_spread))
$$;

-- Puts one ended message back. SQLSTATEs: MQ004 when there is none, MQ003 when it has not ended; the refusal's.
create or replace function integration.redrive(p_id bigint) returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_status text;
begin
    perform integration.redrive_many(array[p_id]);
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
-- Locks and SQLSTATEs: those of operate_on.
create or replace function integration.retry(p_ids bigint[]) returns setof bigint
    language sql security definer set search_path = pg_catalog, pg_temp as $$
    select integration.operate_on('redrive', p_ids, array['scheduled', 'failed'],
        'select integration.put_back_rows($1)')
$$;

-- Cancels messages that have not ended; the settle of a running one will find its lease lost. Returns the ids.
-- Locks and SQLSTATEs: those of operate_on.
create or replace function integration.cancel(p_ids bigint[], p_reason text default null) returns setof bigint
    language sql security definer set search_path = pg_catalog, pg_temp as $$
    select integration.operate_on('cancel', p_ids, array['pending', 'scheduled', 'processing'],
        format('select integration.cancel_rows($1, %L)', p_reason))
$$;

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
