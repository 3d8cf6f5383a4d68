-- Partitions of the audit log and the archive, one a month.

-- Creates the monthly partitions of audit_log and the archive from this month to p_months ahead; months are UTC's.
-- A month whose rows already fell into the default partition is left there. Returns how many were created; what is in
-- the way of somebody is left for the next time. An empty one whose bounds are not its month's is made anew.
-- SQLSTATEs: MQ002 for less than 0 or more than 24 months.
-- Locks: SHARE UPDATE EXCLUSIVE on the parent, ACCESS EXCLUSIVE on its default partition, which nobody writes to: 50 ms
-- at most, and for a moment. (CREATE TABLE ... PARTITION OF would keep all writers out while it waits.)
create or replace function integration.ensure_partitions(p_months integer default 3) returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO'
    set lock_timeout = '50 ms' as $$
declare
    v_month   timestamptz;
    v_next    timestamptz;
    v_parent  text;
    v_column  text;
    v_name    text;
    v_strays  boolean;
    v_bounds  text;
    v_empty   boolean;
    v_created integer := 0;
begin
    if p_months not between 0 and 24 then
        raise exception 'partitions % months ahead', p_months using errcode = 'MQ002', hint = 'use 0 to 24';
    end if;
    for v_parent, v_column in values ('audit_log', 'created_at'), ('data_staging_archive', 'processed_at') loop
        for i in 0 .. p_months loop
            v_month := date_trunc('month', integration.clock()) + make_interval(months => i);
            v_next := v_month + interval '1 month';
            v_name := v_parent || to_char(v_month, '"_"YYYYMM');
            v_bounds := (select pg_get_expr(c.relpartbound, c.oid) from pg_class c
                          where c.oid = to_regclass('integration.' || v_name));
            continue when v_bounds = format('FOR VALUES FROM (%L) TO (%L)', v_month, v_next);
            execute format('select exists (select from integration.%I where %I >= %L and %I < %L)',
                           v_parent || '_default', v_column, v_month, v_column, v_next) into v_strays;
            continue when v_strays;
            begin
                if v_bounds is not null then
                    execute format('select not exists (select from integration.%I)', v_name) into v_empty;
                    continue when not v_empty;
                    execute format('drop table integration.%I', v_name);
                end if;
                execute format('create table integration.%I (like integration.%I including defaults '
                               'including constraints including storage including indexes)', v_name, v_parent);
                execute format('alter table integration.%I replica identity full', v_name);
                execute format('alter table integration.%I attach partition integration.%I '
                               'for values from (%L) to (%L)', v_parent, v_name, v_month, v_next);
                v_created := v_created + 1;
            -- Overlaps: with one of wrong bounds that holds rows.
            exception when lock_not_available or deadlock_detected or invalid_object_definition then
                raise debug 'partition % is left for later: %', v_name, sqlerrm;
            -- An event trigger that forbids it: what belongs there lies in the default partition meanwhile.
            when others then
                if integration.is_passing(sqlstate) then
                    raise;
                end if;
                raise warning 'partition % cannot be made: %', v_name, sqlerrm;
            end;
        end loop;
    end loop;
    return v_created;
end $$;

-- The monthly partitions of the audit log and the archive, and where they end. Their bounds are text, which says one
-- thing only under one time zone and style.
create or replace function integration.partition_ends() returns table (parent text, name text, ends_at timestamptz)
    language sql stable set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO' as $$
    select p.relname::text, c.relname::text,
           substring(pg_get_expr(c.relpartbound, c.oid) from E'TO \\(''([^'']+)''\\)')::timestamptz
      from pg_inherits i
      join pg_class p on p.oid = i.inhparent
      join pg_class c on c.oid = i.inhrelid
     where p.relnamespace = 'integration'::regnamespace and p.relname in ('audit_log', 'data_staging_archive')
$$;

-- The partitions of the audit log and the archive that hold nothing younger than their retention.
create or replace view integration.old_partitions with (security_invoker = true) as
    select b.parent, b.name, b.ends_at
      from integration.partition_ends() b
     cross join integration.settings s
     where b.ends_at <= integration.clock() - case b.parent when 'audit_log' then s.audit_retention
         else s.archive_retention end;

-- Drops the partitions past retention, whole. dropped: how many; busy: how many were in the way of somebody and are
-- left for the next time.
-- Locks: ACCESS EXCLUSIVE on the parent and the partition, waited for 50 ms at most: so long, writers of the audit log
-- queue behind it. Nothing is waited for while somebody reads the partition itself.
create or replace function integration.drop_old_partitions(out dropped integer, out busy integer)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '50 ms' as $$
declare
    v record;
begin
    dropped := 0;
    busy := 0;
    for v in select o.name, ('integration.' || quote_ident(o.name))::regclass as relation
        from integration.old_partitions o loop
        -- What serializable transactions have read is noted there, too, also after their end, and keeps nobody waiting.
        if exists (select from pg_locks l where l.relation = v.relation and l.pid <> pg_backend_pid()
                   and l.mode <> 'SIReadLock'
                   and l.database = (select d.oid from pg_database d where d.datname = current_database())) then
            busy := busy + 1;
            continue;
        end if;
        begin
            execute format('drop table integration.%I', v.name);
            dropped := dropped + 1;
        exception when others then
            busy := busy + 1;
            if not integration.is_passing(sqlstate) then
                raise warning 'partition % cannot be dropped: %', v.name, sqlerrm;
            end if;
        end;
    end loop;
end $$;

select integration.ensure_partitions();
