-- What the schema has beside the tables that were there before Doorbell, and beside what belongs to these.
with old as (
    select c.oid, c.reltoastrelid from pg_class c
     where c.relnamespace = to_regnamespace('integration')
       and c.relname in ('data_staging', 'data_staging_archive', 'audit_log'))
select 'relation', c.relname::text from pg_class c
 where c.relnamespace = to_regnamespace('integration') and c.oid not in (select o.oid from old o)
   and not exists (select from pg_index i where i.indexrelid = c.oid and i.indrelid in (select o.oid from old o))
   and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid
                    and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')
                    and d.refobjid in (select o.oid from old o))
union all
select 'function', replace(p.oid::regprocedure::text, 'integration.', '') from pg_proc p
 where p.pronamespace = to_regnamespace('integration')
union all
select 'schema', n.nspname::text from pg_namespace n where n.nspname = '{before}'
