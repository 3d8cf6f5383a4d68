-- Looking through the messages: what "doorbell list", and cancel, retry and redrive by filter, go by.

-- Lists messages of data_staging that a filter names, without their payloads; null matches all. p_reason is a LIKE
-- pattern over error_message; p_older_than counts from created_at; p_changed_since and p_changed_until are about
-- updated_at, of failed messages when they failed; p_headers is contained in theirs; p_payload is a predicate of
-- SQL/JSON ($.order == 7); p_completed_by is the owner who completed them, as the audit log has it. p_order:
--   queue   as claim takes them: priority, then age (pending)
--   due     next due first (scheduled)
--   oldest, newest   by id
-- Default: queue, due, or newest, whichever the status allows. For the next page, pass the cursor of the last row as
-- p_after, and the rest as before. Empty result: nothing (more) matches. Fast whatever the size of the table, as each
-- has an index: pending by queue, scheduled by due, processing and failed by id, with or without a target; and anything
-- by id that matches often. Slow, because rows that do not match are read: rare matches by id among completed and
-- cancelled ones, or of a type, source, reason or age. Without a target, an index is read once per target that has such
-- messages.
-- SQLSTATEs: MQ002 for an unknown status or order, an order that the status does not have, or a cursor of another
-- order.
create or replace function integration.list(
    p_status text default null, p_target text default null, p_type text default null, p_source text default null,
    p_reason text default null, p_older_than interval default null, p_order text default null,
    p_limit integer default 100, p_after text default null, p_changed_since timestamptz default null,
    p_changed_until timestamptz default null, p_ordering_key text default null, p_dedup_key text default null,
    p_headers jsonb default null, p_payload text default null, p_completed_by text default null
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
    -- Read as they were meant, whatever the session's zone and style are.
    v_utc     constant text := 'YYYY-MM-DD HH24:MI:SS.US"Z"';
    v_order   text := coalesce(p_order, case p_status when 'pending' then 'queue' when 'scheduled' then 'due'
        else 'newest' end);
    -- Whether to read an index once per target, each as far as the page may go; of large pages that is too much.
    v_indexed boolean := v_order in ('queue', 'due') or p_status in ('processing', 'failed')
        and (p_target is not null or p_limit <= 1000);
    v_sort    text;
    v_cursor  text;
    v_where   text;
    v_ranges  text[];
    v_page    text;
    v_targets text[];
begin
    if p_status not in ('pending', 'scheduled', 'processing', 'completed', 'failed', 'cancelled') then
        raise exception 'unknown status "%"', p_status
            using errcode = 'MQ002', hint = 'use pending, scheduled, processing, completed, failed or cancelled';
    end if;
    if v_order not in ('queue', 'due', 'oldest', 'newest')
        or v_order = 'queue' and p_status is distinct from 'pending'
        or v_order = 'due' and p_status is distinct from 'scheduled' then
        raise exception 'there is no order "%" of % messages', v_order, coalesce(p_status, 'all')
            using errcode = 'MQ002',
                hint = 'use oldest or newest; queue is for pending messages, due for scheduled ones';
    end if;
    v_sort := case v_order when 'queue' then 'priority desc, created_at, id' when 'due' then 'available_at, id'
                           when 'oldest' then 'id' else 'id desc' end;
    v_cursor := case v_order
        when 'queue'
            then format('concat_ws(''|'', l.priority, to_char(l.created_at at time zone ''UTC'', %L), l.id)', v_iso)
        when 'due'
            then format('concat_ws(''|'', to_char(l.available_at at time zone ''UTC'', %L), l.id)', v_iso)
        else 'l.id::text' end;
    v_ranges := integration.list_ranges(v_order, p_after);
    -- Values are quoted, and literals, so that the planner sees that a partial index serves.
    v_where := concat(' and d.status = ' || quote_literal(p_status), ' and d.record_type = ' || quote_literal(p_type),
                      ' and d.source_app = ' || quote_literal(p_source),
                      ' and d.error_message like ' || quote_literal(p_reason),
                      ' and d.created_at < '
                          || quote_literal(to_char((integration.clock() - p_older_than) at time zone 'UTC', v_utc)),
                      ' and d.updated_at >= '
                          || quote_literal(to_char(p_changed_since at time zone 'UTC', v_utc)),
                      ' and d.updated_at < ' || quote_literal(to_char(p_changed_until at time zone 'UTC', v_utc)),
                      ' and d.ordering_key = ' || quote_literal(p_ordering_key),
                      ' and d.dedup_key = ' || quote_literal(p_dedup_key),
                      ' and d.headers @> ' || quote_literal(p_headers),
                      ' and d.data @@ ' || quote_literal(p_payload::jsonpath),
                      format(' and (d.id, d.attempt) in (select a.staging_id, a.attempt from integration.audit_log a '
                          'where a.action = ''completed'' and a.owner = %L)', p_completed_by)
                          || case when p_completed_by is null then null else '' end);
    select string_agg(format('(select %s from integration.data_staging d where %s%s%s order by %s limit %s)', v_columns,
                             case when v_indexed then 'd.target_app = t.target_app'
                                  else coalesce('d.target_app = ' || quote_literal(p_target), 'true') end,
                             v_where, r.range, v_sort, coalesce(p_limit::text, 'all')), ' union all ')
      into v_page from unnest(v_ranges) r (range);
    v_targets := array[p_target];
    if v_indexed and p_target is null then
        execute format('with recursive t as (
            (select d.target_app from integration.data_staging d where d.status = %1$L order by d.target_app limit 1)
            union all
            select (select d.target_app from integration.data_staging d
                     where d.status = %1$L and d.target_app > t.target_app order by d.target_app limit 1)
              from t where t.target_app is not null)
            select array_agg(t.target_app) from t where t.target_app is not null', p_status) into v_targets;
    end if;
    return query execute format(
            'select l.*, %s from unnest($1) t (target_app) cross join lateral (%s) l order by %s limit %s',
            v_cursor, v_page, regexp_replace(v_sort, '(^|, )', E'\\1l.', 'g'), coalesce(p_limit::text, 'all'))
        using v_targets;
end $$;

-- For list: the conditions of what comes after a cursor, each of which is one range of the order's index.
-- SQLSTATEs: MQ002 for a cursor of another order.
create or replace function integration.list_ranges(p_order text, p_after text) returns text[]
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    v text[] := string_to_array(p_after, '|');
begin
    if p_after is null then
        return array[''];
    end if;
    if cardinality(v) <> (case p_order when 'queue' then 3 when 'due' then 2 else 1 end) then
        raise data_exception;
    end if;
    case p_order
    when 'queue' then
        return array[format(' and d.priority = %s and (d.created_at, d.id) > (%L, %s)', v[1]::integer,
            (v[2]::timestamp || 'Z'), v[3]::bigint),
                     format(' and d.priority < %s', v[1]::integer)];
    when 'due' then
        return array[format(' and d.available_at >= %1$L and (d.available_at, d.id) > (%1$L, %2$s)',
            (v[1]::timestamp || 'Z'), v[2]::bigint)];
    else
        return array[format(' and d.id %s %s', case p_order when 'oldest' then '>' else '<' end, p_after::bigint)];
    end case;
exception when data_exception then
    raise exception '"%" is not a cursor of the order "%"', p_after, p_order
        using errcode = 'MQ002', hint = 'pass the cursor of a list in the same order';
end $$;
