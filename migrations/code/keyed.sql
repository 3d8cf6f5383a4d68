-- Messages with an ordering_key: of each target and key one at a time, in the order of their ids.
--
-- What a claim takes of a key is a series, with a number. The newest series of a key is its fence post: while a member
-- is processing, waits for its next try or has failed for good (and the target blocks then), the key is busy, and that
-- member is the blocker. Finished rows stay for a while, so the probe for the post ends at a live row however many dead
-- entries there are; a row per key, updated by each claim, would collapse behind a pinned vacuum horizon.
--
-- A message that a claim meets and that another of its key goes before stands behind it: it is scheduled, with
-- behind_at, so that no look walks over it again. Who has it stand there locks the blocker until the end of the
-- transaction, and whoever changes the blocker looks for who stands behind it afterwards (step_forward), so none is
-- forgotten. What is forgotten all the same (a settle in another isolation level than READ COMMITTED) is promoted like
-- anything scheduled when a day is over, or by the maintenance long before.

-- Which turn a key takes; see key_turns.
create or replace function integration.key_slot(p_target text, p_key text) returns integer
    language sql immutable parallel safe as $$
    select (hashtext(p_target) & 255) * 16 + (hashtext(p_key) & 15)
$$;

-- Takes the turns of keys, until the end of the transaction. Returns the slots that were to be had: a claim whose
-- transaction is left open keeps a sixteenth of its target's keys at most for each of its own.
-- Locks: the rows of key_turns, SKIP LOCKED, tried for a fiftieth of a second.
create or replace function integration.take_key_turns(p_target text, p_keys text[]) returns integer[]
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_slots integer[] := array(select distinct integration.key_slot(p_target, k) from unnest(p_keys) k);
    v_taken integer[];
begin
    for i in 1 .. 20 loop
        v_taken := array(select t.slot from integration.key_turns t where t.slot = any (v_slots)
                           for no key update skip locked);
        exit when cardinality(v_taken) = cardinality(v_slots);
        perform pg_sleep(0.001);
    end loop;
    return v_taken;
end $$;

-- Whether what failed for good keeps those behind it from being taken.
create or replace function integration.failed_blocks(p_target text) returns boolean
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce((select t.key_failed from integration.targets t where t.target_app = p_target),
                    (select s.key_failed from integration.settings s), 'block') = 'block'
$$;

-- The messages that keep keys busy. Keys that are free are left out.
create or replace function integration.key_blockers(p_targets text[], p_keys text[])
    returns table (target_app text, ordering_key text, id bigint)
    language sql stable set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set enable_bitmapscan = off as $$
    select k.target_app, k.key, b.id
      from unnest(p_targets, p_keys) k (target_app, key)
     cross join lateral (
        select x.series from integration.data_staging x
         where x.target_app = k.target_app and x.ordering_key = k.key and x.series > 0
         order by x.target_app desc, x.ordering_key desc, x.series desc, x.id desc limit 1) t
     cross join lateral (
        select x.id from integration.data_staging x
         where x.target_app = k.target_app and x.ordering_key = k.key and x.series = t.series
           and (x.status in ('processing', 'scheduled')
                or x.status = 'failed' and integration.failed_blocks(k.target_app))
         order by x.target_app desc, x.ordering_key desc, x.series desc, x.id desc limit 1) b
$$;

-- Of the messages that pick has locked, in claiming order, those that may be taken, and of keys that are free what else
-- is next of them, up to p_series of each. Those without a key first, then every key's first, then seconds. behind:
-- those that stand behind others of their keys now. p_after_at, p_after_ids: where the look began.
-- Locks: the messages taken, SKIP LOCKED; turns of keys; blockers, SKIP LOCKED. SQLSTATEs: 0A000 in another isolation
-- level than READ COMMITTED, where what others have taken would not be seen.
create or replace function integration.pick_keyed(
    p_target text, p_limit integer, p_types text[], p_bytes_max bigint, p_aside boolean, p_series integer,
    p_after_at timestamptz[], p_after_ids bigint[], p_ids bigint[], out ids bigint[], out behind bigint[]
)
    language plpgsql set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set enable_bitmapscan = off set enable_nestloop = off set enable_sort = on
        set plan_cache_mode = force_generic_plan as $$
declare
    v_blocks  boolean := integration.failed_blocks(p_target);
    -- All up to here was seen; nothing, where the look began at the beginning.
    v_settled bigint := coalesce((
        select min(a.id) from unnest(p_after_at, p_after_ids) a (at, id) where a.at > '-infinity'), 0);
    v_free    bigint[];
    v_bytes   bigint;
    v_ids     bigint[];
    v_keys    text[];
    v_turns   integer[];
    v_each    integer;
    v_take    bigint[];
    v_taken   text[];
    -- Keys of which nothing is taken: what goes before, and up to where what comes now is late.
    v_wait    text[];
    v_before  bigint[];
    v_bounds  bigint[];
    v_held    text[];
    v_late    bigint[];
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'messages with an ordering key are claimed in READ COMMITTED transactions only'
            using errcode = 'feature_not_supported', hint = 'begin with: begin isolation level read committed';
    end if;
    select array_agg(d.id order by u.place) filter (where d.ordering_key is null),
           sum(integration.bytes_of(d.data) + coalesce(pg_column_size(d.headers), 0))
               filter (where d.ordering_key is null),
           array_agg(d.id order by u.place) filter (where d.ordering_key is not null),
           array_agg(d.ordering_key order by u.place) filter (where d.ordering_key is not null)
      into v_free, v_bytes, v_ids, v_keys
      from unnest(p_ids) with ordinality u (id, place) join integration.data_staging d on d.id = u.id
     where d.id = any (p_ids);
    if v_keys is null then
        ids := v_free;
        return;
    end if;
    v_turns := integration.take_key_turns(p_target, v_keys);
    -- About twice what there is room for: some are locked, or do not fit.
    v_each := least(greatest(p_series, 1),
        greatest(2 * p_limit / (select count(distinct k) from unnest(v_keys) k), 2)::integer);
    -- In statements of their own, which see what those before have taken.
    with keys as materialized (
        select c.key, min(c.id) as first from unnest(v_ids, v_keys) c (id, key)
         where integration.key_slot(p_target, c.key) = any (v_turns)
         group by c.key),
    state as materialized (
        select k.key, k.first, coalesce(t.id, 0) as bound, b.id as blocker
          from keys k
          left join lateral (
            select x.id, x.series from integration.data_staging x
             where x.target_app = p_target and x.ordering_key = k.key and x.series > 0
             order by x.target_app desc, x.ordering_key desc, x.series desc, x.id desc limit 1) t on true
          left join lateral (
            select x.id from integration.data_staging x
             where x.target_app = p_target and x.ordering_key = k.key and x.series = t.series
               and (x.status in ('processing', 'scheduled') or x.status = 'failed' and v_blocks)
             order by x.target_app desc, x.ordering_key desc, x.series desc, x.id desc limit 1) b on true),
    -- What each free key would give, in its order, and whether all up to there may be taken.
    line as materialized (
        select r.*, bool_and(r.fits) over (partition by r.key order by r.id) as ok
          from (select s.key, w.id, w.bytes, w.fits, row_number() over (partition by s.key order by w.id) as rank
                  from state s
                 cross join lateral (
                    select y.* from (
                        (select x.id, integration.bytes_of(x.data) + coalesce(pg_column_size(x.headers), 0) as bytes,
                                x.crash_count = 0 and (p_types is null or x.record_type = any (p_types))
                                    and (not p_aside or not integration.is_left_out(x.id, x.created_at)) as fits
                           from integration.data_staging x
                          where x.target_app = p_target and x.ordering_key = s.key and x.series is null
                            and (x.status = 'pending' or x.status = 'scheduled' and x.behind_at is not null)
                            and x.id >= least(s.first, s.bound + 1, v_settled + 1)
                          order by x.target_app, x.ordering_key, x.series, x.id limit v_each)
                        union all
                        (select x.id, integration.bytes_of(x.data) + coalesce(pg_column_size(x.headers), 0),
                                x.crash_count = 0 and (p_types is null or x.record_type = any (p_types))
                                    and (not p_aside or not integration.is_left_out(x.id, x.created_at))
                           from integration.data_staging x
                          where x.target_app = p_target and x.ordering_key = s.key and x.series = 0
                            and (x.status = 'pending' or x.status = 'scheduled' and x.behind_at is not null)
                          order by x.target_app, x.ordering_key, x.series, x.id limit v_each)) y
                     order by y.id limit v_each) w
                 where s.blocker is null) r),
    chosen as materialized (
        select c.* from (
            select l.key, l.id, l.rank, sum(l.bytes) over (order by l.rank, l.id
                       rows between unbounded preceding and 1 preceding) as before
              from line l where l.ok order by l.rank, l.id limit p_limit - coalesce(cardinality(v_free), 0)) c
         -- The first of each is about as large as what was picked.
         where c.rank = 1 or coalesce(v_bytes, 0) + c.before < p_bytes_max),
    locked as materialized (
        select d.id from integration.data_staging d
         where d.id = any (array(select c.id from chosen c))
           and (d.status = 'pending' or d.status = 'scheduled' and d.behind_at is not null)
           for no key update skip locked),
    taken as materialized (
        select t.* from (
            select c.key, c.id, c.rank, bool_and(l.id is not null) over (partition by c.key order by c.id) as ok
              from chosen c left join locked l on l.id = c.id) t
         where t.ok),
    firsts as materialized (select t.key from taken t where t.rank = 1),
    heads as materialized (select l.key, l.id from line l where l.rank = 1)
    select (select array_agg(t.id order by t.rank, t.id) from taken t), (select array_agg(f.key) from firsts f),
           array_agg(s.key), array_agg(coalesce(s.blocker, h.id)), array_agg(s.bound)
      into v_take, v_taken, v_wait, v_before, v_bounds
      from state s left join firsts f on f.key = s.key left join heads h on h.key = s.key
     where f.key is null;
    ids := v_free || v_take;
    if cardinality(v_take) = cardinality(v_ids) and v_take <@ v_ids then
        return;
    end if;
    -- Whoever stands behind a message has it locked meanwhile.
    select array_agg(l.key), array_agg(l.bound) into v_held, v_late from (
        select w.key, w.bound from unnest(v_wait, v_before, v_bounds) w (key, id, bound)
          join integration.data_staging d on d.id = w.id
         where d.id = any (v_before)
           and (d.status in ('processing', 'scheduled', 'pending') or d.status = 'failed' and v_blocks)
           for no key update of d skip locked) l;
    behind := integration.stand_behind(v_ids, v_keys, v_take, v_taken || v_held,
        array_fill(0::bigint, array[coalesce(cardinality(v_taken), 0)]) || v_late, v_before);
end $$;

-- For pick_keyed: what it has locked and does not take. Those of the keys that are held stand behind others; what is
-- late (p_late: up to which id) is found by its key from now on; the rest is to be looked at again. p_before: what
-- others stand behind. Returns those that stand behind others.
create or replace function integration.stand_behind(p_ids bigint[], p_keys text[], p_take bigint[], p_held text[],
    p_late bigint[], p_before bigint[]) returns bigint[]
    language plpgsql set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set enable_nestloop = off set enable_sort = on as $$
declare
    v_now    timestamptz := integration.clock();
    v_behind bigint[];
begin
    with left_over as materialized (
        select c.id, h.key is not null and b.id is null as is_behind,
               h.key is null or b.id is not null or c.id <= h.late as is_late
          from unnest(p_ids, p_keys) c (id, key)
          left join unnest(p_held, p_late) h (key, late) on h.key = c.key
          left join unnest(p_before) b (id) on b.id = c.id
          left join unnest(p_take) t (id) on t.id = c.id
         where t.id is null),
    moved as (
        update integration.data_staging d
           set status = case when l.is_behind then 'scheduled' else 'pending' end,
               behind_at = case when l.is_behind then v_now end,
               available_at = case when l.is_behind then v_now + interval '1 day' end,
               requeued_at = case when l.is_behind then d.requeued_at else v_now end,
               series = case when l.is_late then coalesce(d.series, 0) else d.series end, updated_at = v_now
          from left_over l where d.id = any (p_ids) and d.id = l.id
        returning d.id, l.is_behind)
    select array_agg(m.id) filter (where m.is_behind) into v_behind from moved m;
    return v_behind;
end $$;

-- For the triggers: messages of keys have ended, or wait again; p_ids: the least of each key. The next one of each that
-- stands behind others steps forward if its key is free, and rings. One probe for a key behind which nobody stands.
-- Where the blocker is locked somebody is ending it at this moment, and does not see what this transaction does: then
-- it steps forward, too, and the next look says.
-- Locks: those that step forward and blockers, SKIP LOCKED.
create or replace function integration.step_forward(p_targets text[], p_keys text[], p_ids bigint[]) returns void
    language plpgsql set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set enable_bitmapscan = off set enable_sort = on as $$
declare
    v_now     timestamptz := integration.clock();
    v_heads   bigint[];
    v_targets text[];
    v_keys    text[];
    v_busy_targets text[];
    v_busy_keys    text[];
begin
    select array_agg(h.id), array_agg(k.target_app), array_agg(k.key) into v_heads, v_targets, v_keys
      from unnest(p_targets, p_keys, p_ids) k (target_app, key, id)
     cross join lateral (
        select x.id, x.behind_at from (
            (select y.id, y.behind_at from integration.data_staging y
              where y.target_app = k.target_app and y.ordering_key = k.key and y.series = 0
                and (y.status = 'pending' or y.status = 'scheduled' and y.behind_at is not null)
              order by y.target_app, y.ordering_key, y.series, y.id limit 1)
            union all
            (select y.id, y.behind_at from integration.data_staging y
              where y.target_app = k.target_app and y.ordering_key = k.key and y.series is null
                and (y.status = 'pending' or y.status = 'scheduled' and y.behind_at is not null) and y.id > k.id
              order by y.target_app, y.ordering_key, y.series, y.id limit 1)) x
         order by x.id limit 1) h;
    if v_heads is null then
        return;
    end if;
    -- Busy all the same, and whoever ends that waits for this transaction.
    select array_agg(l.target_app), array_agg(l.ordering_key) into v_busy_targets, v_busy_keys from (
        select b.target_app, b.ordering_key from integration.key_blockers(v_targets, v_keys) b
          join integration.data_staging d on d.id = b.id for no key update of d skip locked) l;
    if v_busy_keys is not null then
        select array_agg(h.id), array_agg(h.target_app) into v_heads, v_targets
          from unnest(v_heads, v_targets, v_keys) h (id, target_app, key)
         where not exists (
            select from unnest(v_busy_targets, v_busy_keys) b (target_app, key)
             where b.target_app = h.target_app and b.key = h.key);
    end if;
    update integration.data_staging d
       set status = 'pending', behind_at = null, available_at = null, requeued_at = v_now, updated_at = v_now
     where d.id = any (array(
        -- By their ids: the index of what is scheduled has all that stand behind others.
        select x.id from unnest(v_heads) h (id) join integration.data_staging x on x.id = h.id
         where x.status = 'scheduled' and x.behind_at is not null
           for no key update of x skip locked));
    perform integration.ring(t.target_app) from (select distinct u.target_app from unnest(v_targets) u (target_app)) t;
end $$;

-- For claim_suspect: whether a message is the next one of its key, and the key is free.
create or replace function integration.is_first_of_key(p_target text, p_key text, p_id bigint) returns boolean
    language sql volatile set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set enable_bitmapscan = off as $$
    select not exists (select from integration.key_blockers(array[p_target], array[p_key]))
       and not exists (
        select from integration.data_staging x
         where x.target_app = p_target and x.ordering_key = p_key and x.series = 0
           and (x.status = 'pending' or x.status = 'scheduled' and x.behind_at is not null) and x.id < p_id)
$$;

-- Messages that failed for good and keep those of their key behind them from being handled: since when and why, how
-- many wait (counted up to 1,000), and what to do.
create or replace view integration.blocked_keys with (security_invoker = true) as
    select d.target_app, d.ordering_key, d.id as staging_id, d.updated_at as since, d.error_message as reason,
           w.waiting, format('doorbell unblock %s %s --redrive', integration.shell_word(d.target_app),
               integration.shell_word(d.ordering_key)) as fix
      from integration.data_staging d
     cross join lateral (
        select count(*) as waiting from (
            select from integration.data_staging x
             where x.target_app = d.target_app and x.ordering_key = d.ordering_key
               and (x.series is null or x.series = 0)
               and (x.status = 'pending' or x.status = 'scheduled' and x.behind_at is not null) limit 1000) x) w
     where d.status = 'failed' and d.ordering_key is not null and d.series > 0
       and integration.failed_blocks(d.target_app)
       and not exists (
        select from integration.data_staging t
         where t.target_app = d.target_app and t.ordering_key = d.ordering_key and t.series > d.series);

-- For retire: whether messages wait for what becomes of this one.
create or replace function integration.blocks_others(p_id bigint) returns boolean
    language sql stable set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
    select exists (
        select from integration.data_staging d
         cross join lateral integration.key_blockers(array[d.target_app], array[d.ordering_key]) b
         where d.id = p_id and exists (
            select from integration.data_staging x
             where x.target_app = d.target_app and x.ordering_key = d.ordering_key
               and (x.series is null or x.series = 0)
               and (x.status = 'pending' or x.status = 'scheduled' and x.behind_at is not null)))
$$;

-- Lets a key go on that messages keep which failed for good: p_verb is redrive (they are tried again, before all that
-- waits) or cancel (the next one goes on without them). Returns the ids of these messages; none: it is not blocked.
-- Locks and SQLSTATEs: those of operate_on; MQ002 for another verb.
create or replace function integration.unblock(p_target text, p_key text, p_verb text) returns setof bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_ids bigint[] := array(select b.staging_id from integration.blocked_keys b
        where b.target_app = p_target and b.ordering_key = p_key);
begin
    if p_verb is distinct from 'redrive' and p_verb is distinct from 'cancel' then
        raise exception 'a key is not unblocked by "%"', p_verb
            using errcode = 'MQ002', hint = 'use redrive or cancel';
    end if;
    return query select integration.operate_on(p_verb, v_ids, array['failed'], case p_verb
        when 'redrive' then 'select integration.put_back_rows($1)'
        else 'select integration.cancel_rows($1, null)' end);
end $$;

-- Has the next ones of keys step forward that nobody has told, of p_limit messages that stand behind others and those
-- that have stood there as long as the last of them, from where the last call ended. Returns how many were looked at;
-- fewer than p_limit: that was the last of them.
create or replace function integration.step_forward_forgotten(p_limit integer default 10000) returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set enable_bitmapscan = off as $$
declare
    v_ids     bigint[];
    v_count   integer;
    v_target  text;
    v_due     timestamptz;
begin
    p_limit := least(greatest(p_limit, 1), 100000);
    select array_agg(x.id), count(*) into v_ids, v_count from (
        select d.id from integration.data_staging d, integration.maintenance m
         where d.status = 'scheduled' and d.behind_at is not null
           and (d.target_app, d.available_at) > (coalesce(m.keys_to_target, ''), coalesce(m.keys_to_due, '-infinity'))
         order by d.target_app, d.available_at fetch first (p_limit) rows with ties) x;
    if v_count >= p_limit then
        select d.target_app, d.available_at into v_target, v_due from integration.data_staging d
         where d.id = any (v_ids) order by d.target_app desc, d.available_at desc limit 1;
    end if;
    update integration.maintenance m set keys_to_target = v_target, keys_to_due = v_due
     where (m.keys_to_target, m.keys_to_due) is distinct from (v_target, v_due);
    perform integration.step_forward(array_agg(k.target_app), array_agg(k.ordering_key),
                array_fill(0::bigint, array[count(*)::integer]))
       from (select distinct d.target_app, d.ordering_key from integration.data_staging d where d.id = any (v_ids)) k;
    return v_count;
end $$;
