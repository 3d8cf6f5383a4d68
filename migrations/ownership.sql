-- What a message may say, the database must be able to hold: any text there is.
do $$
begin
    if getdatabaseencoding() <> 'UTF8' then
        raise exception 'the database % is encoded in %, and Doorbell needs UTF8', current_database(),
            getdatabaseencoding() using errcode = 'MQ002',
            hint = 'create database ... encoding ''UTF8'' template template0';
    end if;
end $$;

-- All that is made belongs to the owner of the schema, who may be a role that cannot log in: whoever owns the schema,
-- or may create in it, can replace what runs in everybody's publishes.
-- Not "if not exists", which asks for the right to create schemas also where one was made for us.
do $$
begin
    if to_regnamespace('integration') is null then
        create schema integration;
    end if;
exception when duplicate_schema or unique_violation then
    null; -- Another migrator was faster.
end $$;

do $$
declare
    v_owner  oid := (select n.nspowner from pg_namespace n where n.nspname = 'integration');
    v_me     oid := (select r.oid from pg_roles r where r.rolname = current_user);
    v_others text;
begin
    -- Not pg_has_role(), which is true of superusers: to them anybody could pass off a schema as theirs.
    if v_owner <> v_me and not exists (
        with recursive mine as (
            select m.roleid from pg_auth_members m where m.member = v_me
            union select m.roleid from pg_auth_members m join mine on m.member = mine.roleid)
        select from mine where mine.roleid = v_owner) then
        raise exception 'the schema integration belongs to %, and % is no member of that role',
            pg_get_userbyid(v_owner), current_user
            using errcode = 'insufficient_privilege', hint = format(
                'migrate as %1$I, or alter schema integration owner to %2$I if what is in it is yours',
                pg_get_userbyid(v_owner), current_user);
    end if;
    select string_agg(case a.grantee when 0 then 'public' else pg_get_userbyid(a.grantee) end, ', ') into v_others
      from pg_namespace n cross join lateral aclexplode(n.nspacl) a
     where n.nspname = 'integration' and a.privilege_type = 'CREATE' and a.grantee <> v_owner;
    if v_others is not null then
        raise exception 'others than its owner may create in the schema integration: %', v_others
            using errcode = 'insufficient_privilege',
                hint = format('revoke create on schema integration from %s', v_others);
    end if;
    if v_owner <> v_me then
        execute format('set local role %I', pg_get_userbyid(v_owner));
    end if;
end $$;
