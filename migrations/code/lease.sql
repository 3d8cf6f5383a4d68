-- Leases: which processes run, and how they come and go.

-- A lease as it is asked for, but a day at most.
create or replace function integration.bounded(p_lease interval) returns interval
    language sql immutable parallel safe as $$
    select case when p_lease > '1 day' then '1 day' else p_lease end
$$;

-- Registers a running process under a new name as owner, or renews what its consumers accept. The lease is at most a
-- day. SQLSTATEs: 42501 for a target that the role may not consume for, or an owner that another role registered.
create or replace function integration.register(
    p_owner text, p_host text, p_pid integer, p_application text, p_version text, p_targets jsonb,
        p_lease_ms bigint
) returns void
    language sql security definer set search_path = pg_catalog, pg_temp as $$
    select integration.must_consume(array(select jsonb_object_keys(p_targets)), p_owner)
     where integration.is_limited();
    insert into integration.processes (owner, host, pid, application, version, targets, lease_until, role_name)
    values (p_owner, p_host, p_pid, p_application, p_version, p_targets,
        integration.clock() + integration.bounded(p_lease_ms * interval '1 ms'), integration.asking_role())
    on conflict (owner) do update
       set targets = excluded.targets, beat_at = integration.clock(), lease_until = excluded.lease_until;
    -- Before anything is claimed, so that a failover soon after is seen to be one (see keep_contact).
    update integration.contact set timeline = integration.timeline() where timeline is null;
$$;

-- Whether the owner is registered. Not compared with its lease: until somebody has rescued its messages, they are
-- its own.
create or replace function integration.is_alive(p_owner text) returns boolean
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select exists (select from integration.processes c where c.owner = p_owner)
$$;

-- Heartbeat: renews the lease of one process. renewed is false when it was rescued in the meantime, owns nothing any
-- more and must register again under a new name. timeline: see timeline(). session is another one whenever the caller's
-- connection is, also one that was replaced without an error: what the caller has in hand may then have been undone,
-- and still_mine says.
create or replace function integration.beat(p_owner text, p_lease_ms bigint,
    out renewed boolean, out timeline text, out session text)
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if integration.is_limited() then
        perform integration.must_own(p_owner);
    end if;
    update integration.processes c
       set beat_at = integration.clock(),
           lease_until = integration.clock() + integration.bounded(p_lease_ms * interval '1 ms')
     where c.owner = p_owner;
    renewed := found;
    timeline := integration.timeline();
    session := pg_postmaster_start_time() || ' ' || pg_backend_pid();
end $$;

-- Takes the session lock of an owner on the calling session (the one that LISTENs and lives as long as the
-- process) and notes on which server. False: another session has it, or the owner is not registered.
create or replace function integration.hold_session_lock(p_owner text) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if integration.is_limited() then
        perform integration.must_own(p_owner);
    end if;
    if not pg_try_advisory_lock(integration.lock_class(), hashtext(p_owner)) then
        return false;
    end if;
    update integration.processes c set locked_on = pg_postmaster_start_time() where c.owner = p_owner;
    return found;
end $$;

-- Gives the session lock of an owner back, when the session goes on under another one.
create or replace function integration.release_session_lock(p_owner text) returns boolean
    language sql set search_path = pg_catalog, pg_temp as $$
    select pg_advisory_unlock(integration.lock_class(), hashtext(p_owner))
$$;

-- A process that ends well: gives back what it still holds, hands over the maintenance and leaves. Returns how many
-- messages it gave back; what is locked, or refused, is left to rescue, and what is owed to settle_owed.
create or replace function integration.deregister(p_owner text) returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    v_count integer;
begin
    if integration.is_limited() then
        perform integration.must_own(p_owner);
    end if;
    select count(*) into v_count from integration.in_parts('release', 'select integration.release_rows($1)', array(
        select d.id from integration.data_staging d
         where d.status = 'processing' and d.owner = p_owner and not integration.is_owed(d.id, d.created_at)
           for no key update skip locked));
    delete from integration.processes c where c.owner = p_owner;
    perform integration.step_down(p_owner);
    return v_count;
end $$;

create or replace function integration.release_rows(p_ids bigint[]) returns setof bigint
    language sql set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
    update integration.data_staging d
       set status = 'pending', requeued_at = integration.clock(), owner = null, lease_until = null,
           series = case when d.ordering_key is not null then 0 end, updated_at = integration.clock()
     where d.id = any (p_ids)
    returning d.id
$$;

-- Gives back what p_owner has claimed and does not know of: the messages of a claim whose answer was lost with its
-- connection. p_ids, p_attempts and p_created name what it knows. Returns how many were given back; they cost no retry.
-- Locks: the rows, SKIP LOCKED.
create or replace function integration.give_back(p_owner text, p_ids bigint[], p_attempts integer[],
    p_created timestamptz[])
    returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    v_count integer;
begin
    if integration.is_limited() then
        perform integration.must_own(p_owner);
    end if;
    select count(*) into v_count from integration.in_parts('release', 'select integration.release_rows($1)', array(
        select d.id from integration.data_staging d
         where d.status = 'processing' and d.owner = p_owner and not integration.is_owed(d.id, d.created_at)
           and not integration.is_set_aside(d.id, d.created_at)
           and (d.id, d.attempt, d.created_at) not in (
            select k.id, k.attempt, k.created_at from unnest(p_ids, p_attempts, p_created) k (id, attempt, created_at))
           for no key update skip locked));
    return v_count;
end $$;

-- Those of an owner's claims that somebody took: cancelled, put back, redriven, or claimed by another. there: whether
-- the message still is; one that is not may as well have been completed by its own handler a moment ago, and deleted.
create or replace function integration.taken_from(p_owner text, p_ids bigint[], p_attempts integer[],
    p_created timestamptz[])
    returns table (id bigint, attempt integer, created_at timestamptz, there boolean)
    language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off
        set enable_seqscan = off as $$
    select k.id, k.attempt, k.created_at, d.id is not null
      from unnest(p_ids, p_attempts, p_created) k (id, attempt, created_at)
      left join integration.data_staging d on d.id = k.id and d.created_at = k.created_at
     where d.id is null or d.attempt > k.attempt
        or d.attempt = k.attempt and d.status = 'processing' and d.owner is distinct from p_owner
$$;

-- Those of an owner's claims that are or may be still its own: the rest are of messages that the server does not know
-- (it lost its last commits in a failover), or that others have claimed. A claim that the server has undone, as its
-- message was before, counts as one's own: the next claim may bring it again.
create or replace function integration.still_mine(p_owner text, p_ids bigint[], p_attempts integer[],
    p_created timestamptz[])
    returns table (id bigint, attempt integer, created_at timestamptz)
    language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off
        set enable_seqscan = off as $$
    select k.id, k.attempt, k.created_at
      from unnest(p_ids, p_attempts, p_created) k (id, attempt, created_at)
      join integration.data_staging d on d.id = k.id and d.created_at = k.created_at
     where d.attempt <= k.attempt and (d.status <> 'processing' or d.owner = p_owner)
$$;
