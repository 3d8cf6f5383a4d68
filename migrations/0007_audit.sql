-- The audit log, written by the statement that makes the transition, with one mechanism for our functions, for plain
-- SQL and for hand edits: statement-level triggers that compare the rows before and after. The level is the trigger's
-- argument: 'all', 'outcomes' (what ended an attempt or a message) or 'off'.

-- AFTER UPDATE, once per statement: audits changes of status and rings for what became due.
-- SECURITY DEFINER so that the audit log needs no grants; session_user and application_name say who it was.
-- Nested loops are off because the plan is cached when the first statement was small: joining 2,000 rows before with
-- 2,000 after row by row made draining six times slower.
create function integration.on_changed() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_nestloop = off as $$
declare
    v_target  text;
    v_pending boolean;
    v_due     timestamptz;
begin
    if tg_argv[0] <> 'off' then
        insert into integration.audit_log
            (staging_id, app_name, action, details, incarnation, source_app, target_app, record_type, attempt, old_status, new_status)
        select c.id, integration.actor(), c.action,
               case when c.action not in ('claimed', 'completed', 'promoted', 'released') then jsonb_strip_nulls(jsonb_build_object(
                   'reason', c.error_message, 'retry_count', nullif(c.retry_count, 0), 'crash_count', nullif(c.crash_count, 0),
                   'redrive_count', nullif(c.redrive_count, 0), 'available_at', c.available_at)) end,
               c.incarnation, c.source_app, c.target_app, c.record_type, c.attempt, c.old_status, c.status
          from (select n.*, o.status as old_status, coalesce(n.claimed_by, o.claimed_by, nullif(current_setting('integration.owner', true), '')) as incarnation,
                       case
                           when n.status = 'processing' then 'claimed'
                           when n.status in ('completed', 'failed', 'cancelled') then n.status
                           when o.status in ('completed', 'failed', 'cancelled') then 'redriven'
                           when o.status = 'scheduled' then 'promoted'
                           when o.status = 'pending' then 'scheduled'
                           when n.crash_count > o.crash_count then 'rescued'
                           when n.retry_count > o.retry_count then 'retried'
                           when n.status = 'scheduled' then 'snoozed'
                           else 'released'
                       end as action
                  from before o join after n on n.id = o.id
                 where n.status <> o.status and (tg_argv[0] = 'all' or n.status <> 'processing')) c
         where tg_argv[0] = 'all' or c.action not in ('promoted', 'scheduled', 'released');
    end if;
    if exists (select from after n where n.status in ('pending', 'scheduled')) then
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

-- AFTER DELETE: maintenance says what it is doing in integration.verb (archived, purged); anything else is a hand.
-- Below level 'all' only what had not been completed is worth a line.
create function integration.on_deleted() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    insert into integration.audit_log
        (staging_id, app_name, action, incarnation, source_app, target_app, record_type, attempt, old_status, new_status)
    select d.id, integration.actor(), coalesce(nullif(current_setting('integration.verb', true), ''), 'deleted'),
           coalesce(d.claimed_by, nullif(current_setting('integration.owner', true), '')),
           d.source_app, d.target_app, d.record_type, d.attempt, d.status,
           case current_setting('integration.verb', true) when 'completed' then 'completed' end
      from deleted d where tg_argv[0] = 'all' or d.status <> 'completed';
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
    drop trigger if exists data_staging_deleted on integration.data_staging;
    if p_level <> 'off' then
        execute format('create trigger data_staging_deleted after delete on integration.data_staging
            referencing old table as deleted
            for each statement execute function integration.on_deleted(%L)', p_level);
    end if;
end $$;
select integration.set_audit_level('outcomes');
