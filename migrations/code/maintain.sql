-- Maintenance. Every consumer process offers to do it, one does; "doorbell maintain" and integration.maintain() do it
-- where no consumer runs. All of it may run anywhere, at any time, any number of times, and by any role that may use
-- the schema: it does what settings and targets say, and nothing else.

-- Whether the caller does the maintenance now, for p_lease_ms from now (ten minutes at most): it does already, or
-- nobody does. p_registered: p_name is the owner of a process, which does not lead any more once it is off the list: a
-- question of its that comes late would keep others waiting for somebody who is gone.
-- Locks: the process, FOR KEY SHARE; the one row of maintenance, when it changes.
create or replace function integration.lead(p_name text, p_lease_ms bigint, p_registered boolean default false)
    returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v     integration.maintenance;
    v_now timestamptz := integration.clock();
begin
    -- What is written here says who leads the primary, and nobody leads a standby.
    if pg_is_in_recovery() then
        raise exception 'this server is a standby, and read-only' using errcode = 'read_only_sql_transaction',
            hint = 'maintain the primary; among several hosts, target_session_attrs=read-write finds it';
    end if;
    p_lease_ms := least(p_lease_ms, 600000);
    if p_registered then
        -- Whoever takes it off the list waits for this transaction, and then steps down in its name.
        perform from integration.processes c where c.owner = p_name for key share;
        if not found then
            return false;
        end if;
    end if;
    perform integration.restore_single_rows();
    select * into v from integration.maintenance;
    if v.leader = p_name and v.leads_until > v_now + p_lease_ms * interval '0.5 ms' then
        return true;
    end if;
    if v.leader <> p_name and v.leads_until > v_now then
        return false;
    end if;
    update integration.maintenance m
       set leader = p_name, leads_until = v_now + p_lease_ms * interval '1 ms'
     where m.leader = p_name or m.leads_until is null or m.leads_until <= v_now;
    return found;
end $$;

-- Tables of one row have one again after somebody has emptied them: with the defaults.
create or replace function integration.restore_single_rows() returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (select from integration.settings) then
        insert into integration.settings (has_topics, has_bells, has_contracts, has_expiry)
        select exists (select from integration.subscriptions)
                or exists (select from integration.targets t where t.kind = 'topic'),
               exists (select from integration.targets t where t.bell <> 'on_demand'),
               exists (select from integration.contracts),
               exists (select from integration.targets t where t.expire_after is not null) on conflict do nothing;
        raise warning 'the settings of % were gone; they are the defaults now', 'integration';
    end if;
    if not exists (select from integration.contact) then
        insert into integration.contact default values on conflict do nothing;
    end if;
    if not exists (select from integration.key_turns) then
        insert into integration.key_turns select generate_series(0, 4095) on conflict do nothing;
    end if;
    if not exists (select from integration.maintenance) then
        insert into integration.maintenance default values on conflict do nothing;
    end if;
end $$;

-- Leaves the maintenance to whoever asks next, if the caller does it.
-- Locks: the row of maintenance.
create or replace function integration.step_down(p_name text) returns void
    language sql set search_path = pg_catalog, pg_temp as $$
    update integration.maintenance m set leads_until = null, leader = null where m.leader = p_name
$$;

-- Notes that a round of archiving, purging and partitions came to its end.
create or replace function integration.note_cleaned() returns void
    language sql security definer set search_path = pg_catalog, pg_temp as $$
    update integration.maintenance set cleaned_at = integration.clock()
$$;

-- Whether it is time to compare the counters with the table, once a day; if so, it is the caller who does. Noted
-- beforehand, in a transaction of its own, so that a comparison that takes too long is not begun again and again.
create or replace function integration.check_is_due() returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    update integration.maintenance m set checked_at = integration.clock()
     where m.checked_at is null or m.checked_at <= integration.clock() - interval '1 day';
    return found;
end $$;

-- Rescues, promotes what is due of every target, with or without a consumer, and fires schedules; lets canaries of open
-- breakers through, and cancels what has expired. Returns how many messages were rescued and promoted.
create or replace function integration.rescue_and_promote(out rescued integer, out promoted integer)
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_targets text[];
begin
    -- What cannot be rescued is no reason not to promote.
    begin
        rescued := integration.rescue();
    exception when others then
        if integration.is_passing(sqlstate) then
            raise;
        end if;
        raise warning 'rescue: %', sqlerrm;
        rescued := 0;
    end;
    with recursive due as (
        (select d.target_app from integration.data_staging d where d.status = 'scheduled' order by d.target_app limit 1)
        union all
        select (select d.target_app from integration.data_staging d
                 where d.status = 'scheduled' and d.target_app > due.target_app order by d.target_app limit 1)
          from due where due.target_app is not null)
    select array_agg(x.target_app) into v_targets
      from (select due.target_app from due where due.target_app is not null
            union select coalesce(t.target_app, b.breaker_key) from integration.breakers b
              left join integration.targets t on t.breaker_key = b.breaker_key where b.state = 'open') x;
    promoted := integration.promote(coalesce(v_targets, '{}'));
    perform integration.fire_due();
    begin
        perform integration.expire();
    exception when others then
        if integration.is_passing(sqlstate) then
            raise;
        end if;
        raise warning 'expire: %', sqlerrm;
    end;
end $$;

-- Hands on what waits for topics, and brings late subscribers forward; returns how many messages were handed on or
-- copied. Callers repeat while there are any.
create or replace function integration.keep_topics(p_limit integer default 1000) returns integer
    language sql security definer set search_path = pg_catalog, pg_temp as $$
    select integration.hand_on(p_limit) + integration.catch_up(p_limit)
$$;

-- One round of all of it in one transaction, for schedulers in the database: bounded, call it every minute. A step that
-- fails is said in a warning and does not keep the others from being done; its count is null.
-- Locks: as the functions it calls; none is waited for longer than a second.
create or replace function integration.maintain(
    out rescued integer, out promoted integer, out folded bigint, out archived integer, out purged integer,
    out expired integer, out partitions_created integer, out partitions_dropped integer, out copied integer,
    out extracted integer
)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '1 s' as $$
declare
    v_after bigint := 0;
    v_slice bigint;
    v_step  record;
begin
    begin
        select r.rescued, r.promoted into rescued, promoted from integration.rescue_and_promote() r;
    exception when others then
        raise warning 'rescue and promote: %', sqlerrm;
    end;
    begin
        copied := integration.keep_topics();
    exception when others then
        raise warning 'topics: %', sqlerrm;
    end;
    begin
        extracted := integration.extract_due();
    exception when others then
        raise warning 'extracts: %', sqlerrm;
    end;
    begin
        perform integration.step_forward_forgotten();
    exception when others then
        raise warning 'ordering keys: %', sqlerrm;
    end;
    begin
        folded := 0;
        for i in 1 .. 20 loop
            v_slice := integration.fold();
            folded := folded + v_slice;
            exit when v_slice = 0;
        end loop;
    exception when others then
        raise warning 'fold: %', sqlerrm;
        folded := null;
    end;
    begin
        archived := 0;
        purged := 0;
        for i in 1 .. 50 loop
            select * into v_step from integration.retire(v_after);
            archived := archived + v_step.archived;
            purged := purged + v_step.purged;
            v_after := v_step.last_id;
            exit when v_after is null;
        end loop;
    exception when others then
        raise warning 'archive and purge: %', sqlerrm;
        archived := null;
        purged := null;
    end;
    begin
        expired := integration.purge_expired(10000);
    exception when others then
        raise warning 'purge what is expired: %', sqlerrm;
    end;
    begin
        partitions_created := integration.ensure_partitions();
    exception when others then
        raise warning 'create partitions: %', sqlerrm;
    end;
    begin
        select d.dropped into partitions_dropped from integration.drop_old_partitions() d;
    exception when others then
        raise warning 'drop partitions: %', sqlerrm;
    end;
    perform integration.note_cleaned();
end $$;

-- What a round of maintenance would do now, changing nothing: one line per kind of work and target or table. Reads
-- every message that is old enough to be looked at, so it takes as long as they are many.
create or replace function integration.maintenance_due() returns table (task text, object text, count bigint)
    language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    select d.task, d.object, d.count
      from (select 1 as at, 'rescue' as task, m.target_app as object, count(*) as count
              from integration.data_staging m
             where m.status = 'processing'
               and integration.lost_because(m.owner, m.lease_until, m.updated_at, m.target_app,
                       array(select o.owner from integration.dead_owners(false) o)) is not null
               and not integration.is_set_aside(m.id, m.created_at) and not integration.is_owed(m.id, m.created_at)
             group by m.target_app
            union all
            select 2, 'promote' as task, m.target_app, count(*) from integration.data_staging m
             where m.status = 'scheduled' and m.available_at <= integration.clock()
               and not integration.is_set_aside(m.id, m.created_at) group by m.target_app
            union all
            select 2, 'expire' as task, m.target_app, count(*)
              from integration.expiring e
              join integration.data_staging m on m.id = e.id and m.created_at = e.created_at
             where e.expires_at <= integration.clock() and e.look_at <= integration.clock()
               and m.status in ('pending', 'scheduled') group by m.target_app
            union all
            select 2, 'extract' as task, e.name, 1 from integration.extracts e
             where e.next_at <= integration.clock() and e.paused_at is null
            union all
            select 3, 'fold' as task, 'deltas' as object, count(*) from integration.deltas
            union all
            select 4, case r.verb when 'archived' then 'archive' else 'purge' end || ' ' || r.status, r.target_app,
                count(*)
              from integration.retention r
              join integration.data_staging m on m.target_app = r.target_app and m.status = r.status
               -- Once for all of them, for the BRIN index.
               and m.created_at <= (select integration.clock() - min(x.keep) from integration.retention x)
               and case m.status when 'completed' then coalesce(m.processed_at, m.updated_at)
                   else m.updated_at end <= integration.clock() - r.keep
             group by r.verb, r.status, r.target_app
            union all
            select 5, 'purge' as task, 'dedup_keys' as object, count(*) from integration.dedup_keys k
                where k.expires_at <= integration.clock()
            union all
            select 5, 'purge' as task, 'replies' as object, count(*)
              from integration.replies r, integration.settings s
                  where r.replied_at <= integration.clock() - s.reply_retention
            union all
            select 6, 'purge' as task, 'traffic' as object, count(*)
              from integration.traffic t, integration.settings s
                  where t.minute < integration.clock() - s.traffic_retention
            union all
            select 6, 'purge' as task, 'traffic_tens' as object, count(*)
              from integration.traffic_tens t, integration.settings s
                  where t.at < integration.clock() - s.traffic_retention
            union all
            select 6, 'purge' as task, 'outcomes' as object, count(*)
              from integration.outcomes o, integration.settings s
                  where o.created_at < integration.clock() - s.traffic_retention
            union all
            select 7, 'drop partition' as task, o.name, 1 from integration.old_partitions o
            union all
            select 8, 'create partition' as task, p.name, 1
              from (select x.parent || to_char((date_trunc('month', integration.clock(),
                  'UTC') + make_interval(months => i)) at time zone 'UTC', '"_"YYYYMM') as name
                      from (values ('audit_log'), ('data_staging_archive')) x (parent), generate_series(0, 3) i) p
             where to_regclass('integration.' || p.name) is null) d
     where d.count > 0
     order by d.at, d.object
$$;
