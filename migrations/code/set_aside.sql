-- Setting aside: one message that cannot be changed never stops the others. Verbs over several messages try all of
-- them at once, which costs what it always did; when the database refuses, halves, and so on down to the ones that it
-- refuses by themselves. Those are left out until their next look, after a pause that grows.

-- Whether an error passes by itself, or speaks of the session or the server and not of a message: lost connections,
-- states of the transaction, serialization and deadlocks, exhausted resources, shutdown, the system, bugs, locks.
create or replace function integration.is_passing(p_sqlstate text) returns boolean
    language sql immutable parallel safe as $$
    select left(p_sqlstate, 2) in ('08', '25', '40', '53', '57', '58', 'XX') or p_sqlstate = '55P03'
$$;

-- Whether a message is left out now. Costs more than comparing two columns, so that comparisons come first: those for
-- equality come last at the same cost, and each process that wants its own messages back would ask this of all that the
-- whole fleet has in flight. Costs little, because the planner looks for other ways to find few rows if they are dear.
create or replace function integration.is_set_aside(p_id bigint, p_created_at timestamptz) returns boolean
    language plpgsql stable cost 20 set search_path = pg_catalog, pg_temp as $$
begin
    return exists (select from integration.set_aside s
                    where s.id = p_id and s.created_at = p_created_at and s.next_look > integration.clock());
end $$;

-- Whether an outcome of the message is owed: its handler has come to its end, so nobody may run it again.
create or replace function integration.is_owed(p_id bigint, p_created_at timestamptz) returns boolean
    language plpgsql stable cost 20 set search_path = pg_catalog, pg_temp as $$
begin
    return exists (select from integration.set_aside s
                    where s.id = p_id and s.created_at = p_created_at and s.outcome is not null);
end $$;

-- When a message is tried again that was tried so often: 10 seconds, doubled up to 10 minutes; what was only locked
-- after half a second, doubled up to 5 seconds.
create or replace function integration.next_look(p_sqlstate text, p_tries integer) returns timestamptz
    language sql volatile as $$
    select integration.clock() + case p_sqlstate
        when '55P03' then least(interval '5 s', interval '0.5 s' * power(2, least(p_tries, 20) - 1))
        else least(interval '10 min', interval '10 s' * power(2, least(p_tries, 20) - 1)) end
$$;

-- Sets a message aside. What is owed stays owed.
create or replace function integration.set_aside(p_id bigint, p_verb text, p_sqlstate text, p_reason text) returns void
    language sql set search_path = pg_catalog, pg_temp as $$
    insert into integration.set_aside as s
        (id, target_app, created_at, verb, sqlstate, reason, since, tried_at, next_look)
    select d.id, d.target_app, d.created_at, p_verb, p_sqlstate, left(integration.clean_text(p_reason), 500),
           integration.clock(), integration.clock(), integration.next_look(p_sqlstate, 1)
      from integration.data_staging d where d.id = p_id
    on conflict (id) do update
       set target_app = excluded.target_app, created_at = excluded.created_at, verb = excluded.verb,
           sqlstate = excluded.sqlstate, reason = excluded.reason, tried_at = excluded.tried_at,
           since = case when s.created_at = excluded.created_at then s.since else excluded.since end,
           tries = case when s.created_at = excluded.created_at then s.tries + 1 else 1 end,
           next_look = integration.next_look(excluded.sqlstate,
               case when s.created_at = excluded.created_at then s.tries + 1 else 1 end)
     where s.outcome is null or s.created_at <> excluded.created_at
$$;

-- Says, for the rest of the transaction, that history is written ('') or refused; see is_unwritable.
create or replace function integration.history(p_history text) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if coalesce(current_setting('integration.history', true), '') <> p_history then
        perform set_config('integration.history', p_history, true);
    end if;
end $$;

-- Why nothing happened to a message where nothing was refused either (SQLSTATE 27000).
create or replace function integration.left_out() returns text
    language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
    select 'a trigger on data_staging leaves it as it was'
$$;

-- Does something to messages: p_call is a statement over $1, their ids, that answers with the ids it was done to. All
-- at once, in halves where that is refused, and a message that is refused by itself is set aside under p_verb. Returns
-- the ids it was done to. A message that is left as it was without a word, by a trigger of somebody's, is set aside as
-- well. What passes by itself is raised: nothing was done then. Messages do not stop because their
-- history cannot be written: where that alone is refused, it is left out and counted, but for what people do.
-- Locks: those of the call; the caller has locked the rows.
create or replace function integration.in_parts(p_verb text, p_call text, p_ids bigint[]) returns setof bigint
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_many    integer := coalesce(cardinality(p_ids), 0);
    v_done    bigint[];
    v_context text;
    v_state   text;
    v_reason  text;
begin
    if v_many = 0 then
        return;
    end if;
    perform integration.history('');
    begin
        execute format('select array(%s)', p_call) into v_done using p_ids;
        if cardinality(v_done) < v_many then
            perform integration.set_aside(i.id, p_verb, '27000', integration.left_out())
               from unnest(p_ids) i (id) where i.id <> all (v_done);
        end if;
        return query select unnest(v_done);
        return;
    exception when others then
        if integration.is_passing(sqlstate) then
            raise;
        end if;
        get stacked diagnostics v_context = pg_exception_context, v_state = returned_sqlstate,
            v_reason = message_text;
    end;
    if v_many = 1 then
        begin
            if integration.is_of_history(v_context) then
                perform integration.history('refused');
                execute format('select array(%s)', p_call) into v_done using p_ids;
                perform integration.history('');
                raise warning 'message %: % is not in the audit log: %', p_ids[1], p_verb, v_reason;
                return query select unnest(v_done);
                return;
            end if;
        exception when others then
            if integration.is_passing(sqlstate) then
                raise;
            end if;
        end;
        perform integration.set_aside(p_ids[1], p_verb, v_state, v_reason);
        return;
    end if;
    return query select * from integration.in_parts(p_verb, p_call, p_ids[:v_many / 2]);
    return query select * from integration.in_parts(p_verb, p_call, p_ids[v_many / 2 + 1:]);
end $$;

-- Settles as complete_many and settle do (p_outcomes: complete, too), for whom those were refused, or kept waiting by a
-- lock. What somebody has locked, and what the database refuses, is owed from then on: settle_owed tries it again, and
-- who handled it is rid of it. Returns (id, status) as settle does; the status of what is owed is "owed".
-- Locks: the rows, SKIP LOCKED: never waits for anybody's row.
create or replace function integration.settle_or_owe(
    p_owner text, p_ids bigint[], p_attempts integer[], p_created timestamptz[], p_outcomes text[], p_reasons text[],
    p_delays_ms bigint[]
) returns table (id bigint, status text)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
#variable_conflict use_column
declare
    v_free bigint[];
begin
    if integration.is_limited() then
        perform integration.must_settle(p_ids);
    end if;
    v_free := array(select d.id from integration.data_staging d where d.id = any (p_ids) order by d.id
                       for no key update skip locked);
    return query
        select o.id, 'owed' from integration.owe(p_owner, p_ids, p_attempts, p_created, p_outcomes, p_reasons,
            p_delays_ms, '55P03', 'somebody has locked it', v_free) o (id);
    return query
        select s.id, s.status
          from (select array_agg(u.id) as ids, array_agg(u.attempt) as attempts, array_agg(u.created_at) as created,
                       array_agg(u.outcome) as outcomes, array_agg(u.reason) as reasons, array_agg(u.delay_ms) as delays
                  from unnest(p_ids, p_attempts, p_created, p_outcomes, p_reasons, p_delays_ms)
                       u (id, attempt, created_at, outcome, reason, delay_ms)
                 where u.id = any (v_free)) f
         cross join lateral integration.settle_in_parts(
            p_owner, f.ids, f.attempts, f.created, f.outcomes, f.reasons, f.delays) s;
end $$;

-- For settle_or_owe: the rows are locked by the caller.
create or replace function integration.settle_in_parts(
    p_owner text, p_ids bigint[], p_attempts integer[], p_created timestamptz[], p_outcomes text[], p_reasons text[],
    p_delays_ms bigint[]
) returns table (id bigint, status text)
    language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    v_many     integer := coalesce(cardinality(p_ids), 0);
    v_half     integer := v_many / 2;
    v_ids      bigint[];
    v_statuses text[];
    v_context  text;
    v_state    text;
    v_reason   text;
begin
    if v_many = 0 then
        return;
    end if;
    perform integration.history('');
    begin
        select array_agg(s.id), array_agg(s.status) into v_ids, v_statuses
          from integration.settle_at_once(p_owner, p_ids, p_attempts, p_created, p_outcomes, p_reasons, p_delays_ms) s;
        return query select * from unnest(v_ids, v_statuses);
        if coalesce(cardinality(v_ids), 0) < v_many then
            -- Those that are still its owner's were left out; the others had lost their lease.
            return query select o.id, 'owed' from integration.owe(p_owner, p_ids, p_attempts, p_created, p_outcomes,
                p_reasons, p_delays_ms, '27000', integration.left_out(), coalesce(v_ids, '{}')) o (id);
        end if;
        return;
    exception when others then
        if integration.is_passing(sqlstate) then
            raise;
        end if;
        get stacked diagnostics v_context = pg_exception_context, v_state = returned_sqlstate,
            v_reason = message_text;
    end;
    if v_many = 1 then
        begin
            if integration.is_of_history(v_context) then
                perform integration.history('refused');
                select array_agg(s.id), array_agg(s.status) into v_ids, v_statuses
                  from integration.settle_at_once(
                    p_owner, p_ids, p_attempts, p_created, p_outcomes, p_reasons, p_delays_ms) s;
                perform integration.history('');
                raise warning 'message %: % is not in the audit log: %', p_ids[1], p_outcomes[1], v_reason;
                return query select * from unnest(v_ids, v_statuses);
                return;
            end if;
        exception when others then
            if integration.is_passing(sqlstate) then
                raise;
            end if;
        end;
        return query select o.id, 'owed' from integration.owe(p_owner, p_ids, p_attempts, p_created, p_outcomes,
            p_reasons, p_delays_ms, v_state, v_reason, '{}') o (id);
        return;
    end if;
    return query select * from integration.settle_in_parts(p_owner, p_ids[:v_half], p_attempts[:v_half],
        p_created[:v_half], p_outcomes[:v_half], p_reasons[:v_half], p_delays_ms[:v_half]);
    v_half := v_half + 1;
    return query select * from integration.settle_in_parts(p_owner, p_ids[v_half:], p_attempts[v_half:],
        p_created[v_half:], p_outcomes[v_half:], p_reasons[v_half:], p_delays_ms[v_half:]);
end $$;

-- For settle_in_parts: completes and settles, each in one statement.
create or replace function integration.settle_at_once(
    p_owner text, p_ids bigint[], p_attempts integer[], p_created timestamptz[], p_outcomes text[], p_reasons text[],
    p_delays_ms bigint[]
) returns table (id bigint, status text)
    language sql set search_path = pg_catalog, pg_temp as $$
    with settlements as (
        select * from unnest(p_ids, p_attempts, p_created, p_outcomes, p_reasons, p_delays_ms)
            u (id, attempt, created_at, outcome, reason, delay_ms)),
    done as (
        select array_agg(s.id) as ids, array_agg(s.attempt) as attempts, array_agg(s.created_at) as created
          from settlements s where s.outcome = 'complete'),
    others as (
        select array_agg(s.id) as ids, array_agg(s.attempt) as attempts, array_agg(s.created_at) as created,
               array_agg(s.outcome) as outcomes, array_agg(s.reason) as reasons, array_agg(s.delay_ms) as delays
          from settlements s where s.outcome <> 'complete')
    select c.id, 'completed'
      from done d cross join lateral integration.complete_many(p_owner, d.ids, d.attempts, d.created) c (id)
     where d.ids is not null
    union all
    select s.id, s.status
      from others o cross join lateral integration.settle(
        p_owner, o.ids, o.attempts, o.created, o.outcomes, o.reasons, o.delays) s
     where o.ids is not null
$$;

-- Notes outcomes that are owed, of those messages that are still the owner's, but for p_except. Returns their ids.
create or replace function integration.owe(
    p_owner text, p_ids bigint[], p_attempts integer[], p_created timestamptz[], p_outcomes text[], p_reasons text[],
    p_delays_ms bigint[], p_sqlstate text, p_reason text, p_except bigint[]
) returns setof bigint
    language sql set search_path = pg_catalog, pg_temp as $$
    insert into integration.set_aside as s
        (id, target_app, created_at, verb, sqlstate, reason, since, tried_at, next_look, owner, attempt, outcome, error,
         delay_ms)
    select d.id, d.target_app, d.created_at, u.outcome, p_sqlstate, left(integration.clean_text(p_reason), 500),
           integration.clock(), integration.clock(), integration.next_look(p_sqlstate, 1), p_owner, u.attempt,
           u.outcome, u.reason, u.delay_ms
      from unnest(p_ids, p_attempts, p_created, p_outcomes, p_reasons, p_delays_ms)
           u (id, attempt, created_at, outcome, reason, delay_ms)
      join integration.data_staging d on d.id = u.id and d.attempt = u.attempt and d.created_at = u.created_at
       and d.owner = p_owner and d.status = 'processing'
     where d.id <> all (p_except)
     order by d.id
    on conflict (id) do update
       set target_app = excluded.target_app, created_at = excluded.created_at, verb = excluded.verb,
           sqlstate = excluded.sqlstate, reason = excluded.reason, tried_at = excluded.tried_at,
           owner = excluded.owner, attempt = excluded.attempt, outcome = excluded.outcome, error = excluded.error,
           delay_ms = excluded.delay_ms,
           since = case when s.attempt = excluded.attempt then s.since else excluded.since end,
           tries = case when s.attempt = excluded.attempt then s.tries + 1 else 1 end,
           next_look = integration.next_look(excluded.sqlstate,
               case when s.attempt = excluded.attempt then s.tries + 1 else 1 end)
    returning s.id
$$;

-- Settles what is owed and due to be tried again, at most p_limit; returns how many messages it was rid of: settled, or
-- somebody else's by now. Part of rescue, and like that for all applications, whoever asks: who noted the outcome was
-- allowed to, and nobody can note another on the way.
-- Locks: what is set aside and its messages, SKIP LOCKED.
create or replace function integration.settle_owed(p_limit integer default 100) returns integer
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v       record;
    v_owed  boolean;
    v_count integer := 0;
begin
    for v in
        select s.* from integration.set_aside s
         where s.outcome is not null and s.next_look <= integration.clock()
         order by s.next_look limit p_limit for no key update skip locked
    loop
        -- What must_settle lets pass. It is gone when this function has come to its end, and nobody else sees it.
        update integration.set_aside s set next_look = '-infinity' where s.id = v.id;
        select exists (
            select from integration.settle_or_owe(v.owner, array[v.id], array[v.attempt], array[v.created_at],
                array[v.outcome], array[v.error], array[v.delay_ms]) r where r.status = 'owed') into v_owed;
        if not v_owed then
            delete from integration.set_aside s where s.id = v.id;
            v_count := v_count + 1;
        end if;
    end loop;
    return v_count;
end $$;

-- What is set aside now, whether or not it is about to be tried again: without messages that went their way since.
create or replace view integration.set_aside_now with (security_invoker = true) as
    select s.id, s.target_app, d.status, s.verb, s.sqlstate, s.reason, s.since, s.tries, s.next_look, s.outcome
      from integration.set_aside s
      join integration.data_staging d on d.id = s.id and d.created_at = s.created_at
     where d.updated_at <= s.tried_at and (s.outcome is null or d.status = 'processing' and d.attempt = s.attempt);

-- Has messages that are set aside tried again at the next opportunity, because what was in their way is mended; null:
-- all of them. Returns how many.
create or replace function integration.look_again(p_ids bigint[] default null) returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_count integer;
begin
    update integration.set_aside s set next_look = integration.clock(), tries = 0
     where p_ids is null or s.id = any (p_ids);
    get diagnostics v_count = row_count;
    perform integration.ring(t.target_app) from (
        select distinct s.target_app from integration.set_aside s where p_ids is null or s.id = any (p_ids)) t;
    return v_count;
end $$;

-- Forgets what was set aside and is not any more. Part of purge_expired. Returns how many.
-- Locks: the rows, SKIP LOCKED.
create or replace function integration.tidy_set_aside(p_limit integer) returns integer
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_count integer;
begin
    delete from integration.set_aside s
     where s.id = any (array(
        select x.id from integration.set_aside x
         where not exists (select from integration.set_aside_now n where n.id = x.id)
               -- What people asked for is theirs to ask for again.
            or x.verb in ('redrive', 'cancel') and x.next_look <= integration.clock()
         limit p_limit for update of x skip locked));
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- For explain: that a message is set aside, and why. Empty result: it is not.
create or replace function integration.explain_set_aside(p_id bigint)
    returns table (code text, sentence text, fix text, details jsonb)
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select 'set_aside',
           case when s.outcome is null
               then format('the database has refused to %s it for %s (SQLSTATE %s, tries: %s)', s.verb,
                           integration.in_words(integration.since(s.since)), s.sqlstate, s.tries)
               else format('its handler has ended, and that it is to be %s could not be written for %s (tries: %s)',
                           case s.outcome when 'complete' then 'completed' when 'retry' then 'tried again'
                               when 'reject' then 'failed' when 'snooze' then 'snoozed' else 'given back' end,
                           integration.in_words(integration.since(s.since)), s.tries) end
               || format(': %s; others go on without it, and it is tried again in %s', s.reason,
                         integration.in_words(-integration.since(s.next_look))),
           format('select integration.look_again(array[%s])', s.id),
           jsonb_build_object('verb', s.verb, 'sqlstate', s.sqlstate, 'reason', s.reason, 'since', s.since,
                              'tries', s.tries, 'next_look', s.next_look, 'owed', s.outcome)
      from integration.set_aside_now s where s.id = p_id
$$;
