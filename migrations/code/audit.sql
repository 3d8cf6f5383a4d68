-- Reading the audit log.

-- The life of one message as the audit log has it, oldest first; also after it was archived or deleted.
create or replace function integration.audit(p_id bigint) returns table (
    at timestamptz, action text, app_name text, role_name text, owner text, attempt integer,
    old_status text, new_status text, details jsonb
)
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select a.created_at, a.action, a.app_name, a.role_name, a.owner, a.attempt, a.old_status, a.new_status,
        a.details
      from integration.audit_log a where a.staging_id = p_id order by a.created_at, a.id
$$;

-- For explain: what the audit log says last about a message, since p_since. Nulls: nothing, or it may not be read.
create or replace function integration.last_event(
    p_id bigint, p_since timestamptz,
    out action text, out app_name text, out created_at timestamptz, out old_status text
)
    language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
begin
    if has_table_privilege('integration.audit_log', 'select') then
        select a.action, a.app_name, a.created_at, a.old_status into action, app_name, created_at, old_status
          from integration.audit_log a where a.staging_id = p_id and a.created_at >= p_since
         order by a.created_at desc, a.id desc limit 1;
    end if;
end $$;
