-- Claiming: pending -> processing, owned by one consumer, one attempt.

-- Claims up to p_limit pending messages of one target, highest priority first, oldest first, for p_owner.
--
-- p_owner is the owner of a live row in processes, or any name together with p_lease (the claim then ends by itself
-- after that long unless extended). With p_lease nobody but the caller need be there: see claim_by_lease. p_types
-- restricts to some record types. p_bytes_max bounds the sum of the payloads' sizes as
-- text (at least one message is always claimed); p_lease is at most a day. Messages that were in flight when a consumer
-- died (crash_count > 0) are left to claim_suspect, unless p_lease is given. p_lows, p_highs, p_after_at, p_after_ids,
-- p_again_at, p_again_ids: where to look; see pick. Null: everywhere, from the beginning. p_series: at most so many
-- messages of one key; above 1, the caller handles those of a key in the order of their ids, and the rest only after
-- the one before is done. ahead: it was taken from beyond where the look ended, with others of its key.
-- Empty result: nothing pending there, or the target is paused. The rows come in claiming order. Where p_series is
-- above 1, they are followed by rows without an attempt: what the look met and did not claim, messages of busy keys.
-- Those without created_at are to be looked for again, the others are pending again when their turn has come. The last
-- may name no message, and is ahead: rate_max, and nothing else, kept it from claiming more. created_at is when others
-- may be claimed then, and requeued_at when that was said.
-- Locks: the rows, FOR NO KEY UPDATE SKIP LOCKED: never waits. SQLSTATEs: MQ001 when p_owner is not alive and no lease
-- was given.
--
-- Locked first, changed in a statement of its own: one statement for both would lock again, and more, wherever a row
-- was changed between its snapshot and the lock. No subtransaction: when the database refuses to change one of the
-- messages, all of it fails, and claim_in_parts is to be called; with p_lease that is done here.
create or replace function integration.claim(
    p_target text, p_owner text, p_limit integer default 1, p_types text[] default null,
    p_lease interval default null, p_bytes_max bigint default 16777216,
    p_lows integer[] default null, p_highs integer[] default null,
    p_after_at timestamptz[] default null, p_after_ids bigint[] default null,
    p_again_at timestamptz[] default null, p_again_ids bigint[] default null, p_series integer default 1
) returns table (
    id bigint, attempt integer, source_app text, record_type text, data jsonb, headers jsonb, priority integer,
    retry_count integer, redrive_count integer, ordering_key text, created_at timestamptz, requeued_at timestamptz,
    canary boolean, ahead boolean, origin_id bigint
)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set enable_bitmapscan = off set enable_sort = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
    v_now    timestamptz := integration.clock();
    v_alive  boolean := true;
    v_gated  boolean;
    v_aside  boolean;
    v_limit  integer := p_limit;
    v_canary boolean := false;
    v_ids    bigint[];
    v_seen   bigint[];
    v_behind bigint[];
    v_count  integer := 0;
    v_claims integer;
    v_rated  boolean := false;
begin
    if integration.is_limited() then
        perform integration.must_consume(array[p_target], p_owner);
    end if;
    if p_lease is not null then
        return query select * from integration.claim_by_lease(p_target, p_owner, p_limit, p_types, p_lease, p_bytes_max,
            p_lows, p_highs, p_after_at, p_after_ids, p_again_at, p_again_ids);
        return;
    end if;
    -- What has_gates asks is asked here: to call it costs more than all that is asked.
    select exists (select from integration.processes c where c.owner = p_owner),
           exists (select from integration.targets t where t.target_app = p_target)
               or exists (select from integration.breakers b where b.breaker_key = p_target and b.state <> 'closed'),
           exists (select from integration.set_aside s where s.target_app = p_target)
               or exists (select from integration.expiring e where e.expires_at <= v_now)
      into v_alive, v_gated, v_aside;
    if not v_alive then
        raise exception 'consumer "%" is not alive', p_owner
            using errcode = 'MQ001', hint = 'register it again, or claim with p_lease';
    end if;
    if v_gated and p_limit > 0 then
        select a.admitted, a.canary, a.rated into v_limit, v_canary, v_rated
          from integration.admit(p_target, p_limit) a;
        v_rated := v_rated and p_series > 1;
        -- Others may have been waited for.
        v_now := integration.clock();
        v_aside := v_aside or exists (select from integration.expiring e where e.expires_at <= v_now);
    end if;
    if v_limit <= 0 then
        if v_rated then
            return query select * from integration.cut_by_rate(p_target);
        end if;
        return;
    end if;
    v_ids := integration.pick(p_target, v_limit, p_types, p_bytes_max, p_lows, p_highs, p_after_at,
        p_after_ids, p_again_at, p_again_ids, v_aside);
    if v_ids[1] = 0 then
        v_seen := v_ids[2:];
        select k.ids, k.behind into v_ids, v_behind
          from integration.pick_keyed(p_target, v_limit, p_types, p_bytes_max, v_aside, p_series,
                   p_after_at, p_after_ids, v_seen) k;
    elsif v_ids is not null then
        return query
            with claimed as (
                update integration.data_staging d
                   set status = 'processing', attempt = least(d.attempt, 2147483646) + 1, owner = p_owner,
                       lease_until = null, updated_at = v_now
                 where d.id = any (v_ids)
                returning d.id, d.attempt, d.source_app, d.record_type, d.data, d.headers, d.priority,
                          d.retry_count, d.redrive_count, d.ordering_key, d.created_at, d.requeued_at, d.origin_id)
            select c.id, c.attempt, c.source_app, c.record_type, c.data, c.headers, c.priority, c.retry_count,
                   c.redrive_count, c.ordering_key, c.created_at, c.requeued_at, v_canary, false, c.origin_id
              from claimed c order by c.priority desc, c.created_at, c.id;
        get diagnostics v_count = row_count;
    end if;
    for i in 1 .. 20 loop
        exit when v_seen is null;
        return query select * from integration.claim_keyed(p_owner, v_ids, v_seen, v_canary, v_now);
        get diagnostics v_claims = row_count;
        v_count := v_count + v_claims;
        -- Without a message that goes before, those behind it must not be taken: one by one, then.
        if v_claims < cardinality(v_ids) then
            raise exception 'a trigger left messages with ordering keys as they were'
                using errcode = 'triggered_action_exception';
        end if;
        if p_series > 1 then
            return query
                select d.id, null::integer, null::text, null::text, null::jsonb, null::jsonb, d.priority, null::integer,
                       null::integer, d.ordering_key, case when d.behind_at is not null then d.created_at end,
                       d.requeued_at, false, false, null::bigint
                  from integration.data_staging d where d.id = any (v_seen) and d.status <> 'processing';
            exit;
        end if;
        -- Whoever is not told that the look met others is given what is behind them.
        exit when v_behind is null or v_count >= v_limit;
        v_seen := array_remove(integration.pick(p_target, v_limit - v_count, p_types, p_bytes_max, p_lows, p_highs,
            p_after_at, p_after_ids, p_again_at, p_again_ids, v_aside), 0);
        exit when v_seen is null;
        select k.ids, k.behind into v_ids, v_behind
          from integration.pick_keyed(p_target, v_limit - v_count, p_types, p_bytes_max, v_aside, 1,
                   p_after_at, p_after_ids, v_seen) k;
    end loop;
    if v_canary then
        perform integration.return_canaries(p_target, v_limit - v_count);
    end if;
    if v_gated then
        perform integration.note_claimed(p_target, v_count);
    end if;
    if v_rated and v_count >= v_limit then
        return query select * from integration.cut_by_rate(p_target);
    end if;
    -- A trigger of somebody's left all of them as they were.
    if v_ids is not null and v_count = 0 then
        return query select * from integration.claim_in_parts(p_target, p_owner, p_limit, p_types, null, p_bytes_max,
            p_lows, p_highs, p_after_at, p_after_ids, p_again_at, p_again_ids);
    end if;
end $$;

-- Claims as claim does, and goes on where that was refused: messages that the database refuses to change are set aside.
-- Also with p_lease. Parameters, result, locks and SQLSTATEs are claim's.
create or replace function integration.claim_in_parts(
    p_target text, p_owner text, p_limit integer default 1, p_types text[] default null,
    p_lease interval default null, p_bytes_max bigint default 16777216,
    p_lows integer[] default null, p_highs integer[] default null,
    p_after_at timestamptz[] default null, p_after_ids bigint[] default null,
    p_again_at timestamptz[] default null, p_again_ids bigint[] default null, p_series integer default 1
) returns table (
    id bigint, attempt integer, source_app text, record_type text, data jsonb, headers jsonb, priority integer,
    retry_count integer, redrive_count integer, ordering_key text, created_at timestamptz, requeued_at timestamptz,
    canary boolean, ahead boolean, origin_id bigint
)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set enable_bitmapscan = off set enable_sort = off set plan_cache_mode = force_generic_plan as $$
declare
    v_limit  integer;
    v_canary boolean;
    v_ids    bigint[];
    v_behind bigint[];
    v_count  integer := 0;
    v_claims integer;
    v_parked integer := 0;
begin
    if integration.is_limited() then
        perform integration.must_consume(array[p_target], p_owner);
    end if;
    if p_lease is null and not integration.is_alive(p_owner) then
        raise exception 'consumer "%" is not alive', p_owner
            using errcode = 'MQ001', hint = 'register it again, or claim with p_lease';
    end if;
    select a.admitted, a.canary into v_limit, v_canary from integration.admit(p_target, p_limit) a;
    if v_limit <= 0 then
        return;
    end if;
    loop
        v_behind := null;
        v_ids := integration.pick(p_target, v_limit - v_count, p_types, p_bytes_max, p_lows, p_highs, p_after_at,
            p_after_ids, p_again_at, p_again_ids, true);
        if v_ids[1] = 0 then
            -- Of each key only the first: those behind it would be taken where it is refused.
            select k.ids, k.behind into v_ids, v_behind
              from integration.pick_keyed(p_target, v_limit - v_count, p_types, p_bytes_max, true, 1, p_after_at,
                       p_after_ids, v_ids[2:]) k;
        end if;
        return query select * from integration.claim_picked(p_target, p_owner, coalesce(v_ids, '{}'), p_lease,
            v_limit - v_count, v_canary);
        get diagnostics v_claims = row_count;
        v_count := v_count + v_claims;
        v_parked := v_parked + coalesce(cardinality(v_behind), 0);
        -- Where all of them were set aside, or stand behind others now, there may be others behind them. What stands
        -- there does so for good: however many wait for one key, a few calls have seen them all.
        exit when v_canary or v_count >= v_limit or v_parked >= 1000
            or v_behind is null and (v_count > 0 or v_ids is null);
    end loop;
    perform integration.note_claimed(p_target, v_count);
end $$;

-- For claim_in_parts and claim_suspect: claims those of the messages that the database does not refuse to change. The
-- caller has locked them, and was admitted with p_limit.
create or replace function integration.claim_picked(
    p_target text, p_owner text, p_ids bigint[], p_lease interval, p_limit integer, p_canary boolean
) returns table (
    id bigint, attempt integer, source_app text, record_type text, data jsonb, headers jsonb, priority integer,
    retry_count integer, redrive_count integer, ordering_key text, created_at timestamptz, requeued_at timestamptz,
    canary boolean, ahead boolean, origin_id bigint
)
    language plpgsql set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
#variable_conflict use_column
declare
    v_now  timestamptz := integration.clock();
    v_done bigint[];
begin
    v_done := array(select integration.in_parts('claim', format(
        'select integration.claim_rows($1, %L, %L, %L)', p_owner, v_now + integration.bounded(p_lease), v_now), p_ids));
    if p_canary then
        perform integration.return_canaries(p_target, p_limit - cardinality(v_done));
    end if;
    return query
        select d.id, d.attempt, d.source_app, d.record_type, d.data, d.headers, d.priority, d.retry_count,
               d.redrive_count, d.ordering_key, d.created_at, d.requeued_at, p_canary, false, d.origin_id
          from integration.data_staging d where d.id = any (v_done) order by d.priority desc, d.created_at, d.id;
end $$;

create or replace function integration.claim_rows(p_ids bigint[], p_owner text, p_lease_until timestamptz,
    p_now timestamptz) returns setof bigint
    language sql set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
    update integration.data_staging d
       set status = 'processing', attempt = least(d.attempt, 2147483646) + 1, owner = p_owner,
           lease_until = p_lease_until, updated_at = p_now, behind_at = null, available_at = null,
           series = case when d.ordering_key is not null then nextval('integration.series') end
     where d.id = any (p_ids)
    returning d.id
$$;

-- For claim, where some messages have keys: as there.
create or replace function integration.claim_keyed(
    p_owner text, p_ids bigint[], p_seen bigint[], p_canary boolean, p_now timestamptz
) returns table (
    id bigint, attempt integer, source_app text, record_type text, data jsonb, headers jsonb, priority integer,
    retry_count integer, redrive_count integer, ordering_key text, created_at timestamptz, requeued_at timestamptz,
    canary boolean, ahead boolean, origin_id bigint
)
    language plpgsql set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set enable_nestloop = off set enable_sort = on as $$
#variable_conflict use_column
declare
    v_series bigint := nextval('integration.series');
begin
    return query
        with claimed as (
            update integration.data_staging d
               set status = 'processing', attempt = least(d.attempt, 2147483646) + 1, owner = p_owner,
                   lease_until = null, updated_at = p_now, behind_at = null, available_at = null,
                   series = case when d.ordering_key is not null then v_series end
             where d.id = any (p_ids)
            returning d.id, d.attempt, d.source_app, d.record_type, d.data, d.headers, d.priority,
                      d.retry_count, d.redrive_count, d.ordering_key, d.created_at, d.requeued_at, d.origin_id)
        select c.id, c.attempt, c.source_app, c.record_type, c.data, c.headers, c.priority, c.retry_count,
               c.redrive_count, c.ordering_key, c.created_at, c.requeued_at, p_canary, s.id is null, c.origin_id
          from claimed c left join unnest(p_seen) s (id) on s.id = c.id
         order by c.priority desc, c.created_at, c.id;
end $$;

-- For claim with a lease, by consumers in any language, who need nothing else: called again and again, and each
-- message settled, it comes to the end of everything. It promotes what is due, returns messages of the target whose own
-- lease ran out, and hands out messages that were in flight when a consumer died: by itself, and only while p_owner has
-- no other of them.
create or replace function integration.claim_by_lease(
    p_target text, p_owner text, p_limit integer, p_types text[], p_lease interval, p_bytes_max bigint,
    p_lows integer[], p_highs integer[], p_after_at timestamptz[], p_after_ids bigint[], p_again_at timestamptz[],
    p_again_ids bigint[]
) returns table (
    id bigint, attempt integer, source_app text, record_type text, data jsonb, headers jsonb, priority integer,
    retry_count integer, redrive_count integer, ordering_key text, created_at timestamptz, requeued_at timestamptz,
    canary boolean, ahead boolean, origin_id bigint
)
    language plpgsql set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set enable_bitmapscan = off as $$
declare
    v_began timestamptz := integration.clock();
    v_count integer;
begin
    if p_limit <= 0 then
        return;
    end if;
    perform integration.promote(array[p_target], 100);
    for i in 1 .. 2 loop
        if integration.has_suspects(p_target, p_types) and not exists (
            select from integration.data_staging d where d.target_app = p_target and d.status = 'processing'
               and d.owner = p_owner and d.crash_count > 0)
        then
            return query select * from integration.claim_suspect(p_target, p_owner, p_types, p_lease);
            if found then
                return;
            end if;
        end if;
        return query select * from integration.claim_in_parts(p_target, p_owner, p_limit, p_types, p_lease, p_bytes_max,
            p_lows, p_highs, p_after_at, p_after_ids, p_again_at, p_again_ids);
        get diagnostics v_count = row_count;
        -- What somebody dead has left is looked for where there is not enough else, because that takes time.
        exit when v_count >= p_limit or integration.return_expired(p_target, v_began, 100) = 0 or v_count > 0;
    end loop;
end $$;

-- Claims at most one message that was in flight when a consumer died. The caller runs one of them at a time, beside
-- whatever else it has in flight: a message that kills its consumers is never beside another suspect, so that the
-- innocent ones come to an end, which clears them.
-- Empty result, locks and SQLSTATEs: as claim.
create or replace function integration.claim_suspect(
    p_target text, p_owner text, p_types text[] default null, p_lease interval default null
) returns table (
    id bigint, attempt integer, source_app text, record_type text, data jsonb, headers jsonb, priority integer,
    retry_count integer, redrive_count integer, ordering_key text, created_at timestamptz, requeued_at timestamptz,
    canary boolean, ahead boolean, origin_id bigint
)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set enable_bitmapscan = off as $$
#variable_conflict use_column
declare
    v_limit  integer;
    v_canary boolean;
    v_ids    bigint[];
begin
    if integration.is_limited() then
        perform integration.must_consume(array[p_target], p_owner);
    end if;
    if p_lease is null and not integration.is_alive(p_owner) then
        raise exception 'consumer "%" is not alive', p_owner
            using errcode = 'MQ001', hint = 'register it again, or claim with p_lease';
    end if;
    select a.admitted, a.canary into v_limit, v_canary from integration.admit(p_target, 1) a;
    if v_limit <= 0 then
        return;
    end if;
    v_ids := array(
        select s.id from integration.data_staging s
         where s.target_app = p_target and s.status = 'pending' and s.crash_count > 0
           and (p_types is null or s.record_type = any (p_types))
           and not integration.is_left_out(s.id, s.created_at)
           and (s.ordering_key is null or integration.is_first_of_key(p_target, s.ordering_key, s.id))
         order by s.crash_count, s.created_at, s.id
         limit 1
         for no key update skip locked);
    -- Asked again in its turn, in a statement that sees what others have taken.
    if exists (select from integration.data_staging s where s.id = any (v_ids) and s.ordering_key is not null
                  and (integration.take_key_turns(p_target, array[s.ordering_key]) = '{}'
                       or not integration.is_first_of_key(p_target, s.ordering_key, s.id))) then
        v_ids := '{}';
    end if;
    return query select * from integration.claim_picked(p_target, p_owner, v_ids, p_lease, 1, v_canary);
    get diagnostics v_limit = row_count;
    perform integration.note_claimed(p_target, v_limit);
end $$;

-- Whether claim_suspect would find something.
create or replace function integration.has_suspects(p_target text, p_types text[] default null) returns boolean
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off
        set enable_seqscan = off set enable_bitmapscan = off as $$
begin
    if integration.is_limited() then
        perform integration.must_consume(array[p_target]);
    end if;
    return exists (
        select from integration.data_staging d
         where d.target_app = p_target and d.status = 'pending' and d.crash_count > 0
           and (p_types is null or d.record_type = any (p_types)) and not integration.is_left_out(d.id, d.created_at));
end $$;

-- Those of the targets for which something is pending, suspects too: one look for many idle consumers.
create or replace function integration.waiting(p_targets text[]) returns setof text
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off
        set enable_seqscan = off set enable_bitmapscan = off as $$
begin
    if integration.is_limited() then
        perform integration.must_consume(p_targets);
    end if;
    return query
        select t.target_app from unnest(p_targets) t (target_app)
         cross join lateral (
            select from integration.data_staging d where d.target_app = t.target_app and d.status = 'pending'
                and not integration.is_set_aside(d.id, d.created_at) limit 1) d;
end $$;

-- Keeps the places where a consumer would look next, for the next one to start.
-- Locks: the places, in the order of priorities.
create or replace function integration.keep_places(p_target text, p_priorities integer[], p_times timestamptz[],
    p_ids bigint[], p_again_at timestamptz[], p_again_ids bigint[]) returns void
    language sql security definer set search_path = pg_catalog, pg_temp as $$
    select integration.must_consume(array[p_target])
     where integration.is_limited();
    insert into integration.places (target_app, priority, created_at, id, again_at, again_id, kept_at)
    select p_target, k.priority, k.created_at, k.id, k.again_at, k.again_id, integration.clock()
      from unnest(p_priorities, p_times, p_ids, p_again_at, p_again_ids)
           k (priority, created_at, id, again_at, again_id)
     order by k.priority
    on conflict (target_app, priority) do update
       set created_at = excluded.created_at, id = excluded.id, again_at = excluded.again_at,
           again_id = excluded.again_id, kept_at = excluded.kept_at
$$;
