-- What waits for its time: scheduled -> pending.

-- Makes due scheduled messages of the given targets pending, oldest due first; returns how many. Callers repeat while
-- the result equals the limit. Schedules of the targets whose time has come are fired first, and what has expired is
-- cancelled; breakers let their canaries through.
-- Locks: the rows, SKIP LOCKED.
create or replace function integration.promote(p_targets text[], p_limit integer default 1000) returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set enable_bitmapscan = off as $$
declare
    v_now   timestamptz := integration.clock();
    v_ids   bigint[];
    v_count integer := 0;
begin
    if exists (select from integration.schedules s where s.target_app = any (p_targets) and s.next_at <= v_now
                  and s.paused_at is null) then
        perform integration.fire_due(p_targets);
    end if;
    if exists (select from integration.expiring e where e.expires_at <= v_now and e.look_at <= v_now) then
        perform integration.expire(least(p_limit, 100));
    end if;
    v_ids := array(
        select s.id
          from unnest(p_targets) t (target_app)
         cross join lateral (
            select x.id, x.available_at from integration.data_staging x
             where x.target_app = t.target_app and x.status = 'scheduled' and x.available_at <= v_now
               and not integration.is_set_aside(x.id, x.created_at)
             order by x.available_at limit p_limit
             for no key update skip locked) s
         limit p_limit);
    if v_ids <> '{}' then
        select count(*) into v_count
          from integration.in_parts('promote', 'select integration.promote_rows($1)', v_ids);
    end if;
    perform integration.half_open_due(p_targets);
    return v_count;
end $$;

create or replace function integration.promote_rows(p_ids bigint[]) returns setof bigint
    language sql set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
    update integration.data_staging d
       set status = 'pending', requeued_at = integration.clock(), available_at = null, behind_at = null,
           series = case when d.ordering_key is not null then 0 end, updated_at = integration.clock()
     where d.id = any (p_ids)
    returning d.id
$$;

-- Milliseconds until promote has something to do for each target (0 when it is overdue): its next scheduled message or
-- schedule, or the time at which its open breaker lets canaries through. Targets without any are left out.
-- Relative, so that no client compares its clock with the server's.
create or replace function integration.next_due(p_targets text[]) returns table (target_app text, due_in_ms bigint)
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off
        set enable_seqscan = off set enable_bitmapscan = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
begin
    if integration.is_limited() then
        perform integration.must_consume(p_targets);
    end if;
    -- Of which the plan is kept: planning it for every look cost as much as a claim.
    return query
        select t.target_app, greatest(0, ceil(extract(epoch from -integration.since(min(s.due))) * 1000))::bigint
          from unnest(p_targets) t (target_app)
         cross join lateral (
            (select d.available_at as due from integration.data_staging d
              where d.target_app = t.target_app and d.status = 'scheduled' and d.available_at < 'infinity'
                and not integration.is_set_aside(d.id, d.created_at)
              order by d.available_at limit 1)
            union all
            select b.retry_at from integration.breakers b
             where b.breaker_key = integration.breaker_of(t.target_app) and b.state = 'open' and b.retry_at is not null
            union all
            (select x.next_at from integration.schedules x
              where x.target_app = t.target_app and x.paused_at is null and x.next_at < 'infinity'
              order by x.next_at limit 1)) s
         group by t.target_app;
end $$;

-- Whether nothing of a target can be handled now and nothing is being handled: no pending, due or processing message,
-- of these record types where some are given. The statuses are literals, so that the partial indexes serve it.
create or replace function integration.is_drained(p_target text, p_types text[] default null) returns boolean
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off
        set enable_seqscan = off as $$
begin
    -- Who looks may know.
    if integration.is_limited()
        and not has_table_privilege(integration.asking_role(), 'integration.data_staging'::regclass, 'select') then
        perform integration.must_consume(array[p_target]);
    end if;
    return not exists (select from integration.data_staging d where d.target_app = p_target
                          and d.status = 'pending' and (p_types is null or d.record_type = any (p_types))
                          and not integration.is_set_aside(d.id, d.created_at))
       and not exists (select from integration.data_staging d where d.target_app = p_target
                          and d.status = 'processing' and (p_types is null or d.record_type = any (p_types)))
       and not exists (select from integration.data_staging d where d.target_app = p_target
                          and d.status = 'scheduled' and d.available_at <= integration.clock()
                          and not integration.is_set_aside(d.id, d.created_at)
                          and (p_types is null or d.record_type = any (p_types)));
end $$;
