-- Rescue: what becomes of the messages of who is dead.

-- Declares dead every process whose lease ran out, or whose session lock is free although it was taken on this very
-- server and which has not beaten for p_grace_ms; returns their messages to pending, and those whose own
-- lease ran out, and those of owners nobody knows. At most p_limit messages; callers repeat while the result equals it.
-- Returns how many messages were returned. With p_full false the messages are looked at only when somebody was declared
-- dead just now: cheap enough for every heartbeat; what it leaves (leases of single claims, strays) the next full one
-- finds.
-- Locks: rescue runs once at a time (its gate, tried, never waited for), rows of processes
-- SKIP LOCKED, then messages SKIP LOCKED: a settle that is under way wins.
create or replace function integration.rescue(
    p_grace_ms bigint default 1500, p_limit integer default 1000, p_full boolean default true
) returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set enable_bitmapscan = off as $$
declare
    v_now   timestamptz := integration.clock();
    v_dead  jsonb[];
    v_count integer;
begin
    if not integration.pass_gate('rescue') then
        return 0;
    end if;
    with dead as (
        delete from integration.processes c
         where c.owner = any (array(
            select x.owner from integration.processes x
             where x.lease_until < v_now
                or (x.locked_on = pg_postmaster_start_time()
                    and x.beat_at < v_now - p_grace_ms * interval '1 ms'
                    and pg_try_advisory_xact_lock(integration.lock_class(), hashtext(x.owner)))
             for update skip locked))
        returning c.targets)
    select array_agg(dead.targets) into v_dead from dead;
    if v_dead is not null then
        perform integration.insist_on_leases(v_dead);
    elsif not p_full then
        return 0;
    end if;
    with lost as materialized (
        select d.id, d.target_app, d.record_type
          from integration.data_staging d
         where d.status = 'processing'
           and case
                   when d.lease_until is not null then d.lease_until < v_now
                   when d.owner is not null
                       then not exists (select from integration.processes c where c.owner = d.owner)
                   else d.updated_at < v_now - (
                       select t.foreign_lease from integration.targets t where t.target_app = d.target_app)
               end
         limit p_limit
         for no key update skip locked)
    update integration.data_staging d
       set status = case when d.crash_count >= p.max_crashes - 1 then 'failed' else 'pending' end,
           crash_count = least(d.crash_count, 2147483646) + 1,
           error_message = case when d.crash_count >= p.max_crashes - 1
               then format('%s consumers died one after the other while handling this message',
                   d.crash_count + 1::bigint)
               else d.error_message end,
           owner = null, lease_until = null, updated_at = v_now
      from lost l
     cross join lateral integration.policy(l.target_app, l.record_type) p
     where d.id = l.id;
    get diagnostics v_count = row_count;
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
             where e.value ->> 'in_transaction' = 'true') x (target_app)
    on conflict (target_app) do update set leases_until = excluded.leases_until
$$;
