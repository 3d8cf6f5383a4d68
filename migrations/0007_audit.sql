-- The audit log, written by the statement that makes the transition, with one mechanism for our functions, for plain
-- SQL and for hand edits: statement-level triggers that compare the rows before and after. The level is the trigger's
-- argument: 'all', 'outcomes' (what ended an attempt or a message) or 'off'.

-- What a change of status is called; p_crashes and p_retries: by how much the message's counts grew with it.
create function integration.action_of(p_old text, p_new text, p_crashes integer, p_retries integer) returns text
    language sql immutable parallel safe
    return case
        when p_new = 'processing' then 'claimed'
        when p_new in ('completed', 'failed', 'cancelled') then p_new
        when p_old in ('completed', 'failed', 'cancelled') then 'redriven'
        when p_old = 'scheduled' then 'promoted'
        when p_old = 'pending' then 'scheduled'
        when p_crashes > 0 then 'rescued'
        when p_retries > 0 then 'retried'
        when p_new = 'scheduled' then 'snoozed'
        else 'released'
    end;

-- AFTER UPDATE, once per statement: audits changes of status, counts them, and rings for what became due.
-- SECURITY DEFINER so that the audit log needs no grants; session_user and application_name say who it was.
-- Claims and completions change rows that are alike, and are told apart and counted by the cheapest statements there are:
-- one plan with joins and aggregates costs a lone message 60 us more. Everything else takes the long way.
-- Nested loops are off because the plan is cached when the first statement was small: joining 2,000 rows before with
-- 2,000 after row by row made draining six times slower.
create function integration.on_changed() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_nestloop = off as $$
declare
    v_old     text;
    v_new     text;
    v_alike   boolean := false;
    v_target  text;
    v_pending boolean;
    v_due     timestamptz;
    v_waits   boolean;
    v_failed  boolean;
    v_actor   text;
    v_owner   text;
    v_one_owner boolean := false;
begin
    select n.target_app, n.status, (select o.status from before o limit 1) into v_target, v_new, v_old from after n limit 1;
    if v_target is null then
        return null;
    end if;
    if v_new in ('processing', 'completed') and v_old in ('pending', 'processing') then
        v_alike := not exists (select from after n where n.status <> v_new or n.target_app <> v_target);
        if v_alike then
            v_alike := not exists (select from before o where o.status <> v_old or o.target_app <> v_target);
        end if;
    end if;
    if v_alike and v_new = v_old then
        return null;
    end if;
    if v_alike and v_new = 'completed' and tg_argv[0] <> 'off' then
        select count(*) = count(o.claimed_by) and min(o.claimed_by) = max(o.claimed_by) or count(o.claimed_by) = 0, min(o.claimed_by)
          into v_one_owner, v_owner from before o;
    end if;
    if v_one_owner then
        -- What nearly all entries are: no join, and nothing to be worked out for each.
        v_actor := integration.actor();
        v_owner := coalesce(v_owner, nullif(current_setting('integration.owner', true), ''));
        insert into integration.audit_log
            (staging_id, app_name, action, incarnation, source_app, target_app, record_type, attempt, old_status, new_status)
        select n.id, v_actor, 'completed', v_owner, n.source_app, v_target, n.record_type, n.attempt, v_old, 'completed' from after n;
    elsif tg_argv[0] = 'all' or tg_argv[0] = 'outcomes' and not (v_alike and v_new = 'processing') then
        insert into integration.audit_log
            (staging_id, app_name, action, details, incarnation, source_app, target_app, record_type, attempt, old_status, new_status)
        select c.id, integration.actor(), c.action,
               case when c.action not in ('claimed', 'completed', 'promoted', 'released') then jsonb_strip_nulls(jsonb_build_object(
                   'reason', c.error_message, 'retry_count', nullif(c.retry_count, 0), 'crash_count', nullif(c.crash_count, 0),
                   'redrive_count', nullif(c.redrive_count, 0), 'available_at', c.available_at)) end,
               c.incarnation, c.source_app, c.target_app, c.record_type, c.attempt, c.old_status, c.status
          from (select n.*, o.status as old_status, coalesce(n.claimed_by, o.claimed_by, nullif(current_setting('integration.owner', true), '')) as incarnation,
                       integration.action_of(o.status, n.status, n.crash_count - o.crash_count, n.retry_count - o.retry_count) as action
                  from before o join after n on n.id = o.id
                 where n.status <> o.status and (tg_argv[0] = 'all' or n.status <> 'processing')) c
         where tg_argv[0] = 'all' or c.action not in ('promoted', 'scheduled', 'released');
    end if;
    if v_alike then
        insert into integration.deltas (at, pending, processing, completed, target_app)
        select integration.clock(), case v_old when 'pending' then -c.messages end,
               case 'processing' when v_new then c.messages when v_old then -c.messages end,
               case v_new when 'completed' then c.messages end, v_target
          from (select count(*) as messages from after) c;
        return null;
    end if;
    -- How many rows had and have each status: that needs no join of before and after, which costs twice as much.
    with present as materialized (
        select n.target_app, n.status, count(*) as messages from after n group by n.target_app, n.status),
    past as materialized (
        select o.target_app, o.status, -count(*) as messages from before o group by o.target_app, o.status),
    counted as (
        insert into integration.deltas (at, pending, scheduled, processing, completed, failed, cancelled, target_app)
        select integration.clock(),
               sum(c.messages) filter (where c.status = 'pending'), sum(c.messages) filter (where c.status = 'scheduled'),
               sum(c.messages) filter (where c.status = 'processing'), sum(c.messages) filter (where c.status = 'completed'),
               sum(c.messages) filter (where c.status = 'failed'), sum(c.messages) filter (where c.status = 'cancelled'),
               c.target_app
          from (select u.target_app, u.status, sum(u.messages)::integer as messages
                  from (select * from present union all select * from past) u
                 group by u.target_app, u.status having sum(u.messages) <> 0) c
         group by c.target_app)
    select bool_or(s.status in ('pending', 'scheduled') and s.messages > 0), bool_or(s.status = 'failed')
      into v_waits, v_failed
      from (select * from present union all select * from past) s;
    if v_failed then
        insert into integration.deltas (at, created_at, messages, target_app, source_app)
        select integration.clock(), f.created_at, sum(f.messages), f.target_app, f.source_app
          from (select n.source_app, n.target_app, integration.ten_minutes(n.created_at) as created_at, 1 as messages
                  from after n where n.status = 'failed'
                union all
                select o.source_app, o.target_app, integration.ten_minutes(o.created_at), -1
                  from before o where o.status = 'failed') f
         group by f.source_app, f.target_app, f.created_at having sum(f.messages) <> 0;
    end if;
    if v_waits then
        insert into integration.deltas (at, messages, target_app, action)
        select integration.clock(), count(*), c.target_app, c.action
          from (select n.target_app, integration.action_of(o.status, n.status, n.crash_count - o.crash_count, n.retry_count - o.retry_count) as action
                  from before o join after n on n.id = o.id
                 where n.status <> o.status and n.status in ('pending', 'scheduled')) c
         group by c.target_app, c.action;
        for v_target, v_pending, v_due in
            select n.target_app, bool_or(n.status = 'pending'), min(n.available_at) filter (where n.status = 'scheduled')
              from after n left join before o on o.id = n.id
             where n.status in ('pending', 'scheduled')
               and (n.status, n.target_app, n.available_at) is distinct from (o.status, o.target_app, o.available_at)
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
end $$;

-- AFTER INSERT, level 'all' only.
create function integration.audit_published() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    insert into integration.audit_log
        (staging_id, app_name, action, source_app, target_app, record_type, attempt, new_status)
    select p.id, integration.actor(), 'published', p.source_app, p.target_app, p.record_type, p.attempt, p.status
      from published p;
    return null;
end $$;

-- AFTER DELETE, once per statement: counts, and audits. Who deletes for a reason says so in integration.verb (archived,
-- purged, completed); anything else is a hand. Counted as on_changed does, the cheap way where the rows are alike. Below level 'all' only what had not been completed is worth a line.
create function integration.on_deleted() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_verb   text := coalesce(nullif(current_setting('integration.verb', true), ''), 'deleted');
    v_target text;
    v_status text;
    v_alike  boolean := false;
begin
    select d.target_app, d.status into v_target, v_status from deleted d limit 1;
    if v_target is null then
        return null;
    end if;
    if v_status in ('pending', 'processing', 'completed') then
        v_alike := not exists (select from deleted d where d.status <> v_status or d.target_app <> v_target);
    end if;
    if v_alike then
        insert into integration.deltas (at, pending, processing, completed, messages, target_app, action)
        select integration.clock(), case v_status when 'pending' then -c.messages end,
               case v_status when 'processing' then -c.messages end, case v_status when 'completed' then -c.messages end,
               c.messages, v_target, v_verb
          from (select count(*) as messages from deleted) c;
    else
        insert into integration.deltas (at, pending, scheduled, processing, completed, failed, cancelled, messages, target_app, action)
        select integration.clock(),
               -sum(g.messages) filter (where g.status = 'pending'), -sum(g.messages) filter (where g.status = 'scheduled'),
               -sum(g.messages) filter (where g.status = 'processing'), -sum(g.messages) filter (where g.status = 'completed'),
               -sum(g.messages) filter (where g.status = 'failed'), -sum(g.messages) filter (where g.status = 'cancelled'),
               sum(g.messages), g.target_app, v_verb
          from (select d.target_app, d.status, count(*) as messages from deleted d group by d.target_app, d.status) g
         group by g.target_app;
    end if;
    if tg_argv[0] <> 'off' then
        insert into integration.audit_log
            (staging_id, app_name, action, incarnation, source_app, target_app, record_type, attempt, old_status, new_status)
        select d.id, integration.actor(), v_verb, coalesce(d.claimed_by, nullif(current_setting('integration.owner', true), '')),
               d.source_app, d.target_app, d.record_type, d.attempt, d.status, case v_verb when 'completed' then v_verb end
          from deleted d where tg_argv[0] = 'all' or d.status <> 'completed';
    end if;
    return null;
end $$;

-- AFTER TRUNCATE: there is nothing left of what was counted. The statement holds the table exclusively, so every delta of
-- other transactions is committed; one whose snapshot is older (REPEATABLE READ) cannot see them all and is refused.
-- SQLSTATEs: 0A000 in another isolation level than READ COMMITTED.
create function integration.on_truncated() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'data_staging can only be truncated in a READ COMMITTED transaction: the counters would be wrong'
            using errcode = 'feature_not_supported', hint = 'use READ COMMITTED, or DELETE';
    end if;
    if tg_argv[0] <> 'off' then
        insert into integration.audit_log (app_name, action, target_app, details)
        select integration.actor(), 'truncated', c.target_app, jsonb_object_agg(c.status, c.messages)
          from integration.current_counters c where c.messages <> 0 group by c.target_app;
    end if;
    insert into integration.deltas (at, pending, scheduled, processing, completed, failed, cancelled, messages, target_app, action)
    select integration.clock(),
           -sum(c.messages) filter (where c.status = 'pending'), -sum(c.messages) filter (where c.status = 'scheduled'),
           -sum(c.messages) filter (where c.status = 'processing'), -sum(c.messages) filter (where c.status = 'completed'),
           -sum(c.messages) filter (where c.status = 'failed'), -sum(c.messages) filter (where c.status = 'cancelled'),
           sum(c.messages), c.target_app, 'truncated'
      from integration.current_counters c where c.messages <> 0 group by c.target_app;
    return null;
end $$;

-- Who acts: the session's application_name, else its role.
create function integration.actor() returns text
    language sql stable
    return left(coalesce(nullif(current_setting('application_name'), ''), session_user), 50);

-- Sets the audit level of the installation: 'all', 'outcomes' or 'off'.
-- Locks: SHARE ROW EXCLUSIVE on data_staging for a moment. SQLSTATEs: MQ002 for another level.
create function integration.set_audit_level(p_level text) returns void
    language plpgsql as $$
begin
    if p_level not in ('all', 'outcomes', 'off') then
        raise exception 'unknown audit level "%"', p_level using errcode = 'MQ002', hint = 'use all, outcomes or off';
    end if;
    execute format('create or replace trigger data_staging_changed after update on integration.data_staging
        referencing old table as before new table as after
        for each statement execute function integration.on_changed(%L)', p_level);
    drop trigger if exists data_staging_audit_published on integration.data_staging;
    if p_level = 'all' then
        create trigger data_staging_audit_published after insert on integration.data_staging
            referencing new table as published
            for each statement execute function integration.audit_published();
    end if;
    execute format('create or replace trigger data_staging_deleted after delete on integration.data_staging
        referencing old table as deleted
        for each statement execute function integration.on_deleted(%L)', p_level);
    execute format('create or replace trigger data_staging_truncated after truncate on integration.data_staging
        for each statement execute function integration.on_truncated(%L)', p_level);
end $$;
select integration.set_audit_level('outcomes');
