-- Which messages a claim takes: the hottest query of all.

-- Locks up to p_limit pending messages of a target that nobody else has locked, and returns their ids. Null: there are
-- none.
--
-- Dead index entries pile up at the front of the queue while anything holds back the vacuum horizon, and every look
-- from the beginning walks over all of them. So a consumer names ranges of priorities, in the order in which they are
-- to be visited, and for a range of one priority the place where its last look ended: (p_after_at, p_after_ids),
-- exclusive. What became pending again may lie behind that place: it is in an index of its own, in the order in which
-- it did, with places of its own (p_again_at, p_again_ids; null: its beginning). Everything else that may lie behind a
-- place (late commits, times set by hand) is found by looks from the beginning: p_lows null, or a place null.
-- p_aside: some messages may be set aside, or have expired, and are left out. Messages with a key take turns;
-- that is not asked here: where some have a key the first of the ids is 0, and pick_keyed says which may be taken.
-- Locks: the rows, FOR NO KEY UPDATE SKIP LOCKED; where p_bytes_max comes first, more than are returned. The order of
-- the result is undefined.
--
-- For claim, hold and what else pins the search path and says how to plan: no settings of its own, and a statement for
-- each range, none that is not needed: one statement for all, with settings of its own, made a lone look that holds a
-- message cost 1,096,000 instructions in place of 771,000, because the server prepares all its arms to run. Where there
-- are several ranges, one question comes first: which have anything. Most have nothing, and to lock nothing costs as
-- much as to lock a message.
-- One range of one priority compares for equality, because only then the place is where the index scan begins. The
-- statuses are literals because a partial index is not used for a parameter. Sequential and bitmap scans are off
-- because a cached plan made while the table was small would otherwise scan all of it later; sorts, because it would
-- read and sort the whole queue. Generic plans are forced because planning the statement again, as the server would
-- for each call to leave out conditions that a parameter rules out, takes ten times as long as running it. JIT is off
-- because before PostgreSQL 18 a forbidden scan that cannot be avoided (of a small table without a usable index) is
-- priced at 10^10, which makes the server compile for a third of a second and more what runs in microseconds.
create or replace function integration.pick(
    p_target text, p_limit integer, p_types text[], p_bytes_max bigint,
    p_lows integer[], p_highs integer[], p_after_at timestamptz[], p_after_ids bigint[],
    p_again_at timestamptz[], p_again_ids bigint[], p_aside boolean, out ids bigint[]
)
    language plpgsql as $$
declare
    v_left  integer := p_limit;
    v_bytes bigint := 0;
    v_more  bigint;
    v_found bigint[];
    v_any   boolean;
    v_keyed boolean := false;
    v_asked boolean := coalesce(cardinality(p_lows), 0) > 1;
    v_there integer[];
begin
    if v_asked then
        -- In the order of its index, which "exists" would leave to the planner.
        v_there := array(
            select i.i from generate_subscripts(p_lows, 1) i (i)
             where case when p_after_at[i.i] > '-infinity' then (
                        select true from integration.data_staging q
                         where q.target_app = p_target and q.status = 'pending' and q.requeued_at is not null
                           and q.crash_count = 0 and q.priority = p_lows[i.i]
                           and (q.requeued_at, q.id)
                               > (coalesce(p_again_at[i.i], '-infinity'), coalesce(p_again_ids[i.i], 0))
                         order by q.priority desc, q.requeued_at, q.id limit 1)
                   else (
                        select true from integration.data_staging q
                         where q.target_app = p_target and q.status = 'pending' and q.crash_count = 0
                           and q.priority between p_lows[i.i] and p_highs[i.i]
                         order by q.priority desc, q.created_at, q.id limit 1) end);
    end if;
    for i in 1 .. coalesce(cardinality(p_lows), 1) loop
        v_found := null;
        if p_after_at[i] > '-infinity' then
            if not v_asked or i = any (v_there) then
                select array_agg(l.id), sum(l.bytes), bool_or(l.keyed) into v_found, v_more, v_any from (
                    select q.id, integration.bytes_of(q.data) + coalesce(pg_column_size(q.headers), 0) as bytes,
                           q.ordering_key is not null as keyed
                      from integration.data_staging q
                     where q.target_app = p_target and q.status = 'pending' and q.requeued_at is not null
                       and q.crash_count = 0 and q.priority = p_lows[i]
                       and (q.requeued_at, q.id) > (coalesce(p_again_at[i], '-infinity'), coalesce(p_again_ids[i], 0))
                       and (p_types is null or q.record_type = any (p_types))
                       and (not p_aside or not integration.is_left_out(q.id, q.created_at))
                     order by q.priority desc, q.requeued_at, q.id limit v_left
                     for no key update skip locked) l;
            end if;
            if v_found is not null then
                ids := ids || v_found;
                v_left := v_left - cardinality(v_found);
                v_bytes := v_bytes + v_more;
                v_keyed := v_keyed or v_any;
                exit when v_left = 0 or v_bytes >= p_bytes_max;
            end if;
            -- What this transaction has locked is not locked for it.
            select array_agg(l.id), sum(l.bytes), bool_or(l.keyed) into v_found, v_more, v_any from (
                select q.id, integration.bytes_of(q.data) + coalesce(pg_column_size(q.headers), 0) as bytes,
                       q.ordering_key is not null as keyed
                  from integration.data_staging q
                 where q.target_app = p_target and q.status = 'pending' and q.crash_count = 0
                   and q.priority = p_lows[i] and (q.created_at, q.id) > (p_after_at[i], p_after_ids[i])
                   and (q.requeued_at is null or ids is null or q.id <> all (ids))
                   and (p_types is null or q.record_type = any (p_types))
                   and (not p_aside or not integration.is_left_out(q.id, q.created_at))
                 order by q.priority desc, q.created_at, q.id limit v_left
                 for no key update skip locked) l;
        elsif not v_asked or i = any (v_there) then
            select array_agg(l.id), sum(l.bytes), bool_or(l.keyed) into v_found, v_more, v_any from (
                select q.id, integration.bytes_of(q.data) + coalesce(pg_column_size(q.headers), 0) as bytes,
                       q.ordering_key is not null as keyed
                  from integration.data_staging q
                 where q.target_app = p_target and q.status = 'pending' and q.crash_count = 0
                   and q.priority between coalesce(p_lows[i], -2147483648) and coalesce(p_highs[i], 2147483647)
                   and (p_types is null or q.record_type = any (p_types))
                   and (not p_aside or not integration.is_left_out(q.id, q.created_at))
                 order by q.priority desc, q.created_at, q.id limit v_left
                 for no key update skip locked) l;
        end if;
        if v_found is not null then
            ids := ids || v_found;
            v_left := v_left - cardinality(v_found);
            v_bytes := v_bytes + v_more;
            v_keyed := v_keyed or v_any;
            exit when v_left = 0 or v_bytes >= p_bytes_max;
        end if;
    end loop;
    if v_bytes >= p_bytes_max then
        -- The one that goes beyond is still taken: it may be larger than what is allowed.
        ids := array(
            select s.id from (
                select d.id, sum(integration.bytes_of(d.data) + coalesce(pg_column_size(d.headers), 0))
                                 over (order by u.place rows between unbounded preceding and 1 preceding) as before
                  from unnest(ids) with ordinality u (id, place) join integration.data_staging d on d.id = u.id) s
             where coalesce(s.before, 0) < p_bytes_max);
    end if;
    if v_keyed then
        ids := 0::bigint || ids;
    end if;
end $$;

-- How many bytes a payload has when it is not compressed; how many more it may have as text is bounded when it is
-- published, see check_contents. (An empty path hands back the whole, decompressed and not printed.)
create or replace function integration.bytes_of(p_data jsonb) returns integer
    language sql stable parallel safe as $$
    select case when pg_column_compression(p_data) is null then pg_column_size(p_data)
                else pg_column_size(p_data #> '{}') end
$$;
