-- Settling: what becomes of a message that was claimed. Every settle names (id, attempt, owner): a claim lost in a
-- crash can be numbered again, so the attempt alone is no fence. An id missing from the result was not settled: the
-- lease was lost.

-- Completes messages. Returns the ids that were. What becomes of them is the target's on_complete: kept (the default),
-- moved to the archive, or deleted. p_held: they are not leased but locked by the caller's transaction (see hold), and
-- p_attempts are the attempts that hold gave them.
-- Locks: the rows. Empty result: every lease was lost.
--
-- "status || ''" keeps the planner from the index of all processing messages, which would make every settle read what the
-- whole fleet has in flight; nested loops are off because they would compare every id with every other.
create function integration.complete(p_owner text, p_ids bigint[], p_attempts integer[], p_held boolean default false)
    returns setof bigint
    language plpgsql set jit = off set enable_seqscan = off set enable_nestloop = off as $$
declare
    v_now    timestamptz := integration.clock();
    v_from   text := case when p_held then 'pending' else 'processing' end;
    v_holder text := case when p_held then null else p_owner end;
begin
    if p_held then
        -- For the audit log: the row itself never names who holds it.
        perform set_config('integration.owner', p_owner, true);
    end if;
    if exists (select from integration.targets t where t.on_complete <> 'keep') then
        return query select * from integration.complete_out(v_holder, p_ids, p_attempts, p_held, v_now);
    end if;
    return query
        update integration.data_staging d
           set status = 'completed', attempt = s.attempt, processed_at = v_now, updated_at = v_now,
               claimed_by = null, lease_until = null, error_message = null, crash_count = 0
          from unnest(p_ids, p_attempts) s (id, attempt)
         where d.id = any (p_ids) and d.id = s.id and d.attempt = s.attempt - p_held::integer
           and d.claimed_by is not distinct from v_holder and d.status || '' = v_from
        returning d.id;
    if p_held then
        perform set_config('integration.owner', '', true);
    end if;
end $$;

-- For complete: the messages of targets that do not keep what is completed leave the table, archived or deleted. Returns the
-- ids that did. SECURITY DEFINER, so that consumers need no right to delete; the fence is the same.
-- Locks: the rows.
create function integration.complete_out(
    p_holder text, p_ids bigint[], p_attempts integer[], p_held boolean, p_now timestamptz
) returns setof bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    set jit = off set enable_seqscan = off set enable_nestloop = off as $$
begin
    perform set_config('integration.verb', 'completed', true);
    return query
        with gone as (
            delete from integration.data_staging d
             using unnest(p_ids, p_attempts) s (id, attempt), integration.targets t
             where d.id = any (p_ids) and d.id = s.id and d.attempt = s.attempt - p_held::integer
               and d.claimed_by is not distinct from p_holder and d.status || '' = case when p_held then 'pending' else 'processing' end
               and t.target_app = d.target_app and t.on_complete <> 'keep'
            returning d.*, s.attempt as done_attempt, t.on_complete),
        archived as (
            insert into integration.data_staging_archive
                (id, source_app, target_app, record_type, data, status, priority, retry_count, created_at, updated_at,
                 processed_at, attempt, crash_count, redrive_count, requeued, max_retries, headers, ordering_key, dedup_key)
            select g.id, g.source_app, g.target_app, g.record_type, g.data, 'completed', g.priority, g.retry_count, g.created_at,
                   p_now, p_now, g.done_attempt, 0, g.redrive_count, g.requeued, g.max_retries, g.headers, g.ordering_key, g.dedup_key
              from gone g where g.on_complete = 'archive')
        select g.id from gone g;
    perform set_config('integration.verb', '', true);
end $$;

-- Settles messages with any outcome but completion. Returns (id, status): the status each one got.
--   retry   failed for now: scheduled again after p_delays_ms, or after the policy's backoff where that is null;
--           failed for good when its retries are used up
--   reject  failed for good, now
--   snooze  scheduled after p_delays_ms; costs no retry
--   release pending again, as if never claimed; costs no retry (a consumer that shuts down before starting it)
-- p_reasons is kept as error_message, without control characters and cut to 8,000 characters.
-- Locks: the rows. SQLSTATEs: MQ002 for an unknown outcome.
create function integration.settle(
    p_owner text, p_ids bigint[], p_attempts integer[], p_outcomes text[], p_reasons text[], p_delays_ms bigint[]
) returns table (id bigint, status text)
    language plpgsql set jit = off set enable_seqscan = off as $$
#variable_conflict use_column
declare
    v_now     timestamptz := integration.clock();
    v_unknown text := (select o from unnest(p_outcomes) o where o not in ('retry', 'reject', 'snooze', 'release') limit 1);
begin
    if v_unknown is not null then
        raise exception 'unknown outcome "%"', v_unknown
            using errcode = 'MQ002', hint = 'use retry, reject, snooze or release; completion is integration.complete()';
    end if;
    return query
        update integration.data_staging d
           set status = case
                   when s.outcome = 'release' then 'pending'
                   when s.outcome = 'snooze' then 'scheduled'
                   when s.outcome = 'retry' and d.retry_count < coalesce(d.max_retries, p.max_retries) then 'scheduled'
                   else 'failed' end,
               retry_count = d.retry_count + (s.outcome in ('retry', 'reject'))::integer,
               -- A run that came to an end, however, clears the suspicion of killing its consumer.
               crash_count = case when s.outcome = 'release' then d.crash_count else 0 end,
               error_message = case when s.outcome in ('retry', 'reject') then integration.clean_text(s.reason)
                                    else d.error_message end,
               available_at = case
                   when s.outcome = 'snooze' then v_now + greatest(coalesce(s.delay_ms, 0), 0) * interval '1 ms'
                   when s.outcome = 'retry' and d.retry_count < coalesce(d.max_retries, p.max_retries)
                       -- greatest() passes over nulls, so the policy has to be asked first.
                       then v_now + greatest(0, coalesce(s.delay_ms,
                                integration.backoff_ms(p.backoff_base_ms, p.backoff_factor, p.backoff_cap_ms, d.retry_count, random())))
                            * interval '1 ms' end,
               requeued = true, updated_at = v_now, claimed_by = null, lease_until = null
          from unnest(p_ids, p_attempts, p_outcomes, p_reasons, p_delays_ms) s (id, attempt, outcome, reason, delay_ms)
          join integration.data_staging m on m.id = s.id
         cross join lateral integration.policy(m.target_app, m.record_type) p
         where d.id = s.id and d.attempt = s.attempt and d.claimed_by = p_owner and d.status = 'processing'
        returning d.id, d.status;
end $$;

-- The verbs for one message, for psql and other languages. They raise MQ001 when the lease was lost; fail, reject and
-- snooze return the status the message got.
create function integration.complete(p_id bigint, p_attempt integer, p_owner text) returns void
    language plpgsql as $$
begin
    perform integration.complete(p_owner, array[p_id], array[p_attempt]);
    if not found then
        perform integration.raise_lease_lost(p_id, p_attempt, p_owner);
    end if;
end $$;

create function integration.settle_one(
    p_id bigint, p_attempt integer, p_owner text, p_outcome text, p_reason text, p_after interval
) returns text
    language plpgsql as $$
declare
    v_status text;
begin
    select s.status into v_status from integration.settle(
        p_owner, array[p_id], array[p_attempt], array[p_outcome], array[p_reason],
        array[(extract(epoch from p_after) * 1000)::bigint]) s;
    if v_status is null then
        perform integration.raise_lease_lost(p_id, p_attempt, p_owner);
    end if;
    return v_status;
end $$;

create function integration.fail(p_id bigint, p_attempt integer, p_owner text, p_reason text, p_after interval default null)
    returns text language sql
    return integration.settle_one(p_id, p_attempt, p_owner, 'retry', p_reason, p_after);

create function integration.reject(p_id bigint, p_attempt integer, p_owner text, p_reason text)
    returns text language sql
    return integration.settle_one(p_id, p_attempt, p_owner, 'reject', p_reason, null);

create function integration.snooze(p_id bigint, p_attempt integer, p_owner text, p_after interval)
    returns text language sql
    return integration.settle_one(p_id, p_attempt, p_owner, 'snooze', null, p_after);

create function integration.release(p_id bigint, p_attempt integer, p_owner text)
    returns text language sql
    return integration.settle_one(p_id, p_attempt, p_owner, 'release', null, null);

-- Moves the end of a claim's own lease to p_lease from now. A claim without one (its owner is a registered consumer)
-- gets one. SQLSTATEs: MQ001 when the lease was lost.
create function integration.extend(p_id bigint, p_attempt integer, p_owner text, p_lease interval) returns timestamptz
    language plpgsql as $$
declare
    v_until timestamptz;
begin
    update integration.data_staging d set lease_until = integration.clock() + p_lease
     where d.id = p_id and d.attempt = p_attempt and d.claimed_by = p_owner and d.status = 'processing'
    returning d.lease_until into v_until;
    if not found then
        perform integration.raise_lease_lost(p_id, p_attempt, p_owner);
    end if;
    return v_until;
end $$;

-- Says why a settle or extend came too late.
create function integration.raise_lease_lost(p_id bigint, p_attempt integer, p_owner text) returns void
    language plpgsql as $$
declare
    v_message record;
begin
    select d.status, d.attempt, d.claimed_by into v_message from integration.data_staging d where d.id = p_id;
    raise exception 'message %: attempt % of "%" has lost its lease', p_id, p_attempt, p_owner
        using errcode = 'MQ001', detail = case
            when v_message.status is null then 'the message is no longer in data_staging'
            else format('it is %s, attempt %s%s', v_message.status, v_message.attempt, ', owner ' || v_message.claimed_by) end;
end $$;

-- The retry policy in force for a record type of a target: the record type's, else the target's, else the
-- installation's. Always one row.
create function integration.policy(p_target text, p_type text)
    returns table (max_retries integer, max_crashes integer, backoff_base_ms bigint, backoff_factor double precision, backoff_cap_ms bigint)
    language sql stable
    begin atomic
        select coalesce(r.max_retries, t.max_retries, s.max_retries), coalesce(t.max_crashes, s.max_crashes),
               coalesce(r.backoff_base_ms, t.backoff_base_ms, s.backoff_base_ms),
               coalesce(r.backoff_factor, t.backoff_factor, s.backoff_factor),
               coalesce(r.backoff_cap_ms, t.backoff_cap_ms, s.backoff_cap_ms)
          from integration.settings s
          left join integration.targets t on t.target_app = p_target
          left join integration.retry_policies r on r.target_app = p_target and r.record_type = p_type;
    end;

-- Exponential backoff with full jitter: uniform between 0 and min(cap, base * factor ^ retries), as in "Exponential
-- Backoff And Jitter" (AWS Architecture Blog, 2015). p_random in [0, 1); the exponent is bounded so that it cannot overflow.
create function integration.backoff_ms(
    p_base_ms bigint, p_factor double precision, p_cap_ms bigint, p_retries integer, p_random double precision
) returns bigint
    language sql immutable parallel safe
    return (p_random * least(p_cap_ms, p_base_ms * power(p_factor, least(p_retries, 100))))::bigint;

-- Foreign text made storable and printable: no control characters but line breaks and tabs, at most 8,000 characters.
create function integration.clean_text(p_text text) returns text
    language sql immutable parallel safe
    return left(regexp_replace(p_text, '[\x01-\x08\x0b-\x1f\x7f-\x9f]', '', 'g'), 8000);

-- Which of the attempts ended by their own owner's settle: asked when the answer of a settle was lost with its
-- connection. Every other way out of an attempt (rescue, redrive, hand edit, next claim) is excluded: they raise the
-- attempt or crash_count, or leave the message processing. Rows already archived count as settled.
-- Locks: the rows, FOR SHARE in id order: waits for the settle itself, which may still be committing, so that the answer
-- is final. SQLSTATEs: 55P03 when it is not over after five seconds; ask again.
create function integration.was_settled(p_ids bigint[], p_attempts integer[]) returns setof bigint
    language plpgsql set jit = off set enable_seqscan = off set lock_timeout = '5 s' as $$
begin
    perform from integration.data_staging d where d.id = any (p_ids) order by d.id for share;
    -- A statement of its own, which sees what the locks were waited for.
    return query
        select s.id
          from unnest(p_ids, p_attempts) s (id, attempt)
          left join integration.data_staging d on d.id = s.id
         where d.id is null or (d.attempt = s.attempt and d.status <> 'processing' and d.crash_count = 0);
end $$;
