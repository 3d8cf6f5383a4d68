-- What the schema consists of and a hash of each part's definition. Run with search_path = pg_catalog, which decides
-- what the definitions qualify. Left out: partitions, which come and go; and of the triggers that
-- integration.set_audit_level() makes, the level.
with relations as (
    select c.oid, c.relname, c.relkind, c.reloptions from pg_class c
     where c.relnamespace = 'integration'::regnamespace and not c.relispartition),
parts (kind, name, definition) as (
    select 'table', r.relname::text, r.relkind::text from relations r where r.relkind in ('r', 'p')
    union all
    select 'view', r.relname::text, pg_get_viewdef(r.oid) from relations r where r.relkind = 'v'
    union all
    select 'column', r.relname || '.' || a.attname,
           concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid))
      from relations r
      join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
      left join pg_attrdef d on d.adrelid = r.oid and d.adnum = a.attnum
     where r.relkind in ('r', 'p')
    union all
    select 'constraint', r.relname || '.' || k.conname, pg_get_constraintdef(k.oid)
      from relations r join pg_constraint k on k.conrelid = r.oid where k.contype <> 'n'
    union all
    select 'index', r.relname::text, regexp_replace(pg_get_indexdef(r.oid), ' WITH \(.*?\)', '') from relations r where r.relkind in ('i', 'I')
    union all
    select 'trigger', r.relname || '.' || t.tgname,
           regexp_replace(pg_get_triggerdef(t.oid), '\(''(all|outcomes|off)''\)$', '()')
      from relations r join pg_trigger t on t.tgrelid = r.oid where not t.tgisinternal
    union all
    select 'settings', r.relname::text, (select string_agg(o, ', ' order by o) from unnest(r.reloptions) o)
      from relations r where r.reloptions is not null
    union all
    select 'function', p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')', pg_get_functiondef(p.oid)
      from pg_proc p where p.pronamespace = 'integration'::regnamespace)
select p.kind, p.name, md5(p.definition) as hash from parts p
