-- Why a message is not running. Everything here only reads and takes no lock.

-- The one answer to "why is this message not running?": the first row is the cause, further ones are what would hold it
-- when that is gone. code is for programs, sentence for people, fix what to type (null: nothing needs to be done),
-- details the facts behind the sentence. Codes: not_found, gone, archived, completed, failed, cancelled, scheduled, due,
-- processing, owner_dead, foreign_claim, held, locked, paused, breaker_open, breaker_half_open, in_flight_limit, no_consumer,
-- type_not_accepted, suspect, busy, queued, ready. Never empty. Ordering keys are stored and hold nothing back.
create function integration.explain(p_id bigint) returns table (code text, sentence text, fix text, details jsonb)
    language plpgsql stable set jit = off set enable_seqscan = off as $$
declare
    m      record;
    v_last record;
    v_held boolean;
begin
    select d.id, d.status, d.target_app, d.record_type, d.attempt, d.crash_count, d.error_message, d.updated_at,
           d.processed_at, d.xmax::text as locker
      into m from integration.data_staging d where d.id = p_id;
    if m.id is null then
        return query select * from integration.explain_absent(p_id);
        return;
    end if;
    details := jsonb_build_object('attempt', m.attempt, 'at', m.updated_at, 'reason', m.error_message);
    case m.status
    when 'completed' then
        return query select 'completed', format('it was completed at %s by attempt %s', integration.in_words(m.processed_at), m.attempt),
            null::text, details;
    when 'failed' then
        return query select 'failed', format('it failed for good at %s, by attempt %s: %s',
            integration.in_words(m.updated_at), m.attempt, coalesce(m.error_message, 'no reason was given')),
            'doorbell redrive ' || p_id, details;
    when 'cancelled' then
        select * into v_last from integration.last_event(p_id, m.updated_at);
        return query select 'cancelled', format('it was cancelled at %s%s%s', integration.in_words(m.updated_at),
            ' by ' || v_last.app_name, ': ' || m.error_message),
            'doorbell redrive ' || p_id, details || jsonb_build_object('by', v_last.app_name);
    when 'processing' then
        return query select * from integration.explain_processing(p_id);
    when 'scheduled' then
        return query select * from integration.explain_scheduled(p_id);
        return query select * from integration.closed_gates(m.target_app);
        return query select * from integration.explain_consumers(m.target_app, m.record_type);
    when 'pending' then
        return query select * from integration.explain_locker(m.target_app, m.locker);
        v_held := found;
        return query select * from integration.closed_gates(m.target_app);
        v_held := v_held or found;
        return query select * from integration.explain_consumers(m.target_app, m.record_type);
        v_held := v_held or found;
        -- Its place among the others is the cause only where nothing else is.
        if m.crash_count > 0 or not v_held then
            return query select * from integration.explain_queue(p_id);
        end if;
    end case;
end $$;

-- For explain: a message that is not in data_staging.
create function integration.explain_absent(p_id bigint) returns table (code text, sentence text, fix text, details jsonb)
    language plpgsql stable set jit = off set enable_seqscan = off as $$
declare
    v_archived record;
    v_last     record;
    v_ids_end  bigint;
begin
    select a.status, a.processed_at, a.attempt into v_archived
      from integration.data_staging_archive a where a.id = p_id limit 1;
    if v_archived.status is not null then
        return query select 'archived', format('it was %s at %s by attempt %s, and is in the archive', v_archived.status,
            integration.in_words(v_archived.processed_at), v_archived.attempt), null::text,
            jsonb_build_object('status', v_archived.status, 'at', v_archived.processed_at, 'attempt', v_archived.attempt);
        return;
    end if;
    select * into v_last from integration.last_event(p_id, '-infinity');
    if v_last.action is not null then
        return query select 'gone', format('it is no longer there; the last that is known: %s by %s at %s%s', v_last.action, v_last.app_name,
            integration.in_words(v_last.created_at), ' (it was ' || v_last.old_status || ')'),
            'doorbell audit ' || p_id,
            jsonb_build_object('action', v_last.action, 'by', v_last.app_name, 'at', v_last.created_at);
        return;
    end if;
    if has_sequence_privilege('integration.data_staging_id_seq', 'select') then
        select s.last_value into v_ids_end from integration.data_staging_id_seq s where s.is_called;
        v_ids_end := coalesce(v_ids_end, 0);
    end if;
    return query select 'not_found', case
            when p_id > v_ids_end then format('there is no such message; the last id given out is %s', v_ids_end)
            else 'there is no such message: its transaction was rolled back or has not committed yet, or it was deleted' end,
        null::text, jsonb_build_object('last_id', v_ids_end);
end $$;

-- For explain: what the audit log says last about a message, since p_since. Nulls: nothing, or it may not be read.
create function integration.last_event(
    p_id bigint, p_since timestamptz,
    out action text, out app_name text, out created_at timestamptz, out old_status text
)
    language plpgsql stable set jit = off set enable_seqscan = off as $$
begin
    if has_table_privilege('integration.audit_log', 'select') then
        select a.action, a.app_name, a.created_at, a.old_status into action, app_name, created_at, old_status
          from integration.audit_log a where a.staging_id = p_id and a.created_at >= p_since
         order by a.created_at desc, a.id desc limit 1;
    end if;
end $$;

-- For explain: a message that waits for its time.
create function integration.explain_scheduled(p_id bigint) returns table (code text, sentence text, fix text, details jsonb)
    language plpgsql stable set jit = off set enable_seqscan = off as $$
declare
    m       record;
    v_now   timestamptz := integration.clock();
    v_cause text;
begin
    select d.*, p.max_retries as retries into m
      from integration.data_staging d cross join lateral integration.policy(d.target_app, d.record_type) p where d.id = p_id;
    select case e.action when 'retried' then 'retry' when 'snoozed' then 'snooze' end into v_cause
      from integration.last_event(p_id, m.updated_at) e;
    v_cause := coalesce(v_cause, case when m.retry_count > 0 then 'retry' when m.attempt > 0 then 'snooze' else 'delay' end);
    return query select
        case when m.available_at > v_now then 'scheduled' else 'due' end,
        case when m.available_at > v_now
            then format('it waits until %s (%s)', integration.in_words(m.available_at), integration.in_words(m.available_at - v_now))
            else format('it was due %s ago and is about to be made pending, by a consumer of %s or by maintenance',
                        integration.in_words(v_now - m.available_at), m.target_app) end
        || case v_cause
            when 'retry' then format(': retry %s of %s, because attempt %s failed: %s', m.retry_count, coalesce(m.max_retries, m.retries),
                                     m.attempt, coalesce(m.error_message, 'no reason was given'))
            when 'snooze' then ': its handler snoozed it'
            else ': it was published with a delay' end,
        case when m.available_at > v_now then 'doorbell retry ' || p_id else 'doorbell maintain --once' end,
        jsonb_build_object('until', m.available_at, 'cause', v_cause, 'retry_count', m.retry_count,
                           'max_retries', coalesce(m.max_retries, m.retries), 'reason', m.error_message);
end $$;

-- For explain: a message that is being handled, and by whom; or was by somebody who is dead.
create function integration.explain_processing(p_id bigint) returns table (code text, sentence text, fix text, details jsonb)
    language plpgsql stable set jit = off set enable_seqscan = off as $$
declare
    m       record;
    c       record;
    v_now   timestamptz := integration.clock();
    v_lease interval;
    v_dead  text;
begin
    select d.* into m from integration.data_staging d where d.id = p_id;
    select x.*,
           -- As rescue sees it, but it may not try the lock: whether anybody holds it.
           x.locked_on = pg_postmaster_start_time() and x.beat_at < v_now - interval '1500 ms' and not exists (
               select from pg_catalog.pg_locks l
                where l.locktype = 'advisory' and l.objsubid = 2 and l.classid::bigint = integration.lock_class()
                  and l.objid::bigint = (hashtext(x.incarnation)::bigint & 4294967295) and l.granted) as lock_is_free
      into c from integration.consumers x where x.incarnation = m.claimed_by;
    details := jsonb_build_object('consumer', m.claimed_by, 'host', c.host, 'pid', c.pid, 'attempt', m.attempt, 'since', m.updated_at,
                                  'beat_at', c.beat_at, 'lease_until', coalesce(m.lease_until, c.lease_until));
    if m.lease_until is not null then
        v_dead := case when m.lease_until < v_now then format('its lease ran out %s ago', integration.in_words(v_now - m.lease_until)) end;
    elsif m.claimed_by is null then
        select t.foreign_lease into v_lease from integration.targets t where t.target_app = m.target_app;
        return query select 'foreign_claim',
            format('plain SQL that named no owner has been handling attempt %s for %s; %s', m.attempt,
                   integration.in_words(v_now - m.updated_at),
                   case when v_lease is null then 'if it died, nothing can tell'
                        else 'it goes back ' || integration.in_words(m.updated_at + v_lease) end),
            format('update integration.data_staging set status = ''pending'' where id = %s', p_id),
            details || jsonb_build_object('foreign_lease', v_lease);
        return;
    elsif c.incarnation is null then
        v_dead := 'which is not registered any more';
    elsif c.lease_until < v_now then
        v_dead := format('whose lease ran out %s ago', integration.in_words(v_now - c.lease_until));
    elsif c.lock_is_free then
        v_dead := format('whose connection is gone and whose last beat was %s ago', integration.in_words(v_now - c.beat_at));
    end if;
    if v_dead is not null then
        return query select 'owner_dead',
            format('attempt %s was claimed %s ago by %s%s, %s; any consumer process or maintenance returns it', m.attempt,
                   integration.in_words(v_now - m.updated_at), m.claimed_by, ' (' || c.host || ', process ' || c.pid || ')', v_dead),
            'doorbell maintain --once', details;
        return;
    end if;
    return query select 'processing',
        format('%s%s has been handling attempt %s for %s; %s', m.claimed_by, ' (' || c.host || ', process ' || c.pid || ')', m.attempt,
               integration.in_words(v_now - m.updated_at),
               case when m.lease_until is not null then 'its lease runs for ' || integration.in_words(m.lease_until - v_now)
                    else format('its last beat was %s ago', integration.in_words(v_now - c.beat_at)) end),
        null::text, details;
end $$;

-- For explain: the place of a pending message in the order in which claim takes them. Counting stops at 10,000.
create function integration.explain_queue(p_id bigint) returns table (code text, sentence text, fix text, details jsonb)
    language plpgsql stable set jit = off set enable_seqscan = off as $$
declare
    m          record;
    v_max      constant integer := 10000;
    v_before   bigint;
    v_said     text;
    v_capacity bigint;
    v_held     bigint;
begin
    select d.* into m from integration.data_staging d where d.id = p_id;
    if m.crash_count > 0 then
        select count(*) into v_before from (
            select from integration.data_staging d
             where d.target_app = m.target_app and d.status = 'pending' and d.crash_count > 0
               and (d.crash_count, d.created_at, d.id) < (m.crash_count, m.created_at, m.id) limit v_max) b;
        return query select 'suspect',
            format('%s: it is a suspect and runs alone, when a consumer process of %s has nothing else in flight; %s',
                   case m.crash_count when 1 then 'a consumer died while handling it'
                                      else format('%s consumers died one after the other while handling it', m.crash_count) end,
                   m.target_app,
                   case v_before when 0 then 'no other suspect is before it' when 1 then 'one other is before it'
                                 else format('%s others are before it', v_before) end), null::text,
            jsonb_build_object('crash_count', m.crash_count, 'before', v_before);
        return;
    end if;
    -- Two ranges of the ready index, each read from its beginning.
    select count(*) into v_before from (
        (select from integration.data_staging d
          where d.target_app = m.target_app and d.status = 'pending' and d.crash_count = 0 and d.priority > m.priority limit v_max + 1)
        union all
        (select from integration.data_staging d
          where d.target_app = m.target_app and d.status = 'pending' and d.crash_count = 0 and d.priority = m.priority
            and (d.created_at, d.id) < (m.created_at, m.id) limit v_max + 1)
        limit v_max + 1) b;
    v_said := case v_before when 0 then 'it is the next' when 1 then 'one message is before it'
                            when v_max + 1 then format('more than %s messages are before it', v_max)
                            else format('%s messages are before it', v_before) end;
    select coalesce(sum((c.targets #>> array[m.target_app, 'capacity'])::bigint), 0), coalesce(sum(h.held), 0)
      into v_capacity, v_held
      from integration.consumers c
     cross join lateral (
        select count(*) as held from integration.data_staging d
         where d.target_app = m.target_app and d.status = 'processing' and d.claimed_by = c.incarnation) h
     where c.lease_until > integration.clock() and integration.accepts(c.targets, m.target_app, m.record_type);
    return query select
        case when v_held >= v_capacity then 'busy' when v_before > 0 then 'queued' else 'ready' end,
        case when v_held >= v_capacity then format('%s of %s busy; %s', case v_capacity when 1 then 'the only worker'
                                                   else format('all %s workers', v_capacity) end,
                                                   m.target_app || case v_capacity when 1 then ' is' else ' are' end, v_said)
             when v_before > 0 then format('%s; %s of %s workers of %s are free', v_said, v_capacity - v_held, v_capacity, m.target_app)
             else format('nothing holds it: %s, and %s of %s workers of %s are free', v_said, v_capacity - v_held, v_capacity, m.target_app) end,
        null::text,
        jsonb_build_object('before', v_before, 'workers', v_capacity, 'held', v_held);
end $$;
