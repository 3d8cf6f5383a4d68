-- What is there, and since when: from the counters, and for the rest from small partial indexes. None of these reads a
-- message that is neither pending at the front, processing nor failed.

-- How many messages each target has pending; those without any are left out.
create or replace view integration.pending_by_app with (security_invoker = true) as
    select target_app, messages as pending_count from integration.current_counters
        where status = 'pending' and messages > 0;

-- Messages that have been handled for over an hour.
create or replace view integration.stuck with (security_invoker = true) as
    select id, target_app, owner, attempt, created_at, integration.since(created_at) as age
      from integration.data_staging
     where status = 'processing' and updated_at < integration.clock() - interval '1 hour';

-- Of the stuck messages those that nobody is known to have: claimed by plain SQL without an owner, or by one that is no
-- registered process, and under no lease that still runs. Whether their consumer is dead, only those who wrote it can
-- tell.
create or replace view integration.orphans with (security_invoker = true) as
    select s.id, s.target_app, s.owner, s.attempt, s.created_at, s.age
      from integration.stuck s
      join integration.data_staging d on d.id = s.id
     where coalesce(d.lease_until < integration.clock(), true)
       and (s.owner is null or not exists (select from integration.processes c where c.owner = s.owner));

-- Dead letters with their story: what failed again after a redrive says so.
create or replace view integration.dead_letters with (security_invoker = true) as
    select id, source_app, target_app, record_type, error_message as reason, attempt, retry_count, crash_count,
           redrive_count, redrive_count > 0 as failed_again, created_at, updated_at as failed_at
      from integration.data_staging where status = 'failed';

-- Of the messages created in the last 24 hours (and up to ten minutes more): how many were published, and how many are
-- failed now. Messages that were archived or deleted since are among them; redriven ones are not failed.
create or replace view integration.error_rates with (security_invoker = true) as
    select r.source_app, r.target_app, sum(r.published)::bigint as total, greatest(sum(r.failed), 0)::bigint as failed,
           round(100.0 * greatest(sum(r.failed), 0) / nullif(sum(r.published), 0), 2) as error_rate
      from (select o.created_at, o.source_app, o.target_app, o.published, o.failed from integration.outcomes o
            union all
            select o.created_at, o.source_app, o.target_app, v.published, v.failed
              from (select d.created_at, d.source_app, d.target_app, d.action, sum(d.messages) as messages,
                           sum(d.failed) as failed
                      from integration.deltas d where d.source_app is not null
                     group by d.created_at, d.source_app, d.target_app, d.action) o
             cross join lateral integration.outcomes_of(o.action, o.messages, o.failed) v) r
     where r.created_at > (select integration.clock() - interval '24 hours 10 minutes')
     group by r.source_app, r.target_app
    having sum(r.published) > 0;

-- How the messages claimed in the last hour were found. A growing share of sweeps means that notifications get lost: a
-- pooler in the way, a listener that is down. (The first look of a consumer is a sweep, too.)
create or replace view integration.wakeups with (security_invoker = true) as
    select w.target_app, w.bell, w.drain, w.sweep,
           round(w.sweep / nullif(w.bell + w.drain + w.sweep, 0), 4) as sweep_share
      from (select t.target_app,
                   coalesce(sum(t.messages) filter (where t.action = 'found_bell'), 0) as bell,
                   coalesce(sum(t.messages) filter (where t.action = 'found_drain'), 0) as drain,
                   coalesce(sum(t.messages) filter (where t.action = 'found_sweep'), 0) as sweep
              from integration.recent_traffic('1 hour') t
             where t.action like 'found%'
             group by t.target_app) w;

-- When p_messages will have been handled, at these rates by the second; null: there are none, or they do not become
-- fewer.
create or replace function integration.empty_in(p_messages bigint, p_handled numeric, p_published numeric)
    returns interval
    language sql immutable parallel safe as $$
    select case when p_messages > 0 and p_handled > p_published
        then make_interval(secs => (p_messages / (p_handled - p_published))::double precision) end
$$;

-- One row per target that has, or ever had, messages, settings or processes; p_target null: of all. oldest_age: of the
-- oldest pending message. Rates: means of the last five minutes. last_hour: of the last 50 to 60 minutes, and so is
-- sweep_share: see wakeups. empty_in: when nothing will be pending any more, at these rates. Deltas are read once,
-- whatever is asked of them, and never sorted, which the planner would do because nothing is known of their groups. Of
-- the messages it reads, for targets where some wait, one entry of the ready index for each priority in use, of the
-- 1,000 highest, and the next scheduled one.
create or replace function integration.target_stats(p_target text default null)
    returns table (
        target_app text, pending bigint, scheduled bigint, processing bigint, completed bigint, failed bigint,
        cancelled bigint, oldest_age interval, next_due_at timestamptz, published_per_second numeric,
        completed_per_second numeric, errored_last_hour bigint, rescued_last_hour bigint, failed_last_hour bigint,
        paused_at timestamptz, paused_by text, pause_reason text, breaker text, processes bigint, capacity bigint,
        sweep_share numeric, empty_in interval
    )
    language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off set enable_sort = off
        set enable_seqscan = off set enable_bitmapscan = off set enable_nestloop = off
        set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
declare
    v_now  timestamptz := integration.clock();
    -- From the first whole minute of the last five, and the first whole ten minutes of the last hour.
    v_five timestamptz := integration.minute_of(v_now - interval '5 min') + interval '1 min';
    v_hour timestamptz := integration.ten_minutes(v_now - interval '1 hour') + interval '10 min';
begin
    return query
    with open as materialized (
        select d.target_app, d.action, sum(d.pending) as pending, sum(d.scheduled) as scheduled,
               sum(d.processing) as processing, sum(d.completed) as completed, sum(d.failed) as failed,
               sum(d.cancelled) as cancelled,
               sum(d.messages) filter (where d.at >= v_hour) as messages_lately,
               sum(d.failed) filter (where d.failed > 0 and d.at >= v_hour) as failed_lately,
               sum(d.messages) filter (where d.at >= v_five) as messages_now,
               sum(d.completed) filter (where d.completed > 0 and d.at >= v_five) as completed_now,
               sum(d.failed) filter (where d.failed > 0 and d.at >= v_five) as failed_now,
               sum(d.cancelled) filter (where d.cancelled > 0 and d.at >= v_five) as cancelled_now
          from integration.deltas d
         where p_target is null or d.target_app = p_target
         group by d.target_app, d.action),
    -- What was folded has one row a status: max is that row, and costs less than a sum.
    folded as materialized (
        select k.target_app, max(k.messages) filter (where k.status = 'pending') as pending,
               max(k.messages) filter (where k.status = 'scheduled') as scheduled,
               max(k.messages) filter (where k.status = 'processing') as processing,
               max(k.messages) filter (where k.status = 'completed') as completed,
               max(k.messages) filter (where k.status = 'failed') as failed,
               max(k.messages) filter (where k.status = 'cancelled') as cancelled
          from integration.counters k where p_target is null or k.target_app = p_target
         group by k.target_app),
    counts as materialized (
        select target_app, (coalesce(k.pending, 0) + coalesce(o.pending, 0))::bigint as pending,
               (coalesce(k.scheduled, 0) + coalesce(o.scheduled, 0))::bigint as scheduled,
               (coalesce(k.processing, 0) + coalesce(o.processing, 0))::bigint as processing,
               (coalesce(k.completed, 0) + coalesce(o.completed, 0))::bigint as completed,
               (coalesce(k.failed, 0) + coalesce(o.failed, 0))::bigint as failed,
               (coalesce(k.cancelled, 0) + coalesce(o.cancelled, 0))::bigint as cancelled
          from folded k
          full join (
            select x.target_app, sum(x.pending) as pending, sum(x.scheduled) as scheduled,
                   sum(x.processing) as processing, sum(x.completed) as completed, sum(x.failed) as failed,
                   sum(x.cancelled) as cancelled
              from open x
             where coalesce(x.pending, x.scheduled, x.processing, x.completed, x.failed, x.cancelled) is not null
             group by x.target_app) o using (target_app)),
    recent as materialized (
        select a.target_app,
               coalesce(sum(a.messages) filter (where a.action = 'published' and a.just_now), 0) as published,
               coalesce(sum(a.messages) filter (where a.action = 'completed' and a.just_now), 0) as completed,
               coalesce(sum(a.messages) filter (where a.action in ('completed', 'failed', 'cancelled')
                   and a.just_now), 0) as ended,
               coalesce(sum(a.messages) filter (where a.action = 'errored' and not a.just_now), 0)::bigint as errored,
               coalesce(sum(a.messages) filter (where a.action = 'rescued' and not a.just_now), 0)::bigint as rescued,
               coalesce(sum(a.messages) filter (where a.action = 'failed' and not a.just_now), 0)::bigint as failed,
               round(coalesce(sum(a.messages) filter (where a.action = 'found_sweep' and not a.just_now),
                   0) / sum(a.messages) filter (where a.action like 'found%' and not a.just_now), 4) as sweep_share
          from (select t.target_app, t.action, true as just_now, t.messages
                  from integration.traffic t
                 where t.minute >= v_five and t.action in ('published', 'completed', 'failed', 'cancelled')
                   and (p_target is null or t.target_app = p_target)
                union all
                select t.target_app, t.action, false, t.messages
                  from integration.traffic_tens t
                 where t.at >= v_hour and (p_target is null or t.target_app = p_target)
                   and t.action in ('errored', 'rescued', 'failed', 'found_bell', 'found_drain', 'found_sweep')
                union all
                select o.target_app, v.action, v.just_now, v.messages
                  from open o
                 cross join lateral (
                    select x.action, true as just_now, x.messages
                      from integration.actions_of(
                        o.action, o.messages_now, null, o.completed_now, o.failed_now, o.cancelled_now) x
                    union all
                    select x.action, false, x.messages
                      from integration.actions_of(
                        o.action, o.messages_lately, null, null, o.failed_lately, null) x) v) a
         group by a.target_app),
    consuming as materialized (
        select k.key as target_app, count(*) filter (where c.lease_until > v_now) as processes,
               sum((k.value ->> 'capacity')::bigint) filter (where c.lease_until > v_now)::bigint as capacity
          from integration.processes c cross join lateral jsonb_each(c.targets) k
         where p_target is null or k.key = p_target group by k.key),
    -- Each once, and not once per target.
    settings as materialized (
        select t.target_app, t.paused_at, t.paused_by, t.pause_reason, t.breaker_key from integration.targets t
         where p_target is null or t.target_app = p_target),
    breakers as materialized (select b.breaker_key, b.state from integration.breakers b),
    known as (
        select c.target_app from counts c
        union select t.target_app from settings t
        union select l.target_app from consuming l)
    select k.target_app,
           coalesce(c.pending, 0), coalesce(c.scheduled, 0), coalesce(c.processing, 0), coalesce(c.completed, 0),
           coalesce(c.failed, 0), coalesce(c.cancelled, 0),
           case when isfinite(f.oldest_at) then v_now - f.oldest_at end, n.next_due_at,
           round(coalesce(r.published, 0) / 300.0, 2), round(coalesce(r.completed, 0) / 300.0, 2),
           coalesce(r.errored, 0), coalesce(r.rescued, 0), coalesce(r.failed, 0),
           t.paused_at, t.paused_by, t.pause_reason,
           coalesce(b.state, 'closed'),
           coalesce(l.processes, 0), coalesce(l.capacity, 0),
           r.sweep_share,
           integration.empty_in(c.pending, r.ended / 300, r.published / 300)
      from known k
      left join counts c on c.target_app = k.target_app
      left join recent r on r.target_app = k.target_app
      left join consuming l on l.target_app = k.target_app
      left join settings t on t.target_app = k.target_app
      left join breakers b on b.breaker_key = coalesce(t.breaker_key, k.target_app)
      left join lateral (
        with recursive lanes as (
            (select d.priority, d.created_at from integration.data_staging d
              where c.pending > 0 and d.target_app = k.target_app and d.status = 'pending'
              order by d.priority desc, d.created_at, d.id limit 1)
            union all
            select n.priority, n.created_at
              from lanes l
             cross join lateral (
                select d.priority, d.created_at from integration.data_staging d
                 where d.target_app = k.target_app and d.status = 'pending' and d.priority < l.priority
                 order by d.priority desc, d.created_at, d.id limit 1) n)
        select min(x.created_at) as oldest_at
          from (select lanes.created_at from lanes limit 1000) x) f on true
      left join lateral (
        -- What stands behind others of its key becomes due when these have ended.
        select case when d.behind_at is null then d.available_at end as next_due_at from integration.data_staging d
         where c.scheduled > 0 and d.target_app = k.target_app and d.status = 'scheduled'
         order by d.available_at limit 1) n on true;
end $$;

-- What target_stats says, of all targets.
create or replace view integration.stats with (security_invoker = true) as
    select s.target_app, s.pending, s.scheduled, s.processing, s.completed, s.failed, s.cancelled, s.oldest_age,
           s.next_due_at, s.published_per_second, s.completed_per_second, s.errored_last_hour, s.rescued_last_hour,
           s.failed_last_hour, s.paused_at, s.paused_by, s.pause_reason, s.breaker, s.processes, s.capacity,
           s.sweep_share, s.empty_in
      from integration.target_stats() s;

-- What target_stats says of a target, of all where p_target is null, with how many of its messages are set aside and
-- the gates that are closed. Gates are looked at once per target, and only where something could be closed: a pause, a
-- breaker that is not closed, or as many messages being handled as are allowed.
create or replace function integration.target_states(p_target text default null)
    returns table (
        target_app text, pending bigint, scheduled bigint, processing bigint, completed bigint, failed bigint,
        cancelled bigint, oldest_age interval, next_due_at timestamptz, published_per_second numeric,
        completed_per_second numeric, errored_last_hour bigint, rescued_last_hour bigint, failed_last_hour bigint,
        sweep_share numeric, empty_in interval, processes bigint, workers bigint, set_aside bigint,
        gate_codes text[], gate_sentences text[]
    )
    language sql stable set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
    with limited as materialized (
        select t.target_app, t.max_in_flight from integration.targets t where t.max_in_flight is not null),
    aside as materialized (
        select n.target_app, count(*) as messages from integration.set_aside_now n group by n.target_app)
    select s.target_app, s.pending, s.scheduled, s.processing, s.completed, s.failed, s.cancelled, s.oldest_age,
           s.next_due_at, s.published_per_second, s.completed_per_second, s.errored_last_hour, s.rescued_last_hour,
           s.failed_last_hour, s.sweep_share, s.empty_in, s.processes, s.capacity, coalesce(a.messages, 0),
           coalesce(g.codes, '{}'), coalesce(g.sentences, '{}')
      from integration.target_stats(p_target) s
      left join aside a on a.target_app = s.target_app
      left join limited t on t.target_app = s.target_app
      left join lateral (
        select array_agg(c.code) as codes, array_agg(c.sentence) as sentences
          from integration.gates(s.target_app, true) c
         where c.admits <= 0
           -- Here, and not in the join, where it would be asked when the gates have answered.
           and (s.paused_at is not null or s.breaker <> 'closed' or s.processing >= t.max_in_flight)) g on true
     order by s.target_app
$$;
