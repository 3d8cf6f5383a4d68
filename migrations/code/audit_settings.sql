-- Auditing what people set: the installation's settings, those of targets, and policies of retries.

-- AFTER INSERT, UPDATE and DELETE of a row of settings, targets or retry_policies, at any level but off: which columns,
-- with what stood there and stands there now. Pausing says so by itself, leases_until is the upkeep's, has_topics
-- comes with subscriptions, and has_bells with a bell.
create or replace function integration.on_settings() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp set intervalstyle = postgres
        set timezone = 'UTC' as $$
declare
    -- A target without a row has these.
    v_before  jsonb := case tg_table_name when 'targets' then integration.usual_settings() else '{}' end;
    v_after   jsonb := '{}';
    v_changed jsonb;
begin
    if tg_relid <> all (array['integration.settings'::regclass, 'integration.targets'::regclass,
                              'integration.retry_policies'::regclass]) then
        raise insufficient_privilege using message = 'this trigger belongs to the tables of settings';
    end if;
    if integration.audit_level() = 'off' then
        return null;
    end if;
    if tg_op <> 'INSERT' then
        v_before := to_jsonb(old);
    end if;
    if tg_op <> 'DELETE' then
        v_after := to_jsonb(new);
    end if;
    v_changed := integration.changed_columns(jsonb_strip_nulls(v_before), jsonb_strip_nulls(v_after),
        '{target_app, record_type, only_row, paused_at, paused_by, pause_reason, paused_until, leases_until,
        has_topics, has_bells, has_contracts}');
    if v_changed is not null or tg_op = 'DELETE' then
        insert into integration.audit_log (app_name, action, target_app, record_type, details)
        values (integration.actor(), case tg_op when 'DELETE' then 'unset' else 'set' end,
            coalesce(v_after ->> 'target_app', v_before ->> 'target_app'),
            coalesce(v_after ->> 'record_type', v_before ->> 'record_type'),
            coalesce(v_changed, '{}') || jsonb_build_object('table', tg_table_name));
    end if;
    return null;
end $$;

create or replace trigger settings_set after update or delete on integration.settings
    for each row execute function integration.on_settings();

create or replace trigger targets_set after insert or update or delete on integration.targets
    for each row execute function integration.on_settings();

create or replace trigger retry_policies_set after insert or update or delete on integration.retry_policies
    for each row execute function integration.on_settings();
