-- How much is written into the audit log: the argument of the triggers that write it, which are made here.

-- Sets the audit level of the installation: 'all', 'outcomes' or 'off'.
-- Locks: SHARE ROW EXCLUSIVE on data_staging for a moment. SQLSTATEs: MQ002 for another level.
create or replace function integration.set_audit_level(p_level text) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if p_level not in ('all', 'outcomes', 'off') then
        raise exception 'unknown audit level "%"', p_level using errcode = 'MQ002', hint = 'use all, outcomes or off';
    end if;
    if p_level <> integration.audit_level() then
        insert into integration.audit_log (app_name, action, details)
        values (integration.actor(), 'audit_level', jsonb_build_object('before', integration.audit_level(),
            'after', p_level));
    end if;
    execute format('create or replace trigger data_staging_changed after update on integration.data_staging
        referencing old table as before new table as after
        for each statement execute function integration.on_changed(%L)', p_level);
    if p_level <> 'all' and exists (select from pg_trigger t where t.tgrelid = to_regclass('integration.data_staging')
                                       and t.tgname = 'data_staging_audit_published') then
        drop trigger data_staging_audit_published on integration.data_staging;
    end if;
    if p_level = 'all' then
        create or replace trigger data_staging_audit_published after insert on integration.data_staging
            referencing new table as published
            for each statement execute function integration.audit_published();
    end if;
    execute format('create or replace trigger data_staging_deleted after delete on integration.data_staging
        referencing old table as deleted
        for each statement execute function integration.on_deleted(%L)', p_level);
    execute format('create or replace trigger data_staging_truncated after truncate on integration.data_staging
        for each statement execute function integration.on_truncated(%L)', p_level);
end $$;

-- The audit level in force; where nothing is audited yet, what a new installation begins with.
create or replace function integration.audit_level() returns text
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce((
        select convert_from(substring(t.tgargs from 1 for length(t.tgargs) - 1), 'UTF8') from pg_trigger t
         where t.tgrelid = to_regclass('integration.data_staging') and t.tgname = 'data_staging_changed'), 'outcomes')
$$;

select integration.set_audit_level(integration.audit_level());
