-- Schedules: one message per tick, whoever is there to fire it.

-- Makes a schedule, or changes the one of that name: from then on a message is published at every tick of p_cron (five
-- fields) in p_zone, or every p_every from p_starts_at. Each tick is fired once: by a consumer of the target to the
-- millisecond, else by maintenance; the message has headers "schedule" and "tick", and "missed" where it stands for
-- ticks at which nobody was there. p_missed: "latest" makes up for the last of these, "all" for each (p_missed_max at
-- most), "skip" for none that is later than p_grace. p_overlap: "skip" fires none while the message before has not
-- ended. p_jitter: each is due at a random time so long after its tick. Returns the next tick.
-- Locks: the row. SQLSTATEs: MQ002 for what is no schedule, or has no tick; 22023 for a time zone that the server does
-- not know; 23514 for a value that it cannot have.
create or replace function integration.schedule(
    p_name text, p_target text, p_type text, p_data jsonb default '{}', p_cron text default null,
    p_every interval default null, p_zone text default 'UTC', p_source text default 'schedule',
    p_headers jsonb default null, p_priority integer default 0, p_ordering_key text default null,
    p_max_retries integer default null, p_starts_at timestamptz default null, p_jitter interval default '0',
    p_missed text default 'latest', p_missed_max integer default 100, p_grace interval default '1 min',
    p_overlap text default 'allow'
) returns timestamptz
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_now    timestamptz := integration.clock();
    v_starts timestamptz := coalesce(p_starts_at, v_now);
    v_next   timestamptz;
begin
    if (p_cron is null) = (p_every is null) then
        raise exception 'a schedule has either a cron expression or an interval' using errcode = 'MQ002';
    elsif p_every < interval '1 s' or extract(year from p_every) <> 0 or extract(month from p_every) <> 0 then
        raise exception 'every % is no interval of a schedule', p_every using errcode = 'MQ002',
            hint = 'use one of a second or more, in days, hours, minutes and seconds; months are for cron';
    elsif not isfinite(v_starts) then
        raise exception 'a schedule cannot start at %', v_starts using errcode = 'MQ002';
    end if;
    v_next := integration.tick_after(p_cron, p_zone, p_every, v_starts, v_now - interval '1 us');
    if v_next is null then
        raise exception '"%" names a time that never comes', p_cron using errcode = 'MQ002';
    end if;
    insert into integration.schedules as s
        (name, source_app, target_app, record_type, data, headers, priority, ordering_key, max_retries, cron, every,
         time_zone, starts_at, jitter, missed, missed_max, grace, overlap, next_at)
    values (p_name, p_source, p_target, p_type, p_data, p_headers, p_priority, p_ordering_key, p_max_retries, p_cron,
            p_every, p_zone, v_starts, p_jitter, p_missed, p_missed_max, p_grace, p_overlap, v_next)
    on conflict (name) do update
       set source_app = excluded.source_app, target_app = excluded.target_app, record_type = excluded.record_type,
           data = excluded.data, headers = excluded.headers, priority = excluded.priority,
           ordering_key = excluded.ordering_key, max_retries = excluded.max_retries,
           -- Who says the same again, as services do when they start, moves no tick.
           starts_at = case when p_starts_at is null and s.every = excluded.every then s.starts_at
                            else excluded.starts_at end,
           next_at = case when (s.cron, s.every, s.time_zone) is not distinct from
                               (excluded.cron, excluded.every, excluded.time_zone) and p_starts_at is null
                          then s.next_at else excluded.next_at end,
           cron = excluded.cron, every = excluded.every, time_zone = excluded.time_zone, jitter = excluded.jitter,
           missed = excluded.missed, missed_max = excluded.missed_max, grace = excluded.grace,
           overlap = excluded.overlap
    returning s.next_at into v_next;
    insert into integration.audit_log (app_name, action, target_app, record_type, details)
    values (integration.actor(), 'scheduled', p_target, p_type, jsonb_strip_nulls(jsonb_build_object(
        'schedule', p_name, 'cron', p_cron, 'every', p_every, 'zone', p_zone)));
    perform integration.send(integration.due_channel(p_target));
    return v_next;
end $$;

-- Ends a schedule; what it published stays. False: there was none. Locks: the row.
create or replace function integration.unschedule(p_name text) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_target text;
begin
    delete from integration.schedules s where s.name = p_name returning s.target_app into v_target;
    if v_target is null then
        return false;
    end if;
    insert into integration.audit_log (app_name, action, target_app, details)
    values (integration.actor(), 'unscheduled', v_target, jsonb_build_object('schedule', p_name));
    return true;
end $$;

-- Pauses a schedule, or lets it go on: then what was missed is made up for as it says. False: it was so, or there is
-- none. Locks: the row.
create or replace function integration.pause_schedule(p_name text, p_paused boolean default true) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_target text;
begin
    update integration.schedules s
       set paused_at = case when p_paused then integration.clock() end,
           paused_by = case when p_paused then integration.actor() end
     where s.name = p_name and (s.paused_at is not null) <> p_paused returning s.target_app into v_target;
    if v_target is null then
        return false;
    end if;
    insert into integration.audit_log (app_name, action, target_app, details)
    values (integration.actor(), case when p_paused then 'paused' else 'resumed' end, v_target,
            jsonb_build_object('schedule', p_name));
    perform integration.send(integration.due_channel(v_target));
    return true;
end $$;

-- Publishes what a schedule publishes, now and beside its ticks; returns the message's id.
-- SQLSTATEs: MQ004 when there is no such schedule.
create or replace function integration.fire_schedule(p_name text) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_id bigint := integration.publish_tick(p_name, integration.clock(), 0);
begin
    if v_id is null then
        raise exception 'there is no schedule "%"', p_name using errcode = 'MQ004';
    end if;
    return v_id;
end $$;

-- Publishes for every schedule of the targets (null: of all) whose time has come; returns how many messages. One that
-- fails is said in a warning, and tried again.
-- Locks: the rows of schedules, SKIP LOCKED: who comes second finds the tick fired.
create or replace function integration.fire_due(p_targets text[] default null, p_limit integer default 100)
    returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    v_now   timestamptz := integration.clock();
    v_name  text;
    v_fired integer := 0;
begin
    for v_name in
        select x.name from integration.schedules x
         where x.next_at <= v_now and x.paused_at is null and (p_targets is null or x.target_app = any (p_targets))
         order by x.next_at, x.name limit p_limit for no key update skip locked
    loop
        begin
            v_fired := v_fired + integration.fire(v_name, v_now);
        exception when others then
            if integration.is_passing(sqlstate) then
                raise;
            end if;
            raise warning 'schedule %: %', v_name, sqlerrm;
        end;
    end loop;
    return v_fired;
end $$;

-- For fire_due, which has locked the row: publishes for its ticks until now, as the schedule says of those that were
-- missed, and moves next_at behind them. At most a thousand are counted; what is older than that is left out.
create or replace function integration.fire(p_name text, p_now timestamptz) returns integer
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    s       integration.schedules;
    v_ticks timestamptz[];
    v_next  timestamptz;
    v_back  interval;
    v_tick  timestamptz;
    v_id    bigint;
    v_fired integer := 0;
begin
    select * into s from integration.schedules x where x.name = p_name;
    v_ticks := array[s.next_at];
    loop
        v_next := integration.tick_after(s.cron, s.time_zone, s.every, s.starts_at, v_ticks[cardinality(v_ticks)]);
        exit when v_next is null or v_next > p_now or cardinality(v_ticks) >= 1000;
        v_ticks := v_ticks || v_next;
    end loop;
    if v_next <= p_now then
        foreach v_back in array '{1 min,1 hour,1 day,40 days,10 years,30 years}'::interval[] loop
            v_next := integration.tick_after(s.cron, s.time_zone, s.every, s.starts_at, p_now - v_back);
            exit when v_next <= p_now;
        end loop;
        while v_next <= p_now loop
            v_tick := v_next;
            v_next := integration.tick_after(s.cron, s.time_zone, s.every, s.starts_at, v_tick);
        end loop;
        if s.missed <> 'all' then
            v_ticks := v_ticks || v_tick;
        end if;
    end if;
    if s.missed = 'all' then
        v_ticks := v_ticks[1 : s.missed_max];
    elsif s.missed = 'skip' and v_ticks[cardinality(v_ticks)] < p_now - s.grace then
        v_ticks := '{}';
    end if;
    for i in case s.missed when 'all' then 1 else greatest(cardinality(v_ticks), 1) end .. cardinality(v_ticks) loop
        if s.overlap = 'skip' and exists (
            select from integration.data_staging d
             where d.id = coalesce(v_id, s.last_id) and d.status in ('pending', 'scheduled', 'processing')) then
            insert into integration.audit_log (app_name, action, target_app, record_type, details)
            values (integration.actor(), 'overlapped', s.target_app, s.record_type, jsonb_build_object(
                'schedule', s.name, 'tick', v_ticks[i], 'message', coalesce(v_id, s.last_id)));
            continue;
        end if;
        v_tick := v_ticks[i];
        v_id := integration.publish_tick(s.name, v_tick, case s.missed when 'latest' then i - 1 else 0 end);
        v_fired := v_fired + 1;
    end loop;
    update integration.schedules x
       set next_at = coalesce(v_next, 'infinity'), fired = x.fired + v_fired, last_id = coalesce(v_id, x.last_id),
           last_at = case when v_id is null then x.last_at else v_tick end
     where x.name = s.name;
    return v_fired;
end $$;

-- The message for a tick. p_missed: for how many others that were missed it stands. Null: there is no such schedule.
create or replace function integration.publish_tick(p_name text, p_tick timestamptz, p_missed integer) returns bigint
    language sql set search_path = pg_catalog, pg_temp as $$
    select integration.publish(s.source_app, s.target_app, s.record_type, s.data, s.priority,
        p_tick + random() * s.jitter - integration.clock(),
        coalesce(s.headers, '{}') || jsonb_build_object('schedule', s.name,
            'tick', to_char(p_tick at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
        || case when p_missed > 0 then jsonb_build_object('missed', p_missed::text) else '{}' end,
        s.ordering_key, null, s.max_retries)
      from integration.schedules s where s.name = p_name
$$;
