-- Which messages a claim takes: the hottest query of all.

-- Locks up to p_limit pending messages of a target that nobody else has locked, and returns their ids.
--
-- Dead index entries pile up at the front of the queue while anything holds back the vacuum horizon, and every look
-- from the beginning walks over all of them. So a consumer names ranges of priorities, in the order in which they are
-- to be visited, and for a range of one priority the place where its last look ended: (p_after_at, p_after_ids),
-- exclusive. What became pending again behind that place is in an index of its own. Everything else that may lie behind
-- it (late commits, times set by hand) is found by looks from the beginning: p_lows null, or a place null.
-- p_aside: some messages of the target may be set aside, and are left out.
-- Locks: the rows, FOR NO KEY UPDATE SKIP LOCKED. The order of the result is undefined.
--
-- One range of one priority compares for equality, because only then the place is where the index scan begins. The
-- statuses are literals because a partial index is not used for a parameter. Sequential and bitmap scans are off
-- because a cached plan made while the table was small would otherwise scan all of it later; sorts, because it would
-- read and sort the whole queue. Generic plans are forced because planning the statement again, as the server would for
-- each call to leave out arms that a parameter rules out, takes ten times as long as running it. JIT is off because
-- before PostgreSQL 18 a forbidden scan that cannot be avoided (of a small table without a usable index) is priced at
-- 10^10, which makes the server compile for a third of a second and more what runs in microseconds.
create or replace function integration.pick(
    p_target text, p_limit integer, p_types text[], p_except_types text[], p_bytes_max bigint,
    p_lows integer[], p_highs integer[], p_after_at timestamptz[], p_after_ids bigint[], p_aside boolean default false
) returns table (id bigint)
    language plpgsql set search_path = pg_catalog, pg_temp
    set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
    set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
    v_bytes bigint := 0;
    v_row   record;
begin
    for v_row in
        select s.id, s.bytes
          from (select u.low, u.high, coalesce(u.after_at, '-infinity') as after_at, u.after_id
                  from unnest(coalesce(p_lows, '{-2147483648}'), coalesce(p_highs, '{2147483647}'),
                              coalesce(p_after_at, array[null::timestamptz]), coalesce(p_after_ids, '{0}'))
                       u (low, high, after_at, after_id)) r
         cross join lateral (
            select * from (
                select q.id, integration.bytes_of(q.data) + coalesce(pg_column_size(q.headers), 0) as bytes
                  from integration.data_staging q
                 where r.after_at > '-infinity'
                   and q.target_app = p_target and q.status = 'pending' and q.requeued and q.crash_count = 0
                   and q.priority = r.low and (q.created_at, q.id) <= (r.after_at, r.after_id)
                   and (p_types is null or q.record_type = any (p_types))
                   and (p_except_types is null or q.record_type <> all (p_except_types))
                   and (not p_aside or not integration.is_set_aside(q.id, q.created_at))
                 order by q.priority desc, q.created_at, q.id limit p_limit
                 for no key update skip locked) again
            union all
            select * from (
                select q.id, integration.bytes_of(q.data) + coalesce(pg_column_size(q.headers), 0)
                  from integration.data_staging q
                 where r.low = r.high
                   and q.target_app = p_target and q.status = 'pending' and q.crash_count = 0
                   and q.priority = r.low and (q.created_at, q.id) > (r.after_at, r.after_id)
                   and (p_types is null or q.record_type = any (p_types))
                   and (p_except_types is null or q.record_type <> all (p_except_types))
                   and (not p_aside or not integration.is_set_aside(q.id, q.created_at))
                 order by q.priority desc, q.created_at, q.id limit p_limit
                 for no key update skip locked) next
            union all
            select * from (
                select q.id, integration.bytes_of(q.data) + coalesce(pg_column_size(q.headers), 0)
                  from integration.data_staging q
                 where r.low < r.high
                   and q.target_app = p_target and q.status = 'pending' and q.crash_count = 0
                   and q.priority between r.low and r.high
                   and (p_types is null or q.record_type = any (p_types))
                   and (p_except_types is null or q.record_type <> all (p_except_types))
                   and (not p_aside or not integration.is_set_aside(q.id, q.created_at))
                 order by q.priority desc, q.created_at, q.id limit p_limit
                 for no key update skip locked) anywhere) s
         limit p_limit
    loop
        exit when v_bytes >= p_bytes_max;
        v_bytes := v_bytes + v_row.bytes;
        id := v_row.id;
        return next;
    end loop;
end $$;

-- How many bytes a payload has when it is not compressed; how many more it may have as text is bounded when it is
-- published, see check_contents. (An empty path hands back the whole, decompressed and not printed.)
create or replace function integration.bytes_of(p_data jsonb) returns integer
    language sql stable parallel safe as $$
    select case when pg_column_compression(p_data) is null then pg_column_size(p_data)
                else pg_column_size(p_data #> '{}') end
$$;
