-- Giving a role the rights of one application, and taking them: the registry, and what PostgreSQL has to know of it.

-- Says what a role may do for an application; what it could do for it before is replaced. p_publish_to: publish as the
-- application to these targets ('*': to any), with at most p_max_priority, and while at most p_max_pending of the
-- application's messages wait for the target. p_consume: take and settle what was published for the application. A
-- role that is granted to others gives them the same. For the owner of the schema.
-- Locks: the registry. SQLSTATEs: MQ002 for what cannot be granted, 42704 for a role that does not exist.
create or replace function integration.grant_app(
    p_app text, p_role name, p_publish_to text[] default null, p_consume boolean default false,
    p_max_priority integer default null, p_max_pending integer default null
) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_routes  text[] := coalesce(p_publish_to, '{}');
    v_publish boolean := v_routes <> '{}';
    v_wrong   text;
begin
    v_wrong := case
        when char_length(p_app) not between 1 and integration.name_chars_max() or p_app is null
            then 'the name of an application has 1 to ' || integration.name_chars_max() || ' characters'
        when not v_publish and not coalesce(p_consume, false) then 'nothing is granted; revoke_app takes rights away'
        when exists (select from unnest(v_routes) r
                      where r is null or char_length(r) not between 1 and integration.name_chars_max())
            then 'a target has 1 to ' || integration.name_chars_max() || ' characters'
        when p_max_pending < 1 then 'max_pending is at least 1'
        when coalesce(p_max_priority, p_max_pending) is not null and not v_publish then 'limits are for who publishes'
        when p_max_pending is not null and '*' = any (v_routes) then 'max_pending needs targets by name'
        when v_publish and has_table_privilege(p_role, 'integration.data_staging', 'insert')
            then format('role %s may publish for every application: revoke_from(%1$L, ''publish'') first', p_role)
        when p_consume and has_table_privilege(p_role, 'integration.data_staging', 'update')
            then format('role %s may consume for every application: revoke_from(%1$L, ''consume'') first', p_role) end;
    if v_wrong is not null then
        raise exception '%', v_wrong using errcode = 'MQ002';
    end if;
    lock table integration.grants in share row exclusive mode;
    insert into integration.grants (role_name, app, publish, routes, consume, max_priority, max_pending)
    values (p_role, p_app, v_publish, v_routes, coalesce(p_consume, false), p_max_priority, p_max_pending)
    on conflict (role_name, app) do update
       set publish = excluded.publish, routes = excluded.routes, consume = excluded.consume,
           max_priority = excluded.max_priority, max_pending = excluded.max_pending,
           granted_at = excluded.granted_at, granted_by = excluded.granted_by;
    -- Counted for the first time by the first publish.
    insert into integration.backlogs (source_app, target_app, messages, last_id)
    select p_app, r, 2147483647, 0 from unnest(v_routes) r where p_max_pending is not null on conflict do nothing;
    perform integration.settle_rights(p_role);
    perform integration.note_grant('granted', p_app, jsonb_strip_nulls(jsonb_build_object(
        'role', p_role, 'publish_to', nullif(v_routes, '{}'), 'consume', p_consume,
        'max_priority', p_max_priority, 'max_pending', p_max_pending)));
end $$;

-- Takes from a role what it may do for an application. False: it could do nothing. Also for roles that are gone.
-- Locks: the registry.
create or replace function integration.revoke_app(p_app text, p_role name) returns boolean
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    lock table integration.grants in share row exclusive mode;
    delete from integration.grants g where g.role_name = p_role and g.app = p_app;
    if not found then
        return false;
    end if;
    perform integration.settle_rights(p_role);
    perform integration.note_grant('revoked', p_app, jsonb_build_object('role', p_role));
    return true;
end $$;

-- For grant_app and revoke_app: gives a role in the catalogue what its rows in the registry need, and takes the rest.
create or replace function integration.settle_rights(p_role name) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_has   text[] := array(select g.verb from integration.granted() g where g.role_name = p_role);
    v_verb  text;
begin
    if not exists (select from pg_roles r where r.rolname = p_role) then
        return;
    end if;
    foreach v_verb in array '{publish_app, consume_app}'::text[] loop
        if v_verb <> all (v_has) then
            perform integration.revoke_from(p_role, v_verb);
        end if;
    end loop;
    foreach v_verb in array '{publish_app, consume_app}'::text[] loop
        if v_verb = any (v_has) then
            perform integration.grant_to(p_role, v_verb);
        end if;
    end loop;
    perform integration.settle_policies(p_role);
end $$;

create or replace function integration.note_grant(p_action text, p_app text, p_details jsonb) returns void
    language sql set search_path = pg_catalog, pg_temp as $$
    insert into integration.audit_log (app_name, action, target_app, details)
    values (integration.actor(), p_action, p_app, p_details)
$$;

-- What the asking role may do for which application, what the roles that it is in give it among it. Anybody may ask.
create or replace function integration.own_rights() returns table (
    app text, verbs text[], publish_to text[], max_priority integer, max_pending integer
)
    language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select g.app, array_remove(array[case when g.publish then 'publish' end, case when g.consume then 'consume' end],
               null), nullif(g.routes, '{}'), g.max_priority, g.max_pending
      from integration.grants g join pg_roles r on r.rolname = g.role_name
     where pg_has_role(integration.asking_role(), r.oid, 'usage') order by g.app
$$;

-- Who may what: a line per role and application, and one per role and verb that it has for all of them (app null).
-- wrong: why it is not so, and what to do.
create or replace function integration.rights() returns table (
    role_name text, app text, verbs text[], publish_to text[], max_priority integer, max_pending integer, wrong text
)
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select g.role_name::text, g.app,
           array_remove(array[case when g.publish then 'publish' end, case when g.consume then 'consume' end], null),
           nullif(g.routes, '{}'), g.max_priority, g.max_pending,
           case when r.oid is null then 'there is no such role'
                when g.publish and has_table_privilege(r.oid, t.oid, 'insert')
                     or g.consume and has_table_privilege(r.oid, t.oid, 'update')
                    then 'it has the verb for every application (by itself, by a role it is in, or as superuser)'
                when g.publish and not has_column_privilege(r.oid, t.oid, 'source_app', 'insert')
                     or g.consume
                        and not has_function_privilege(r.oid, 'integration.has_suspects(text,text[])', 'execute')
                    then 'it lacks the rights: select integration.renew_rights()' end
      from integration.grants g
      left join pg_roles r on r.rolname = g.role_name
      join pg_class t on t.oid = 'integration.data_staging'::regclass
    union all
    select v.role_name::text, null, array_agg(v.verb order by v.verb), null, null, null, null
      from integration.granted() v where right(v.verb, 4) <> '_app' group by v.role_name
     order by 1, 2 nulls first
$$;
