-- Handing out again what was published before: to late subscribers, and on demand.

-- Publishes again what was handled: copies of completed messages of a target, from the table and the archive, to it or
-- to p_to. The old ones stay what they are. Oldest first, with their priority, key and headers, and with a header
-- "replayed"; a copy's origin_id is the first message's. p_since, p_until: published then; p_until is now, if it is not
-- given, and is to be given when this is called again and again: for a message that is replayed to its own target is
-- completed again. p_types: names and patterns, as subscribe takes them. Looks at p_limit messages of the table after
-- p_after, whatever their target; last_id says where to go on, null at the end. p_dry_run: copied says how many would
-- be. SQLSTATEs: MQ002 for a target that has no name, or a pattern that is none.
create or replace function integration.replay(
    p_target text, p_to text default null, p_since timestamptz default null, p_until timestamptz default null,
    p_types text[] default null, p_sources text[] default null, p_after bigint default 0,
    p_limit integer default 1000, p_dry_run boolean default false, out copied integer, out last_id bigint
)
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_to text := coalesce(p_to, p_target);
begin
    if char_length(v_to) between 1 and integration.name_chars_max() is not true then
        raise exception 'a target has a name of 1 to % characters', integration.name_chars_max()
            using errcode = 'MQ002';
    end if;
    select h.copied, h.last_id into copied, last_id
      from integration.copy_history(p_target, v_to, null, p_after, 9223372036854775807,
               coalesce(p_since, '-infinity'), coalesce(p_until, integration.clock()),
               case when '#' = any (p_types) then null else nullif(p_types, '{}') end, nullif(p_sources, '{}'),
               least(p_limit, 10000), coalesce(p_dry_run, false)) h;
    if copied > 0 and not p_dry_run then
        insert into integration.audit_log (app_name, action, target_app, details)
        values (integration.actor(), 'replayed', p_target, jsonb_strip_nulls(jsonb_build_object(
            'to', v_to, 'messages', copied, 'since', p_since, 'until', p_until, 'types', p_types,
            'sources', p_sources)));
    end if;
end $$;

-- For replay and catch_up: copies what was completed of a target among the next p_limit messages after p_after, in the
-- order of their ids; up to p_last, of p_since to p_until. p_late: those that this subscriber did not get already. A
-- message moves from the table to the archive between two calls, and never within one: a snapshot has it once.
create or replace function integration.copy_history(
    p_from text, p_to text, p_late text, p_after bigint, p_last bigint, p_since timestamptz, p_until timestamptz,
    p_types text[], p_sources text[], p_limit integer, p_dry_run boolean, out copied integer, out last_id bigint
)
    language plpgsql set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set plan_cache_mode = force_custom_plan as $$
declare
    v_exact   text[] := integration.exact_types(p_types);
    v_pattern text := integration.types_pattern(p_types);
    v_ids     bigint[];
    v_archive bigint[];
begin
    -- What is older than p_since is not walked over: ids and created_at grow together. The archive's partitions that
    -- are older are not read.
    if p_after = 0 and isfinite(p_since) then
        p_after := least(
            (select min(d.id) from integration.data_staging d where d.created_at >= p_since),
            (select a.id from integration.data_staging_archive a
              where a.processed_at >= p_since and a.created_at >= p_since order by a.id limit 1)) - 1;
    end if;
    if p_after is null then
        copied := 0;
        return;
    end if;
    with walked as materialized (
        select w.* from (
            (select d.id, false as archived, d.target_app, d.status, d.record_type, d.source_app, d.created_at
               from integration.data_staging d where d.id > p_after and d.id <= p_last order by d.id limit p_limit)
            union all
            (select a.id, true, a.target_app, a.status, a.record_type, a.source_app, a.created_at
               from integration.data_staging_archive a
              where a.id > p_after and a.id <= p_last and a.processed_at >= p_since order by a.id limit p_limit)) w
         order by w.id limit p_limit),
    wanted as (
        select w.id, w.archived from walked w
         where w.target_app = p_from and w.status = 'completed' and w.created_at >= p_since and w.created_at < p_until
           and integration.takes(v_exact, v_pattern, p_sources, w.record_type, w.source_app)
           and (p_late is null or not exists (
                select from integration.live_copies c
                 where c.topic = p_from and c.target_app = p_late and c.id = w.id)))
    select array_agg(w.id) filter (where not w.archived), array_agg(w.id) filter (where w.archived),
           (select case when count(*) = p_limit then max(x.id) end from walked x)
      into v_ids, v_archive, last_id from wanted w;
    copied := coalesce(cardinality(v_ids), 0) + coalesce(cardinality(v_archive), 0);
    if copied = 0 or p_dry_run then
        return;
    end if;
    insert into integration.data_staging (source_app, target_app, record_type, data, priority, max_retries, headers,
        ordering_key, origin_id)
    select h.source_app, p_to, h.record_type, h.data, h.priority, h.max_retries,
           coalesce(h.headers, '{}') || '{"replayed": "true"}', h.ordering_key, coalesce(h.origin_id, h.id)
      from (select d.id, d.source_app, d.record_type, d.data, d.priority, d.max_retries, d.headers, d.ordering_key,
                   d.origin_id from integration.data_staging d where d.id = any (v_ids)
            union all
            select a.id, a.source_app, a.record_type, a.data, a.priority, a.max_retries, a.headers, a.ordering_key,
                   a.origin_id from integration.data_staging_archive a where a.id = any (v_archive)) h
     order by h.id;
end $$;

-- For maintenance: brings late subscribers forward, by about p_limit messages. What was published before a
-- subscription could be seen is history; everything later was copied as it was published. The line between them is
-- exact: first every transaction that ran when the subscription was seen committed has to end (virtual ids name those,
-- too, that have a snapshot and no xid yet), then every one that is prepared, which is asked afterwards: what does not
-- run any more has ended, or is prepared. barrier is the first xid after those; 0: there are none. Then all that lacks
-- the subscriber's copy can be seen, and live_copies tells it from what has one. Returns how many copies were made;
-- callers repeat while there are any.
-- Locks: the rows of subscriptions, SKIP LOCKED.
create or replace function integration.catch_up(p_limit integer default 1000) returns integer
    language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    s        integration.subscriptions;
    v_step   record;
    v_copies integer := 0;
begin
    p_limit := least(p_limit, 10000);
    for s in select * from integration.subscriptions x where x.caught_up_at is null
              order by x.topic, x.target_app for no key update skip locked loop
        if s.running is null then
            s.running := integration.running_transactions();
        end if;
        if s.barrier is null and not s.running && integration.running_transactions() then
            -- In one statement, so of one snapshot: its oldest xid, and how much younger others are.
            select coalesce(max(o.xid::text::bigint + age(o.xid::xid) - age(p.transaction)) + 1, 0) into s.barrier
              from pg_prepared_xacts p cross join (select pg_snapshot_xmin(pg_current_snapshot()) as xid) o
             where p.database = current_database();
        end if;
        if s.last_id is null and integration.oldest_xid() >= s.barrier then
            s.last_id := coalesce(pg_sequence_last_value('integration.data_staging_id_seq'), 0);
        end if;
        -- Most of what is walked over may be others'.
        for i in 1 .. 20 loop
            exit when s.last_id is null or s.caught_up_at is not null or v_copies >= p_limit;
            select * into v_step
              from integration.copy_history(s.topic, s.target_app, s.target_app, coalesce(s.copied_id, 0), s.last_id,
                       s.since, 'infinity', s.types, s.sources, p_limit, false);
            v_copies := v_copies + v_step.copied;
            s.copied_id := v_step.last_id;
            if s.copied_id is null then
                s.caught_up_at := integration.clock();
            end if;
        end loop;
        update integration.subscriptions x
           set running = s.running, barrier = s.barrier, last_id = s.last_id, copied_id = s.copied_id,
               caught_up_at = s.caught_up_at
         where x.topic = s.topic and x.target_app = s.target_app;
    end loop;
    -- Those that were written by who still saw the subscriber behind are of no use any more, either.
    delete from integration.live_copies c where not exists (
        select from integration.subscriptions x
         where x.topic = c.topic and x.target_app = c.target_app and x.caught_up_at is null);
    return v_copies;
end $$;

-- The virtual ids of the transactions that run in this database, the caller's aside.
create or replace function integration.running_transactions() returns text[]
    language sql volatile set search_path = pg_catalog, pg_temp as $$
    select coalesce(array_agg(l.virtualxid), '{}')
      from pg_locks l join pg_stat_activity a on a.pid = l.pid and a.datname = current_database()
     where l.locktype = 'virtualxid' and l.mode = 'ExclusiveLock' and l.granted and l.pid <> pg_backend_pid()
$$;
