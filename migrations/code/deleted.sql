-- Counting and auditing what leaves the table.

-- AFTER DELETE, once per statement: counts, and audits. Who deletes for a reason says so in integration.verb (archived,
-- purged, completed); anything else is a hand. Counted as on_changed does, the cheap way where the rows are alike.
-- Below level 'all' only what had not been completed, or was deleted by a hand, is worth a line.
create or replace function integration.on_deleted() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_verb   text := coalesce(nullif(current_setting('integration.verb', true), ''), 'deleted');
    v_target text;
    v_status text;
    v_alike  boolean := false;
    v_stack  text;
    v_level  text := tg_argv[0];
begin
    if tg_relid <> 'integration.data_staging'::regclass then
        raise insufficient_privilege using message = 'this trigger belongs to integration.data_staging';
    end if;
    select d.target_app, d.status into v_target, v_status from deleted d limit 1;
    if v_target is null then
        return null;
    end if;
    if v_verb <> 'deleted' then
        -- Anybody can set what the verb is read from.
        get diagnostics v_stack = pg_context;
        v_verb := case when integration.is_ours(v_stack) then v_verb else 'deleted' end;
    end if;
    if v_status in ('pending', 'processing', 'completed') then
        v_alike := not exists (select from deleted d where d.status <> v_status or d.target_app <> v_target);
    end if;
    if v_alike then
        insert into integration.deltas (at, pending, processing, completed, messages, target_app, action)
        select integration.clock(), case v_status when 'pending' then -c.messages end,
               case v_status when 'processing' then -c.messages end,
               case v_status when 'completed' then -c.messages end, c.messages, v_target, v_verb
          from (select count(*) as messages from deleted) c;
    else
        perform integration.note_changes(
                    array_agg(g.target_app), array_agg(g.status), array_agg(-g.messages), v_verb)
           from (select d.target_app, d.status, count(*) as messages from deleted d group by d.target_app, d.status) g;
    end if;
    if exists (select from deleted d where d.ordering_key is not null) then
        perform integration.step_forward(array_agg(k.target_app), array_agg(k.ordering_key), array_agg(k.id))
           from (select d.target_app, d.ordering_key, min(d.id) as id from deleted d
                  where d.ordering_key is not null group by d.target_app, d.ordering_key) k;
    end if;
    if exists (select from integration.steps) then
        delete from integration.steps s using deleted d where s.id = d.id and s.created_at = d.created_at;
    end if;
    if integration.is_unwritable() then
        perform integration.note_unaudited(array_agg(d.target_app)) from deleted d;
        v_level := 'off';
    end if;
    if v_level <> 'off' then
        insert into integration.audit_log
            (staging_id, app_name, action, owner, source_app, target_app, record_type, attempt, old_status,
                new_status)
        select d.id, integration.actor(), v_verb, coalesce(d.owner,
            nullif(current_setting('integration.owner', true), '')),
               d.source_app, d.target_app, d.record_type, d.attempt, d.status, case v_verb when 'completed'
                   then v_verb end
          from deleted d where v_level = 'all' or d.status <> 'completed' or v_verb = 'deleted';
    end if;
    return null;
end $$;

-- AFTER TRUNCATE: there is nothing left of what was counted. The statement holds the table exclusively, so every delta
-- of other transactions is committed; one whose snapshot is older (REPEATABLE READ) cannot see them all and is refused.
-- SQLSTATEs: 0A000 in another isolation level than READ COMMITTED.
create or replace function integration.on_truncated() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if tg_relid <> 'integration.data_staging'::regclass then
        raise insufficient_privilege using message = 'this trigger belongs to integration.data_staging';
    end if;
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'data_staging can only be truncated in a READ COMMITTED transaction'
            using errcode = 'feature_not_supported', detail = 'the counters would be wrong',
                hint = 'use READ COMMITTED, or DELETE';
    end if;
    if tg_argv[0] <> 'off' then
        insert into integration.audit_log (app_name, action, target_app, details)
        select integration.actor(), 'truncated', c.target_app, jsonb_object_agg(c.status, c.messages)
          from integration.current_counters c where c.messages <> 0 group by c.target_app;
    end if;
    delete from integration.steps;
    perform integration.note_changes(
                array_agg(c.target_app), array_agg(c.status), array_agg(-c.messages), 'truncated')
       from integration.current_counters c where c.messages <> 0;
    return null;
end $$;
