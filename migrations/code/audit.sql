-- Reading the audit log.

-- The life of one message as the audit log has it, oldest first; also after it was archived or deleted.
create or replace function integration.audit(p_id bigint) returns table (
    at timestamptz, action text, app_name text, role_name text, owner text, attempt integer,
    old_status text, new_status text, details jsonb
)
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select a.created_at, a.action, a.app_name, a.role_name, a.owner, a.attempt, a.old_status, a.new_status,
        a.details
      from integration.audit_log a where a.staging_id = p_id order by a.created_at, a.id
$$;

-- Lists entries of the audit log that a filter names, newest first; null matches all. p_since and p_until are about
-- when it happened. For the next page, pass the cursor of the last row as p_after, and the rest as before. The log has
-- no order that an index knows: it is looked through backwards, a span at a time, and in p_look_at entries. When that
-- ends before there are p_limit that match, a last row says so: its action is null, at is how far back was looked, and
-- its cursor is where to go on.
-- SQLSTATEs: MQ002 for what is no cursor.
create or replace function integration.audit_list(
    p_id bigint default null, p_target text default null, p_action text default null, p_app_name text default null,
    p_role text default null, p_owner text default null, p_since timestamptz default null,
    p_until timestamptz default null, p_limit integer default 100, p_after text default null,
    p_look_at integer default 100000
) returns table (
    at timestamptz, action text, staging_id bigint, source_app text, target_app text, record_type text,
    attempt integer, old_status text, new_status text, app_name text, role_name text, owner text, details jsonb,
    cursor text
)
    language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
declare
    v_iso   constant text := 'YYYY-MM-DD HH24:MI:SS.US';
    v_now   timestamptz := integration.clock();
    v_begin timestamptz := coalesce(p_since, '-infinity');
    v_span  interval := '1 min';
    v_left  bigint := least(greatest(p_look_at, 1), 10000000);
    v_count bigint := 0;
    v_found bigint;
    v_there bigint;
    v_from  timestamptz;
    v_to    timestamptz := least(p_until, 'infinity');
    -- Of entries of the same microsecond, those before this one.
    v_last  bigint := 9223372036854775807;
begin
    if p_after is not null then
        begin
            v_to := least(v_to, (split_part(p_after, '|', 1)::timestamp || 'Z')::timestamptz + interval '1 us');
            v_last := split_part(p_after, '|', 2)::bigint;
        exception when data_exception then
            raise exception '"%" is not a cursor of the audit log', p_after
                using errcode = 'MQ002', hint = 'pass the cursor of a list of the audit log';
        end;
    end if;
    while v_count < p_limit loop
        v_from := greatest(v_begin, case when v_span > interval '20 years' then '-infinity'
            else least(v_to, v_now) - v_span end);
        select count(*) into v_there
          from (select from integration.audit_log a where a.created_at >= v_from and a.created_at < v_to
                   and (p_id is null or a.staging_id = p_id) limit v_left + 1) x;
        -- Busier times are looked through in smaller spans, down to a second.
        if v_there > v_left and v_span > interval '1 s' then
            v_span := v_span / 4;
            continue;
        end if;
        return query
            select a.created_at, a.action, a.staging_id, a.source_app, a.target_app, a.record_type, a.attempt,
                   a.old_status, a.new_status, a.app_name, a.role_name, a.owner, a.details,
                   to_char(a.created_at at time zone 'UTC', v_iso) || '|' || a.id
              from integration.audit_log a
             where a.created_at >= v_from and a.created_at < v_to
               and (a.created_at < v_to - interval '1 us' or a.id < v_last)
               and (p_id is null or a.staging_id = p_id) and (p_target is null or a.target_app = p_target)
               and (p_action is null or a.action = p_action) and (p_app_name is null or a.app_name = p_app_name)
               and (p_role is null or a.role_name = p_role) and (p_owner is null or a.owner = p_owner)
             order by a.created_at desc, a.id desc limit p_limit - v_count;
        get diagnostics v_found = row_count;
        v_count := v_count + v_found;
        v_left := v_left - v_there;
        v_to := v_from;
        v_last := 9223372036854775807;
        exit when v_from <= v_begin or v_count >= p_limit;
        if v_left <= 0 then
            return query select v_to, null::text, null::bigint, null::text, null::text, null::text, null::integer,
                null::text, null::text, null::text, null::text, null::text, null::jsonb,
                to_char(v_to at time zone 'UTC' - interval '1 us', v_iso) || '|' || 9223372036854775807;
            return;
        end if;
        v_span := v_span * 4;
    end loop;
end $$;

-- For explain: what the audit log says last about a message, since p_since. Nulls: nothing, or it may not be read.
create or replace function integration.last_event(
    p_id bigint, p_since timestamptz,
    out action text, out app_name text, out created_at timestamptz, out old_status text
)
    language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
begin
    if has_table_privilege('integration.audit_log', 'select') then
        select a.action, a.app_name, a.created_at, a.old_status into action, app_name, created_at, old_status
          from integration.audit_log a where a.staging_id = p_id and a.created_at >= p_since
         order by a.created_at desc, a.id desc limit 1;
    end if;
end $$;
