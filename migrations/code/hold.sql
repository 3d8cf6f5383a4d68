-- Holding: messages handled in one transaction, which never become processing.

-- Takes up to p_limit pending messages for the length of the caller's transaction, which must be a short one. Nothing
-- is written: the messages stay pending and locked, so nobody else takes them, and if the transaction ends before
-- complete_many(..., p_held => true) they were never taken. The attempt is the one that it will give them. The other
-- parameters and the result are claim's.
-- Messages with a key are not held, because nobody else would see that their key is busy; nor any while the target has
-- a gate. The result is then one row that names no message, and is ahead: end the transaction, and use claim.
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
    v_aside boolean;
    v_ids   bigint[];
begin
    if integration.is_limited() then
        perform integration.must_consume(array[p_target]);
    end if;
    -- What has_gates asks is asked here: to call it costs more than all that is asked.
    select exists (select from integration.targets t where t.target_app = p_target)
               or exists (select from integration.breakers b where b.breaker_key = p_target and b.state <> 'closed'),
           exists (select from integration.set_aside s where s.target_app = p_target)
               or exists (select from integration.expiring e where e.expires_at <= (select integration.clock()))
      into v_gated, v_aside;
    v_gated := v_gated and integration.is_gated(p_target);
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
