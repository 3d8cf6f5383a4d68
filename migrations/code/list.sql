-- Looking through the messages: what "doorbell list", and cancel, retry and redrive by filter, go by.

-- Lists messages of data_staging that a filter names, without their payloads; null matches all. p_reason is a LIKE
-- pattern over error_message; p_older_than counts from created_at, and p_published_since and p_published_until are
-- about it; p_changed_since and p_changed_until are about updated_at, of failed messages when they failed; p_headers is
-- contained in theirs; p_payload is a predicate of SQL/JSON ($.order == 7); p_completed_by is the owner who completed
-- them, as the audit log has it; p_first_id and p_last_id are the least and the greatest id; p_redriven: whether they
-- were put back before. p_order:
--   queue   as claim takes them: priority, then age (pending)
--   due     next due first (scheduled)
--   oldest, newest   by id
--   target  by target, and of each as queue, due or oldest (pending, scheduled, processing, failed): the cheapest way
--           through all of them
-- Default: queue, due, or newest, whichever the status allows. For the next page, pass the cursor of the last row as
-- p_after, and the rest as before. Empty result: nothing (more) matches.
-- Where an index says which rows match, nothing else is read: pending by queue, scheduled by due, processing and failed
-- by id, with or without a target, and anything by id. The counters say at once where there are none. Other conditions
-- are looked for in the next p_look_at rows. When that look ends before there are p_limit that match, a last row says
-- so: its id is null, created_at is of the last message that was looked at, and its cursor is where to go on.
-- SQLSTATEs: MQ002 for an unknown status or order, an order that the status does not have, or a cursor of another
-- order.
create or replace function integration.list(
    p_status text default null, p_target text default null, p_type text default null, p_source text default null,
    p_reason text default null, p_older_than interval default null, p_order text default null,
    p_limit integer default 100, p_after text default null, p_changed_since timestamptz default null,
    p_changed_until timestamptz default null, p_ordering_key text default null, p_dedup_key text default null,
    p_headers jsonb default null, p_payload text default null, p_completed_by text default null,
    p_published_since timestamptz default null, p_published_until timestamptz default null,
    p_first_id bigint default null, p_last_id bigint default null, p_look_at integer default 100000,
    p_redriven boolean default null
) returns table (
    id bigint, source_app text, target_app text, record_type text, status text, priority integer, attempt integer,
    retry_count integer, crash_count integer, redrive_count integer, created_at timestamptz, updated_at timestamptz,
    available_at timestamptz, owner text, reason text, cursor text
)
    language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    v_columns constant text := 'd.id, d.source_app, d.target_app, d.record_type, d.status, d.priority, d.attempt,
        d.retry_count, d.crash_count, d.redrive_count, d.created_at, d.updated_at, d.available_at, d.owner,
        d.error_message';
    v_iso     constant text := 'YYYY-MM-DD HH24:MI:SS.US';
    v_order   text := coalesce(p_order, case p_status when 'pending' then 'queue' when 'scheduled' then 'due'
        else 'newest' end);
    -- Whether to read an index once per target, each as far as the page may go; of large pages that is too much.
    v_indexed boolean := coalesce(v_order in ('queue', 'due', 'target') or p_status in ('processing', 'failed')
        and (p_target is not null or p_limit <= 1000), false);
    -- Whether to read it from end to end instead.
    v_through boolean := v_order = 'target' and p_target is null;
    v_sort    text;
    v_cursor  text;
    -- What the index that is read knows, and what only the rows do.
    v_index   text;
    v_rows    text;
    v_ranges  text[];
    v_each    bigint;
    v_targets text[];
    v_page    text;
    v_ends    text;
    v_end     bigint;
    v_count   bigint := 0;
    v_row     record;
begin
    if p_status not in ('pending', 'scheduled', 'processing', 'completed', 'failed', 'cancelled') then
        raise exception 'unknown status "%"', p_status
            using errcode = 'MQ002', hint = 'use pending, scheduled, processing, completed, failed or cancelled';
    end if;
    if v_order not in ('queue', 'due', 'oldest', 'newest', 'target')
        or v_order = 'queue' and p_status is distinct from 'pending'
        or v_order = 'due' and p_status is distinct from 'scheduled'
        or v_order = 'target' and (p_status in ('pending', 'scheduled', 'processing', 'failed')) is not true then
        raise exception 'there is no order "%" of % messages', v_order, coalesce(p_status, 'all')
            using errcode = 'MQ002',
                hint = 'use oldest or newest; queue is for pending messages, due for scheduled ones, target for those '
                    'that have not ended or have failed';
    end if;
    p_limit := case when p_limit < 0 then 0 else p_limit end;
    p_look_at := least(greatest(p_look_at, 1), 10000000);
    v_ranges := integration.list_ranges(v_order, p_after, p_status);
    if not v_indexed and (p_target is not null or p_status is not null) and not exists (
        select from integration.current_counters c
         where c.messages > 0 and (p_target is null or c.target_app = p_target)
           and (p_status is null or c.status = p_status)) then
        return;
    end if;
    v_sort := case v_order when 'queue' then 'priority desc, created_at, id' when 'due' then 'available_at, id'
                           when 'oldest' then 'id' when 'newest' then 'id desc'
                           else case p_status when 'pending' then 'target_app, priority desc, created_at, id'
                                when 'scheduled' then 'target_app, available_at, id' else 'target_app, id' end end;
    v_cursor := case v_order
        when 'queue'
            then format('concat_ws(''|'', l.priority, to_char(l.created_at at time zone ''UTC'', %L), l.id)', v_iso)
        when 'due'
            then format('concat_ws(''|'', to_char(l.available_at at time zone ''UTC'', %L), l.id)', v_iso)
        when 'target' then case p_status
            when 'pending' then format('concat_ws(''|'', l.priority, to_char(l.created_at at time zone ''UTC'', %L), '
                'l.id, l.target_app)', v_iso)
            when 'scheduled' then format('concat_ws(''|'', to_char(l.available_at at time zone ''UTC'', %L), l.id, '
                'l.target_app)', v_iso)
            else 'concat_ws(''|'', l.id, l.target_app)' end
        else 'l.id::text' end;
    -- Values are quoted, and literals, so that the planner sees that a partial index serves.
    v_index := concat(case when v_indexed and not v_through then 'd.target_app = t.target_app' else 'true' end,
                      case when v_indexed then ' and d.status = ' || quote_literal(p_status) end,
                      case when v_order in ('oldest', 'newest') then ' and d.id >= ' || p_first_id end,
                      case when v_order in ('oldest', 'newest') then ' and d.id <= ' || p_last_id end);
    if p_completed_by is not null and v_order in ('oldest', 'newest') then
        -- As far as this look can go: the audit log is read for these ids alone.
        execute format('select d.id from integration.data_staging d where %s%s order by %s offset %s limit 1',
            replace(v_index, 't.target_app', quote_nullable(p_target)), v_ranges[1], v_sort, p_look_at - 1) into v_end;
    end if;
    v_rows := integration.list_conditions(
        case when not v_indexed then p_target end, case when not v_indexed then p_status end, p_type, p_source,
        p_reason, p_older_than, p_changed_since, p_changed_until, p_ordering_key, p_dedup_key, p_headers, p_payload,
        p_completed_by, case v_order when 'newest' then coalesce(v_end, 0) when 'oldest' then p_after::bigint end,
        case v_order when 'newest' then p_after::bigint when 'oldest' then v_end end, p_published_since,
        p_published_until, case when v_order in ('queue', 'due', 'target') then p_first_id end,
        case when v_order in ('queue', 'due', 'target') then p_last_id end, p_redriven);
    v_targets := array[p_target];
    if v_indexed and p_target is null and not v_through then
        execute format('with recursive t as (
            (select d.target_app from integration.data_staging d where d.status = %1$L order by d.target_app limit 1)
            union all
            select (select d.target_app from integration.data_staging d
                     where d.status = %1$L and d.target_app > t.target_app order by d.target_app limit 1)
              from t where t.target_app is not null)
            select array_agg(t.target_app) from t where t.target_app is not null', p_status) into v_targets;
    end if;
    -- Each target and range is looked through as far as the others.
    v_each := greatest(p_look_at / greatest(coalesce(cardinality(v_targets), 1), 1), 1);
    select string_agg(format(case v_rows
                             when 'true' then '(select %1$s from integration.data_staging d where %2$s%3$s '
                                 'order by %4$s limit %7$s)'
                             else '(select %1$s from (select * from integration.data_staging d where %2$s%3$s '
                                 'order by %4$s limit %5$s) d where %6$s order by %4$s limit %7$s)' end,
                             v_columns, v_index, r.range, v_sort, v_each, v_rows, coalesce(p_limit::text, 'all')),
                      ' union all '),
           -- What an index knows by itself is not looked for in the rows again.
           string_agg(format('(select %s from integration.data_staging d where d.id = (select d.id '
                             'from integration.data_staging d where %s%s order by %s offset %s limit 1))',
                             v_columns, v_index, r.range, v_sort, v_each - 1), ' union all ')
      into v_page, v_ends from unnest(v_ranges) r (range);
    for v_row in execute format(
        'with found as %8$s materialized (select l.* from unnest($1) t (target_app) cross join lateral (%2$s) l), '
        'page as (select l.* from found l order by %3$s limit %4$s), '
        -- The first place behind which some range was not looked through: nobody asks where each gave a page.
        'ends as (select l.* from unnest($1) t (target_app) cross join lateral (%5$s) l '
        '          where %6$s and (select count(*) from found) < %7$s order by %3$s limit 1) '
        'select l.*, %1$s as cursor '
        '  from (select p.*, false as ends from page p union all select e.*, true from ends e) l order by %3$s, l.ends',
        v_cursor, v_page, regexp_replace(v_sort, '(^|, )', E'\\1l.', 'g'), coalesce(p_limit::text, 'all'), v_ends,
        (v_rows <> 'true')::text,
        coalesce(p_limit::bigint * coalesce(cardinality(v_targets), 0) * cardinality(v_ranges), 9223372036854775807),
        case v_rows when 'true' then 'not' end) using v_targets
    loop
        exit when v_count >= p_limit;
        v_count := v_count + 1;
        if v_row.ends then
            created_at := v_row.created_at;
            id := null; source_app := null; target_app := null; record_type := null; status := null; priority := null;
            attempt := null; retry_count := null; crash_count := null; redrive_count := null; updated_at := null;
            available_at := null; owner := null; reason := null;
            cursor := v_row.cursor;
            return next;
            return;
        end if;
        id := v_row.id;
        source_app := v_row.source_app;
        target_app := v_row.target_app;
        record_type := v_row.record_type;
        status := v_row.status;
        priority := v_row.priority;
        attempt := v_row.attempt;
        retry_count := v_row.retry_count;
        crash_count := v_row.crash_count;
        redrive_count := v_row.redrive_count;
        created_at := v_row.created_at;
        updated_at := v_row.updated_at;
        available_at := v_row.available_at;
        owner := v_row.owner;
        reason := v_row.error_message;
        cursor := v_row.cursor;
        return next;
    end loop;
end $$;

-- For list: what only the rows know, as conditions on d; "true" where nothing is asked of them.
create or replace function integration.list_conditions(
    p_target text, p_status text, p_type text, p_source text, p_reason text, p_older_than interval,
    p_changed_since timestamptz, p_changed_until timestamptz, p_ordering_key text, p_dedup_key text, p_headers jsonb,
    p_payload text, p_completed_by text, p_audit_from bigint, p_audit_until bigint, p_published_since timestamptz,
    p_published_until timestamptz, p_first_id bigint, p_last_id bigint, p_redriven boolean
) returns text
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    -- Read as they were meant, whatever the session's zone and style are.
    v_utc constant text := 'YYYY-MM-DD HH24:MI:SS.US"Z"';
begin
    return concat('true', ' and d.status = ' || quote_literal(p_status),
        ' and d.target_app = ' || quote_literal(p_target),
        ' and d.record_type = ' || quote_literal(p_type),
        ' and d.source_app = ' || quote_literal(p_source),
        ' and d.error_message like ' || quote_literal(p_reason),
        ' and d.created_at < '
            || quote_literal(to_char((integration.clock() - p_older_than) at time zone 'UTC', v_utc)),
        ' and d.created_at >= ' || quote_literal(to_char(p_published_since at time zone 'UTC', v_utc)),
        ' and d.created_at < ' || quote_literal(to_char(p_published_until at time zone 'UTC', v_utc)),
        ' and d.updated_at >= ' || quote_literal(to_char(p_changed_since at time zone 'UTC', v_utc)),
        ' and d.updated_at < ' || quote_literal(to_char(p_changed_until at time zone 'UTC', v_utc)),
        ' and d.ordering_key = ' || quote_literal(p_ordering_key),
        ' and d.dedup_key = ' || quote_literal(p_dedup_key),
        ' and d.headers @> ' || quote_literal(p_headers),
        ' and d.data @@ ' || quote_literal(p_payload::jsonpath),
        ' and d.id >= ' || p_first_id, ' and d.id <= ' || p_last_id,
        ' and d.redrive_count ' || case when p_redriven then '> 0' when not p_redriven then '= 0' end,
        ' and (d.id, d.attempt) in (select a.staging_id, a.attempt from integration.audit_log a '
            'where a.action = ''completed'' and a.owner = ' || quote_literal(p_completed_by)
            || coalesce(' and a.staging_id >= ' || p_audit_from, '')
            || coalesce(' and a.staging_id <= ' || p_audit_until, '') || ')');
end $$;

-- For list: the conditions of what comes after a cursor, each of which is one range of the order's index.
-- SQLSTATEs: MQ002 for a cursor of another order.
create or replace function integration.list_ranges(p_order text, p_after text, p_status text) returns text[]
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    v_each   text := case p_order when 'target' then
        case p_status when 'pending' then 'queue' when 'scheduled' then 'due' else 'oldest' end else p_order end;
    v_many   integer := case v_each when 'queue' then 3 when 'due' then 2 else 1 end;
    v        text[] := string_to_array(p_after, '|');
    v_ranges text[];
    v_target text;
begin
    if p_after is null then
        return array[''];
    end if;
    if p_order = 'target' then
        -- A target's name may have anything in it, so it comes last.
        v_target := array_to_string(v[v_many + 1:], '|');
        v := v[:v_many];
    end if;
    if cardinality(v) <> v_many or v_target = '' then
        raise data_exception;
    end if;
    case v_each
    when 'queue' then
        v_ranges := array[format(' and d.priority = %s and (d.created_at, d.id) > (%L, %s)', v[1]::integer,
            (v[2]::timestamp || 'Z'), v[3]::bigint),
                               format(' and d.priority < %s', v[1]::integer)];
    when 'due' then
        v_ranges := array[format(' and d.available_at >= %1$L and (d.available_at, d.id) > (%1$L, %2$s)',
            (v[1]::timestamp || 'Z'), v[2]::bigint)];
    else
        v_ranges := array[format(' and d.id %s %s', case v_each when 'oldest' then '>' else '<' end,
            v[1]::bigint)];
    end case;
    if v_target is null then
        return v_ranges;
    end if;
    return array(select format(' and d.target_app = %L', v_target) || r from unnest(v_ranges) r)
        || format(' and d.target_app > %L', v_target);
exception when data_exception then
    raise exception '"%" is not a cursor of the order "%"', p_after, p_order
        using errcode = 'MQ002', hint = 'pass the cursor of a list in the same order';
end $$;
