-- Why a message is not running: those that are being handled, and those that only wait for their turn.

-- For explain: a message that is being handled, and by whom; or was by somebody who is dead.
create or replace function integration.explain_processing(p_id bigint)
    returns table (code text, sentence text, fix text, details jsonb)
    language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    m       record;
    c       record;
    v_now   timestamptz := integration.clock();
    v_lease interval;
    v_lost  text;
    v_dead  text;
begin
    select d.* into m from integration.data_staging d where d.id = p_id;
    select x.*, o.because into c
      from integration.processes x left join integration.dead_owners(false) o on o.owner = x.owner
     where x.owner = m.owner;
    v_lost := integration.lost_because(m.owner, m.lease_until, m.updated_at, m.target_app,
                                       case when c.because is not null then array[c.owner] end);
    details := jsonb_build_object('owner', m.owner, 'host', c.host, 'pid', c.pid, 'attempt', m.attempt,
                                  'since', m.updated_at, 'beat_at', c.beat_at,
                                  'lease_until', coalesce(m.lease_until, c.lease_until));
    if m.owner is null and m.lease_until is null then
        select t.foreign_lease into v_lease from integration.targets t where t.target_app = m.target_app;
        return query select 'foreign_claim',
            format('plain SQL that named no owner has been handling attempt %s for %s; %s', m.attempt,
                   integration.in_words(integration.since(m.updated_at)),
                   case when v_lease is null then 'if it died, nothing can tell'
                        else 'it goes back ' || integration.time_in_words(m.updated_at + v_lease) end),
            format('make sure that whoever took it has ended, then: update integration.data_staging '
                'set status = ''pending'' where id = %s and status = ''processing'' and attempt = %s', p_id, m.attempt),
            details || jsonb_build_object('foreign_lease', v_lease);
        return;
    end if;
    v_dead := case
        when v_lost = 'lease'
            then format('its lease ran out %s ago', integration.in_words(integration.since(m.lease_until)))
        when v_lost is null then null
        when c.owner is null then 'which is not registered any more'
        when c.because = 'lease'
            then format('whose lease ran out %s ago', integration.in_words(integration.since(c.lease_until)))
        else format('whose connection is gone and whose last beat was %s ago',
                    integration.in_words(integration.since(c.beat_at))) end;
    if v_dead is not null then
        return query select 'owner_dead',
            format('attempt %s was claimed %s ago by %s%s, %s; any consumer process or maintenance returns it',
                m.attempt,
                   integration.in_words(integration.since(m.updated_at)), m.owner,
                   ' (' || c.host || ', process ' || c.pid || ')', v_dead),
            'select integration.rescue()', details;
        return;
    end if;
    return query select 'processing',
        format('%s%s has been handling attempt %s for %s; %s', m.owner, ' (' || c.host || ', process ' || c.pid
            || ')', m.attempt,
               integration.in_words(integration.since(m.updated_at)),
               case when m.lease_until is not null then 'its lease runs for '
                   || integration.in_words(-integration.since(m.lease_until))
                    else format('its last beat was %s ago', integration.in_words(integration.since(c.beat_at))) end),
        null::text, details;
end $$;

-- For explain: the place of a pending message in the order in which claim takes them. Counting stops at 10,000.
create or replace function integration.explain_queue(p_id bigint)
    returns table (code text, sentence text, fix text, details jsonb)
    language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    m          record;
    v_max      constant integer := 10000;
    v_before   bigint;
    v_said     text;
    v_capacity bigint;
    v_held     bigint;
    v_stopping bigint;
begin
    select d.* into m from integration.data_staging d where d.id = p_id;
    if m.crash_count > 0 then
        select count(*) into v_before from (
            select from integration.data_staging d
             where d.target_app = m.target_app and d.status = 'pending' and d.crash_count > 0
               and (d.crash_count, d.created_at, d.id) < (m.crash_count, m.created_at, m.id) limit v_max) b;
        return query select 'suspect',
            format('%s: it is a suspect, and a consumer process of %s runs one suspect at a time; %s',
                   case m.crash_count when 1 then 'a consumer died while handling it'
                                      else format('%s consumers died one after the other while handling it',
                                          m.crash_count) end,
                   m.target_app,
                   case v_before when 0 then 'no other suspect is before it' when 1 then 'one other is before it'
                                 else format('%s others are before it', v_before) end), null::text,
            jsonb_build_object('crash_count', m.crash_count, 'before', v_before);
        return;
    end if;
    -- Two ranges of the ready index, each read from its beginning.
    select count(*) into v_before from (
        (select from integration.data_staging d
          where d.target_app = m.target_app and d.status = 'pending' and d.crash_count = 0
              and d.priority > m.priority limit v_max + 1)
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
      from integration.processes c
     cross join lateral (
        select count(*) as held from integration.data_staging d
         where d.target_app = m.target_app and d.status = 'processing' and d.owner = c.owner) h
     where c.lease_until > integration.clock() and integration.accepts(c.targets, m.target_app, m.record_type);
    -- A handler whose message was cancelled runs until its process has beaten, and is in nobody's hands by then.
    select count(*) into v_stopping
      from integration.audit_log a join integration.processes c on c.owner = a.owner
     where a.created_at > integration.clock() - interval '15 s' and a.target_app = m.target_app
       and a.action = 'cancelled' and a.old_status = 'processing' and c.beat_at <= a.created_at
       and c.lease_until > integration.clock();
    v_held := v_held + v_stopping;
    v_said := v_said || case when v_stopping > 0
        then '; a handler whose message was cancelled is being stopped' else '' end;
    return query select
        case when v_held >= v_capacity then 'busy' when v_before > 0 then 'queued' else 'ready' end,
        case when v_held >= v_capacity then format('%s of %s busy; %s', case v_capacity when 1 then 'the only worker'
                                                   else format('all %s workers', v_capacity) end,
                                                   m.target_app || case v_capacity when 1 then ' is' else ' are' end,
                                                       v_said)
             when v_before > 0 then format('%s; %s of %s workers of %s are free', v_said, v_capacity - v_held,
                 v_capacity, m.target_app)
             else format('nothing holds it: %s, and %s of %s workers of %s are free', v_said, v_capacity - v_held,
                 v_capacity, m.target_app) end,
        null::text,
        jsonb_build_object('before', v_before, 'workers', v_capacity, 'busy', v_held);
end $$;
