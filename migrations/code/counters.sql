-- Counters: what was folded and what was not, exact in every snapshot.

-- How many messages of a target have a status, now: what was folded and what was not. Exact in every snapshot; targets
-- whose messages are gone stay, with 0.
create or replace view integration.current_counters with (security_invoker = true) as
    select c.target_app, c.status, sum(c.messages)::bigint as messages
      from (select k.target_app, k.status, k.messages from integration.counters k
            union all
            select d.target_app, v.status, v.messages
              from integration.deltas d
             cross join lateral (values ('pending', d.pending), ('scheduled', d.scheduled),
                 ('processing', d.processing),
                                        ('completed', d.completed), ('failed', d.failed),
                                            ('cancelled', d.cancelled)) v (status, messages)
             where v.messages is not null) c
     group by c.target_app, c.status;

-- What the deltas say happened, one row per action. Statements that change as many messages one way as the other
-- (by hand) are not seen as actions.
create or replace view integration.open_actions with (security_invoker = true) as
    select d.at, d.target_app, v.action, v.messages::bigint as messages
      from integration.deltas d
     cross join lateral (values (d.action, d.messages),
                                ('claimed', case when d.action is null then d.processing end),
                                ('completed', case when d.action is null then d.completed end),
                                ('failed', case when d.action is null then d.failed end),
                                ('cancelled', case when d.action is null then d.cancelled end)) v (action, messages)
     where v.action is not null and v.messages > 0;

-- How often each action happened to messages of a target since the beginning: published, claimed, completed, failed,
-- cancelled, errored, snoozed, released, rescued, scheduled, promoted, redriven, archived, purged, deleted, truncated;
-- and how claimed messages were found: found_bell, found_drain, found_sweep. Two looks give a rate.
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
    insert into integration.deltas (at, messages, target_app, action)
    select integration.clock(), least(v.messages, 10000000), f.target_app, v.action
      from unnest(p_targets, p_bells, p_drains, p_sweeps) f (target_app, bells, drains, sweeps)
     cross join lateral (values ('found_bell', f.bells), ('found_drain', f.drains),
         ('found_sweep', f.sweeps)) v (action, messages)
     where v.messages > 0 and char_length(f.target_app) between 1 and 50
$$;
