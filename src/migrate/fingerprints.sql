-- What the schema consists of and a hash of each part's definition, run after migrations/preamble.sql. Functions are hashed
-- as they were written; deparsed: the server writes the definition, each version in its own way. Left out: partitions,
-- which come and go; and of the triggers that integration.set_audit_level() makes, the level.
with relations as (
    select c.oid, c.relname, c.relkind, c.reloptions from pg_class c
     where c.relnamespace = 'integration'::regnamespace and not c.relispartition),
attributes as (
    select r.relname || '.' || a.attname as name, a.*, pg_get_expr(d.adbin, d.adrelid) as value
      from relations r
      join pg_attribute a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
      left join pg_attrdef d on d.adrelid = r.oid and d.adnum = a.attnum
     where r.relkind in ('r', 'p')),
functions as (
    select replace(p.oid::regprocedure::text, 'integration.', '') as name, p.*, l.lanname
      from pg_proc p join pg_language l on l.oid = p.prolang where p.pronamespace = 'integration'::regnamespace),
parts (kind, name, deparsed, definition) as (
    select 'table', r.relname::text, false, r.relkind::text from relations r where r.relkind in ('r', 'p')
    union all
    select 'settings', r.relname::text, false, (select string_agg(o, ', ' order by o) from unnest(r.reloptions) o)
      from relations r where r.reloptions is not null
    union all
    select 'column', a.name, false,
           concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated)
      from attributes a
    union all
    select 'default', a.name, true, a.value from attributes a where a.value is not null
    union all
    select 'constraint', r.relname || '.' || k.conname, true, pg_get_constraintdef(k.oid)
      from relations r join pg_constraint k on k.conrelid = r.oid where k.contype <> 'n'
    union all
    select 'index', r.relname::text, true, regexp_replace(pg_get_indexdef(r.oid), E' WITH \\(.*?\\)', '')
      from relations r where r.relkind in ('i', 'I')
    union all
    select 'view', r.relname::text, true, pg_get_viewdef(r.oid) from relations r where r.relkind = 'v'
    union all
    select 'function', f.name, false,
           concat_ws(E'\n', f.prosrc, f.lanname, f.provolatile, f.proparallel, f.proisstrict, f.prosecdef, f.procost,
                     f.prorows, f.proconfig, f.proargnames, f.pronargdefaults, pg_get_function_result(f.oid))
      from functions f
    union all
    select 'parameters', f.name, true, pg_get_function_arguments(f.oid) from functions f where f.pronargdefaults > 0
    union all
    select 'trigger', r.relname || '.' || t.tgname, true,
           regexp_replace(pg_get_triggerdef(t.oid), E'\\(''(all|outcomes|off)''\\)$', '()')
      from relations r join pg_trigger t on t.tgrelid = r.oid where not t.tgisinternal)
select p.kind, p.name, md5(p.definition) as hash, p.deparsed from parts p
