-- Completing. Every settle names (id, attempt, owner, created_at): a claim lost in a crash can be numbered again, so
-- the attempt alone is no fence; and after an asynchronous failover the new primary gives ids out again, so that an id
-- is no message: its created_at tells it from the one that had the id before. An id missing from the result was not
-- completed: the lease was lost.

-- Completes messages. Returns the ids that were. What becomes of them is the target's on_complete: kept (the default),
-- moved to the archive, or deleted. p_held: they are not leased but locked by the caller's transaction (see hold), and
-- p_attempts are the attempts that hold gave them.
-- Locks: the rows. Empty result: every lease was lost.
--
-- "status || ''" keeps the planner from the index of all processing messages, which would make every settle read what
-- the whole fleet has in flight; nested loops are off because they would compare every id with every other. Generic
-- plans are forced because the server takes one for ten messages to be dearer than planning anew for a lone one, which
-- costs a sixth of claiming and completing it.
create or replace function integration.complete_many(p_owner text, p_ids bigint[], p_attempts integer[],
    p_created timestamptz[], p_held boolean default false)
    returns setof bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set enable_nestloop = off set plan_cache_mode = force_generic_plan as $$
declare
    v_now    timestamptz := integration.clock();
    v_from   text := case when p_held then 'pending' else 'processing' end;
    v_holder text := case when p_held then null else p_owner end;
begin
    if integration.is_limited() then
        perform integration.must_settle(p_ids);
    end if;
    if p_held then
        -- For the audit log: the row itself never names who holds it.
        perform set_config('integration.owner', p_owner, true);
    end if;
    if exists (select from integration.targets t where t.on_complete <> 'keep') then
        return query select * from integration.complete_out(v_holder, p_ids, p_attempts, p_created, p_held, v_now);
    end if;
    if cardinality(p_ids) = 1 then
        -- A join of arrays costs a lone message more than to find it.
        return query
            update integration.data_staging d
               set status = 'completed', attempt = p_attempts[1], processed_at = v_now, updated_at = v_now,
                   owner = null, lease_until = null, error_message = null, crash_count = 0
             where d.id = p_ids[1] and d.attempt = p_attempts[1] - p_held::integer and d.created_at = p_created[1]
               and d.owner is not distinct from v_holder and d.status || '' = v_from
            returning d.id;
    else
        return query
            update integration.data_staging d
               set status = 'completed', attempt = s.attempt, processed_at = v_now, updated_at = v_now,
                   owner = null, lease_until = null, error_message = null, crash_count = 0
              from unnest(p_ids, p_attempts, p_created) s (id, attempt, created_at)
             where d.id = any (p_ids) and d.id = s.id and d.attempt = s.attempt - p_held::integer
               and d.created_at = s.created_at and d.owner is not distinct from v_holder and d.status || '' = v_from
            returning d.id;
    end if;
    if p_held then
        perform set_config('integration.owner', '', true);
    end if;
end $$;

-- The message was handled. With fail, reject, snooze and release one of the verbs for one message, for psql and other
-- languages. p_created_at, as claim returned it, is needed by who may go on after an asynchronous failover: without it
-- the verb means whatever message has the id now. SQLSTATEs: MQ001 when the lease was lost.
create or replace function integration.complete(p_id bigint, p_attempt integer, p_owner text,
    p_created_at timestamptz default null)
    returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform integration.complete_many(p_owner, array[p_id], array[p_attempt],
        array[integration.created_at_of(p_id, p_created_at)]);
    if not found then
        perform integration.raise_lease_lost(p_id, p_attempt, p_owner);
    end if;
end $$;

-- For the verbs for one message: the message that is meant.
create or replace function integration.created_at_of(p_id bigint, p_created_at timestamptz) returns timestamptz
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(p_created_at, (select d.created_at from integration.data_staging d where d.id = p_id))
$$;

-- For complete_many: the messages of targets that do not keep what is completed leave the table, archived or deleted.
-- Returns the ids that did. SECURITY DEFINER, so that consumers need no right to delete; the fence is the same.
-- Locks: the rows.
create or replace function integration.complete_out(
    p_holder text, p_ids bigint[], p_attempts integer[], p_created timestamptz[], p_held boolean, p_now timestamptz
) returns setof bigint
    language plpgsql set search_path = pg_catalog, pg_temp
    set jit = off set enable_seqscan = off set enable_nestloop = off as $$
begin
    perform set_config('integration.verb', 'completed', true);
    return query
        with gone as (
            delete from integration.data_staging d
             using unnest(p_ids, p_attempts, p_created) s (id, attempt, created_at), integration.targets t
             where d.id = any (p_ids) and d.id = s.id and d.attempt = s.attempt - p_held::integer
               and d.created_at = s.created_at
               and d.owner is not distinct from p_holder and d.status || '' = case when p_held then 'pending'
                   else 'processing' end
               and t.target_app = d.target_app and t.on_complete <> 'keep'
            returning d.*, s.attempt as done_attempt, t.on_complete),
        archived as (
            insert into integration.data_staging_archive
                (id, source_app, target_app, record_type, data, status, priority, retry_count, created_at, updated_at,
                 processed_at, attempt, crash_count, redrive_count, requeued_at, max_retries, headers, ordering_key,
                     dedup_key)
            select g.id, g.source_app, g.target_app, g.record_type, g.data, 'completed', g.priority, g.retry_count,
                g.created_at,
                   p_now, p_now, g.done_attempt, 0, g.redrive_count, g.requeued_at, g.max_retries, g.headers,
                       g.ordering_key, g.dedup_key
              from gone g where g.on_complete = 'archive')
        select g.id from gone g;
    perform set_config('integration.verb', '', true);
end $$;
