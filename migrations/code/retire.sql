-- What keeps the tables small: archiving and purging what has ended.

-- How long messages that have ended stay, and what happens then, for every target and status that has any (by the
-- counters). Failed and cancelled ones stay for failed_retention.
create or replace view integration.retention with (security_invoker = true) as
    select c.target_app, c.status, c.messages,
           case when c.status <> 'completed' then coalesce(t.failed_retention, s.failed_retention)
                -- complete() has done that already; what is left was completed by plain SQL.
                when t.on_complete in ('archive', 'delete') then interval '0'
                else coalesce(t.completed_retention, s.completed_retention) end as keep,
           case when c.status = 'completed' and coalesce(t.on_complete, 'keep') <> 'delete' then 'archived'
               else 'purged' end as verb
      from integration.current_counters c
     cross join integration.settings s
      left join integration.targets t on t.target_app = c.target_app
     where c.status in ('completed', 'failed', 'cancelled') and c.messages > 0;

-- Archives and purges what has been kept long enough among the p_limit messages after p_after, in the order of their
-- ids, and says where to go on: last_id, or null when the rest is too young (ids and created_at grow together; who
-- writes old times into new rows waits until the rows before them are old, too). Callers begin at 0. No index serves
-- this: an entry per completed message would cost 75 bytes of WAL each (14 % of completing), walking the primary key
-- costs only what is found there.
-- Locks: the rows, SKIP LOCKED: never waits, and what somebody holds is left for the next time.
create or replace function integration.retire(
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
    p_limit := least(p_limit, 100000);
    archived := 0;
    purged := 0;
    select v_now - min(r.keep) into v_old from integration.retention r;
    if v_old is null then
        return;
    end if;
    select array_agg(w.id), case when count(*) = p_limit and bool_or(w.created_at <= v_old) then max(w.id) end
      into v_ids, last_id
      from (select d.id, d.created_at from integration.data_staging d
          where d.id > p_after order by d.id limit p_limit) w;
    with rules as materialized (select * from integration.retention),
    due as (
        select d.id, r.verb
          from integration.data_staging d
          join rules r on r.target_app = d.target_app and r.status = d.status
         where d.id = any (v_ids)
           and case d.status when 'completed' then coalesce(d.processed_at, d.updated_at)
               else d.updated_at end <= v_now - r.keep
           and not integration.is_set_aside(d.id, d.created_at)
           -- It keeps others from being handled before it: what becomes of it is for somebody to say.
           and not (d.status = 'failed' and d.ordering_key is not null and integration.blocks_others(d.id))
           for no key update of d skip locked)
    select array_agg(u.id) filter (where u.verb = 'archived'), array_agg(u.id) filter (where u.verb = 'purged')
      into v_archive, v_purge from due u;
    if v_archive is not null then
        perform set_config('integration.verb', 'archived', true);
        select count(*) into archived
          from integration.in_parts('archive', 'select integration.archive_rows($1)', v_archive);
    end if;
    if v_purge is not null then
        perform set_config('integration.verb', 'purged', true);
        select count(*) into purged
          from integration.in_parts('purge', 'select integration.purge_rows($1)', v_purge);
    end if;
    perform set_config('integration.verb', coalesce(v_verb, ''), true);
end $$;

-- Columns that somebody has added to one of the two tables only are left behind.
create or replace function integration.archive_rows(p_ids bigint[]) returns setof bigint
    language plpgsql set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    v_columns text;
begin
    select string_agg(quote_ident(s.attname), ', ' order by s.attnum) into v_columns
      from pg_attribute s
      join pg_attribute a on a.attrelid = 'integration.data_staging_archive'::regclass and a.attname = s.attname
     where s.attrelid = 'integration.data_staging'::regclass and s.attnum > 0 and not s.attisdropped
       and a.attnum > 0 and not a.attisdropped and a.attgenerated = '';
    return query execute format(
        'with gone as (delete from integration.data_staging d where d.id = any ($1) returning d.*) '
        'insert into integration.data_staging_archive (%1$s) select %1$s from gone returning id', v_columns)
        using p_ids;
end $$;

create or replace function integration.purge_rows(p_ids bigint[]) returns setof bigint
    language sql set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
    delete from integration.data_staging d where d.id = any (p_ids) returning d.id
$$;

-- Deletes up to p_limit dedup keys whose window is over, up to p_limit rows of traffic and outcomes past
-- traffic_retention, and up to p_limit rows past retention that fell into a default partition; forgets what is not set
-- aside any more, and coalesce keys of what does not wait. Returns how many rows; callers repeat while there are any.
-- Locks: the rows, SKIP LOCKED.
create or replace function integration.purge_expired(p_limit integer default 1000) returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    v_now    timestamptz := integration.clock();
    s        integration.settings;
    v_table  text;
    v_column text;
    v_before timestamptz;
    v_count  integer;
    v_all    integer := 0;
begin
    p_limit := least(p_limit, 100000);
    select * into s from integration.settings;
    for v_table, v_column, v_before in values
        ('dedup_keys', 'expires_at', v_now),
        ('replies', 'replied_at', v_now - s.reply_retention), ('traffic', 'minute', v_now - s.traffic_retention),
        ('traffic_tens', 'at', v_now - s.traffic_retention),
        ('outcomes', 'created_at', v_now - s.traffic_retention),
        ('audit_log_default', 'created_at', v_now - s.audit_retention),
        ('data_staging_archive_default', 'processed_at', v_now - s.archive_retention)
    loop
        -- A table that refuses is no reason to keep what the others have.
        begin
            execute format('delete from integration.%1$I t where t.ctid = any (array(select x.ctid '
                'from integration.%1$I x where x.%2$I <= $1 limit $2 for update skip locked))', v_table, v_column)
                using v_before, p_limit;
            get diagnostics v_count = row_count;
            v_all := v_all + v_count;
        exception when others then
            if integration.is_passing(sqlstate) then
                raise;
            end if;
            raise warning 'what is expired in % cannot be deleted: %', v_table, sqlerrm;
        end;
    end loop;
    -- Anybody who publishes makes names; those of which nothing is left are forgotten. What is deleted of the counters
    -- is 0, so that they stay exact whoever publishes meanwhile.
    with forgotten as materialized (
        select k.target_app from integration.counters k
         where not exists (select from integration.targets t where t.target_app = k.target_app)
         group by k.target_app
        having bool_and(k.messages = 0) and max(k.changed_at) < v_now - s.traffic_retention
        except select d.target_app from integration.deltas d
         limit p_limit),
    totals as (
        delete from integration.totals k where k.target_app in (select f.target_app from forgotten f)),
    places as (
        delete from integration.places k where k.target_app in (select f.target_app from forgotten f)),
    backlogs as (
        delete from integration.backlogs k where k.target_app in (select f.target_app from forgotten f)),
    breakers as (
        delete from integration.breakers k
         where k.state = 'closed' and k.breaker_key in (select f.target_app from forgotten f)
           and not exists (select from integration.targets t where t.breaker_key = k.breaker_key))
    delete from integration.counters k
     where k.messages = 0 and k.target_app in (select f.target_app from forgotten f);
    get diagnostics v_count = row_count;
    return v_all + v_count + integration.tidy_set_aside(p_limit) + integration.forget_coalesced(p_limit);
end $$;
