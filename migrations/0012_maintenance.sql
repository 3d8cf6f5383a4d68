-- Maintenance: what keeps the tables small. Every consumer process offers to do it, one does; "doorbell maintain" and
-- integration.maintain() do it where no consumer runs. All of it may run anywhere, at any time, any number of times, and
-- by any role that may use the schema: it does what settings and targets say, and nothing else.

-- Whether the caller does the maintenance now, for p_lease_ms from now: it does already, or nobody does.
-- Locks: the one row of maintenance, when it changes.
create function integration.lead(p_name text, p_lease_ms bigint) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v     integration.maintenance;
    v_now timestamptz := integration.clock();
begin
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

-- Leaves the maintenance to whoever asks next, if the caller does it.
-- Locks: the row of maintenance.
create function integration.step_down(p_name text) returns void
    language sql security definer set search_path = pg_catalog, pg_temp
    begin atomic
        update integration.maintenance m set leads_until = null, leader = null where m.leader = p_name;
    end;

-- How long messages that have ended stay, and what happens then, for every target and status that has any (by the
-- counters). Failed and cancelled ones stay for failed_retention.
create view integration.retention as
    select c.target_app, c.status, c.messages,
           case when c.status <> 'completed' then coalesce(t.failed_retention, s.failed_retention)
                -- complete() has done that already; what is left was completed by plain SQL.
                when t.on_complete in ('archive', 'delete') then interval '0'
                else coalesce(t.completed_retention, s.completed_retention) end as keep,
           case when c.status = 'completed' and coalesce(t.on_complete, 'keep') <> 'delete' then 'archived' else 'purged' end as verb
      from integration.current_counters c
     cross join integration.settings s
      left join integration.targets t on t.target_app = c.target_app
     where c.status in ('completed', 'failed', 'cancelled') and c.messages > 0;

-- Archives and purges what has been kept long enough among the p_limit messages after p_after, in the order of their ids,
-- and says where to go on: last_id, or null when the rest is too young (ids and created_at grow together; who writes old
-- times into new rows waits until the rows before them are old, too). Callers begin at 0. No index serves this: an entry
-- per completed message would cost 75 bytes of WAL each (14 % of completing), walking the primary key costs only what is found there.
-- Locks: the rows, SKIP LOCKED: never waits, and what somebody holds is left for the next time.
create function integration.retire(
    p_after bigint default 0, p_limit integer default 1000,
    out archived integer, out purged integer, out last_id bigint
)
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    set jit = off set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    v_now     timestamptz := integration.clock();
    v_verb    text := current_setting('integration.verb', true);
    v_old     timestamptz;
    v_ids     bigint[];
    v_archive bigint[];
    v_purge   bigint[];
begin
    archived := 0;
    purged := 0;
    select v_now - min(r.keep) into v_old from integration.retention r;
    if v_old is null then
        return;
    end if;
    select array_agg(w.id), case when count(*) = p_limit and bool_or(w.created_at <= v_old) then max(w.id) end
      into v_ids, last_id
      from (select d.id, d.created_at from integration.data_staging d where d.id > p_after order by d.id limit p_limit) w;
    with rules as materialized (select * from integration.retention),
    due as (
        select d.id, r.verb
          from integration.data_staging d
          join rules r on r.target_app = d.target_app and r.status = d.status
         where d.id = any (v_ids)
           and case d.status when 'completed' then coalesce(d.processed_at, d.updated_at) else d.updated_at end <= v_now - r.keep
           for no key update of d skip locked)
    select array_agg(u.id) filter (where u.verb = 'archived'), array_agg(u.id) filter (where u.verb = 'purged')
      into v_archive, v_purge from due u;
    if v_archive is not null then
        perform set_config('integration.verb', 'archived', true);
        with gone as (delete from integration.data_staging d where d.id = any (v_archive) returning d.*)
        insert into integration.data_staging_archive select * from gone;
        get diagnostics archived = row_count;
    end if;
    if v_purge is not null then
        perform set_config('integration.verb', 'purged', true);
        delete from integration.data_staging d where d.id = any (v_purge);
        get diagnostics purged = row_count;
    end if;
    perform set_config('integration.verb', coalesce(v_verb, ''), true);
end $$;

-- Deletes up to p_limit dedup keys whose window is over, up to p_limit rows of traffic and outcomes past
-- traffic_retention, and up to p_limit rows past retention that fell into a default partition. Returns how many rows;
-- callers repeat while there are any.
-- Locks: the rows, SKIP LOCKED.
create function integration.purge_expired(p_limit integer default 1000) returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    v_now   timestamptz := integration.clock();
    s       integration.settings;
    v_count integer;
    v_all   integer := 0;
begin
    select * into s from integration.settings;
    delete from integration.dedup_keys k
     where k.ctid = any (array(select x.ctid from integration.dedup_keys x where x.expires_at <= v_now limit p_limit for update skip locked));
    get diagnostics v_count = row_count;
    v_all := v_all + v_count;
    delete from integration.traffic t
     where t.ctid = any (array(select x.ctid from integration.traffic x where x.minute < v_now - s.traffic_retention limit p_limit for update skip locked));
    get diagnostics v_count = row_count;
    v_all := v_all + v_count;
    delete from integration.outcomes o
     where o.ctid = any (array(select x.ctid from integration.outcomes x where x.created_at < v_now - s.traffic_retention limit p_limit for update skip locked));
    get diagnostics v_count = row_count;
    v_all := v_all + v_count;
    delete from integration.audit_log_default a
     where a.ctid = any (array(select x.ctid from integration.audit_log_default x where x.created_at < v_now - s.audit_retention limit p_limit for update skip locked));
    get diagnostics v_count = row_count;
    v_all := v_all + v_count;
    delete from integration.data_staging_archive_default a
     where a.ctid = any (array(select x.ctid from integration.data_staging_archive_default x where x.processed_at < v_now - s.archive_retention limit p_limit for update skip locked));
    get diagnostics v_count = row_count;
    return v_all + v_count;
end $$;

-- The partitions of the audit log and the archive that hold nothing younger than their retention.
create view integration.old_partitions as
    select b.parent, b.name, b.ends_at
      from (select p.relname::text as parent, c.relname::text as name, c.oid,
                   substring(pg_get_expr(c.relpartbound, c.oid) from 'TO \(''([^'']+)''\)')::timestamptz as ends_at
              from pg_inherits i
              join pg_class p on p.oid = i.inhparent
              join pg_class c on c.oid = i.inhrelid
             where p.relnamespace = 'integration'::regnamespace and p.relname in ('audit_log', 'data_staging_archive')) b
     cross join integration.settings s
     where b.ends_at <= integration.clock() - case b.parent when 'audit_log' then s.audit_retention else s.archive_retention end;

-- Drops the partitions past retention, whole. dropped: how many; busy: how many were in the way of somebody and are left for
-- the next time.
-- Locks: ACCESS EXCLUSIVE on the parent and the partition, waited for 50 ms at most: so long, writers of the audit log queue
-- behind it. Nothing is waited for while somebody reads the partition itself.
create function integration.drop_old_partitions(out dropped integer, out busy integer)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '50 ms' as $$
declare
    v record;
begin
    dropped := 0;
    busy := 0;
    for v in select o.name, ('integration.' || quote_ident(o.name))::regclass as relation from integration.old_partitions o loop
        if exists (select from pg_locks l where l.relation = v.relation and l.pid <> pg_backend_pid()
                   and l.database = (select d.oid from pg_database d where d.datname = current_database())) then
            busy := busy + 1;
            continue;
        end if;
        begin
            execute format('drop table integration.%I', v.name);
            dropped := dropped + 1;
        exception when lock_not_available or deadlock_detected then
            busy := busy + 1;
        end;
    end loop;
end $$;

-- Notes that a round of archiving, purging and partitions came to its end.
create function integration.note_cleaned() returns void
    language sql security definer set search_path = pg_catalog, pg_temp
    begin atomic
        update integration.maintenance set cleaned_at = integration.clock();
    end;

-- Whether it is time to compare the counters with the table, once a day; if so, it is the caller who does. Noted beforehand,
-- in a transaction of its own, so that a comparison that takes too long is not begun again and again.
create function integration.check_is_due() returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    update integration.maintenance m set checked_at = integration.clock()
     where m.checked_at is null or m.checked_at <= integration.clock() - interval '1 day';
    return found;
end $$;

-- Rescues, and promotes what is due of every target, with or without a consumer; lets canaries of open breakers through.
-- Returns how many messages were rescued and promoted.
create function integration.rescue_and_promote(out rescued integer, out promoted integer)
    language plpgsql as $$
declare
    v_targets text[];
begin
    rescued := integration.rescue();
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
end $$;

-- One round of all of it in one transaction, for schedulers in the database: bounded, call it every minute.
-- Locks: as the functions it calls; none is waited for longer than 50 ms.
create function integration.maintain(
    out rescued integer, out promoted integer, out folded bigint, out archived integer, out purged integer,
    out expired integer, out partitions_created integer, out partitions_dropped integer
)
    language plpgsql as $$
declare
    v_after bigint := 0;
    v_step  record;
begin
    select r.rescued, r.promoted into rescued, promoted from integration.rescue_and_promote() r;
    folded := integration.fold();
    archived := 0;
    purged := 0;
    for i in 1 .. 50 loop
        select * into v_step from integration.retire(v_after);
        archived := archived + v_step.archived;
        purged := purged + v_step.purged;
        v_after := v_step.last_id;
        exit when v_after is null;
    end loop;
    expired := integration.purge_expired(10000);
    partitions_created := integration.ensure_partitions();
    select d.dropped into partitions_dropped from integration.drop_old_partitions() d;
    perform integration.note_cleaned();
end $$;

-- What a round of maintenance would do now, changing nothing: one line per kind of work and target or table. Reads every
-- message that is old enough to be looked at, so it takes as long as they are many.
create function integration.maintenance_due() returns table (task text, object text, count bigint)
    language sql stable set jit = off
    begin atomic
        select d.task, d.object, d.count
          from (select 1 as at, 'rescue' as task, m.target_app as object, count(*) as count
                  from integration.data_staging m
                 where m.status = 'processing'
                   and case
                           when m.lease_until is not null then m.lease_until < integration.clock()
                           when m.claimed_by is not null then not exists (
                               select from integration.consumers c
                                where c.incarnation = m.claimed_by and c.lease_until >= integration.clock())
                           else m.updated_at < integration.clock() - (
                               select t.foreign_lease from integration.targets t where t.target_app = m.target_app)
                       end
                 group by m.target_app
                union all
                select 2, 'promote' as task, m.target_app, count(*) from integration.data_staging m
                 where m.status = 'scheduled' and m.available_at <= integration.clock() group by m.target_app
                union all
                select 3, 'fold' as task, 'deltas' as object, count(*) from integration.deltas
                union all
                select 4, case r.verb when 'archived' then 'archive' else 'purge' end || ' ' || r.status, r.target_app, count(*)
                  from integration.retention r
                  join integration.data_staging m on m.target_app = r.target_app and m.status = r.status
                   -- Once for all of them, for the BRIN index.
                   and m.created_at <= (select integration.clock() - min(x.keep) from integration.retention x)
                   and case m.status when 'completed' then coalesce(m.processed_at, m.updated_at) else m.updated_at end <= integration.clock() - r.keep
                 group by r.verb, r.status, r.target_app
                union all
                select 5, 'purge' as task, 'dedup_keys' as object, count(*) from integration.dedup_keys k where k.expires_at <= integration.clock()
                union all
                select 6, 'purge' as task, 'traffic' as object, count(*)
                  from integration.traffic t, integration.settings s where t.minute < integration.clock() - s.traffic_retention
                union all
                select 6, 'purge' as task, 'outcomes' as object, count(*)
                  from integration.outcomes o, integration.settings s where o.created_at < integration.clock() - s.traffic_retention
                union all
                select 7, 'drop partition' as task, o.name, 1 from integration.old_partitions o
                union all
                select 8, 'create partition' as task, p.name, 1
                  from (select x.parent || to_char((date_trunc('month', integration.clock(), 'UTC') + make_interval(months => i)) at time zone 'UTC', '"_"YYYYMM') as name
                          from (values ('audit_log'), ('data_staging_archive')) x (parent), generate_series(0, 3) i) p
                 where to_regclass('integration.' || p.name) is null) d
         where d.count > 0
         order by d.at, d.object;
    end;
