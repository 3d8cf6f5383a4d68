-- Circuit breakers: closed -> open (failure rate, or a handler's word) -> half_open (N canaries) -> closed. The state
-- is one row, seen by the whole fleet; messages that wait lose no retry. Every transition is audited and rings.

-- Changes the state; the one place that does.
-- Locks: the breaker's row.
create or replace function integration.set_breaker(
    p_key text, p_state text, p_reason text, p_retry_at timestamptz, p_canaries integer, p_openings integer
) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_target text;
    v_stack  text;
begin
    insert into integration.breakers as b (breaker_key, state, reason, retry_at, canaries_left, openings, changed_by)
    values (p_key, p_state, integration.clean_text(p_reason), p_retry_at, p_canaries, p_openings, integration.actor())
    on conflict (breaker_key) do update
       set state = excluded.state, reason = excluded.reason, retry_at = excluded.retry_at,
           canaries_left = excluded.canaries_left, canaries_passed = 0, openings = excluded.openings,
           changed_at = integration.clock(), changed_by = excluded.changed_by,
           window_began_at = integration.clock(), window_ok = 0, window_failed = 0;
    begin
        insert into integration.audit_log (app_name, action, target_app, new_status, details)
        values (integration.actor(), 'breaker_' || p_state, p_key, p_state,
                jsonb_strip_nulls(jsonb_build_object('reason', p_reason, 'retry_at', p_retry_at, 'openings',
                    nullif(p_openings, 0))));
    exception when others then
        -- It protects without its history, too; but nobody acts unseen.
        get diagnostics v_stack = pg_context;
        if integration.is_passing(sqlstate) or integration.is_within(v_stack, 'open_breaker|close_breaker') then
            raise;
        end if;
        perform integration.note_unaudited(array[p_key]);
        raise warning 'that the breaker of % is % is not in the audit log: %', p_key, p_state, sqlerrm;
    end;
    -- Open: consumers learn when to come back. Otherwise: there is something to claim.
    for v_target in
        select t.target_app from integration.targets t where t.breaker_key = p_key
        union select p_key
    loop
        if p_state = 'open' then
            perform integration.send(integration.due_channel(v_target)) where integration.bell_is_on(v_target);
        else
            perform integration.ring(v_target);
        end if;
    end loop;
end $$;

-- Opens a breaker: nothing it guards is claimed. p_for null: until somebody closes it; else canaries are let through
-- after so long.
create or replace function integration.open_breaker(p_key text, p_reason text default null,
    p_for interval default null) returns void
    language sql security definer set search_path = pg_catalog, pg_temp as $$
    select integration.set_breaker(p_key, 'open', p_reason, integration.clock() + p_for, 0, 1)
$$;

-- Closes a breaker, whatever its state. False: it was closed.
create or replace function integration.close_breaker(p_key text, p_reason text default null) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform from integration.breakers b where b.breaker_key = p_key and b.state <> 'closed' for update;
    if not found then
        return false;
    end if;
    perform integration.set_breaker(p_key, 'closed', p_reason, null, 0, 0);
    return true;
end $$;

-- What a consumer saw of a target since its last report: runs that ended well, runs that failed; p_down: the handler
-- said that its dependency is down, which opens at once. Consumers report only when something failed or while the
-- breaker is not closed, so a healthy fleet writes nothing here. Returns the breaker's state.
-- Locks: the breaker's row.
create or replace function integration.report_runs(
    p_target text, p_ok bigint, p_failed bigint, p_down boolean default false, p_reason text default null
) returns text
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_key text := integration.breaker_of(p_target);
    v     integration.breakers;
    s     integration.settings;
    v_now timestamptz := integration.clock();
    v_due timestamptz;
begin
    if integration.is_limited() then
        perform integration.must_consume(array[p_target]);
    end if;
    select * into s from integration.settings;
    insert into integration.breakers as b (breaker_key) values (v_key) on conflict do nothing;
    select * into v from integration.breakers b where b.breaker_key = v_key for update;
    if v.state = 'open' then
        return v.state;
    end if;
    v_due := v_now + least(s.breaker_open_max, s.breaker_open_for * power(2, least(v.openings, 20)));
    if v.state = 'half_open' then
        if p_failed > 0 or p_down then
            perform integration.set_breaker(v_key, 'open', coalesce(p_reason, 'a canary failed'), v_due, 0,
                v.openings + 1);
            return 'open';
        end if;
        if v.canaries_passed + p_ok >= s.breaker_canaries then
            perform integration.set_breaker(v_key, 'closed', 'the canaries came back well', null, 0, 0);
            return 'closed';
        end if;
        update integration.breakers b set canaries_passed = b.canaries_passed + p_ok where b.breaker_key = v_key;
        return v.state;
    end if;
    if v.window_began_at < v_now - s.breaker_window then
        v.window_ok := 0;
        v.window_failed := 0;
        v.window_began_at := v_now;
    end if;
    v.window_ok := v.window_ok + p_ok;
    v.window_failed := v.window_failed + p_failed;
    if p_down or (v.window_ok + v.window_failed >= s.breaker_samples_min
                  and v.window_failed >= s.breaker_failure_rate * (v.window_ok + v.window_failed)) then
        perform integration.set_breaker(v_key, 'open', coalesce(p_reason, format('%s of %s runs failed',
            v.window_failed, v.window_ok + v.window_failed)), v_due, 0, v.openings + 1);
        return 'open';
    end if;
    update integration.breakers b
       set window_began_at = v.window_began_at, window_ok = v.window_ok, window_failed = v.window_failed
     where b.breaker_key = v_key;
    return v.state;
end $$;

-- How many canaries a breaker in this state lets through: none while it is open, all of them once its time has come,
-- and again after breaker_open_for where they never came back (their consumer died). Null: it is closed.
create or replace function integration.canaries_left(
    p_state text, p_retry_at timestamptz, p_left integer, p_changed_at timestamptz
) returns integer
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return case p_state
        when 'open' then case when p_retry_at <= integration.clock()
            then (select s.breaker_canaries from integration.settings s) else 0 end
        when 'half_open' then case when p_left = 0
            then (select case when p_changed_at < integration.clock() - s.breaker_open_for then s.breaker_canaries
                              else 0 end from integration.settings s)
            else p_left end
    end;
end $$;

-- For claim: takes canaries of a breaker that is not closed, at most p_limit; returns how many. A breaker whose time
-- has come becomes half-open here.
-- Locks: the breaker's row.
create or replace function integration.take_canaries(p_key text, p_limit integer) returns integer
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v      integration.breakers;
    v_left integer;
begin
    select * into v from integration.breakers b where b.breaker_key = p_key for update;
    if v.state = 'closed' then
        return p_limit;
    end if;
    v_left := integration.canaries_left(v.state, v.retry_at, v.canaries_left, v.changed_at);
    if v_left > 0 and (v.state = 'open' or v.canaries_left = 0) then
        perform integration.set_breaker(p_key, 'half_open',
            case v.state when 'open' then v.reason else 'the last canaries did not come back' end, null, v_left,
            v.openings);
    end if;
    p_limit := least(p_limit, v_left);
    update integration.breakers b set canaries_left = b.canaries_left - p_limit
     where b.breaker_key = p_key and p_limit > 0;
    return p_limit;
end $$;

-- For claim: canaries taken for which there was no message.
create or replace function integration.return_canaries(p_target text, p_count integer) returns void
    language sql set search_path = pg_catalog, pg_temp as $$
    update integration.breakers b set canaries_left = b.canaries_left + p_count
     where p_count > 0 and b.breaker_key = integration.breaker_of(p_target) and b.state = 'half_open'
$$;

-- For promote: lets the canaries of open breakers through whose time has come.
create or replace function integration.half_open_due(p_targets text[]) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v integration.breakers;
begin
    for v in
        select b.* from integration.breakers b
         where b.state = 'open' and b.retry_at <= integration.clock()
           and b.breaker_key in (select integration.breaker_of(t) from unnest(p_targets) t)
           for update skip locked
    loop
        perform integration.set_breaker(v.breaker_key, 'half_open', v.reason, null,
            (select s.breaker_canaries from integration.settings s), v.openings);
    end loop;
end $$;
