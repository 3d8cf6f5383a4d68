-- Five verbs that make a client short: hello, take, settle_many, keep_alive, and publish of one jsonb; deregister is
-- the last word of who leaves. Each is one round trip, stands on the functions that do the work, and speaks jsonb where
-- drivers have no arrays or cut times to milliseconds: created_at is part of the fence, and goes back as it came.
--
-- A client has two connections, both with autocommit. On one it says hello, takes, and waits for notifications; on the
-- other it settles and keeps alive, so that neither waits for the queue. Its loop:
--
--   hello -> take -> handle what came -> may_wait: wait for a notification, due_in_ms or a few seconds -> take ...
--
-- p_backend is the server process that the driver was told of when it connected; it says, too, that the transaction
-- ends with the call. A pooler tells one of its own: then nothing is left in a session that belongs to others, no bells
-- come, and the client sweeps.

-- Registers a process that consumes for one target; has the session LISTEN to the target's bells, and holds the lock in
-- it that is free as soon as the process is dead. Called again on a new connection, with the owner that it was given:
-- it is the same process then, and gives back what was claimed for it in an answer that was lost. p_in_hand: what it
-- knows of, objects with the id, attempt and created_at of take. A new owner in answer to an old one: this process was
-- taken for dead, and what it has in hand is not its own any more. p_capacity: how many it handles at a time. The lease
-- is at most a day.
-- direct: bells come. given_back: how many were. lost: the ids of p_in_hand that are not this process's any more, or
-- that the server does not know, because it lost its last commits in a failover; their handlers work for nothing.
-- Locks: the session lock, tried. SQLSTATEs: 42501 for a target that the role may not consume for.
create or replace function integration.hello(
    p_target text, p_owner text default null, p_types text[] default null, p_capacity integer default 1,
    p_backend integer default null, p_in_hand jsonb default '[]', p_lease_ms bigint default 15000,
    p_host text default null, p_pid integer default 0, p_application text default null, p_version text default '',
    out owner text, out direct boolean, out given_back integer, out lost bigint[]
)
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_host    text := coalesce(p_host, host(inet_client_addr()), 'localhost');
    v_renewed boolean := false;
    v_fence   record;
begin
    if p_owner is not null then
        select b.renewed into v_renewed from integration.beat(p_owner, p_lease_ms) b;
    end if;
    owner := case when v_renewed then p_owner
        else format('%s-%s-%s', left(v_host, 60), p_pid, left(replace(gen_random_uuid()::text, '-', ''), 16)) end;
    perform integration.register(owner, v_host, p_pid,
        coalesce(p_application, current_setting('application_name'), ''), p_version,
        jsonb_build_object(p_target,
            jsonb_build_object('types', p_types, 'capacity', p_capacity, 'holds', false)), p_lease_ms);
    given_back := 0;
    select * into v_fence from integration.fence(p_in_hand);
    if v_renewed then
        given_back := integration.give_back(owner, v_fence.ids, v_fence.attempts, v_fence.created);
    end if;
    lost := array(
        select k.id from unnest(v_fence.ids, v_fence.attempts, v_fence.created) k (id, attempt, created_at)
         where (k.id, k.attempt, k.created_at) not in (select m.id, m.attempt, m.created_at
            from integration.still_mine(owner, v_fence.ids, v_fence.attempts, v_fence.created) m));
    direct := coalesce(p_backend = pg_backend_pid(), false);
    if direct then
        execute format('listen %I', integration.channel(p_target));
        execute format('listen %I', integration.due_channel(p_target));
        perform integration.hold_session_lock(owner);
    end if;
end $$;

-- Takes up to p_limit messages for the owner that hello gave, or says how long to wait; also makes pending what is
-- due. messages: an array of what claim returns, in claiming order. Those whose consumers died come one at a time. A
-- message that the database refuses to change is set aside. may_wait: there is nothing else now, and whoever publishes
-- from now on rings; so wait until a notification, due_in_ms (null: nothing is due), or a few seconds have passed. Not
-- may_wait and no messages: call again, after a pause of milliseconds that grows: among others too many may wait for
-- the target's turn. barrier: hand it to the next call, on the same connection; null on a new one. With p_limit 0
-- nothing is taken, and nobody rings for this session any more.
--
-- Parks and unparks the session (see park), which costs no round trips then. Without p_backend, or in a transaction
-- that has written something, the session stays as it is, and may_wait says no more than that there is nothing now.
-- Locks: the rows, SKIP LOCKED; the turn of the target and the idle latch. SQLSTATEs: MQ001 when the owner was taken
-- for dead: say hello again, and let go of what is in hand.
create or replace function integration.take(
    p_target text, p_owner text, p_limit integer default 1, p_types text[] default null, p_barrier bigint default null,
    p_backend integer default null, p_bytes_max bigint default 16777216,
    out messages jsonb, out may_wait boolean, out due_in_ms bigint, out barrier bigint
)
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    -- A turn, and a commit that is not waited for, are for transactions that end with this call; and who is in one for
    -- longer hears no bell.
    v_own     boolean := coalesce(p_backend = pg_backend_pid(), false) and pg_current_xact_id_if_assigned() is null;
    -- Before any snapshot of a look.
    v_oldest  bigint := integration.oldest_xid();
    v_in_hand boolean := false;
    v_more    jsonb;
    v_all     boolean;
    v_opens   bigint;
begin
    if integration.is_limited() then
        perform integration.must_consume(array[p_target], p_owner);
    end if;
    messages := '[]';
    if p_limit > 0 then
        if v_own then
            perform set_config('synchronous_commit', 'off', true);
            -- Now and then it asks who has it: it cannot say whom it saw.
            if integration.take_turn(p_target, case when random() < 0.1 then '' end) is not null then
                may_wait := false;
                barrier := p_barrier;
                return;
            end if;
        end if;
        perform integration.promote(array[p_target], greatest(p_limit, 100));
        if integration.has_suspects(p_target, p_types) then
            v_in_hand := exists (
                select from integration.data_staging d where d.target_app = p_target and d.status = 'processing'
                   and d.owner = p_owner and d.crash_count > 0);
            if not v_in_hand then
                select coalesce(jsonb_agg(to_jsonb(c)), '[]') into messages
                  from integration.claim_suspect(p_target, p_owner, p_types) c;
                -- There may be another one.
                v_in_hand := messages <> '[]';
            end if;
        end if;
        if jsonb_array_length(messages) < p_limit then
            begin
                select jsonb_agg(to_jsonb(c)) into v_more from integration.claim(p_target, p_owner,
                    p_limit - jsonb_array_length(messages), p_types, p_bytes_max => p_bytes_max) c;
            exception when others then
                if integration.is_passing(sqlstate) or sqlstate in ('MQ001', '42501') then
                    raise;
                end if;
                select jsonb_agg(to_jsonb(c)) into v_more from integration.claim_in_parts(p_target, p_owner,
                    p_limit - jsonb_array_length(messages), p_types, p_bytes_max => p_bytes_max) c;
            end;
            messages := messages || coalesce(v_more, '[]');
        end if;
    end if;
    -- The bound on bytes may have ended it, too; what was claimed is no smaller than its payloads.
    v_all := p_limit > 0 and jsonb_array_length(messages) < p_limit and pg_column_size(messages) < p_bytes_max;
    if not v_own then
        may_wait := v_all;
        barrier := p_barrier;
    elsif not v_all then
        may_wait := false;
        if p_barrier is not null then
            perform integration.unpark(p_target);
        end if;
    elsif p_barrier is null then
        -- The barrier counts from outside a writing transaction.
        may_wait := false;
        if pg_current_xact_id_if_assigned() is null then
            barrier := integration.park(p_target);
        end if;
    else
        may_wait := v_oldest >= p_barrier;
        barrier := p_barrier;
    end if;
    if may_wait then
        select min(n.due_in_ms) into due_in_ms from integration.next_due(array[p_target]) n;
        -- What waits for somebody's settle is not rung for: the next suspect, and what max_in_flight keeps back.
        if v_in_hand or exists (
            select from integration.targets t where t.target_app = p_target and t.max_in_flight is not null
               and exists (select from integration.waiting(array[p_target])))
        then
            due_in_ms := least(due_in_ms, 100);
        end if;
        -- Where it has opened since, what was kept back is to be had.
        v_opens := integration.opens_in(p_target);
        if v_opens > 0 or v_opens = 0 and exists (select from integration.waiting(array[p_target])) then
            due_in_ms := least(due_in_ms, greatest(v_opens, 20));
        end if;
    end if;
end $$;

-- Settles many messages of one target: p_verdicts is an array of the objects of take, or of their id, attempt,
-- created_at and canary, each with an outcome: complete, retry, reject, snooze or release as settle has them, or
-- unavailable, which releases the message and opens the breaker; reason and delay_ms where the outcome has them.
-- Returns (id, status) as settle_or_owe does; an id that is missing had lost its lease, or was settled by a call whose
-- answer was lost: calling again is harmless. What somebody has locked, or the database refuses, is owed.
--
-- The breaker is told how runs went when one of them failed or was a canary; with p_ok the runs that ended well since
-- it was told last, which only the caller knows: a fleet in which nothing fails writes nothing there.
-- Locks: the rows, waited for half a second; the breaker's row. SQLSTATEs: MQ002 for what is no verdict.
create or replace function integration.settle_many(
    p_target text, p_owner text, p_verdicts jsonb, p_ok bigint default 0
) returns table (id bigint, status text)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '500 ms' as $$
#variable_conflict use_column
declare
    v          record;
    v_ids      bigint[];
    v_statuses text[];
begin
    select f.* into v from integration.fence(p_verdicts, true) f;
    if integration.is_limited() then
        perform integration.must_settle(v.ids);
    end if;
    begin
        select array_agg(s.id), array_agg(s.status) into v_ids, v_statuses
          from integration.settle_at_once(p_owner, v.ids, v.attempts, v.created, v.outcomes, v.reasons, v.delays) s;
    exception when others then
        if integration.is_passing(sqlstate) and sqlstate <> '55P03' then
            raise;
        end if;
        select array_agg(s.id), array_agg(s.status) into v_ids, v_statuses
          from integration.settle_or_owe(p_owner, v.ids, v.attempts, v.created, v.outcomes, v.reasons, v.delays) s;
    end;
    if v.failed > 0 or v.canaries > 0 or v.down is not null then
        begin
            perform integration.report_runs(p_target, v.ok + p_ok, v.failed, v.down is not null, nullif(v.down, ''));
        exception when others then
            if integration.is_passing(sqlstate) and sqlstate <> '55P03' then
                raise;
            end if;
            raise warning 'the breaker of % was not told how runs went: %', p_target, sqlerrm;
        end;
    end if;
    return query select * from unnest(v_ids, v_statuses);
end $$;

-- Renews the lease of a process, rescues from those that are dead, and folds a slice; to be called every second, or
-- every few. renewed false: this process was taken for dead; say hello again. lost: the ids of what it has in hand
-- (p_in_hand, as for hello) that somebody has taken from it; their handlers work for nothing. p_thorough: looks for
-- everything that nobody's death tells of, too, and folds; every fifth call or so does where many processes are.
-- Where no consumer of the library runs and nobody runs "doorbell maintain", somebody has to call maintain, too.
-- Locks: as beat, rescue and fold; none is waited for.
create or replace function integration.keep_alive(
    p_owner text, p_in_hand jsonb default '[]', p_lease_ms bigint default 15000, p_thorough boolean default true,
    out renewed boolean, out lost bigint[]
)
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_fence record;
begin
    select f.* into v_fence from integration.fence(p_in_hand) f;
    select b.renewed into renewed from integration.beat(p_owner, p_lease_ms) b;
    lost := array(select t.id from integration.taken_from(p_owner, v_fence.ids, v_fence.attempts, v_fence.created) t
                   where t.there);
    -- What cannot be rescued, or counted, is no reason to be taken for dead.
    begin
        perform integration.rescue(1000, p_thorough);
    exception when others then
        raise warning 'rescue: %', sqlerrm;
    end;
    if p_thorough then
        begin
            perform integration.fold(5000);
        exception when others then
            raise warning 'fold: %', sqlerrm;
        end;
    end if;
end $$;

-- For hello, keep_alive and settle_many: what is in hand, or what became of it, as the functions take it. With
-- p_settled also how runs went; down: why a handler's dependency is, or an empty string; null: it is not.
-- SQLSTATEs: MQ002.
create or replace function integration.fence(
    p_claims jsonb, p_settled boolean default false,
    out ids bigint[], out attempts integer[], out created timestamptz[], out outcomes text[], out reasons text[],
    out delays bigint[], out ok bigint, out failed bigint, out canaries bigint, out down text
)
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    v_wrong text;
begin
    if jsonb_typeof(p_claims) is distinct from 'array' then
        raise exception 'messages are given as an array of objects, and this is %', coalesce(left(p_claims::text, 80),
            'null') using errcode = 'MQ002';
    end if;
    select left(to_jsonb(c)::text, 200) into v_wrong
      from jsonb_to_recordset(p_claims) c (id bigint, attempt integer, created_at timestamptz, outcome text)
     where c.id is null or c.attempt is null or c.created_at is null
        or p_settled and coalesce(c.outcome, '') <> all (
               '{complete,retry,reject,snooze,release,unavailable}'::text[])
     limit 1;
    if found then
        raise exception 'not a message in hand%: %', case when p_settled then ' and what became of it' else '' end,
            v_wrong using errcode = 'MQ002', hint = 'it needs id, attempt and created_at as take gave them'
            || case when p_settled then ', and outcome: complete, retry, reject, snooze, release or unavailable'
                    else '' end;
    end if;
    select coalesce(array_agg(c.id), '{}'), coalesce(array_agg(c.attempt), '{}'),
           coalesce(array_agg(c.created_at), '{}'),
           coalesce(array_agg(case c.outcome when 'unavailable' then 'release' else c.outcome end), '{}'),
           coalesce(array_agg(c.reason), '{}'), coalesce(array_agg(c.delay_ms), '{}'),
           -- Rejected and snoozed messages say nothing about a dependency; a canary that came to an end is well.
           count(*) filter (where c.outcome = 'complete' or c.canary and c.outcome in ('reject', 'snooze')),
           count(*) filter (where c.outcome = 'retry'),
           count(*) filter (where c.canary and c.outcome <> 'release'),
           max(coalesce(c.reason, '')) filter (where c.outcome = 'unavailable')
      into ids, attempts, created, outcomes, reasons, delays, ok, failed, canaries, down
      from jsonb_to_recordset(p_claims)
           c (id bigint, attempt integer, created_at timestamptz, outcome text, reason text, delay_ms bigint,
              canary boolean);
end $$;

-- Publishes one message, an object with the columns' names: source_app, target_app, record_type and data, and, where
-- wanted, priority, headers, ordering_key, dedup_key, max_retries, coalesce_key, and, in milliseconds, delay_ms,
-- expires_ms and max_wait_ms. Returns its id. In whatever transaction the caller is. Locks and SQLSTATEs: those of
-- publish; MQ002 for what is no message.
create or replace function integration.publish(p_message jsonb) returns bigint
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform integration.must_be_message(p_message);
    return integration.publish(
        p_message ->> 'source_app', p_message ->> 'target_app', p_message ->> 'record_type', p_message -> 'data',
        (p_message ->> 'priority')::integer, (p_message ->> 'delay_ms')::bigint * interval '1 ms',
        nullif(p_message -> 'headers', 'null'), p_message ->> 'ordering_key', p_message ->> 'dedup_key',
        (p_message ->> 'max_retries')::integer, (p_message ->> 'expires_ms')::bigint * interval '1 ms',
        p_message ->> 'coalesce_key', (p_message ->> 'max_wait_ms')::bigint * interval '1 ms');
end $$;

-- Publishes an array of such messages in one statement, in the order given, all from one source; returns (ordinal, id),
-- 1-based. Locks and SQLSTATEs: those of publish_many; MQ002 for what is no message, and for several sources.
create or replace function integration.publish_many(p_messages jsonb) returns table (ordinal integer, id bigint)
    language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    v record;
begin
    if jsonb_typeof(p_messages) is distinct from 'array' then
        raise exception 'messages are given as an array of objects' using errcode = 'MQ002';
    end if;
    perform integration.must_be_message(e.message) from jsonb_array_elements(p_messages) e (message);
    select count(distinct coalesce(e.message ->> 'source_app', '')) as sources,
           min(e.message ->> 'source_app') as source, array_agg(e.message ->> 'target_app') as targets,
           array_agg(e.message ->> 'record_type') as types, array_agg((e.message -> 'data')::text) as data,
           array_agg((e.message ->> 'priority')::integer) as priorities,
           array_agg((e.message ->> 'delay_ms')::bigint) as delays,
           array_agg(nullif(e.message -> 'headers', 'null')::text) as headers,
           array_agg(e.message ->> 'ordering_key') as ordering_keys,
           case when bool_or(e.message ->> 'dedup_key' is not null)
                then array_agg(e.message ->> 'dedup_key') end as dedup_keys,
           array_agg((e.message ->> 'max_retries')::integer) as max_retries,
           case when bool_or(e.message ->> 'expires_ms' is not null)
                then array_agg((e.message ->> 'expires_ms')::bigint) end as expires,
           case when bool_or(e.message ->> 'coalesce_key' is not null)
                then array_agg(e.message ->> 'coalesce_key') end as coalesce_keys,
           case when bool_or(e.message ->> 'max_wait_ms' is not null)
                then array_agg((e.message ->> 'max_wait_ms')::bigint) end as max_waits
      into v
      from jsonb_array_elements(p_messages) with ordinality e (message, ordinal);
    if v.sources > 1 then
        raise exception 'messages of % sources are not published at once', v.sources using errcode = 'MQ002',
            hint = 'publish those of each source_app by themselves';
    end if;
    return query select p.ordinal, p.id from integration.publish_many(v.source, v.targets, v.types, v.data,
        v.priorities, v.delays, v.headers, v.ordering_keys, v.dedup_keys, v.max_retries, v.expires, v.coalesce_keys,
        v.max_waits) p;
end $$;

-- Refuses what publish(jsonb) does not understand. SQLSTATEs: MQ002.
create or replace function integration.must_be_message(p_message jsonb) returns void
    language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
declare
    v_unknown text;
begin
    if jsonb_typeof(p_message) is distinct from 'object' then
        raise exception 'a message is an object, and this is %', coalesce(jsonb_typeof(p_message), 'null')
            using errcode = 'MQ002';
    end if;
    select k.key into v_unknown from jsonb_object_keys(p_message) k (key)
     where k.key <> all ('{source_app,target_app,record_type,data,priority,headers,ordering_key,dedup_key,max_retries,
        delay_ms,expires_ms,coalesce_key,max_wait_ms}'::text[])
     limit 1;
    if found then
        raise exception 'a message has no "%"', v_unknown using errcode = 'MQ002',
            hint = 'it has source_app, target_app, record_type, data, priority, headers, ordering_key, dedup_key, '
                || 'max_retries, delay_ms, expires_ms, coalesce_key and max_wait_ms';
    end if;
end $$;
