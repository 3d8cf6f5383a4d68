-- Counters: what was folded and what was not, exact in every snapshot. What a delta means is said here and nowhere
-- else.

-- By how many messages of each status deltas change a target, given the sums of their columns.
create or replace function integration.changes_of(
    p_pending bigint, p_scheduled bigint, p_processing bigint, p_completed bigint, p_failed bigint, p_cancelled bigint
) returns table (status text, messages bigint)
    language sql immutable parallel safe as $$
    select v.status, v.messages
      from (values ('pending', p_pending), ('scheduled', p_scheduled), ('processing', p_processing),
                   ('completed', p_completed), ('failed', p_failed), ('cancelled', p_cancelled)) v (status, messages)
     where v.messages is not null
$$;

-- What deltas say happened, and how often: given the sums of what is more than 0 in their columns. Statements that
-- change as many messages one way as the other (by hand) are not seen as actions.
create or replace function integration.actions_of(
    p_action text, p_messages bigint, p_processing bigint, p_completed bigint, p_failed bigint, p_cancelled bigint
) returns table (action text, messages bigint)
    language sql immutable parallel safe as $$
    select v.action, v.messages
      from (values (p_action, p_messages),
                   ('claimed', case when p_action is null then p_processing end),
                   ('completed', case when p_action is null then p_completed end),
                   ('failed', case when p_action is null then p_failed end),
                   ('cancelled', case when p_action is null then p_cancelled end)) v (action, messages)
     where v.action is not null and v.messages operator(pg_catalog.>) 0
$$;

-- What deltas with a source say of error rates: how many messages were published, and how many more are failed.
create or replace function integration.outcomes_of(p_action text, p_messages bigint, p_failed bigint)
    returns table (published bigint, failed bigint)
    language sql immutable parallel safe as $$
    select case when p_action operator(pg_catalog.=) 'published' then p_messages else 0 end,
           case when p_action is null then p_messages else coalesce(p_failed, 0) end
$$;

-- The minute a time belongs to, in every time zone the same.
create or replace function integration.minute_of(p_at timestamptz) returns timestamptz
    language sql immutable parallel safe as $$
    select pg_catalog.date_bin('1 min', p_at, '2000-01-01 00:00:00 UTC')
$$;

-- Writes down by how many messages of each status targets changed, and what is called so (null: what the statuses say).
-- For statements whose rows differ: the triggers count rows that are alike in the cheapest way there is, by themselves,
-- and what is published with its sources.
create or replace function integration.note_changes(
    p_targets text[], p_statuses text[], p_changes bigint[], p_action text default null
) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    insert into integration.deltas (at, pending, scheduled, processing, completed, failed, cancelled, messages,
        target_app, action)
    select integration.clock(), sum(c.change) filter (where c.status = 'pending'),
           sum(c.change) filter (where c.status = 'scheduled'), sum(c.change) filter (where c.status = 'processing'),
           sum(c.change) filter (where c.status = 'completed'), sum(c.change) filter (where c.status = 'failed'),
           sum(c.change) filter (where c.status = 'cancelled'),
           case when p_action is not null then sum(abs(c.change)) end, c.target_app, p_action
      from unnest(p_targets, p_statuses, p_changes) c (target_app, status, change)
     group by c.target_app;
end $$;

-- How many messages of a target have a status, now: what was folded and what was not. Exact in every snapshot; targets
-- whose messages are gone stay, with 0. Deltas are added up before anything else is done with them, in all of these
-- views: where nobody folds there are hundreds of thousands, and each function or comparison more is noticed.
create or replace view integration.current_counters with (security_invoker = true) as
    select c.target_app, c.status, sum(c.messages)::bigint as messages
      from (select k.target_app, k.status, k.messages from integration.counters k
            union all
            select o.target_app, v.status, v.messages
              from (select d.target_app, sum(d.pending) as pending, sum(d.scheduled) as scheduled,
                           sum(d.processing) as processing, sum(d.completed) as completed, sum(d.failed) as failed,
                           sum(d.cancelled) as cancelled
                      from integration.deltas d group by d.target_app) o
             cross join lateral integration.changes_of(
                o.pending, o.scheduled, o.processing, o.completed, o.failed, o.cancelled) v) c
     group by c.target_app, c.status;

-- What the deltas say happened, one row per minute, target and action.
create or replace view integration.open_actions with (security_invoker = true) as
    select o.minute, o.target_app, v.action, v.messages
      from (select integration.minute_of(d.at) as minute, d.target_app, d.action, sum(d.messages) as messages,
                   sum(d.processing) filter (where d.processing > 0) as processing,
                   sum(d.completed) filter (where d.completed > 0) as completed,
                   sum(d.failed) filter (where d.failed > 0) as failed,
                   sum(d.cancelled) filter (where d.cancelled > 0) as cancelled
              from integration.deltas d group by 1, d.target_app, d.action) o
     cross join lateral integration.actions_of(
        o.action, o.messages, o.processing, o.completed, o.failed, o.cancelled) v;

-- How often each action happened to messages of a target since the beginning: published, claimed, completed, failed,
-- cancelled, errored, snoozed, released, rescued, scheduled, promoted, redriven, archived, purged, deleted, truncated,
-- unaudited (of which the audit log does not know, because the database refused to write it); and how claimed messages
-- were found: found_bell, found_drain, found_sweep. Two looks give a rate.
create or replace view integration.current_totals with (security_invoker = true) as
    select t.target_app, t.action, sum(t.messages)::bigint as messages
      from (select k.target_app, k.action, k.messages from integration.totals k
            union all
            select o.target_app, o.action, o.messages from integration.open_actions o) t
     group by t.target_app, t.action;

-- How often each action happened, by the minute, for settings.traffic_retention; several rows for a minute of which
-- not all is folded.
create or replace view integration.current_traffic with (security_invoker = true) as
    select k.minute, k.target_app, k.action, k.messages from integration.traffic k
    union all
    select o.minute, o.target_app, o.action, o.messages from integration.open_actions o;

-- The traffic of the last p_span, of one target or of all. A function, because the planner must know the time to choose
-- the index.
create or replace function integration.recent_traffic(p_span interval, p_target text default null)
    returns table (minute timestamptz, target_app text, action text, messages bigint)
    language plpgsql stable rows 10000 set search_path = pg_catalog, pg_temp set jit = off
        set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
declare
    v_since timestamptz := integration.clock() - p_span;
begin
    return query select t.minute, t.target_app, t.action, t.messages from integration.current_traffic t
        where t.minute > v_since and (p_target is null or t.target_app = p_target);
end $$;

-- The traffic of the last p_span, of one target or of all together: by the minute up to three hours, else by ten
-- minutes. step: which of the two.
create or replace function integration.traffic_of(p_span interval, p_target text default null)
    returns table (at timestamptz, step interval, action text, messages bigint)
    language plpgsql stable rows 1000 set search_path = pg_catalog, pg_temp set jit = off
        set plan_cache_mode = force_custom_plan as $$
declare
    v_since timestamptz := integration.clock() - p_span;
begin
    if p_span <= interval '3 hours' then
        return query select t.minute, interval '1 min', t.action, sum(t.messages)::bigint
            from integration.recent_traffic(p_span, p_target) t group by t.minute, t.action order by 1, 3;
        return;
    end if;
    return query select t.at, interval '10 min', t.action, sum(t.messages)::bigint
        from (select k.at, k.action, k.messages from integration.traffic_tens k
               where k.at > v_since and (p_target is null or k.target_app = p_target)
              union all
              select integration.ten_minutes(o.minute), o.action, o.messages from integration.open_actions o
               where integration.ten_minutes(o.minute) > v_since and (p_target is null or o.target_app = p_target)) t
       group by t.at, t.action order by 1, 3;
end $$;

-- How the messages that a process claimed were found, since it last said so. Targets in the order of the numbers.
create or replace function integration.note_found(p_targets text[], p_bells bigint[], p_drains bigint[],
    p_sweeps bigint[]) returns void
    language sql security definer set search_path = pg_catalog, pg_temp as $$
    select integration.must_consume(p_targets)
     where integration.is_limited();
    insert into integration.deltas (at, messages, target_app, action)
    select integration.clock(), least(v.messages, 10000000), f.target_app, v.action
      from unnest(p_targets, p_bells, p_drains, p_sweeps) f (target_app, bells, drains, sweeps)
     cross join lateral (values ('found_bell', f.bells), ('found_drain', f.drains),
         ('found_sweep', f.sweeps)) v (action, messages)
     where v.messages > 0 and char_length(f.target_app) between 1 and integration.name_chars_max()
$$;
