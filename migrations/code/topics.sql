-- Topics and subscriptions: who gets a copy of what.

-- Subscribes p_target to p_topic: from now on it gets a copy of everything that is published there, by every INSERT
-- that begins when this has been committed. p_types: of these record types only, by name or as patterns of words
-- between dots, where * is one word and # any number of them (order.*, order.#); null: of all. p_sources: of these
-- applications only. p_since: what was published there since then, too, without gap or double, as maintenance comes to
-- it. Makes p_topic a topic, unless p_tap: then it stays a queue, whose own messages go on as ever. For who is
-- subscribed already types and sources are changed: false.
-- Locks: subscriptions, so that two at a time cannot close a circle. SQLSTATEs: MQ002 for a name or a pattern that is
-- none, MQ003 for a circle, a queue in use, or history for who is subscribed already.
create or replace function integration.subscribe(
    p_topic text, p_target text, p_types text[] default null, p_sources text[] default null,
    p_since timestamptz default null, p_tap boolean default false
) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_types   text[] := case when '#' = any (p_types) or p_types = '{}' then null else p_types end;
    v_sources text[] := nullif(p_sources, '{}');
    v_wrong   text;
    v_new     boolean;
begin
    select format('"%s" is no name: it has 1 to %s characters', left(n.name, 60), integration.name_chars_max())
      into v_wrong
      from unnest(array[p_topic, p_target] || v_types || v_sources) n (name)
     where char_length(n.name) between 1 and integration.name_chars_max() is not true limit 1;
    if v_wrong is not null then
        raise exception '%', v_wrong using errcode = 'MQ002';
    elsif p_since = 'infinity' then
        raise exception 'since % there is no history', p_since using errcode = 'MQ002';
    end if;
    lock table integration.subscriptions in share row exclusive mode;
    perform integration.must_be_no_circle(p_topic, p_target);
    perform integration.must_be_topic(p_topic, coalesce(p_tap, false));
    v_new := not exists (select from integration.subscriptions s where s.topic = p_topic and s.target_app = p_target);
    if p_since is not null and not v_new then
        raise exception '% is subscribed to % already', p_target, p_topic using errcode = 'MQ003',
            hint = 'replay what it has missed: select * from integration.replay(TOPIC, TARGET, SINCE)';
    end if;
    insert into integration.subscriptions (topic, target_app, types, exact, pattern, sources, since, caught_up_at)
    values (p_topic, p_target, v_types, integration.exact_types(v_types), integration.types_pattern(v_types), v_sources,
            p_since, case when p_since is null then integration.clock() end)
    on conflict (topic, target_app) do update
       set types = excluded.types, exact = excluded.exact, pattern = excluded.pattern, sources = excluded.sources;
    insert into integration.audit_log (app_name, action, target_app, details)
    values (integration.actor(), 'subscribed', p_topic, jsonb_strip_nulls(jsonb_build_object(
        'target', p_target, 'types', v_types, 'sources', v_sources, 'since', p_since)));
    return v_new;
end $$;

-- Ends a subscription; copies that were made stay. What was a topic stays one. False: there was none.
create or replace function integration.unsubscribe(p_topic text, p_target text) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    delete from integration.subscriptions s where s.topic = p_topic and s.target_app = p_target;
    if not found then
        return false;
    end if;
    delete from integration.live_copies c where c.topic = p_topic and c.target_app = p_target;
    insert into integration.audit_log (app_name, action, target_app, details)
    values (integration.actor(), 'unsubscribed', p_topic, jsonb_build_object('target', p_target));
    return true;
end $$;

-- Who would get a message of this type and source that is published to a target: subscribers, those of topics that are
-- subscribed themselves, and the target itself where it is a queue. Empty: nobody.
create or replace function integration.routes(p_topic text, p_type text, p_source text default null)
    returns table (target_app text)
    language sql stable set search_path = pg_catalog, pg_temp as $$
    with recursive reached as (
        select p_topic collate "C" as target_app
        union
        select s.target_app from reached r
          join integration.subscriptions s on s.topic = r.target_app
           and integration.takes(s.exact, s.pattern, s.sources, p_type, p_source))
    select r.target_app from reached r
     where not exists (select from integration.targets t where t.target_app = r.target_app and t.kind = 'topic')
     order by 1
$$;

-- Every topic, and every queue that is tapped, with its subscribers: one row each, and one without for a topic that has
-- none. waiting: copies and other messages that the subscriber has not handled; unrouted: messages of the topic that
-- nobody took, since the beginning.
create or replace view integration.topics with (security_invoker = true) as
    select n.topic, coalesce(t.kind, 'queue') as kind, s.target_app, s.types, s.sources, s.created_at, s.since,
           s.caught_up_at,
           case when s.target_app is not null then
               (select coalesce(sum(c.messages), 0)::bigint from integration.current_counters c
                 where c.target_app = s.target_app and c.status in ('pending', 'scheduled', 'processing'))
           end as waiting,
           (select coalesce(sum(o.messages), 0)::bigint from integration.current_totals o
             where o.target_app = n.topic and o.action = 'unrouted') as unrouted
      from (select x.topic from integration.subscriptions x
            union select y.target_app from integration.targets y where y.kind = 'topic') n
      left join integration.targets t on t.target_app = n.topic
      left join integration.subscriptions s on s.topic = n.topic;

create or replace trigger subscriptions_routed after insert on integration.subscriptions
    for each statement execute function integration.on_first('has_topics');

create or replace trigger targets_routed after insert or update of kind on integration.targets
    for each row when (new.kind = 'topic') execute function integration.on_first('has_topics');

-- Whether a subscription takes messages of a type and source. One expression, to be inlined.
create or replace function integration.takes(
    p_exact text[], p_pattern text, p_sources text[], p_type text, p_source text
) returns boolean
    language sql immutable parallel safe as $$
    select (p_exact is null and p_pattern is null
            or p_exact is not null and p_exact operator(pg_catalog.@>) array[p_type]
            or p_pattern is not null and pg_catalog.textcat('.', p_type) operator(pg_catalog.~) p_pattern)
       and (p_sources is null or p_source is null or p_sources operator(pg_catalog.@>) array[p_source])
$$;

-- Of record types that were subscribed, those that are names.
create or replace function integration.exact_types(p_types text[]) returns text[]
    language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
    select array_agg(t) from unnest(p_types) t where t !~ '[*#]'
$$;

-- And one regular expression for those that are patterns, over a record type with a dot before it, so that every word
-- has one. Null: there are none. SQLSTATEs: MQ002 for a * or # that is not a word.
create or replace function integration.types_pattern(p_types text[]) returns text
    language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
    v_type  text;
    v_each  text[] := '{}';
begin
    foreach v_type in array coalesce(p_types, '{}') loop
        continue when v_type !~ '[*#]';
        if exists (select from unnest(string_to_array(v_type, '.')) w where w ~ '[*#]' and w not in ('*', '#')) then
            raise exception 'the pattern "%" is none: * and # stand for whole words between dots', v_type
                using errcode = 'MQ002', hint = 'write order.* for one word more, order.# for any number of them';
        end if;
        v_each := v_each || (
            select string_agg(case w.word when '*' then '[.][^.]+' when '#' then '(?:[.][^.]*)*'
                                   else '[.]' || regexp_replace(w.word, E'([][\\\\^$|?+(){}])', E'\\\\\\1', 'g') end, ''
                              order by w.ordinal)
              from unnest(string_to_array(v_type, '.')) with ordinality w (word, ordinal));
    end loop;
    return '^(?:' || nullif(array_to_string(v_each, '|'), '') || ')$';
end $$;

-- Refuses a subscription by which copies would come back to where they were made, or be handed on more than eight
-- times.
create or replace function integration.must_be_no_circle(p_topic text, p_target text) returns void
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    v_circle boolean;
    v_length integer;
begin
    with recursive down as (
        select p_target collate "C" as name, 1 as length
        union
        select s.target_app, d.length + 1 from down d join integration.subscriptions s on s.topic = d.name
         where d.length < 20 and d.name <> p_topic),
    up as (
        select p_topic collate "C" as name, 0 as length
        union
        select s.topic, u.length + 1 from up u join integration.subscriptions s on s.target_app = u.name
         where u.length < 20)
    select bool_or(d.name = p_topic), max(d.length) + (select max(u.length) from up u) into v_circle, v_length
      from down d;
    if v_circle then
        raise exception 'what is published to % is handed to % already: its messages would come back', p_target,
            p_topic using errcode = 'MQ003', hint = 'unsubscribe one of those between them first';
    elsif v_length > 8 then
        raise exception 'messages of % would be handed on % times; 8 are allowed', p_topic, v_length
            using errcode = 'MQ003';
    end if;
end $$;

-- Makes a target a topic, unless it is to be tapped. SQLSTATEs: MQ003 for a queue that is in use as one.
create or replace function integration.must_be_topic(p_topic text, p_tap boolean) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if p_tap or exists (select from integration.targets t where t.target_app = p_topic and t.kind = 'topic') then
        return;
    end if;
    if exists (select from integration.data_staging d where d.target_app = p_topic and d.status = 'pending')
        or exists (select from integration.data_staging d where d.target_app = p_topic and d.status = 'processing')
        or exists (select from integration.data_staging d where d.target_app = p_topic and d.status = 'scheduled')
        or exists (select from integration.processes c
                    where c.lease_until > integration.clock() and c.targets ? p_topic) then
        raise exception '% is a queue: messages wait for it, or a process consumes it', p_topic
            using errcode = 'MQ003', hint = 'tap it (p_tap => true, --tap): its subscribers get copies, and its own '
                'messages go on as ever';
    end if;
    insert into integration.targets (target_app, kind) values (p_topic, 'topic')
    on conflict (target_app) do update set kind = 'topic';
end $$;

-- For explain: what became of a message that was published to a topic. Empty result: it was not, or is not through.
create or replace function integration.explain_routed(p_id bigint)
    returns table (code text, sentence text, fix text, details jsonb)
    language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    m        record;
    v_copies jsonb;
    v_words  text;
begin
    select d.target_app, d.record_type, d.source_app, d.processed_at into m
      from integration.data_staging d join integration.targets t on t.target_app = d.target_app and t.kind = 'topic'
     where d.id = p_id and d.status = 'completed';
    if m.target_app is null then
        return;
    end if;
    select jsonb_agg(jsonb_build_object('target', c.target_app, 'id', c.id, 'status', c.status) order by c.id),
           string_agg(format('%s (%s, %s)', c.target_app, c.id, c.status), ', ' order by c.id)
               filter (where c.nth <= 10) || case when count(*) > 10 then format(', %s more', count(*) - 10) else '' end
      into v_copies, v_words
      from (select x.*, row_number() over (order by x.id) as nth
              from (select d.id, d.target_app, d.status from integration.data_staging d where d.origin_id = p_id
                    union all
                    select a.id, a.target_app, a.status || ', archived'
                      from integration.data_staging_archive a where a.origin_id = p_id) x) c;
    if v_copies is not null then
        return query select 'routed', format('it was published to the topic %s and handed to its subscribers: %s',
            m.target_app, v_words), null::text, jsonb_build_object('at', m.processed_at, 'copies', v_copies);
    elsif exists (select from integration.subscriptions s where s.topic = m.target_app
                     and integration.takes(s.exact, s.pattern, s.sources, m.record_type, m.source_app)
                     and s.created_at <= m.processed_at) then
        return query select 'routed', format('it was published to the topic %s, and of the copies that subscribers '
            'got none is left', m.target_app), null::text,
            jsonb_build_object('at', m.processed_at, 'copies', '[]'::jsonb);
    else
        return query select 'unrouted', format('it was published to the topic %s, and nobody had subscribed to %s '
            'there', m.target_app, m.record_type), format('doorbell subscribe %s TARGET, then doorbell redrive %s',
            integration.shell_word(m.target_app), p_id), jsonb_build_object('at', m.processed_at);
    end if;
end $$;
