-- What is there, and since when: from the counters, and for the rest from small partial indexes. None of these reads a
-- message that is neither pending at the front, processing nor failed.

create or replace view integration.pending_by_app with (security_invoker = true) as
    select target_app, messages as pending_count from integration.current_counters
        where status = 'pending' and messages > 0;

create or replace view integration.stuck with (security_invoker = true) as
    select id, target_app, owner, attempt, created_at, integration.since(created_at) as age
      from integration.data_staging
     where status = 'processing' and updated_at < integration.clock() - interval '1 hour';

-- Of these, the ones that nobody is known to have: claimed by plain SQL without an owner, or by one that is no
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
            select d.created_at, d.source_app, d.target_app, v.published, v.failed
              from integration.deltas d
             cross join lateral integration.outcomes_of(d.action, d.messages, d.failed) v
             where d.source_app is not null) r
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

-- The oldest pending message of a target and its next scheduled one; null: there is none. One look into the ready index
-- per priority in use, of the 1,000 highest.
create or replace function integration.front(p_target text, out oldest_at timestamptz, out next_due_at timestamptz)
    language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set enable_bitmapscan = off as $$
begin
    with recursive lanes as (
        (select d.priority, d.created_at from integration.data_staging d
          where d.target_app = p_target and d.status = 'pending'
          order by d.priority desc, d.created_at, d.id limit 1)
        union all
        select n.priority, n.created_at
          from lanes l
         cross join lateral (
            select d.priority, d.created_at from integration.data_staging d
             where d.target_app = p_target and d.status = 'pending' and d.priority < l.priority
             order by d.priority desc, d.created_at, d.id limit 1) n)
    select min(l.created_at) into oldest_at from (select lanes.created_at from lanes limit 1000) l;
    select d.available_at into next_due_at from integration.data_staging d
     where d.target_app = p_target and d.status = 'scheduled' order by d.available_at limit 1;
end $$;

-- When p_messages will have been handled, at these rates by the second; null: there are none, or they do not become
-- fewer.
create or replace function integration.empty_in(p_messages bigint, p_handled numeric, p_published numeric)
    returns interval
    language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
    select make_interval(secs => (p_messages / (p_handled - p_published))::double precision)
     where p_messages > 0 and p_handled > p_published
$$;

-- One row per target that has, or ever had, messages, settings or processes. oldest_age: of the oldest pending message.
-- Rates: means of the last five minutes. sweep_share: see wakeups. empty_in: when nothing will be pending any more, at
-- these rates.
create or replace view integration.stats with (security_invoker = true) as
    with counts as (
        select c.target_app,
               coalesce(sum(c.messages) filter (where c.status = 'pending'), 0)::bigint as pending,
               coalesce(sum(c.messages) filter (where c.status = 'scheduled'), 0)::bigint as scheduled,
               coalesce(sum(c.messages) filter (where c.status = 'processing'), 0)::bigint as processing,
               coalesce(sum(c.messages) filter (where c.status = 'completed'), 0)::bigint as completed,
               coalesce(sum(c.messages) filter (where c.status = 'failed'), 0)::bigint as failed,
               coalesce(sum(c.messages) filter (where c.status = 'cancelled'), 0)::bigint as cancelled
          from integration.current_counters c group by c.target_app),
    recent as (
        select t.target_app,
               coalesce(sum(t.messages) filter (where t.action = 'published'
                   and t.minute > (select integration.clock() - interval '5 min')), 0) as published,
               coalesce(sum(t.messages) filter (where t.action = 'completed'
                   and t.minute > (select integration.clock() - interval '5 min')), 0) as completed,
               coalesce(sum(t.messages) filter (where t.action in ('completed', 'failed', 'cancelled')
                   and t.minute > (select integration.clock() - interval '5 min')), 0) as ended,
               coalesce(sum(t.messages) filter (where t.action = 'errored'), 0)::bigint as errored,
               coalesce(sum(t.messages) filter (where t.action = 'rescued'), 0)::bigint as rescued,
               coalesce(sum(t.messages) filter (where t.action = 'failed'), 0)::bigint as failed,
               round(coalesce(sum(t.messages) filter (where t.action = 'found_sweep'),
                   0) / sum(t.messages) filter (where t.action like 'found%'), 4) as sweep_share
          from integration.recent_traffic('1 hour') t group by t.target_app),
    live as (
        select k.key as target_app, count(*) as processes, sum((k.value ->> 'capacity')::bigint)::bigint as capacity
          from integration.processes c cross join lateral jsonb_each(c.targets) k
         where c.lease_until > integration.clock() group by k.key),
    known as (
        select target_app from counts union select target_app from integration.targets union select target_app
            from live)
    select k.target_app,
           coalesce(c.pending, 0) as pending, coalesce(c.scheduled, 0) as scheduled,
               coalesce(c.processing, 0) as processing,
           coalesce(c.completed, 0) as completed, coalesce(c.failed, 0) as failed,
               coalesce(c.cancelled, 0) as cancelled,
           integration.since(f.oldest_at) as oldest_age,
           f.next_due_at,
           round(coalesce(r.published, 0) / 300.0, 2) as published_per_second,
           round(coalesce(r.completed, 0) / 300.0, 2) as completed_per_second,
           coalesce(r.errored, 0) as errored_last_hour, coalesce(r.rescued, 0) as rescued_last_hour,
           coalesce(r.failed, 0) as failed_last_hour,
           t.paused_at, t.paused_by, t.pause_reason,
           coalesce(b.state, 'closed') as breaker,
           coalesce(l.processes, 0) as processes, coalesce(l.capacity, 0) as capacity,
           r.sweep_share,
           integration.empty_in(c.pending, r.ended / 300, r.published / 300) as empty_in
      from known k
      left join counts c on c.target_app = k.target_app
      left join recent r on r.target_app = k.target_app
      left join live l on l.target_app = k.target_app
      left join integration.targets t on t.target_app = k.target_app
      left join integration.breakers b on b.breaker_key = coalesce(t.breaker_key, k.target_app)
      left join lateral integration.front(k.target_app) f on c.pending > 0 or c.scheduled > 0;
