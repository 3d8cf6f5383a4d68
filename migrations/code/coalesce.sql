-- Coalescing: while a message waits that nobody has taken, publishing again under its coalesce key replaces what it
-- says. A key is one of a source, a target and a record type.

-- For publish, before it inserts: replaces payload and headers of the message that waits under the coalesce key, and
-- returns its id; null: there is none, and a new one is to be published and to be told to coalesce_into. Of a message
-- that waits for its time that is moved to p_delay from now, p_max_wait (null: ten times the delay) after it was
-- published at most; without a delay it is due now; what is due stays due. It expires as the last publish says.
-- Priority, ordering key and retries stay those of the first publish; under another ordering key it is another
-- message.
--
-- Nothing is lost: what somebody has taken, or has locked at this moment, is left alone, and so is what was taken
-- before: its effects may have been seen, and its steps saved. p_role: who publishes, which publish knows.
-- Locks: the key's row, for which others that publish under it wait; the message, SKIP LOCKED, but tried for a second
-- where it waits for its time. SQLSTATEs: MQ002 for a dedup key beside it, a wait without a key and a topic; 23514 for
-- a key that is none, and what the payload breaks; 42501; 40001 in another isolation level than READ COMMITTED, where
-- others publish under the key.
create or replace function integration.replace_waiting(
    p_role name, p_source text, p_target text, p_type text, p_data jsonb, p_delay interval, p_headers jsonb,
    p_ordering_key text, p_dedup_key text, p_expires_after interval, p_coalesce_key text, p_max_wait interval
) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    v_now     timestamptz := integration.clock();
    v_key     integration.coalescing;
    m         record;
    v_due     timestamptz;
    v_pending boolean;
    v_topics  boolean;
    v_bound   boolean;
    v_stack   text;
begin
    get diagnostics v_stack = pg_context;
    if p_dedup_key is not null then
        raise exception 'a message has a dedup key or a coalesce key, not both: "%" and "%"', left(p_dedup_key, 60),
            left(p_coalesce_key, 60) using errcode = 'MQ002', hint = 'a dedup key keeps the first message, a '
                'coalesce key what was published last';
    elsif p_coalesce_key is null then
        raise exception 'max_wait is how long publishing under a coalesce key may put a message off, and there is none'
            using errcode = 'MQ002', hint = 'give p_coalesce_key, too';
    end if;
    if not integration.is_publish(v_stack) then
        p_role := integration.asking_role();
    end if;
    perform integration.may_coalesce(p_role, p_source, array[p_target], array[p_coalesce_key]);
    insert into integration.coalescing as c
        (source_app, target_app, record_type, coalesce_key, created_at, look_at, max_wait)
    values (p_source, p_target, p_type, p_coalesce_key, v_now, v_now + interval '1 hour',
            case when p_delay > interval '0'
                then greatest(least(coalesce(p_max_wait, p_delay * 10), interval '100 years'), '0') end)
    on conflict (source_app, target_app, record_type, coalesce_key) do update
       set replaced = least(c.replaced, 2147483646) + 1, max_wait = excluded.max_wait
    returning c.* into v_key;
    -- In statements of their own, which see what the key was waited for. What waits for its time and is locked is being
    -- promoted, or edited by hand: a new message that is due would be handled before it.
    for i in 1 .. 1000 loop
        select d.id, d.created_at, d.available_at, d.status = 'scheduled' and d.behind_at is null as waits,
               l.id is not null as locked into m
          from integration.data_staging d
          left join lateral (
            select x.id from integration.data_staging x where x.id = d.id and x.xmin = d.xmin
               for no key update skip locked) l on true
         where d.id = v_key.staging_id and d.created_at = v_key.created_at and d.status in ('pending', 'scheduled')
           and d.attempt = 0 and d.retry_count = 0 and d.source_app = p_source and d.target_app = p_target
           and d.record_type = p_type and d.ordering_key is not distinct from p_ordering_key
           and not exists (select from integration.set_aside s where s.id = d.id and s.created_at = d.created_at)
           and not exists (select from integration.expiring e
                            where e.id = d.id and e.created_at = d.created_at and e.expires_at <= v_now);
        exit when m.locked or m.id is null or not m.waits and i > 1;
        perform pg_sleep(0.001);
    end loop;
    if m.locked is not true then
        return null;
    end if;
    if m.waits and v_key.max_wait is not null then
        v_due := case when m.available_at <= v_now then m.available_at
            else least(v_now + p_delay, m.created_at + v_key.max_wait) end;
    end if;
    -- What waits is looked for again: a look may have passed it over while it was locked here.
    update integration.data_staging d
       set data = p_data, headers = p_headers, updated_at = v_now,
           status = case when m.waits and v_due is null then 'pending' else d.status end,
           available_at = case when m.waits then v_due else d.available_at end,
           requeued_at = case when v_due is null and d.behind_at is null then v_now else d.requeued_at end,
           series = case when m.waits and v_due is null and d.ordering_key is not null then 0 else d.series end
     where d.id = m.id
    returning d.status = 'pending' into v_pending;
    -- A trigger of somebody's left it as it was.
    if not found then
        return null;
    end if;
    insert into integration.deltas (at, messages, target_app, action) values (v_now, 1, p_target, 'coalesced');
    perform integration.expire_anew(m.id, p_expires_after);
    select s.has_contracts, s.has_topics and exists (select from integration.subscriptions x where x.topic = p_target)
      into v_bound, v_topics from integration.settings s;
    if v_bound and integration.keep_contracts(array[m.id], false) <> '{}' then
        return m.id;
    end if;
    if v_pending then
        if m.waits and p_ordering_key is not null then
            perform integration.step_forward(array[p_target], array[p_ordering_key], array[m.id]);
        end if;
        perform integration.ring(p_target);
    elsif v_due < m.available_at then
        perform integration.ring_due(p_target, v_due);
    end if;
    -- Who has tapped the queue gets a copy of each publish.
    if v_topics then
        perform integration.fan_out(p_target, array[m.id], true);
    end if;
    return m.id;
end $$;

-- Says under which coalesce key a message was published that the calling transaction has published: publish does, and
-- after a plain INSERT whoever wants it, in the same transaction. What was published under the key before is not
-- replaced any more. False: there is no such message.
-- Locks: the key's row. SQLSTATEs: MQ002 for a message of another transaction and one of a topic; 23514 for a key that
-- is none.
create or replace function integration.coalesce_into(p_id bigint, p_coalesce_key text) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    v_writer text;
    v_mine   boolean;
begin
    perform integration.may_coalesce(null, null, array(
        select d.target_app from integration.data_staging d where d.id = p_id), array[p_coalesce_key]);
    insert into integration.coalescing as c
        (source_app, target_app, record_type, coalesce_key, staging_id, created_at, look_at)
    select d.source_app, d.target_app, d.record_type, p_coalesce_key, d.id, d.created_at,
           integration.clock() + interval '1 hour'
      from integration.data_staging d where d.id = p_id
    on conflict (source_app, target_app, record_type, coalesce_key) do update
       set staging_id = excluded.staging_id, created_at = excluded.created_at, replaced = 0, look_at = excluded.look_at
    returning c.xmin::text into v_writer;
    if not found then
        return false;
    end if;
    -- Written by one and the same transaction: nobody else can have it replaced.
    select d.xmin::text = v_writer into v_mine from integration.data_staging d where d.id = p_id;
    if not v_mine then
        raise exception 'message % was not published by this transaction', p_id using errcode = 'MQ002',
            hint = 'say it where it is published, with no savepoint between the two';
    end if;
    return true;
end $$;

-- For publish_many, before it publishes one by one: takes the keys in their order, so that two at a time do not wait
-- for each other. Locks: the keys' rows. SQLSTATEs: as replace_waiting.
create or replace function integration.take_coalesce_keys(
    p_role name, p_source text, p_targets text[], p_types text[], p_coalesce_keys text[]
) returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_now   timestamptz := integration.clock();
    v_count integer;
    v_stack text;
begin
    get diagnostics v_stack = pg_context;
    if not integration.is_publish(v_stack) then
        p_role := integration.asking_role();
    end if;
    perform integration.may_coalesce(p_role, p_source, p_targets, p_coalesce_keys);
    insert into integration.coalescing as c (source_app, target_app, record_type, coalesce_key, created_at, look_at)
    select distinct p_source, u.target, u.type, u.key collate "C", v_now, v_now + interval '1 hour'
      from unnest(p_targets, p_types, p_coalesce_keys) u (target, type, key) where u.key is not null
     order by 1, 2, 3, 4
    on conflict (source_app, target_app, record_type, coalesce_key) do update set replaced = c.replaced;
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- Whether it is one of the functions that publish who calls: only they know who publishes, an application's function
-- that runs as its owner too. Where it is not, or the server speaks another language than English, it is who asks. One
-- expression, to be inlined.
create or replace function integration.is_publish(p_stack text) returns boolean
    language sql immutable parallel safe as $$
    select split_part(p_stack, E'\n', 2) like any (array[
        'PL/pgSQL function integration.publish(%', 'PL/pgSQL function integration.publish_many(%'])
$$;

-- Refuses keys that are none, topics, which hand on each message at once, and with a role what that may not publish.
-- SQLSTATEs: 23514 with the column's name as the constraint's; MQ002; 42501.
create or replace function integration.may_coalesce(p_role name, p_source text, p_targets text[], p_keys text[])
    returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_key   text;
    v_topic text;
begin
    select k into v_key from unnest(p_keys) k
     where char_length(k) not between 1 and integration.key_chars_max() limit 1;
    if found then
        raise exception 'coalesce_key has % characters; 1 to % are allowed: "%"', char_length(v_key),
            integration.key_chars_max(), left(v_key, 60)
            using errcode = 'check_violation', column = 'coalesce_key', constraint = 'coalesce_key';
    end if;
    if exists (select from integration.settings s where s.has_topics) then
        select t.target_app into v_topic from integration.targets t
         where t.target_app = any (p_targets) and t.kind = 'topic' limit 1;
        if found then
            raise exception 'messages of the topic % cannot be coalesced: they do not wait, each is handed on at once',
                v_topic using errcode = 'MQ002', hint = 'publish to a queue, or without a coalesce key';
        end if;
    end if;
    if p_role is not null
        and not has_table_privilege(p_role, 'integration.data_staging'::regclass, 'insert') then
        perform integration.must_publish(p_role, p_source, t, 0) from unnest(p_targets) t group by t;
    end if;
end $$;

-- For maintenance: forgets keys, of p_limit that are to be looked at, whose message does not wait any more; returns how
-- many. Those of messages that wait are looked at again an hour later.
-- Locks: the rows, SKIP LOCKED.
create or replace function integration.forget_coalesced(p_limit integer) returns integer
    language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    v_now   timestamptz := integration.clock();
    v_rows  tid[];
    v_count integer;
begin
    v_rows := array(select c.ctid from integration.coalescing c where c.look_at <= v_now limit p_limit
                       for update skip locked);
    if v_rows = '{}' then
        return 0;
    end if;
    delete from integration.coalescing c
     where c.ctid = any (v_rows) and not exists (
        select from integration.data_staging d where d.id = c.staging_id and d.created_at = c.created_at
           and d.status in ('pending', 'scheduled') and d.attempt = 0);
    get diagnostics v_count = row_count;
    update integration.coalescing c set look_at = v_now + interval '1 hour' where c.ctid = any (v_rows);
    return v_count;
end $$;

-- For explain: under which key what a message says may be replaced, how often it was, and until when it may be put off.
-- Empty result: it is nobody's to replace.
create or replace function integration.explain_coalesced(p_id bigint)
    returns table (code text, sentence text, fix text, details jsonb)
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select 'coalesced', format('whoever publishes under its coalesce key "%s" replaces what it says, until somebody '
               'has taken it; so far it was %s%s', w.coalesce_key, case w.replaced when 0 then 'not replaced'
               when 1 then 'replaced once' else 'replaced ' || w.replaced || ' times' end,
               ', and it is put off until ' || integration.time_in_words(w.put_off_until) || ' at most'),
           null::text, jsonb_build_object('replaced', w.replaced, 'coalesce_key', w.coalesce_key, 'put_off_until',
               w.put_off_until)
      from integration.waits_under(p_id) w
$$;

-- The coalesce key under which a message may be replaced while it waits, how often it was since it was published, and,
-- of one that waits for its time, until when it may be put off, as whoever published under the key last has said. Empty
-- result: it is nobody's to replace.
create or replace function integration.waits_under(p_id bigint)
    returns table (coalesce_key text, replaced integer, put_off_until timestamptz)
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select c.coalesce_key, c.replaced,
           case when d.status = 'scheduled' and d.behind_at is null then d.created_at + c.max_wait end
      from integration.coalescing c join integration.data_staging d on d.id = c.staging_id
     where c.staging_id = p_id and d.created_at = c.created_at and d.status in ('pending', 'scheduled')
       and d.attempt = 0 and d.retry_count = 0
$$;
