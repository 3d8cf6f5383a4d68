-- The audit log, written by the statement that makes the transition, with one mechanism for our functions, for plain
-- SQL and for hand edits: statement-level triggers that compare the rows before and after. The level is the trigger's
-- argument: 'all', 'outcomes' (what ended an attempt or a message) or 'off'.

-- AFTER UPDATE, once per statement: has edits by hand looked at, audits changes of status, counts them, and rings for
-- what became due.
-- SECURITY DEFINER so that the audit log needs no grants; session_user and application_name say who it was.
-- Claims and completions change rows that are alike, and are told apart and counted by the cheapest statements there
-- are: one plan with joins and aggregates costs a lone message 60 us more. Everything else takes the long way. Nested
-- loops are off because the plan is cached when the first statement was small: joining 2,000 rows before with 2,000
-- after row by row made draining six times slower.
create or replace function integration.on_changed() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_nestloop = off
        as $$
declare
    v_id      bigint;
    v_old     text;
    v_new     text;
    v_target  text;
    v_source  text;
    v_type    text;
    v_owner   text;
    v_before  integer;
    v_attempt integer;
    v_keyed   boolean;
    v_by_verb boolean;
    v_many    boolean;
begin
    if tg_relid <> 'integration.data_staging'::regclass then
        raise insufficient_privilege using message = 'this trigger belongs to integration.data_staging';
    end if;
    -- As in on_published, statements, conditions and variables are what a lone message pays for: it is told from
    -- everything else by one of each.
    select n.id, n.target_app, n.source_app, n.record_type, n.status, o.status, o.attempt, n.attempt, o.owner,
           exists (select from after offset 1), n.ordering_key is not null and n.status <> 'processing',
           (o.owner is not null) = (o.status = 'processing') and integration.is_of_verb(n.status = 'completed',
               o.attempt + (n.status = 'completed' and o.status = 'pending')::integer, n.attempt, n.retry_count,
               n.owner, n.available_at, n.lease_until, n.processed_at)
      into v_id, v_target, v_source, v_type, v_new, v_old, v_before, v_attempt, v_owner, v_many, v_keyed, v_by_verb
      from after n cross join before o limit 1;
    if v_by_verb and not (v_many or v_keyed)
        and (v_old = 'pending' or v_old = 'processing' and v_new = 'completed')
        and (v_new = 'completed' and tg_argv[0] <> 'off' or v_new = 'processing' and tg_argv[0] = 'outcomes')
        and current_setting('integration.history', true) is distinct from 'refused' then
        if v_new = 'completed' then
            insert into integration.audit_log
                (staging_id, app_name, action, owner, source_app, target_app, record_type, attempt, old_status,
                    new_status)
            values (v_id, integration.actor(), 'completed',
                    coalesce(v_owner, nullif(current_setting('integration.owner', true), '')), v_source, v_target,
                    v_type, v_attempt, v_old, 'completed');
        end if;
        insert into integration.deltas (at, pending, processing, completed, target_app)
        values (integration.clock(), case v_old when 'pending' then -1 end,
                case 'processing' when v_new then 1 when v_old then -1 end, case v_new when 'completed' then 1 end,
                v_target);
        return null;
    end if;
    -- Everything else.
    declare
        v_alike   boolean := false;
        v_targets text[];
        v_statuses text[];
        v_changes bigint[];
        v_pending boolean;
        v_due     timestamptz;
        v_waits   boolean;
        v_failed  boolean;
        v_actor   text;
        v_role    text;
        v_now     timestamptz;
        v_least   integer;
        v_owned   boolean;
        v_ended   boolean;
        v_messages bigint := 1;
        v_stack   text;
        v_hand    boolean := false;
        v_level   text := tg_argv[0];
    begin
        if v_target is null then
            return null;
        end if;
        if v_new in ('processing', 'completed') and v_old in ('pending', 'processing') and v_new <> v_old then
            v_owned := v_old = 'processing';
            v_ended := v_new = 'completed';
            if v_many then
                -- What ends after it was only held ends under a new attempt.
                v_least := v_before + (v_ended and not v_owned)::integer;
                select count(*), v_ended and bool_or(n.ordering_key is not null),
                       bool_and(n.status = v_new and n.target_app = v_target and integration.is_of_verb(v_ended,
                           v_least, n.attempt, n.retry_count, n.owner, n.available_at, n.lease_until, n.processed_at))
                  into v_messages, v_keyed, v_by_verb from after n;
                if v_by_verb then
                    v_by_verb := not exists (
                        select from before o
                         where o.status <> v_old or o.target_app <> v_target or o.attempt <> v_before
                            or o.owner is distinct from v_owner or (o.owner is not null) <> v_owned);
                end if;
            end if;
            v_alike := v_by_verb;
        elsif v_new in ('pending', 'scheduled') and v_old in ('pending', 'scheduled') then
            get diagnostics v_stack = pg_context;
            if integration.is_of_keys(v_stack) and not exists (
                select from after n where n.status not in ('pending', 'scheduled')) and not exists (
                select from before o where o.status not in ('pending', 'scheduled')) then
                -- Nothing has happened to these messages that anybody wants to read of.
                perform integration.note_changes(array_agg(c.target_app), array_agg(c.status), array_agg(c.change))
                   from (select u.target_app, u.status, sum(u.messages)::bigint as change
                           from (select n.target_app, n.status, 1 as messages from after n
                                 union all select o.target_app, o.status, -1 from before o) u
                          group by u.target_app, u.status having sum(u.messages) <> 0) c;
                return null;
            end if;
            v_by_verb := false;
        else
            v_by_verb := false;
        end if;
        if not v_by_verb then
            v_keyed := exists (select from after n where n.ordering_key is not null and n.status <> 'processing');
            -- What stands behind others of its key is pending but for that, and who says so has it look for its place
            -- anew.
            perform integration.guard_hand_edit(n.id,
                        case when o.behind_at is null or n.status = 'pending' then o.status else 'pending' end,
                        n.status, n.owner, o.attempt, n.attempt, o.retry_count,
                        n.retry_count, n.available_at, n.processed_at, n.requeued_at is distinct from o.requeued_at,
                        o.updated_at, n.updated_at, n.ordering_key is not null)
               from after n left join before o on o.id = n.id
              where o.id is null or integration.is_hand_edit(
                        case when o.behind_at is null or n.status = 'pending' then o.status else 'pending' end,
                        n.status, o.owner, n.owner, o.attempt, n.attempt, n.retry_count, n.available_at, n.processed_at,
                        n.lease_until, n.requeued_at is distinct from o.requeued_at);
            v_alike := v_new in ('processing', 'completed') and v_old in ('pending', 'processing')
                and not exists (select from after n where n.status <> v_new or n.target_app <> v_target)
                and not exists (select from before o where o.status <> v_old or o.target_app <> v_target);
        end if;
        if v_keyed then
            perform integration.step_forward(array_agg(k.target_app), array_agg(k.ordering_key), array_agg(k.id))
               from (select n.target_app, n.ordering_key, min(n.id) as id from after n
                      where n.ordering_key is not null and n.status <> 'processing'
                      group by n.target_app, n.ordering_key) k;
        end if;
        if integration.is_unwritable() then
            perform integration.note_unaudited(array_agg(n.target_app)) from after n;
            v_level := 'off';
        end if;
        -- Claims and completions are not asked who makes them: they are written by level, whoever it is.
        if v_level <> 'off' and (not v_alike or v_new = v_old) then
            get diagnostics v_stack = pg_context;
            v_hand := not integration.is_ours(v_stack);
        end if;
        if v_hand and exists (select from before o join after n on n.id = o.id where o.status = n.status) then
            perform integration.audit_edits(array_agg(to_jsonb(o.*)), array_agg(to_jsonb(n.*)))
               from before o join after n on n.id = o.id where o.status = n.status;
        end if;
        if v_alike and v_new = v_old then
            return null;
        end if;
        if v_by_verb and v_ended and v_level <> 'off' then
            -- What nearly all entries are: one owner, no join, and nothing to be worked out for each.
            v_actor := integration.actor();
            v_role := integration.role_name();
            v_now := integration.clock();
            v_owner := coalesce(v_owner, nullif(current_setting('integration.owner', true), ''));
            insert into integration.audit_log
                (staging_id, app_name, action, owner, source_app, target_app, record_type, attempt, old_status,
                    new_status, role_name, created_at)
            select n.id, v_actor, 'completed', v_owner, n.source_app, v_target, n.record_type, n.attempt, v_old,
                   'completed', v_role, v_now
              from after n;
        elsif v_level = 'all' or v_level = 'outcomes' and not (v_alike and v_new = 'processing') then
            insert into integration.audit_log
                (staging_id, app_name, action, details, owner, source_app, target_app, record_type, attempt,
                    old_status, new_status)
            select c.id, integration.actor(), c.action,
                   case when c.action not in ('claimed', 'completed', 'promoted', 'released') or v_hand
                       then jsonb_strip_nulls(jsonb_build_object(
                       'reason', c.error_message, 'retry_count', nullif(c.retry_count, 0), 'crash_count',
                           nullif(c.crash_count, 0),
                       'redrive_count', nullif(c.redrive_count, 0), 'available_at', c.available_at)) end,
                   c.held_by, c.source_app, c.target_app, c.record_type, c.attempt, c.old_status, c.status
              from (select n.*, o.status as old_status, o.available_at as was_due, o.owner as was_owner,
                           coalesce(n.owner, o.owner, nullif(current_setting('integration.owner', true), ''))
                               as held_by,
                           case when n.status = 'cancelled' and n.error_message = integration.expiry_reason()
                                then 'expired'
                                else integration.action_of(o.status, n.status, n.crash_count - o.crash_count,
                                    n.retry_count - o.retry_count) end as action
                      from before o join after n on n.id = o.id
                     where n.status <> o.status and (v_level = 'all' or n.status <> 'processing')) c
             where v_level = 'all' or v_hand or c.action not in ('promoted', 'scheduled', 'released')
                -- What somebody did with retry: before its time had come.
                or c.action = 'promoted' and c.was_due > integration.clock();
        end if;
        if v_alike then
            insert into integration.deltas (at, pending, processing, completed, target_app)
            values (integration.clock(), case v_old when 'pending' then -v_messages end,
                    case 'processing' when v_new then v_messages when v_old then -v_messages end,
                    case v_new when 'completed' then v_messages end, v_target);
            return null;
        end if;
        -- How many rows had and have each status: that needs no join of before and after, which costs twice as much.
        select array_agg(c.target_app) filter (where c.change <> 0), array_agg(c.status) filter (where c.change <> 0),
               array_agg(c.change) filter (where c.change <> 0),
               bool_or(c.present and c.status in ('pending', 'scheduled')), bool_or(c.status = 'failed')
          into v_targets, v_statuses, v_changes, v_waits, v_failed
          from (select u.target_app, u.status, sum(u.messages)::bigint as change, bool_or(u.messages > 0) as present
                  from (select n.target_app, n.status, count(*) as messages from after n group by n.target_app, n.status
                        union all
                        select o.target_app, o.status, -count(*) from before o group by o.target_app, o.status) u
                 group by u.target_app, u.status) c;
        if v_targets is not null then
            perform integration.note_changes(v_targets, v_statuses, v_changes);
        end if;
        if v_failed then
            insert into integration.deltas (at, created_at, messages, target_app, source_app)
            select integration.clock(), f.created_at, sum(f.messages), f.target_app, f.source_app
              from (select n.source_app, n.target_app, integration.ten_minutes(n.created_at) as created_at,
                           1 as messages
                      from after n where n.status = 'failed'
                    union all
                    select o.source_app, o.target_app, integration.ten_minutes(o.created_at), -1
                      from before o where o.status = 'failed') f
             group by f.source_app, f.target_app, f.created_at having sum(f.messages) <> 0;
        end if;
        if v_failed or 'cancelled' = any (v_statuses) then
            perform integration.ring_requester(n.headers ->> 'reply_to') from after n
              where n.status in ('failed', 'cancelled') and n.headers ->> 'reply_to' is not null;
        end if;
        if v_waits then
            insert into integration.deltas (at, messages, target_app, action)
            select integration.clock(), count(*), c.target_app, c.action
              from (select n.target_app, integration.action_of(o.status, n.status, n.crash_count - o.crash_count,
                  n.retry_count - o.retry_count) as action
                      from before o join after n on n.id = o.id
                     where n.status <> o.status and n.status in ('pending', 'scheduled')) c
             group by c.target_app, c.action;
            for v_target, v_pending, v_due in
                select n.target_app, bool_or(n.status = 'pending'),
                    min(n.available_at) filter (where n.status = 'scheduled')
                  from after n left join before o on o.id = n.id
                 where n.status in ('pending', 'scheduled')
                   and (n.status, n.target_app, n.available_at)
                       is distinct from (o.status, o.target_app, o.available_at)
                 group by n.target_app
            loop
                if v_pending then
                    perform integration.ring(v_target);
                end if;
                if v_due is not null then
                    perform integration.ring_due(v_target, v_due);
                end if;
            end loop;
        end if;
        return null;
    end;
end $$;

-- Whether a claim or a completion has left a row like this: p_ended tells which; p_least: the attempt it has at least.
-- One expression, to be inlined.
create or replace function integration.is_of_verb(
    p_ended boolean, p_least integer, p_attempt integer, p_retry_count integer, p_owner text,
    p_available_at timestamptz, p_lease_until timestamptz, p_processed_at timestamptz
) returns boolean
    language sql immutable parallel safe as $$
    select p_attempt >= p_least and p_retry_count >= 0 and (p_owner is null) = p_ended and p_available_at is null
       and (not p_ended or p_lease_until is null and p_processed_at is not null)
$$;

-- Whether history of this change cannot be written: said by in_parts and settle_in_parts, for one message after it was
-- refused for that alone. Anybody can set what it is said with; these two nobody can call but our verbs.
create or replace function integration.is_unwritable() returns boolean
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    v_stack text;
begin
    if coalesce(current_setting('integration.history', true), '') <> 'refused' then
        return false;
    end if;
    get diagnostics v_stack = pg_context;
    return integration.is_ours(v_stack) and integration.is_within(v_stack, 'in_parts|settle_in_parts');
end $$;

-- Whether an error came from writing history: what people have put on the audit log, a check or a trigger, refuses it.
create or replace function integration.is_of_history(p_context text) returns boolean
    language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
    select p_context like '%"insert into integration.audit_log%'
$$;

-- Counts changes that are not in the audit log, one per message; the doctor says so. What holds messages would run
-- their handlers for nothing, so these are leased for a while.
create or replace function integration.note_unaudited(p_targets text[]) returns void
    language sql set search_path = pg_catalog, pg_temp as $$
    insert into integration.deltas (at, messages, target_app, action)
    select integration.clock(), count(*), t.target_app, 'unaudited' from unnest(p_targets) t (target_app)
     group by t.target_app;
    select integration.insist_on_leases(array_agg(jsonb_build_object(t.target_app, '{"holds": true}'::jsonb)))
      from (select distinct u.target_app from unnest(p_targets) u (target_app)) t
$$;

-- Whether a change was made by a claim, a settle or the upkeep, and not by people: told by the functions in whose
-- middle it happens. What operators call is people's; what completes an edit by hand is not told again.
create or replace function integration.is_ours(p_stack text) returns boolean
    language sql immutable parallel safe as $$
    select integration.is_within(p_stack, 'guard_hand_edit')
        or not integration.is_within(p_stack, 'operate_on') and integration.is_within(p_stack,
            'in_parts|settle|claim|complete_many|complete_out|extend|keep_contact')
$$;

-- Whether messages are made to stand behind others of their key, or to step forward: nothing but when they may be
-- claimed; or replaced while they wait, which on_rewritten writes down and replace_waiting counts and rings for.
create or replace function integration.is_of_keys(p_stack text) returns boolean
    language sql immutable parallel safe as $$
    select integration.is_within(p_stack, 'stand_behind|step_forward|replace_waiting')
$$;

-- Writes down edits by hand that change no status: which columns, with what stood there and stands there now. What a
-- message says and between whom is written by on_rewritten.
create or replace function integration.audit_edits(p_before jsonb[], p_after jsonb[]) returns void
    language sql set search_path = pg_catalog, pg_temp as $$
    insert into integration.audit_log
        (staging_id, app_name, action, details, owner, source_app, target_app, record_type, attempt, old_status,
            new_status)
    select (r.n ->> 'id')::bigint, integration.actor(), 'edited', c.changed, r.n ->> 'owner', r.n ->> 'source_app',
           r.n ->> 'target_app', r.n ->> 'record_type', (r.n ->> 'attempt')::integer, r.o ->> 'status',
           r.n ->> 'status'
      from unnest(p_before, p_after) r (o, n)
     cross join lateral (select integration.changed_columns(r.o, r.n,
        '{data, headers, source_app, target_app, record_type, status, updated_at, requeued_at, behind_at,
        series}') as changed) c
     where c.changed is not null
$$;

-- Which columns differ between two rows but for some, and their values; long ones are cut. Null: none does.
create or replace function integration.changed_columns(p_before jsonb, p_after jsonb, p_but text[]) returns jsonb
    language sql immutable set search_path = pg_catalog, pg_temp as $$
    select jsonb_build_object('columns', jsonb_agg(k.key order by k.key),
                              'before', jsonb_object_agg(k.key, left(p_before ->> k.key, 200)),
                              'after', jsonb_object_agg(k.key, left(p_after ->> k.key, 200)))
      from (select jsonb_object_keys(p_before || p_after) as key) k
     where k.key <> all (p_but) and p_before -> k.key is distinct from p_after -> k.key
    having count(*) > 0
$$;

-- What a change of status is called; p_crashes and p_retries: by how much the message's counts grew with it.
create or replace function integration.action_of(p_old text, p_new text, p_crashes integer, p_retries integer)
    returns text
    language sql immutable parallel safe as $$
    select case
        when p_new = 'processing' then 'claimed'
        when p_new in ('completed', 'failed', 'cancelled') then p_new
        when p_old in ('completed', 'failed', 'cancelled') then 'redriven'
        when p_old = 'scheduled' then 'promoted'
        when p_old = 'pending' then 'scheduled'
        when p_crashes > 0 then 'rescued'
        when p_retries > 0 then 'errored'
        when p_new = 'scheduled' then 'snoozed'
        else 'released'
    end
$$;
