-- Handing copies to subscribers: in the transaction that publishes.

-- Whether messages of a target are handed on. One index each, which for nearly all installations is empty.
create or replace function integration.is_routed(p_target text) returns boolean
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return exists (select from integration.subscriptions s where s.topic = p_target)
        or exists (select from integration.targets t where t.target_app = p_target and t.kind = 'topic');
end $$;

-- Hands messages of a target to its subscribers, each a copy that is a message like all others: what it says, its
-- priority, key, headers, retries and the time when it is due. Not its dedup key, which is the publisher's and was
-- taken. Copies are inserted in the order of the messages, so what a subscriber gets of a key is in order; their INSERT
-- is a publish, which counts, rings, and hands on in turn. Of a topic the messages are completed then.
-- The plans are kept: those for few ids seem cheaper to the server, which would make them anew for every publish.
-- SQLSTATEs: 23514 for a message that nobody takes, where the topic rejects those; 54001 for subscriptions that lead
-- back (made by hand: subscribe refuses them).
create or replace function integration.fan_out(p_target text, p_ids bigint[], p_may_reject boolean) returns void
    language plpgsql set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
    set plan_cache_mode = force_generic_plan as $$
declare
    v_now      timestamptz := integration.clock();
    v_target   text;
    v_ids      bigint[];
    v_late     boolean;
    v_taken    bigint[] := '{}';
    v_all      boolean := false;
    v_unrouted text;
    v_type     text;
begin
    if pg_trigger_depth() > 24 then
        raise exception 'subscriptions of % lead back to it', p_target using errcode = 'statement_too_complex',
            hint = 'look at integration.subscriptions; integration.unsubscribe(TOPIC, TARGET) ends one';
    end if;
    -- Who takes what is asked once: what is noted in live_copies is what was copied, whoever subscribes meanwhile. A
    -- statement for each, because rows that are alike are published at the least cost.
    for v_target, v_ids, v_late in
        select s.target_app, array_agg(d.id order by d.id), bool_or(s.caught_up_at is null)
          from integration.data_staging d
          join integration.subscriptions s on s.topic = p_target
           and integration.takes(s.exact, s.pattern, s.sources, d.record_type, d.source_app)
         where d.id = any (p_ids)
         group by s.target_app order by s.target_app
    loop
        insert into integration.data_staging (source_app, target_app, record_type, data, status, priority, available_at,
            max_retries, headers, ordering_key, origin_id)
        select d.source_app, v_target, d.record_type, d.data, d.status, d.priority, d.available_at, d.max_retries,
               d.headers, d.ordering_key, coalesce(d.origin_id, d.id)
          from integration.data_staging d where d.id = any (v_ids) order by d.id;
        if v_late then
            insert into integration.live_copies (topic, target_app, id)
            select p_target, v_target, u.id from unnest(v_ids) u (id) on conflict do nothing;
        end if;
        v_all := v_all or cardinality(v_ids) = cardinality(p_ids);
        v_taken := v_taken || v_ids;
    end loop;
    select t.unrouted into v_unrouted from integration.targets t where t.target_app = p_target and t.kind = 'topic';
    if v_unrouted is null then
        return;
    end if;
    if not v_all then
        v_ids := array(select u.id from unnest(p_ids) u (id) where u.id <> all (v_taken));
        if v_ids <> '{}' and p_may_reject and v_unrouted = 'reject' then
            select min(d.record_type) into v_type from integration.data_staging d where d.id = any (v_ids);
            raise exception 'nobody has subscribed to % of the topic %', v_type, p_target
                using errcode = 'check_violation', column = 'record_type', constraint = 'record_type',
                    hint = 'the topic says unrouted = reject; with keep such messages are stored and counted';
        elsif v_ids <> '{}' then
            insert into integration.deltas (at, messages, target_app, action)
            values (v_now, cardinality(v_ids), p_target, 'unrouted');
        end if;
    end if;
    -- A new attempt, as what was held is completed.
    update integration.data_staging d
       set status = 'completed', attempt = least(d.attempt, 2147483646) + 1, processed_at = v_now, updated_at = v_now,
           available_at = null
     where d.id = any (p_ids);
end $$;

-- Whether an INSERT comes from us: what was published is handed on, or again. Told by the functions in whose middle it
-- happens. Somebody could make believe that, and win nothing but a message that calls itself a copy: it is checked like
-- all others.
create or replace function integration.is_copying(p_stack text) returns boolean
    language sql immutable parallel safe as $$
    select p_stack like any (array['%function integration.fan_out(%', '%function integration.copy_history(%'])
$$;

-- For maintenance: hands on what waits for a topic although nobody consumes it, because it was moved there, put back,
-- or published by who did not know yet that it is one. Returns how many messages.
-- Locks: the rows, SKIP LOCKED.
create or replace function integration.hand_on(p_limit integer default 1000) returns integer
    language plpgsql set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    v_topic text;
    v_ids   bigint[];
    v_count integer := 0;
begin
    for v_topic in select t.target_app from integration.targets t where t.kind = 'topic' order by t.target_app loop
        v_ids := array(
            select d.id from integration.data_staging d where d.target_app = v_topic and d.status = 'pending'
             order by d.target_app, d.priority desc, d.created_at, d.id limit least(p_limit, 10000) - v_count
             for no key update skip locked);
        if v_ids <> '{}' then
            perform integration.fan_out(v_topic, v_ids, false);
            v_count := v_count + cardinality(v_ids);
        end if;
    end loop;
    return v_count;
end $$;
