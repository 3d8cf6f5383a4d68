-- The columns of the tables that were there before Doorbell, in their order. What other kinds of relations have, too:
-- a view of that name is to be told from a table.
select c.relname::text, c.relkind::text, a.attname::text, format_type(a.atttypid, a.atttypmod),
       case t.typtype when 'e' then 'enum' else t.typname::text end, has_table_privilege(c.oid, 'select')
  from pg_class c
  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  join pg_type t on t.oid = a.atttypid
 where c.relnamespace = to_regnamespace('integration')
   and c.relname in ('data_staging', 'data_staging_archive', 'audit_log') and c.relkind in ('r', 'p', 'v', 'm', 'f')
 order by c.relname, a.attnum
