-- Looking at what waits, without taking it.

-- The next pending messages of a target as claim would take them, suspects at their places, payloads too; of the types
-- given, null: of any. Gates are not asked: what a paused target would hand out is what one wants to see. Takes no
-- lock, and changes nothing. Empty result: nothing is pending. p_limit: at most so many, null: all.
create or replace function integration.peek(p_target text, p_limit integer default 10, p_types text[] default null)
    returns table (
        id bigint, source_app text, record_type text, priority integer, attempt integer, crash_count integer,
        created_at timestamptz, headers jsonb, data jsonb
    )
    language sql stable rows 10 set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
    select d.id, d.source_app, d.record_type, d.priority, d.attempt, d.crash_count, d.created_at, d.headers, d.data
      from integration.data_staging d
     where d.target_app = p_target and d.status = 'pending'
       and (p_types is null or d.record_type = any (p_types))
     order by d.priority desc, d.created_at, d.id
     limit greatest(p_limit, 0)
$$;
