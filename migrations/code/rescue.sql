-- Rescue: what becomes of the messages of who is dead.

-- Who is dead of the registered processes: its lease ran out, or (long before that) its session lock is free although
-- it was taken on this very server, and it has not beaten for settings.rescue_grace. p_seize: takes the lock of who is
-- dead until the end of the transaction, so that it cannot come back meanwhile; else only looks whether anybody has it.
-- p_at: a time at which there was contact. A server that is frozen and goes on in the midst of a rescue is at another
-- time than it began at, and nobody could beat between the two.
create or replace function integration.dead_owners(p_seize boolean, p_at timestamptz default integration.clock())
    returns table (owner text, because text)
    language sql set search_path = pg_catalog, pg_temp as $$
    select c.owner, case when x.lease_until < p_at then 'lease' else 'session' end
      from integration.processes c, integration.settings s, integration.contact k
     -- Whose row was in use when all leases began anew has not got its own: it counts from then all the same.
     cross join lateral (
        select c.beat_at < k.resumed_at and k.resumed_at <= p_at and isfinite(c.lease_until) as left_out) l
     cross join lateral (
        select case when l.left_out then greatest(c.lease_until, k.resumed_at + (c.lease_until - c.beat_at))
                    else c.lease_until end as lease_until,
               case when l.left_out then k.resumed_at else c.beat_at end as beat_at) x
     where x.lease_until < p_at
        or (c.locked_on = pg_postmaster_start_time() and x.beat_at < p_at - s.rescue_grace
            and case
                    when p_seize then pg_try_advisory_xact_lock(integration.lock_class(), hashtext(c.owner))
                    else not exists (
                        select from pg_locks l
                         where l.locktype = 'advisory' and l.objsubid = 2 and l.granted
                           -- A copy of this database has the same owners, and they live there.
                           and l.database = (select d.oid from pg_database d where d.datname = current_database())
                           and l.classid::bigint = integration.lock_class()
                           and l.objid::bigint = (hashtext(c.owner)::bigint & 4294967295))
                end)
$$;

-- Why a message that is processing is lost at p_at, given who is dead; null: it is not. lease: its own ran out; owner:
-- whoever claimed it is dead or not known any more; foreign: plain SQL claimed it, and targets.foreign_lease is over.
create or replace function integration.lost_because(
    p_owner text, p_lease_until timestamptz, p_updated_at timestamptz, p_target text, p_dead text[],
    p_at timestamptz default integration.clock()
) returns text
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if p_lease_until is not null then
        return case when p_lease_until < p_at then 'lease' end;
    elsif p_owner is null then
        -- Silence counts only since somebody looks (see keep_contact).
        return (select 'foreign' from integration.targets t, integration.contact c
                 where t.target_app = p_target
                   and greatest(p_updated_at, c.resumed_at) < p_at - t.foreign_lease);
    elsif p_owner = any (p_dead) then
        return 'owner';
    end if;
    perform from integration.processes c where c.owner = p_owner;
    return case when not found then 'owner' end;
end $$;

-- Declares dead who is dead; returns their messages to pending, and those whose own lease ran out, and those of owners
-- nobody knows. At most p_limit messages; callers repeat while the result equals it. Returns how many were returned.
-- With p_full false the messages are looked at only when somebody was declared dead just now: cheap enough for every
-- heartbeat; what it leaves (leases of single claims, strays) the next full one finds.
-- Locks: rescue runs once at a time (its gate, tried, never waited for), rows of processes
-- SKIP LOCKED, then messages SKIP LOCKED: a settle that is under way wins.
create or replace function integration.rescue(p_limit integer default 1000, p_full boolean default true) returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
    set enable_bitmapscan = off as $$
declare
    -- Before the contact is noted: a server that stands still from here on finds nobody dead.
    v_now    timestamptz := integration.clock();
    v_owners text[];
    v_dead   jsonb[];
    v_lost   bigint[];
    v_count  integer;
    v_alive  text[];
begin
    if not integration.pass_gate('rescue') then
        return 0;
    end if;
    perform integration.keep_contact();
    if exists (select from integration.set_aside s where s.outcome is not null) then
        perform integration.settle_owed();
    end if;
    select array_agg(l.owner) into v_owners
      from (select c.owner from integration.processes c
             where c.owner = any (array(select d.owner from integration.dead_owners(true, v_now) d))
               for update skip locked) l;
    if v_owners is not null then
        -- Asked again, now that their rows are locked: who has beaten meanwhile is alive.
        with dead as (
            delete from integration.processes c
             where c.owner = any (v_owners)
               and c.owner in (select d.owner from integration.dead_owners(true, v_now) d)
            returning c.targets)
        select array_agg(dead.targets) into v_dead from dead;
    end if;
    if v_dead is not null then
        perform integration.insist_on_leases(v_dead);
    elsif not p_full then
        return 0;
    end if;
    -- Nearly all of it is in the hands of somebody alive, which is seen without a call for each: heartbeats may wait
    -- for what is locked here.
    v_alive := array(select c.owner from integration.processes c);
    v_lost := array(
        select d.id from integration.data_staging d
         where d.status = 'processing'
           and (d.lease_until is not null or d.owner is null or d.owner <> all (v_alive))
           and integration.lost_because(d.owner, d.lease_until, d.updated_at, d.target_app, '{}', v_now) is not null
           and not integration.is_set_aside(d.id, d.created_at) and not integration.is_owed(d.id, d.created_at)
         limit p_limit
         for no key update skip locked);
    select count(*) into v_count from integration.in_parts('rescue', 'select integration.rescue_rows($1)', v_lost);
    return v_count;
end $$;

create or replace function integration.rescue_rows(p_ids bigint[]) returns setof bigint
    language sql set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
    with lost as materialized (
        select d.id, d.target_app, d.record_type from integration.data_staging d where d.id = any (p_ids))
    update integration.data_staging d
       set status = case when d.crash_count >= p.max_crashes - 1 then 'failed' else 'pending' end,
           crash_count = least(d.crash_count, 2147483646) + 1,
           requeued_at = integration.clock(),
           series = case when d.ordering_key is null then null when d.crash_count >= p.max_crashes - 1 then d.series
               else 0 end,
           error_message = case when d.crash_count >= p.max_crashes - 1
               then format('%s consumers died one after the other while handling this message',
                   d.crash_count + 1::bigint)
               else d.error_message end,
           owner = null, lease_until = null, updated_at = integration.clock()
      from lost l
     cross join lateral integration.policy(l.target_app, l.record_type) p
     where d.id = l.id
    returning d.id
$$;

-- For claims with a lease of their own, where nobody else may be there to rescue: returns messages of a target whose
-- lease ran out before p_before. Not rescue, whose gate would be held until the caller's transaction ends. Returns how
-- many.
-- Locks: the rows, SKIP LOCKED.
create or replace function integration.return_expired(p_target text, p_before timestamptz, p_limit integer)
    returns integer
    language plpgsql set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set enable_bitmapscan = off as $$
declare
    v_lost  bigint[];
    v_count integer;
begin
    perform integration.settle_owed(p_limit);
    v_lost := array(
        select d.id from integration.data_staging d
         where d.target_app = p_target and d.status = 'processing' and d.lease_until < p_before
           and not integration.is_set_aside(d.id, d.created_at) and not integration.is_owed(d.id, d.created_at)
         limit p_limit
         for no key update skip locked);
    select count(*) into v_count from integration.in_parts('rescue', 'select integration.rescue_rows($1)', v_lost);
    return v_count;
end $$;

-- Has the targets that dead consumers worked on in transactions be claimed with leases for a while: what a transaction
-- held leaves no trace when its process dies, so the message that kills its consumers is found only with leases.
-- SECURITY DEFINER because consumers need no right to change settings.
create or replace function integration.insist_on_leases(p_targets jsonb[], p_for interval default '10 min') returns void
    language sql set search_path = pg_catalog, pg_temp as $$
    insert into integration.targets (target_app, leases_until)
    select x.target_app, integration.clock() + p_for
      from (select distinct e.key from unnest(p_targets) t (accepts) cross join lateral jsonb_each(t.accepts) e
             where e.value ->> 'holds' = 'true') x (target_app)
    on conflict (target_app) do update set leases_until = excluded.leases_until
$$;
