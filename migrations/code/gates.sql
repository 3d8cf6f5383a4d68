-- The gates of a target: what keeps its messages from being claimed, whoever asks.

-- Whether messages of the target may be held: not while it is paused, has a limit, or a breaker that is not closed, nor
-- while leases are insisted on, because a consumer that held messages has died.
create or replace function integration.may_hold(p_target text) returns boolean
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    return not exists (
            select from integration.targets t
             where t.target_app = p_target
               and (t.paused_at is not null or t.max_in_flight is not null or t.leases_until > integration.clock()))
       and not exists (
            select from integration.breakers b
             where b.breaker_key = integration.breaker_of(p_target) and b.state <> 'closed');
end $$;

-- How many messages of the target may be claimed now: p_limit, fewer where its breaker lets canaries through, where the
-- target has a fleet-wide limit, or 0 when an operator paused it or the breaker is open.
-- Locks: only for a target with max_in_flight (its row of turns, so that the limit is exact) or a breaker that is not
-- closed (its row).
create or replace function integration.admit(p_target text, p_limit integer, out admitted integer, out canary boolean)
    language plpgsql set search_path = pg_catalog, pg_temp as $$
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
        perform from integration.turns t where t.target_app = p_target for update;
        if not found then
            insert into integration.turns (target_app) values (p_target) on conflict do nothing;
            perform from integration.turns t where t.target_app = p_target for update;
        end if;
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

-- The breaker that guards a target.
create or replace function integration.breaker_of(p_target text) returns text
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return coalesce((select t.breaker_key from integration.targets t where t.target_app = p_target), p_target);
end $$;

-- What keeps every message of a target from being claimed now: admit() as it would decide, without its locks and
-- without taking a canary. A test compares the two in every state. Empty result: messages of the target may be claimed.
create or replace function integration.closed_gates(p_target text)
    returns table (code text, sentence text, fix text, details jsonb)
    language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    select 'paused' as code,
           format('%s was paused by %s %s ago%s', p_target, t.paused_by,
               integration.in_words(integration.clock() - t.paused_at),
                  ': ' || t.pause_reason),
           'doorbell resume ' || integration.shell_word(p_target),
           jsonb_build_object('since', t.paused_at, 'by', t.paused_by, 'reason', t.pause_reason)
      from integration.targets t
     where t.target_app = p_target and t.paused_at is not null
    union all
    select 'breaker_open' as code,
           format('the breaker %s was opened by %s %s ago%s; %s', b.breaker_key, b.changed_by,
                  integration.in_words(integration.clock() - b.changed_at), ': ' || b.reason,
                  coalesce('canaries go through in ' || integration.in_words(b.retry_at - integration.clock()),
                           'it stays open until somebody closes it')),
           'doorbell breaker close ' || integration.shell_word(b.breaker_key),
           jsonb_build_object('breaker', b.breaker_key, 'since', b.changed_at, 'by', b.changed_by, 'reason', b.reason,
                              'retry_at', b.retry_at)
      from integration.breakers b
     where b.breaker_key = integration.breaker_of(p_target) and b.state = 'open'
       -- Once its time has come, the next claim lets the canaries through.
       and (b.retry_at is null or b.retry_at > integration.clock())
    union all
    select 'breaker_half_open' as code,
           format('the breaker %s has been half-open for %s%s; all its canaries are under way, %s came back well',
                  b.breaker_key, integration.in_words(integration.clock() - b.changed_at),
                  ' (it was opened: ' || b.reason || ')', b.canaries_passed),
           'doorbell breaker close ' || integration.shell_word(b.breaker_key),
           jsonb_build_object('breaker', b.breaker_key, 'since', b.changed_at, 'reason', b.reason,
                              'canaries_passed', b.canaries_passed)
      from integration.breakers b, integration.settings s
     where b.breaker_key = integration.breaker_of(p_target) and b.state = 'half_open' and b.canaries_left = 0
       and b.changed_at >= integration.clock() - s.breaker_open_for
    union all
    select 'in_flight_limit' as code,
           format('%s messages of %s are being handled, and max_in_flight is %s', f.count, p_target, t.max_in_flight),
           format('update integration.targets set max_in_flight = %s where target_app = %L', t.max_in_flight * 2,
               p_target),
           jsonb_build_object('processing', f.count, 'max_in_flight', t.max_in_flight)
      from integration.targets t
     cross join lateral (
        select count(*) from integration.data_staging d where d.target_app = p_target and d.status = 'processing') f
     where t.target_app = p_target and f.count >= t.max_in_flight;
$$;

-- Every target that is known: named in p_names, with settings, or with a consumer; its live consumer processes, the
-- messages they handle at the same time, and the gates that are closed.
create or replace function integration.target_states(p_names text[] default '{}') returns table (
    target_app text, processes bigint, workers bigint, gate_codes text[], gate_sentences text[]
)
    language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    with consuming as materialized (
        select t.key as target_app, c.lease_until > integration.clock() as alive,
               coalesce((t.value ->> 'capacity')::bigint, 0) as capacity
          from integration.processes c cross join lateral jsonb_each(c.targets) t),
    names as (
        select n.name from unnest(p_names) n (name)
        union select t.target_app from integration.targets t
        union select c.target_app from consuming c)
    select n.name,
           (select count(*) from consuming c where c.target_app = n.name and c.alive),
           (select coalesce(sum(c.capacity), 0)::bigint from consuming c where c.target_app = n.name and c.alive),
           array(select g.code from integration.closed_gates(n.name) g),
           array(select g.sentence from integration.closed_gates(n.name) g)
      from names n order by n.name
$$;

-- For what one session at a time does: whether it is the caller, until its transaction ends.
-- Locks: the gate's table, tried and never waited for.
create or replace function integration.pass_gate(p_gate text) returns boolean
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    case p_gate
    when 'rescue' then lock table integration.gate_rescue in share row exclusive mode nowait;
    when 'fold' then lock table integration.gate_fold in share row exclusive mode nowait;
    end case;
    return true;
exception when lock_not_available then
    return false;
end $$;
