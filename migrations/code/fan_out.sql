-- Handing copies to subscribers: in the transaction that publishes.

-- Hands messages of a target to its subscribers, each a copy that is a message like all others: what it says, its
-- priority, key, headers, retries and the time when it is due. Not its dedup key, which is the publisher's and was
-- taken. Copies are inserted in the order of the messages, so what a subscriber gets of a key is in order; their INSERT
-- is a publish, which counts, rings, and hands on in turn. Of a topic the messages are completed then.
-- One statement for all copies, which costs a third less than one per subscriber. No settings of its own: they would
-- hold for the triggers of that INSERT, too, whose plans are shared with all other publishes of the session, and plans
-- that were made with scans forbidden seem so dear to the server that it makes them anew each time.
-- SQLSTATEs: 23514 for a message that nobody takes, where the topic rejects those; 54001 for subscriptions that lead
-- back (made by hand: subscribe refuses them).
create or replace function integration.fan_out(p_target text, p_ids bigint[], p_may_reject boolean) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_now      timestamptz := integration.clock();
    v_taken    bigint[];
    v_late     text[];
    v_late_ids bigint[];
    v_unrouted text;
    v_ids      bigint[];
    v_type     text;
begin
    if pg_trigger_depth() > 24 then
        raise exception 'subscriptions of % lead back to it', p_target using errcode = 'statement_too_complex',
            hint = 'look at integration.subscriptions; integration.unsubscribe(TOPIC, TARGET) ends one';
    end if;
    -- Who takes what is asked once: what is noted in live_copies is what was copied, whoever subscribes meanwhile.
    with takers as materialized (
        select d.id, s.target_app, s.caught_up_at is null as is_late, d.source_app, d.record_type, d.data, d.status,
               d.priority, d.available_at, d.max_retries, d.headers, d.ordering_key,
               coalesce(d.origin_id, d.id) as origin_id
          from integration.messages_of(p_ids) d
          join integration.subscriptions s on s.topic = p_target
           and integration.takes(s.exact, s.pattern, s.sources, d.record_type, d.source_app)
         order by d.id, s.target_app),
    copies as (
        insert into integration.data_staging (source_app, target_app, record_type, data, status, priority, available_at,
            max_retries, headers, ordering_key, origin_id)
        select t.source_app, t.target_app, t.record_type, t.data, t.status, t.priority, t.available_at, t.max_retries,
               t.headers, t.ordering_key, t.origin_id from takers t)
    select array_agg(t.id), array_agg(t.target_app) filter (where t.is_late), array_agg(t.id) filter (where t.is_late)
      into v_taken, v_late, v_late_ids from takers t;
    if v_late is not null then
        insert into integration.live_copies (topic, target_app, id)
        select p_target, u.target_app, u.id from unnest(v_late, v_late_ids) u (target_app, id) on conflict do nothing;
    end if;
    select t.unrouted into v_unrouted from integration.targets t where t.target_app = p_target and t.kind = 'topic';
    if v_unrouted is null then
        return;
    end if;
    if v_taken is null or not v_taken @> p_ids then
        v_ids := array(select u.id from unnest(p_ids) u (id) where v_taken is null or u.id <> all (v_taken));
        if p_may_reject and v_unrouted = 'reject' then
            select min(d.record_type) into v_type from integration.messages_of(v_ids) d;
            raise exception 'nobody has subscribed to % of the topic %', v_type, p_target
                using errcode = 'check_violation', column = 'record_type', constraint = 'record_type',
                    hint = 'the topic says unrouted = reject; with keep such messages are stored and counted';
        end if;
        insert into integration.deltas (at, messages, target_app, action)
        values (v_now, cardinality(v_ids), p_target, 'unrouted');
    end if;
    perform integration.end_routed(p_ids, v_now);
end $$;

-- The messages with these ids, in their order. Planned by itself: the plans are kept, and those for few ids, or for a
-- small table, would be others.
create or replace function integration.messages_of(p_ids bigint[]) returns setof integration.data_staging
    language plpgsql stable rows 10 set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
    set plan_cache_mode = force_generic_plan as $$
begin
    return query select d.* from integration.data_staging d where d.id = any (p_ids) order by d.id;
end $$;

-- Completes what a topic has handed on. A new attempt, as what was held is completed.
create or replace function integration.end_routed(p_ids bigint[], p_now timestamptz) returns void
    language plpgsql set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
    set plan_cache_mode = force_generic_plan as $$
begin
    update integration.data_staging d
       set status = 'completed', attempt = least(d.attempt, 2147483646) + 1, processed_at = p_now, updated_at = p_now,
           available_at = null
     where d.id = any (p_ids);
end $$;

-- Whether an INSERT comes from us: what was published is handed on, or again. Told by the functions in whose middle it
-- happens. Somebody could make believe that, and win nothing but a message that calls itself a copy: it is checked like
-- all others.
create or replace function integration.is_copying(p_stack text) returns boolean
    language sql immutable parallel safe as $$
    select integration.is_within(p_stack, 'fan_out|copy_history')
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
