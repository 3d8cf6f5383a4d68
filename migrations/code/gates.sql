-- The gates of a target: what keeps its messages from being claimed, whoever asks.

-- Everything that keeps messages of a target from being claimed by whoever wants them: the one place that says so. A
-- new gate is one more arm here; claim, hold, explain and the lists of targets follow. admits: how many messages it
-- lets through now, 0 while it is closed; null: as many as one likes, but each with a lease. breaker: whose canaries
-- those are. Any row keeps messages from being held in transactions, which leave no trace to count. p_explained: with
-- the words; claims do without, which costs nothing then, because the function is inlined. Its facts are in targets and
-- breakers: claim and hold ask only where has_gates says so.
create or replace function integration.gates(p_target text, p_explained boolean)
    returns table (code text, admits bigint, breaker text, sentence text, fix text, details jsonb)
    language sql stable as $$
    select g.code, g.admits, g.breaker, g.sentence, g.fix, g.details
      from (values (p_target)) p (target)
      left join integration.targets t on t.target_app = p.target
      left join integration.breakers b on b.breaker_key = coalesce(t.breaker_key, p.target) and b.state <> 'closed'
     cross join lateral (
        select 'paused' as code, 0::bigint as admits, null::text as breaker,
               case when p_explained then
                   format('%s was paused by %s %s ago%s%s', p.target, t.paused_by,
                          integration.in_words(integration.clock() - t.paused_at), ': ' || t.pause_reason,
                          '; it goes on in ' || integration.in_words(t.paused_until - integration.clock()))
               end as sentence,
               case when p_explained then 'doorbell resume ' || integration.shell_word(p.target) end as fix,
               case when p_explained then
                   jsonb_build_object('since', t.paused_at, 'by', t.paused_by, 'reason', t.pause_reason) end as details
         where t.paused_at is not null and coalesce(t.paused_until > integration.clock(), true)
        union all
        select 'breaker_' || b.state, integration.canaries_left(b.state, b.retry_at, b.canaries_left, b.changed_at),
               b.breaker_key,
               case when p_explained then
                   case b.state when 'open' then
                       format('the breaker %s was opened by %s %s ago%s; %s', b.breaker_key, b.changed_by,
                              integration.in_words(integration.clock() - b.changed_at), ': ' || b.reason,
                              coalesce('canaries go through in '
                                       || integration.in_words(b.retry_at - integration.clock()),
                                       'it stays open until somebody closes it'))
                   else
                       format('the breaker %s has been half-open for %s%s; all its canaries are under way, '
                              '%s came back well', b.breaker_key,
                              integration.in_words(integration.clock() - b.changed_at),
                              ' (it was opened: ' || b.reason || ')', b.canaries_passed) end end,
               case when p_explained then 'when what it guards is well: doorbell breaker close '
                   || integration.shell_word(b.breaker_key) end,
               case when p_explained then
                   jsonb_build_object('breaker', b.breaker_key, 'since', b.changed_at, 'reason', b.reason)
                   || case b.state when 'open' then jsonb_build_object('by', b.changed_by, 'retry_at', b.retry_at)
                                   else jsonb_build_object('canaries_passed', b.canaries_passed) end end
         where b.breaker_key is not null
        union all
        select 'in_flight_limit', greatest(t.max_in_flight - f.count, 0), null,
               case when p_explained then
                   format('%s messages of %s are being handled, and max_in_flight is %s', f.count, p.target,
                          t.max_in_flight) end,
               case when p_explained then
                   'wait until one of them has ended, or raise max_in_flight of ' || p.target end,
               case when p_explained then
                   jsonb_build_object('processing', f.count, 'max_in_flight', t.max_in_flight) end
          from (select count(*) from integration.data_staging d
                 where d.target_app = p.target and d.status = 'processing') f
         where t.max_in_flight is not null
        union all
        select 'rate_limited', greatest(r.rate_max - r.claimed, 0), null,
               case when p_explained then
                   format('%s messages of %s were claimed within %s, and rate_max is %s; others may be in %s',
                          r.claimed, p.target, integration.in_words(r.rate_per), r.rate_max,
                          integration.in_words(greatest(r.opens_at - integration.clock(), interval '0'))) end,
               case when p_explained then 'wait, or raise rate_max of ' || p.target end,
               case when p_explained then
                   jsonb_build_object('claimed', r.claimed, 'rate_max', r.rate_max, 'opens_at', r.opens_at) end
          from integration.rate_of(p.target) r
         where t.rate_max is not null
        union all
        -- A consumer that held messages has died: the one that kills its consumers is found only with leases.
        select 'leases_only', null, null, null, null, null
         where t.leases_until > integration.clock()) g
$$;

-- Of a target with rate_max: how many claims have begun within the last rate_per, and when so many of them are over
-- that others may begin. No row: it has none. What a clock that was set says of the future counts for no longer than
-- rate_per.
create or replace function integration.rate_of(p_target text)
    returns table (rate_max integer, rate_per interval, claimed bigint, opens_at timestamptz)
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select t.rate_max, t.rate_per, coalesce(sum(c.claimed), 0)::bigint, min(c.at) + t.rate_per
      from integration.targets t
      left join integration.turns u on u.target_app = t.target_app
      left join lateral unnest(u.claimed_at, u.claimed) c (at, claimed)
        on c.at > integration.clock() - t.rate_per and c.at <= integration.clock() + t.rate_per
     where t.target_app = p_target and t.rate_max is not null
     group by t.target_app
$$;

-- Milliseconds until the target's rate_max lets others through; 0: it does now; null: there is none.
create or replace function integration.opens_in(p_target text) returns bigint
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    if integration.is_limited() then
        perform integration.must_consume(array[p_target]);
    end if;
    return (select case when r.claimed >= r.rate_max
                   then greatest(ceil(extract(epoch from r.opens_at - integration.clock()) * 1000), 1) else 0 end
              from integration.rate_of(p_target) r);
end $$;

-- For claim, after it: so many messages of the target were claimed. The time is read here, so that no change that the
-- claim made is later: whoever counts in the history finds no more than rate_max within any rate_per. Locks: its row
-- of turns, which admit has taken.
create or replace function integration.note_claimed(p_target text, p_count integer) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_now timestamptz := integration.clock();
    v_per interval;
begin
    if p_count = 0 then
        return;
    end if;
    select t.rate_per into v_per from integration.targets t
     where t.target_app = p_target and t.rate_max is not null;
    if not found then
        return;
    end if;
    update integration.turns t
       set (claimed_at, claimed) = (
            select array_agg(s.at order by s.at), array_agg(s.claimed order by s.at)
              from (select max(c.at) as at, sum(c.claimed)::integer as claimed
                      from (select u.at, u.claimed from unnest(t.claimed_at, t.claimed) u (at, claimed)
                             where u.at > v_now - v_per and u.at <= v_now
                            union all select v_now, p_count) c
                     group by floor(extract(epoch from c.at) * 20 / extract(epoch from v_per))) s)
     where t.target_app = p_target;
end $$;

-- For claim, which rate_max has cut short: the row that says when it lets others through.
create or replace function integration.cut_by_rate(p_target text) returns table (
    id bigint, attempt integer, source_app text, record_type text, data jsonb, headers jsonb, priority integer,
    retry_count integer, redrive_count integer, ordering_key text, created_at timestamptz, requeued_at timestamptz,
    canary boolean, ahead boolean, origin_id bigint
)
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_now timestamptz := integration.clock();
begin
    return query
        select null::bigint, null::integer, null::text, null::text, null::jsonb, null::jsonb, null::integer,
               null::integer, null::integer, null::text,
               case when r.claimed >= r.rate_max then greatest(r.opens_at, v_now) else v_now end, v_now, false, true,
               null::bigint
          from integration.rate_of(p_target) r;
end $$;

-- Whether a target may have gates; claim and hold ask the same. Most have neither settings nor a breaker that is open,
-- and to be told so by the gates themselves costs as much as to claim a message.
create or replace function integration.has_gates(p_target text) returns boolean
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return exists (select from integration.targets t where t.target_app = p_target)
        or exists (select from integration.breakers b where b.breaker_key = p_target and b.state <> 'closed');
end $$;

-- Whether a target has a gate now: a claim may find less than there is.
create or replace function integration.is_gated(p_target text) returns boolean
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    -- Two statements: one would prepare all arms of the gates to answer the first half.
    if not integration.has_gates(p_target) then
        return false;
    end if;
    return exists (select from integration.gates(p_target, false));
end $$;

-- How many messages of the target may be claimed now: at most p_limit, and 0 while a gate is closed. canary: they are
-- canaries of the target's breaker, and taken. rated: they are fewer than p_limit because of rate_max. Locks: only for
-- a target with max_in_flight or rate_max (its row of turns, so that the limit is exact) or a breaker that is not
-- closed (its row).
create or replace function integration.admit(
    p_target text, p_limit integer, out admitted integer, out canary boolean, out rated boolean
)
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_breaker text;
begin
    if exists (select from integration.targets t where t.target_app = p_target
                  and (t.max_in_flight is not null or t.rate_max is not null)) then
        perform from integration.turns t where t.target_app = p_target for update;
        if not found then
            insert into integration.turns (target_app) values (p_target) on conflict do nothing;
            perform from integration.turns t where t.target_app = p_target for update;
        end if;
    end if;
    -- A statement of its own, which sees what the lock was waited for.
    select greatest(least(p_limit, min(g.admits)), 0), min(g.breaker),
           coalesce(min(g.admits) < p_limit
               and min(g.admits) filter (where g.code = 'rate_limited') = min(g.admits), false)
      into admitted, v_breaker, rated
      from integration.gates(p_target, false) g;
    canary := v_breaker is not null;
    if canary and admitted > 0 then
        admitted := integration.take_canaries(v_breaker, admitted);
    end if;
end $$;

-- The breaker that guards a target.
create or replace function integration.breaker_of(p_target text) returns text
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return coalesce((select t.breaker_key from integration.targets t where t.target_app = p_target), p_target);
end $$;

-- The gates of a target that are closed, in words. Empty result: messages of the target may be claimed.
create or replace function integration.closed_gates(p_target text)
    returns table (code text, sentence text, fix text, details jsonb)
    language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    select g.code, g.sentence, g.fix, g.details from integration.gates(p_target, true) g where g.admits <= 0
$$;

-- For what one session at a time does: whether it is the caller, until its transaction ends.
-- Locks: the gate's table, tried and never waited for.
create or replace function integration.pass_gate(p_gate text) returns boolean
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    case p_gate
    when 'rescue' then lock table integration.gate_rescue in share row exclusive mode nowait;
    when 'fold' then lock table integration.gate_fold in share row exclusive mode nowait;
    when 'turn' then lock table integration.gate_turn in share row exclusive mode nowait;
    end case;
    return true;
exception when lock_not_available then
    return false;
end $$;
