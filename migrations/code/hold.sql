-- Holding: messages handled in one transaction, which never become processing.

-- Takes up to p_limit pending messages for the length of the caller's transaction, which must be a short one. Nothing
-- is written: the messages stay pending and locked, so nobody else takes them, and if the transaction ends before
-- complete_many(..., p_held => true) they were never taken. The attempt is the one that it will give them. The other
-- parameters and the result are claim's.
-- Messages with a key are not held, because nobody else would see that their key is busy; nor any while the target has
-- a gate. The last row is then one that names no message, and is ahead: end the transaction, and use claim.
-- Empty result: nothing pending there.
-- Locks: the rows, FOR NO KEY UPDATE SKIP LOCKED, until the transaction ends.
create or replace function integration.hold(
    p_target text, p_limit integer, p_types text[] default null, p_bytes_max bigint default 16777216,
    p_lows integer[] default null, p_highs integer[] default null,
    p_after_at timestamptz[] default null, p_after_ids bigint[] default null,
    p_again_at timestamptz[] default null, p_again_ids bigint[] default null
) returns table (
    id bigint, attempt integer, source_app text, record_type text, data jsonb, headers jsonb, priority integer,
    retry_count integer, redrive_count integer, ordering_key text, created_at timestamptz, requeued_at timestamptz,
    canary boolean, ahead boolean, origin_id bigint
)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set enable_bitmapscan = off set enable_sort = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
    v_gated boolean;
    v_aside boolean := false;
    v_shut  boolean := false;
    v_others boolean;
    v_ids   bigint[];
    v_bytes bigint := 0;
    v_more  bigint;
    -- The range that has a place, where it is the only one.
    v_at    integer := case when cardinality(array_remove(p_after_at, null)) = 1
        then array_position(p_after_at, (array_remove(p_after_at, null))[1]) end;
begin
    if integration.is_limited() then
        perform integration.must_consume(array[p_target]);
    end if;
    -- What has_gates asks is asked here: to call it costs more than all that is asked. Most of it is of tables that are
    -- empty, which the size of a file tells for a third of the price.
    if pg_relation_size('integration.set_aside') > 0 or pg_relation_size('integration.expiring') > 0 then
        v_aside := exists (select from integration.set_aside s where s.target_app = p_target)
            or exists (select from integration.expiring e where e.expires_at <= (select integration.clock()));
    end if;
    if pg_relation_size('integration.breakers') > 0 then
        v_shut := exists (
            select from integration.breakers b where b.breaker_key = p_target and b.state <> 'closed');
    end if;
    -- And whether there is anything elsewhere than behind the place. In the order of its index, which "exists" would
    -- leave to the planner.
    select exists (select from integration.targets t where t.target_app = p_target),
           v_at is null
               or (select true from integration.data_staging q
                    where q.target_app = p_target and q.status = 'pending' and q.requeued_at is not null
                      and q.crash_count = 0 and q.priority = p_lows[v_at]
                      and (q.requeued_at, q.id)
                          > (coalesce(p_again_at[v_at], '-infinity'), coalesce(p_again_ids[v_at], 0))
                    order by q.priority desc, q.requeued_at, q.id limit 1)
               or (select true from integration.data_staging q
                    where q.target_app = p_target and q.status = 'pending' and q.crash_count = 0
                      and q.priority > p_lows[v_at]
                    order by q.priority desc, q.created_at, q.id limit 1)
               or (select true from integration.data_staging q
                    where q.target_app = p_target and q.status = 'pending' and q.crash_count = 0
                      and q.priority < p_lows[v_at]
                    order by q.priority desc, q.created_at, q.id limit 1)
      into v_gated, v_others;
    v_gated := (v_gated or v_shut) and integration.is_gated(p_target);
    if not v_gated and v_others is not true then
        -- What nearly all looks are: one range, and nothing to be put in order. It is read as it is locked, and read no
        -- further than p_bytes_max.
        for id, attempt, source_app, record_type, data, headers, priority, retry_count, redrive_count, ordering_key,
            created_at, requeued_at, canary, ahead, origin_id, v_more in
            select case when q.ordering_key is null then q.id end, least(q.attempt, 2147483646) + 1, q.source_app,
                   q.record_type, q.data, q.headers, q.priority, q.retry_count, q.redrive_count, q.ordering_key,
                   q.created_at, q.requeued_at, false, q.ordering_key is not null, q.origin_id,
                   integration.bytes_of(q.data) + coalesce(pg_column_size(q.headers), 0)
              from integration.data_staging q
             where q.target_app = p_target and q.status = 'pending' and q.crash_count = 0
               and q.priority = p_lows[v_at] and (q.created_at, q.id) > (p_after_at[v_at], p_after_ids[v_at])
               and (p_types is null or q.record_type = any (p_types))
               and (not v_aside or not integration.is_left_out(q.id, q.created_at))
             order by q.priority desc, q.created_at, q.id limit p_limit
             for no key update skip locked
        loop
            return next;
            v_bytes := v_bytes + v_more;
            exit when v_bytes >= p_bytes_max or ahead;
        end loop;
        return;
    end if;
    -- Locked first, read in a statement of its own: a row that was edited a moment ago is locked as it is now, and the
    -- snapshot of one statement for both would show what it was before.
    if not v_gated then
        v_ids := integration.pick(p_target, p_limit, p_types, p_bytes_max, p_lows, p_highs, p_after_at, p_after_ids,
            p_again_at, p_again_ids, v_aside);
    end if;
    if v_gated or v_ids[1] = 0 then
        return query
            select null::bigint, null::integer, null::text, null::text, null::jsonb, null::jsonb, null::integer,
                   null::integer, null::integer, null::text, null::timestamptz, null::timestamptz, false, true,
                   null::bigint;
        return;
    elsif v_ids is null then
        return;
    end if;
    return query
        select d.id, least(d.attempt, 2147483646) + 1, d.source_app, d.record_type, d.data, d.headers, d.priority,
               d.retry_count, d.redrive_count, d.ordering_key, d.created_at, d.requeued_at, false, false, d.origin_id
          from integration.data_staging d
         where d.id = any (v_ids)
         order by d.priority desc, d.created_at, d.id;
end $$;

-- Makes leased messages of some that the caller's transaction holds (see hold), so that they stay its owner's when the
-- transaction has ended: what is not done in time, or did not end well. p_attempts are those that hold gave them.
-- Returns the ids that were. Whoever completes or settles them afterwards does so as after claim.
-- Locks: none that the transaction does not have. SQLSTATEs: MQ001 when the owner is not alive, 42501 as complete.
create or replace function integration.lease_held(p_owner text, p_ids bigint[], p_attempts integer[],
    p_created timestamptz[])
    returns setof bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set enable_nestloop = off as $$
declare
    v_now timestamptz := integration.clock();
begin
    if integration.is_limited() then
        perform integration.must_settle(p_ids);
        perform integration.must_own(p_owner);
    end if;
    if not integration.is_alive(p_owner) then
        raise exception 'consumer "%" is not alive', p_owner
            using errcode = 'MQ001', hint = 'register it again';
    end if;
    return query
        update integration.data_staging d
           set status = 'processing', attempt = s.attempt, owner = p_owner, lease_until = null, updated_at = v_now
          from unnest(p_ids, p_attempts, p_created) s (id, attempt, created_at)
         where d.id = any (p_ids) and d.id = s.id and d.attempt = s.attempt - 1 and d.created_at = s.created_at
           and d.owner is null and d.status || '' = 'pending'
        returning d.id;
end $$;
