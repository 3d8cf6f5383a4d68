-- Settling: what becomes of a message that was claimed and not completed. The fence is that of complete.sql.

-- Settles messages with any outcome but completion. Returns (id, status): the status each one got.
--   retry   failed for now: scheduled again after p_delays_ms, or after the policy's backoff where that is null;
--           failed for good when its retries are used up
--   reject  failed for good, now
--   snooze  scheduled after p_delays_ms; costs no retry
--   release pending again, as if never claimed; costs no retry (a consumer that shuts down before starting it)
-- p_reasons is kept as error_message, without control characters and cut to 8,000 characters.
-- Locks: the rows. SQLSTATEs: MQ002 for an unknown outcome.
create or replace function integration.settle(
    p_owner text, p_ids bigint[], p_attempts integer[], p_created timestamptz[], p_outcomes text[], p_reasons text[],
    p_delays_ms bigint[]
) returns table (id bigint, status text)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
#variable_conflict use_column
declare
    v_now     timestamptz := integration.clock();
    v_unknown text := (select o from unnest(p_outcomes) o
        where o not in ('retry', 'reject', 'snooze', 'release') limit 1);
begin
    if integration.is_limited() then
        perform integration.must_settle(p_ids);
    end if;
    if v_unknown is not null then
        raise exception 'unknown outcome "%"', v_unknown
            using errcode = 'MQ002',
                hint = 'use retry, reject, snooze or release; completion is integration.complete()';
    end if;
    return query
        update integration.data_staging d
           set status = case
                   when s.outcome = 'release' then 'pending'
                   when s.outcome = 'snooze' then 'scheduled'
                   when s.outcome = 'retry' and d.retry_count < coalesce(d.max_retries, p.max_retries) then 'scheduled'
                   else 'failed' end,
               retry_count = least(d.retry_count, 2147483646) + (s.outcome in ('retry', 'reject'))::integer,
               -- A run that came to an end, however, clears the suspicion of killing its consumer.
               crash_count = case when s.outcome = 'release' then d.crash_count else 0 end,
               error_message = case when s.outcome in ('retry', 'reject') then integration.clean_text(s.reason)
                                    else d.error_message end,
               available_at = case
                   when s.outcome = 'snooze' then v_now + greatest(coalesce(s.delay_ms, 0), 0) * interval '1 ms'
                   when s.outcome = 'retry' and d.retry_count < coalesce(d.max_retries, p.max_retries)
                       -- greatest() passes over nulls, so the policy has to be asked first.
                       then v_now + greatest(0, coalesce(s.delay_ms,
                                integration.backoff_ms(p.backoff_base_ms, p.backoff_factor, p.backoff_cap_ms,
                                    d.retry_count, random())))
                            * interval '1 ms' end,
               requeued_at = v_now, updated_at = v_now, owner = null, lease_until = null
          from unnest(p_ids, p_attempts, p_created, p_outcomes, p_reasons, p_delays_ms)
               s (id, attempt, created_at, outcome, reason, delay_ms)
          join integration.data_staging m on m.id = s.id
         cross join lateral integration.policy(m.target_app, m.record_type) p
         where d.id = s.id and d.attempt = s.attempt and d.created_at = s.created_at and d.owner = p_owner
           and d.status = 'processing'
        returning d.id, d.status;
end $$;

create or replace function integration.settle_one(
    p_id bigint, p_attempt integer, p_owner text, p_outcome text, p_reason text, p_after interval,
    p_created_at timestamptz default null
) returns text
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_status text;
begin
    select s.status into v_status from integration.settle(
        p_owner, array[p_id], array[p_attempt], array[integration.created_at_of(p_id, p_created_at)],
        array[p_outcome], array[p_reason], array[(extract(epoch from p_after) * 1000)::bigint]) s;
    if v_status is null then
        perform integration.raise_lease_lost(p_id, p_attempt, p_owner);
    end if;
    return v_status;
end $$;

-- The run failed for now: scheduled again after p_after, or after the policy's backoff where that is null; failed for
-- good when its retries are used up. Returns the status that it got. SQLSTATEs: MQ001 when the lease was lost.
create or replace function integration.fail(p_id bigint, p_attempt integer, p_owner text, p_reason text,
    p_after interval default null, p_created_at timestamptz default null)
    returns text language sql security definer set search_path = pg_catalog, pg_temp as $$
    select integration.settle_one(p_id, p_attempt, p_owner, 'retry', p_reason, p_after, p_created_at)
$$;

-- Failed for good, now; returns the status. SQLSTATEs: MQ001 when the lease was lost.
create or replace function integration.reject(p_id bigint, p_attempt integer, p_owner text, p_reason text,
    p_created_at timestamptz default null)
    returns text language sql security definer set search_path = pg_catalog, pg_temp as $$
    select integration.settle_one(p_id, p_attempt, p_owner, 'reject', p_reason, null, p_created_at)
$$;

-- Scheduled after p_after, at the cost of no retry; returns the status. SQLSTATEs: MQ001 when the lease was lost.
create or replace function integration.snooze(p_id bigint, p_attempt integer, p_owner text, p_after interval,
    p_created_at timestamptz default null)
    returns text language sql security definer set search_path = pg_catalog, pg_temp as $$
    select integration.settle_one(p_id, p_attempt, p_owner, 'snooze', null, p_after, p_created_at)
$$;

-- Pending again, as if it had never been claimed; returns the status. SQLSTATEs: MQ001 when the lease was lost.
create or replace function integration.release(p_id bigint, p_attempt integer, p_owner text,
    p_created_at timestamptz default null)
    returns text language sql security definer set search_path = pg_catalog, pg_temp as $$
    select integration.settle_one(p_id, p_attempt, p_owner, 'release', null, null, p_created_at)
$$;

-- Moves the end of a claim's own lease to p_lease from now (a day at most). A claim without one (its owner is a
-- registered process) gets one. SQLSTATEs: MQ001 when the lease was lost.
create or replace function integration.extend(p_id bigint, p_attempt integer, p_owner text, p_lease interval,
    p_created_at timestamptz default null)
    returns timestamptz
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_until timestamptz;
begin
    if integration.is_limited() then
        perform integration.must_settle(array[p_id]);
    end if;
    update integration.data_staging d set lease_until = integration.clock() + integration.bounded(p_lease)
     where d.id = p_id and d.attempt = p_attempt and d.owner = p_owner and d.status = 'processing'
       and d.created_at = coalesce(p_created_at, d.created_at)
    returning d.lease_until into v_until;
    if not found then
        perform integration.raise_lease_lost(p_id, p_attempt, p_owner);
    end if;
    return v_until;
end $$;

-- Says why a settle or extend came too late.
create or replace function integration.raise_lease_lost(p_id bigint, p_attempt integer, p_owner text) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_message record;
begin
    select d.status, d.attempt, d.owner into v_message from integration.data_staging d where d.id = p_id;
    raise exception 'message %: attempt % of "%" has lost its lease', p_id, p_attempt, p_owner
        using errcode = 'MQ001', detail = case
            when v_message.status is null then 'the message is no longer in data_staging'
            else format('it is %s, attempt %s%s', v_message.status, v_message.attempt, ', owner '
                || v_message.owner) end;
end $$;

-- Which of the attempts ended by their own owner's settle: asked when the answer of a settle was lost with its
-- connection. Every other way out of an attempt (rescue, redrive, hand edit, next claim) is excluded: they raise the
-- attempt or crash_count, or leave the message processing. Rows already archived count as settled, and not those of
-- another message that has the id now.
-- Locks: the rows, FOR SHARE in id order: waits for the settle itself, which may still be committing, so that the
-- answer is final. SQLSTATEs: 55P03 when it is not over after five seconds; ask again.
create or replace function integration.was_settled(p_ids bigint[], p_attempts integer[], p_created timestamptz[])
    returns setof bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set lock_timeout = '5 s' as $$
begin
    if integration.is_limited() then
        perform integration.must_settle(p_ids);
    end if;
    perform from integration.data_staging d where d.id = any (p_ids) order by d.id for share;
    -- A statement of its own, which sees what the locks were waited for.
    return query
        select s.id
          from unnest(p_ids, p_attempts, p_created) s (id, attempt, created_at)
          left join integration.data_staging d on d.id = s.id
         where d.id is null or (d.attempt = s.attempt and d.created_at = s.created_at and d.status <> 'processing'
               and d.crash_count = 0);
end $$;
