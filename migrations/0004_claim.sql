-- Claiming: pending -> processing, owned by one consumer, one attempt.

-- The breaker that guards a target.
create function integration.breaker_of(p_target text) returns text
    language plpgsql stable as $$
begin
    return coalesce((select t.breaker_key from integration.targets t where t.target_app = p_target), p_target);
end $$;

-- Claims up to p_limit pending messages of one target, highest priority first, oldest first, for p_owner.
--
-- p_owner is the incarnation of a live row in consumers, or any name together with p_lease (the claim then ends by
-- itself after that long unless extended). p_types restricts to some record types, p_except_types to all others. p_bytes_max bounds the sum of the
-- stored payload sizes (at least one message is always claimed). Messages that were in flight when a consumer died
-- (crash_count > 0) are left to claim_suspect.
-- p_lows, p_highs, p_after_at, p_after_ids: where to look; see pick. Null: everywhere, from the beginning.
-- Empty result: nothing pending there, or the target is paused. The rows come in claiming order.
-- Locks: the rows, FOR NO KEY UPDATE SKIP LOCKED: never waits. SQLSTATEs: MQ001 when p_owner is not alive and no lease
-- was given.
--
-- "id = any(array(...))" evaluates the locking function once; a join or IN may run it again and claim more than p_limit.
create function integration.claim(
    p_target text, p_owner text, p_limit integer default 1, p_types text[] default null,
    p_lease interval default null, p_bytes_max bigint default 16777216,
    p_lows integer[] default null, p_highs integer[] default null,
    p_after_at timestamptz[] default null, p_after_ids bigint[] default null, p_except_types text[] default null
) returns table (
    id bigint, attempt integer, source_app text, record_type text, data jsonb, headers jsonb, priority integer,
    retry_count integer, redrive_count integer, ordering_key text, created_at timestamptz, canary boolean
)
    language plpgsql set jit = off set enable_seqscan = off set enable_bitmapscan = off as $$
#variable_conflict use_column
declare
    v_now    timestamptz := integration.clock();
    v_alive  boolean := true;
    v_gated  boolean;
    v_limit  integer := p_limit;
    v_canary boolean := false;
    v_count  integer;
begin
    select p_lease is not null or exists (select from integration.consumers c where c.incarnation = p_owner),
           exists (select from integration.targets t where t.target_app = p_target)
           or exists (select from integration.breakers b where b.breaker_key = p_target and b.state <> 'closed')
      into v_alive, v_gated;
    if not v_alive then
        raise exception 'consumer "%" is not alive', p_owner
            using errcode = 'MQ001', hint = 'register it again, or claim with p_lease';
    end if;
    -- Most targets have neither settings nor a breaker that was ever open.
    if v_gated then
        select a.admitted, a.canary into v_limit, v_canary from integration.admit(p_target, p_limit) a;
    end if;
    if v_limit <= 0 then
        return;
    end if;
    return query
        with claimed as (
            update integration.data_staging d
               set status = 'processing', attempt = d.attempt + 1, claimed_by = p_owner,
                   lease_until = v_now + p_lease, updated_at = v_now
             where d.id = any (array(
                select p.id from integration.pick(
                    p_target, v_limit, p_types, p_except_types, p_bytes_max, p_lows, p_highs, p_after_at, p_after_ids) p))
            returning d.id, d.attempt, d.source_app, d.record_type, d.data, d.headers, d.priority,
                      d.retry_count, d.redrive_count, d.ordering_key, d.created_at)
        select c.*, v_canary from claimed c order by c.priority desc, c.created_at, c.id;
    if v_canary then
        get diagnostics v_count = row_count;
        perform integration.return_canaries(p_target, v_limit - v_count);
    end if;
end $$;

-- In-transaction mode: takes up to p_limit pending messages for the length of the caller's transaction, which must be a
-- short one. Nothing is written: the messages stay pending and locked, so nobody else takes them, and if the transaction
-- ends before complete(..., p_held => true) they were never taken. The attempt is the one that complete will give them.
-- The other parameters and the result are claim's.
-- Empty result: nothing pending there, or may_hold says no: use claim, which knows what to do then.
-- Locks: the rows, FOR NO KEY UPDATE SKIP LOCKED, until the transaction ends.
create function integration.hold(
    p_target text, p_limit integer, p_types text[] default null, p_bytes_max bigint default 16777216,
    p_lows integer[] default null, p_highs integer[] default null,
    p_after_at timestamptz[] default null, p_after_ids bigint[] default null
) returns table (
    id bigint, attempt integer, source_app text, record_type text, data jsonb, headers jsonb, priority integer,
    retry_count integer, redrive_count integer, ordering_key text, created_at timestamptz, canary boolean
)
    language plpgsql set jit = off set enable_seqscan = off set enable_bitmapscan = off as $$
#variable_conflict use_column
begin
    if not integration.may_hold(p_target) then
        return;
    end if;
    return query
        select d.id, d.attempt + 1, d.source_app, d.record_type, d.data, d.headers, d.priority,
               d.retry_count, d.redrive_count, d.ordering_key, d.created_at, false
          from integration.data_staging d
         where d.id = any (array(
            select p.id from integration.pick(
                p_target, p_limit, p_types, null, p_bytes_max, p_lows, p_highs, p_after_at, p_after_ids) p))
         order by d.priority desc, d.created_at, d.id;
end $$;

-- Has the claims of our consumers of one target take turns: those under way at the same time walk over each other's locked
-- rows, each over all that the others take (64 processes read eight times the blocks of one). Called in the statement of the
-- claim, before it, in a transaction that ends with it: claims in transactions of plain SQL take no turns, so nobody waits
-- for one that is left open. False: it was nobody's turn for too long; claim all the same.
-- Locks: an advisory one per target until the end of the transaction; tried, for at most a fifth of a second.
create function integration.take_turn(p_target text) returns boolean
    language plpgsql as $$
begin
    for i in 1 .. 200 loop
        if pg_try_advisory_xact_lock(integration.lock_class() + 3, hashtext(p_target)) then
            return true;
        end if;
        perform pg_sleep(0.001);
    end loop;
    return false;
end $$;

-- Whether messages of the target may be held: not while it is paused, has a limit, or a breaker that is not closed, nor while
-- leases are insisted on, because a consumer that held messages has died.
create function integration.may_hold(p_target text) returns boolean
    language plpgsql stable as $$
begin
    return not exists (
            select from integration.targets t
             where t.target_app = p_target
               and (t.paused_at is not null or t.max_in_flight is not null or t.leases_until > integration.clock()))
       and not exists (
            select from integration.breakers b
             where b.breaker_key = integration.breaker_of(p_target) and b.state <> 'closed');
end $$;

-- Locks up to p_limit pending messages of a target that nobody else has locked, and returns their ids.
--
-- Dead index entries pile up at the front of the queue while anything holds back the vacuum horizon, and every look from
-- the beginning walks over all of them. So a consumer names ranges of priorities, in the order in which they are to be
-- visited, and for a range of one priority the place where its last look ended: (p_after_at, p_after_ids), exclusive. What
-- became pending again behind that place is in an index of its own. Everything else that may lie behind it (late commits,
-- times set by hand) is found by looks from the beginning: p_lows null, or a place null.
-- Locks: the rows, FOR NO KEY UPDATE SKIP LOCKED. The order of the result is undefined.
--
-- One range of one priority compares for equality, because only then the place is where the index scan begins. The statuses
-- are literals because a partial index is not used for a parameter. Sequential and bitmap scans are off because a cached
-- plan made while the table was small would otherwise scan all of it later; sorts, because it would read and sort the
-- whole queue. Generic plans are forced because planning the statement again, as the server would for each call to leave out
-- arms that a parameter rules out, takes ten times as long as running it. JIT is off because before PostgreSQL 18 a forbidden scan that cannot be avoided (of a small table without a
-- usable index) is priced at 10^10, which makes the server compile for a third of a second and more what runs in microseconds.
create function integration.pick(
    p_target text, p_limit integer, p_types text[], p_except_types text[], p_bytes_max bigint,
    p_lows integer[], p_highs integer[], p_after_at timestamptz[], p_after_ids bigint[]
) returns table (id bigint)
    language plpgsql
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
                              coalesce(p_after_at, '{null}'), coalesce(p_after_ids, '{0}')) u (low, high, after_at, after_id)) r
         cross join lateral (
            select * from (
                select q.id, pg_column_size(q.data) as bytes from integration.data_staging q
                 where r.after_at > '-infinity'
                   and q.target_app = p_target and q.status = 'pending' and q.requeued and q.crash_count = 0
                   and q.priority = r.low and (q.created_at, q.id) <= (r.after_at, r.after_id)
                   and (p_types is null or q.record_type = any (p_types))
                   and (p_except_types is null or q.record_type <> all (p_except_types))
                 order by q.priority desc, q.created_at, q.id limit p_limit
                 for no key update skip locked) again
            union all
            select * from (
                select q.id, pg_column_size(q.data) from integration.data_staging q
                 where r.low = r.high
                   and q.target_app = p_target and q.status = 'pending' and q.crash_count = 0
                   and q.priority = r.low and (q.created_at, q.id) > (r.after_at, r.after_id)
                   and (p_types is null or q.record_type = any (p_types))
                   and (p_except_types is null or q.record_type <> all (p_except_types))
                 order by q.priority desc, q.created_at, q.id limit p_limit
                 for no key update skip locked) next
            union all
            select * from (
                select q.id, pg_column_size(q.data) from integration.data_staging q
                 where r.low < r.high
                   and q.target_app = p_target and q.status = 'pending' and q.crash_count = 0
                   and q.priority between r.low and r.high
                   and (p_types is null or q.record_type = any (p_types))
                   and (p_except_types is null or q.record_type <> all (p_except_types))
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

-- Claims at most one message that was in flight when a consumer died. The caller runs it with nothing else in flight
-- in its process, so that a message which kills its consumer kills nobody beside it.
-- Empty result, locks and SQLSTATEs: as claim.
create function integration.claim_suspect(
    p_target text, p_owner text, p_types text[] default null, p_lease interval default null
) returns table (
    id bigint, attempt integer, source_app text, record_type text, data jsonb, headers jsonb, priority integer,
    retry_count integer, redrive_count integer, ordering_key text, created_at timestamptz, canary boolean
)
    language plpgsql set jit = off set enable_seqscan = off set enable_bitmapscan = off as $$
#variable_conflict use_column
declare
    v_now    timestamptz := integration.clock();
    v_limit  integer;
    v_canary boolean;
    v_count  integer;
begin
    if p_lease is null and not integration.is_alive(p_owner) then
        raise exception 'consumer "%" is not alive', p_owner
            using errcode = 'MQ001', hint = 'register it again, or claim with p_lease';
    end if;
    select a.admitted, a.canary into v_limit, v_canary from integration.admit(p_target, 1) a;
    if v_limit <= 0 then
        return;
    end if;
    return query
        update integration.data_staging d
           set status = 'processing', attempt = d.attempt + 1, claimed_by = p_owner,
               lease_until = v_now + p_lease, updated_at = v_now
         where d.id = any (array(
            select s.id from integration.data_staging s
             where s.target_app = p_target and s.status = 'pending' and s.crash_count > 0
               and (p_types is null or s.record_type = any (p_types))
             order by s.crash_count, s.created_at, s.id
             limit 1
             for no key update skip locked))
        returning d.id, d.attempt, d.source_app, d.record_type, d.data, d.headers, d.priority,
                  d.retry_count, d.redrive_count, d.ordering_key, d.created_at, v_canary;
    if v_canary then
        get diagnostics v_count = row_count;
        perform integration.return_canaries(p_target, 1 - v_count);
    end if;
end $$;

-- How many messages of the target may be claimed now: p_limit, fewer where its breaker lets canaries through, where the
-- target has a fleet-wide limit, or 0 when an operator paused it or the breaker is open.
-- Locks: only for a target with max_in_flight (a transaction-scoped advisory lock per target, so that the limit is exact)
-- or a breaker that is not closed (its row).
create function integration.admit(p_target text, p_limit integer, out admitted integer, out canary boolean)
    language plpgsql as $$
declare
    v_target  record;
    v_breaker text;
begin
    admitted := greatest(p_limit, 0);
    canary := false;
    select t.paused_at, t.max_in_flight, t.breaker_key into v_target
      from integration.targets t where t.target_app = p_target;
    if v_target.paused_at is not null then
        admitted := 0;
        return;
    end if;
    if v_target.max_in_flight is not null then
        perform pg_advisory_xact_lock(integration.lock_class() + 1, hashtext(p_target));
        admitted := least(admitted, v_target.max_in_flight - (
            select count(*) from integration.data_staging d where d.target_app = p_target and d.status = 'processing'));
    end if;
    select b.breaker_key into v_breaker from integration.breakers b
     where b.breaker_key = coalesce(v_target.breaker_key, p_target) and b.state <> 'closed';
    if v_breaker is not null then
        admitted := integration.take_canaries(v_breaker, admitted);
        canary := true;
    end if;
end $$;

-- Makes due scheduled messages of the given targets pending, oldest due first; returns how many. Callers repeat while
-- the result equals the limit. Breakers of the targets whose time has come let their canaries through.
-- Locks: the rows, SKIP LOCKED.
create function integration.promote(p_targets text[], p_limit integer default 1000) returns integer
    language plpgsql set jit = off set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    v_now   timestamptz := integration.clock();
    v_count integer;
begin
    update integration.data_staging d
       set status = 'pending', requeued = true, available_at = null, updated_at = v_now
     where d.id = any (array(
        select s.id
          from unnest(p_targets) t (target_app)
         cross join lateral (
            select x.id, x.available_at from integration.data_staging x
             where x.target_app = t.target_app and x.status = 'scheduled' and x.available_at <= v_now
             order by x.available_at limit p_limit
             for no key update skip locked) s
         limit p_limit));
    get diagnostics v_count = row_count;
    perform integration.half_open_due(p_targets);
    return v_count;
end $$;

-- Milliseconds until promote has something to do for each target (0 when it is overdue): its next scheduled message, or
-- the time at which its open breaker lets canaries through. Targets without either are left out. Relative, so that no client compares its clock with the server's.
create function integration.next_due(p_targets text[]) returns table (target_app text, due_in_ms bigint)
    language sql stable
    begin atomic
        select t.target_app, greatest(0, ceil(extract(epoch from min(s.due) - integration.clock()) * 1000))::bigint
          from unnest(p_targets) t (target_app)
         cross join lateral (
            (select d.available_at as due from integration.data_staging d
              where d.target_app = t.target_app and d.status = 'scheduled'
              order by d.available_at limit 1)
            union all
            select b.retry_at from integration.breakers b
             where b.breaker_key = integration.breaker_of(t.target_app) and b.state = 'open' and b.retry_at is not null) s
         group by t.target_app;
    end;

-- Keeps the places where a consumer would look next, for the next one to start.
-- Locks: the marks, in the order of priorities.
create function integration.keep_marks(p_target text, p_priorities integer[], p_times timestamptz[], p_ids bigint[]) returns void
    language sql
    begin atomic
        insert into integration.marks (target_app, priority, created_at, id, kept_at)
        select p_target, k.priority, k.created_at, k.id, integration.clock()
          from unnest(p_priorities, p_times, p_ids) k (priority, created_at, id) order by k.priority
        on conflict (target_app, priority) do update
           set created_at = excluded.created_at, id = excluded.id, kept_at = excluded.kept_at;
    end;

-- Those of the targets for which something is pending, suspects too: one look for many idle consumers.
create function integration.waiting(p_targets text[]) returns setof text
    language plpgsql stable set jit = off set enable_seqscan = off set enable_bitmapscan = off as $$
begin
    return query
        select t.target_app from unnest(p_targets) t (target_app)
         cross join lateral (
            select from integration.data_staging d where d.target_app = t.target_app and d.status = 'pending' limit 1) d;
end $$;

-- Whether claim_suspect would find something.
create function integration.has_suspects(p_target text, p_types text[] default null) returns boolean
    language sql stable
    return exists (
        select from integration.data_staging d
         where d.target_app = p_target and d.status = 'pending' and d.crash_count > 0
           and (p_types is null or d.record_type = any (p_types)));
