-- Row level security, for roles of one application that consume in SQL of their own. Off unless it was switched on.

-- p_on: roles that may consume for some applications only may SELECT the messages of these, and UPDATE what a consumer
-- has to, in plain SQL. All others see what they saw. The price: COPY into data_staging is refused to all roles but the
-- owner of the schema and those with BYPASSRLS (our programs publish in other ways then), and plain statements are
-- checked row by row. For the owner of the schema.
-- Locks: ACCESS EXCLUSIVE on data_staging for a moment, then the registry of grants.
create or replace function integration.set_row_security(p_on boolean) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_roles name[];
    v_name  name;
begin
    lock table integration.data_staging in access exclusive mode;
    lock table integration.grants in share row exclusive mode;
    v_roles := array(select distinct g.role_name from integration.grants g
                       join pg_roles r on r.rolname = g.role_name);
    -- What was granted for the rows must not outlive their protection.
    perform integration.revoke_from(r, 'consume_app') from unnest(v_roles) r;
    for v_name in select p.polname from pg_policy p where p.polrelid = 'integration.data_staging'::regclass loop
        execute format('drop policy %I on integration.data_staging', v_name);
    end loop;
    if p_on then
        alter table integration.data_staging enable row level security;
        -- Worked out once for a statement. Publishers have the right to see ids and nothing else.
        create policy see on integration.data_staging for select using (
            (select has_table_privilege('integration.data_staging'::regclass, 'select')
                 or has_table_privilege('integration.data_staging'::regclass, 'insert')));
        -- The trigger decides.
        create policy publish on integration.data_staging for insert with check (true);
        create policy change on integration.data_staging for update using (
            (select has_table_privilege('integration.data_staging'::regclass, 'update')));
        create policy remove on integration.data_staging for delete using (
            (select has_table_privilege('integration.data_staging'::regclass, 'delete')));
    else
        alter table integration.data_staging disable row level security;
    end if;
    perform integration.settle_rights(r) from unnest(v_roles) r;
end $$;

-- Whether it is on.
create or replace function integration.row_security() returns boolean
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select c.relrowsecurity from pg_class c where c.oid = 'integration.data_staging'::regclass
$$;

-- For settle_rights: the policies of a role that may act for some applications only, with their names as they are now.
-- Locks: ACCESS EXCLUSIVE on data_staging, where row security is on.
create or replace function integration.settle_policies(p_role name) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_name     text;
    v_own      text[] := array(select g.app from integration.grants g where g.role_name = p_role and g.publish);
    v_consumed text[] := array(select g.app from integration.grants g where g.role_name = p_role and g.consume);
begin
    if not integration.row_security() then
        return;
    end if;
    foreach v_name in array array['see_' || md5(p_role), 'change_' || md5(p_role)] loop
        execute format('drop policy if exists %I on integration.data_staging', v_name);
    end loop;
    execute format('create policy %I on integration.data_staging for select to %I
        using (target_app = any (%L) or source_app = any (%L))', 'see_' || md5(p_role), p_role, v_consumed, v_own);
    execute format('create policy %I on integration.data_staging for update to %I
        using (target_app = any (%L))', 'change_' || md5(p_role), p_role, v_consumed);
end $$;
