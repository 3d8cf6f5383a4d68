-- Counters: what was folded and what was not, exact in every snapshot. What a delta means is said here and nowhere
-- else.

-- By how many messages of each status a delta changes a target, given its columns.
create or replace function integration.changes_of(
    p_pending integer, p_scheduled integer, p_processing integer, p_completed integer, p_failed integer,
    p_cancelled integer
) returns table (status text, messages integer)
    language sql immutable parallel safe as $$
    select v.status, v.messages
      from (values ('pending', p_pending), ('scheduled', p_scheduled), ('processing', p_processing),
                   ('completed', p_completed), ('failed', p_failed), ('cancelled', p_cancelled)) v (status, messages)
     where v.messages is not null
$$;

-- What a delta says happened, and how often. Statements that change as many messages one way as the other (by hand) are
-- not seen as actions.
create or replace function integration.actions_of(
    p_action text, p_messages integer, p_processing integer, p_completed integer, p_failed integer, p_cancelled integer
) returns table (action text, messages integer)
    language sql immutable parallel safe as $$
    select v.action, v.messages
      from (values (p_action, p_messages),
                   ('claimed', case when p_action is null then p_processing end),
                   ('completed', case when p_action is null then p_completed end),
                   ('failed', case when p_action is null then p_failed end),
                   ('cancelled', case when p_action is null then p_cancelled end)) v (action, messages)
     where v.action is not null and v.messages operator(pg_catalog.>) 0
$$;

-- What a delta with a source says of error rates: how many messages were published, and how many more are failed.
create or replace function integration.outcomes_of(p_action text, p_messages integer, p_failed integer)
    returns table (published integer, failed integer)
    language sql immutable parallel safe as $$
    select case when p_action operator(pg_catalog.=) 'published' then p_messages else 0 end,
           case when p_action is null then p_messages else coalesce(p_failed, 0) end
$$;

-- Writes down by how many messages of each status targets changed, and what is called so (null: what the statuses say);
-- with the sources and the ten minutes of their creation where messages were published. For statements whose rows
-- differ: the triggers count rows that are alike in the cheapest way there is, by themselves.
create or replace function integration.note_changes(
    p_targets text[], p_statuses text[], p_changes bigint[], p_action text default null,
    p_sources text[] default null, p_created timestamptz[] default null
) returns void
    language sql set search_path = pg_catalog, pg_temp as $$
    insert into integration.deltas (at, created_at, pending, scheduled, processing, completed, failed, cancelled,
                                    messages, target_app, action, source_app)
    select integration.clock(), c.created_at,
           sum(c.change) filter (where c.status = 'pending'), sum(c.change) filter (where c.status = 'scheduled'),
           sum(c.change) filter (where c.status = 'processing'), sum(c.change) filter (where c.status = 'completed'),
           sum(c.change) filter (where c.status = 'failed'), sum(c.change) filter (where c.status = 'cancelled'),
           case when p_action is not null then sum(abs(c.change)) end, c.target_app, p_action, c.source_app
      from unnest(p_targets, p_statuses, p_changes, p_sources, p_created) c
           (target_app, status, change, source_app, created_at)
     group by c.target_app, c.source_app, c.created_at
$$;

-- How many messages of a target have a status, now: what was folded and what was not. Exact in every snapshot; targets
-- whose messages are gone stay, with 0.
create or replace view integration.current_counters with (security_invoker = true) as
    select c.target_app, c.status, sum(c.messages)::bigint as messages
      from (select k.target_app, k.status, k.messages from integration.counters k
            union all
            select d.target_app, v.status, v.messages
              from integration.deltas d
             cross join lateral integration.changes_of(
                d.pending, d.scheduled, d.processing, d.completed, d.failed, d.cancelled) v) c
     group by c.target_app, c.status;

-- What the deltas say happened, one row per action.
create or replace view integration.open_actions with (security_invoker = true) as
    select d.at, d.target_app, v.action, v.messages::bigint as messages
      from integration.deltas d
     cross join lateral integration.actions_of(
        d.action, d.messages, d.processing, d.completed, d.failed, d.cancelled) v;

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

-- The same by the minute, for settings.traffic_retention; several rows for a minute of which not all is folded.
create or replace view integration.current_traffic with (security_invoker = true) as
    select k.minute, k.target_app, k.action, k.messages from integration.traffic k
    union all
    select date_trunc('minute', o.at), o.target_app, o.action, o.messages from integration.open_actions o;

-- The traffic of the last p_span. A function, because the planner must know the time to choose the index.
create or replace function integration.recent_traffic(p_span interval)
    returns table (minute timestamptz, target_app text, action text, messages bigint)
    language plpgsql stable rows 10000 set search_path = pg_catalog, pg_temp set jit = off as $$
#variable_conflict use_column
declare
    v_since timestamptz := integration.clock() - p_span;
begin
    return query select t.minute, t.target_app, t.action, t.messages from integration.current_traffic t
        where t.minute > v_since;
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
