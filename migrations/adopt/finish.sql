-- After the rows were copied from {before}, where the old tables are by now: everything that is not a row.
do $$
declare
    v_name  text;
    v_old   regclass;
    v_grant text;
    v_id    bigint;
begin
    select d.id into v_id from integration.data_staging d
     where octet_length(d.data::text) > integration.text_bytes_max(integration.bytes_of(d.data)) limit 1;
    if v_id is not null then
        raise exception 'the data of row % is larger as text than a message may be', v_id
            using errcode = 'MQ002', hint = 'a payload has at most 64 MiB as text; numbers as large as 1e9999 are strings';
    end if;
    foreach v_name in array '{data_staging, data_staging_archive, audit_log}'::text[] loop
        v_old := to_regclass('{before}.' || v_name);
        -- Ids go on after the last that was given out, also to rows that are gone: history would take one for the other.
        select greatest(
                   case v_name when 'audit_log' then (select max(l.id) from integration.audit_log l)
                               else (select max(i.id) from (select max(d.id) from integration.data_staging d
                                     union all select max(a.id) from integration.data_staging_archive a
                                     union all select max(l.staging_id) from integration.audit_log l) i (id)) end,
                   (select max(pg_sequence_last_value(s.oid)) from pg_class s
                     where s.relkind = 'S' and s.oid in (
                        select d.objid from pg_depend d
                         where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass
                           and d.refobjid = v_old
                        union all
                        select d.refobjid from pg_depend d join pg_attrdef a on a.oid = d.objid
                         where d.classid = 'pg_attrdef'::regclass and d.refclassid = 'pg_class'::regclass
                           and a.adrelid = v_old)))
          into v_id;
        if v_id > 0 and v_name <> 'data_staging_archive' then
            perform setval(format('integration.%s_id_seq', v_name), v_id);
        end if;
        continue when v_old is null;
        -- Who could work with the old table can with the new one; its owner, too, if it was another than the schema's.
        for v_grant in
            select format('grant %s%s on integration.%I to %s%s', r.privilege, r.columns, v_name,
                          case r.grantee when 0 then 'public' else pg_get_userbyid(r.grantee)::regrole::text end,
                          case when r.is_grantable then ' with grant option' else '' end)
              from (select a.privilege_type as privilege, '' as columns, a.grantee, a.is_grantable
                      from pg_class c
                     cross join lateral aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
                     where c.oid = v_old
                    union all
                    select a.privilege_type, format(' (%I)', t.attname), a.grantee, a.is_grantable
                      from pg_attribute t cross join lateral aclexplode(t.attacl) a
                     where t.attrelid = v_old and not t.attisdropped
                       and exists (select from pg_attribute n where n.attrelid = ('integration.' || v_name)::regclass
                                   and n.attname = t.attname)) r
             where r.privilege in ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
               and r.grantee <> (select n.nspowner from pg_namespace n where n.nspname = 'integration')
            union all
            select distinct format('grant %s on sequence integration.%s_id_seq to %s', a.privilege_type, v_name,
                          case a.grantee when 0 then 'public' else pg_get_userbyid(a.grantee)::regrole::text end)
              from pg_depend d join pg_class s on s.oid = d.objid and s.relkind = 'S'
             cross join lateral aclexplode(s.relacl) a
             where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = v_old
               and v_name <> 'data_staging_archive' and a.privilege_type in ('USAGE', 'SELECT')
               and a.grantee <> s.relowner
            union all
            -- Which defaults of columns call as whoever inserts.
            select distinct format('grant execute on function integration.clock(), integration.role_name() to %s',
                          case a.grantee when 0 then 'public' else pg_get_userbyid(a.grantee)::regrole::text end)
              from pg_class c
             cross join lateral (
                select x.grantee, x.privilege_type from aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) x
                union all
                select x.grantee, x.privilege_type from pg_attribute t cross join lateral aclexplode(t.attacl) x
                 where t.attrelid = c.oid and not t.attisdropped) a
             where c.oid = v_old and a.privilege_type = 'INSERT'
        loop
            execute v_grant;
        end loop;
        execute format('analyze integration.%I', v_name);
    end loop;
    -- Error rates are reckoned from these.
    insert into integration.outcomes (created_at, source_app, target_app, published, failed)
    select integration.ten_minutes(d.created_at), d.source_app, d.target_app, count(*),
           count(*) filter (where d.status = 'failed')
      from integration.data_staging d cross join integration.settings s
     where d.created_at > integration.clock() - s.traffic_retention
     group by 1, 2, 3;
    perform integration.recount();
    -- The document never deletes its archive and its audit log.
    update integration.settings
       set archive_retention = case when exists (select from integration.data_staging_archive)
               then interval '100 years' else archive_retention end,
           audit_retention = case when exists (select from integration.audit_log)
               then interval '100 years' else audit_retention end;
end $$;
