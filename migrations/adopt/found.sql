-- The columns of the tables that were there before Doorbell, in their order, and how those are made that are not the
-- document's. What other kinds of relations have, too: a view of that name is to be told from a table.
select c.relname::text, c.relkind::text, has_table_privilege(c.oid, 'select'),
       a.attname::text, quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
       case t.typtype when 'e' then 'enum' else t.typname::text end,
       a.attnotnull, pg_get_expr(d.adbin, d.adrelid), a.attgenerated::text,
       case when a.attcollation not in (0, t.typcollation) then a.attcollation::regcollation::text end,
       a.attidentity <> '' or exists (
           select from pg_depend p join pg_class s on s.oid = p.refobjid and s.relkind = 'S'
            where p.classid = 'pg_attrdef'::regclass and p.objid = d.oid and p.refclassid = 'pg_class'::regclass),
       array(select m.attname::text
               from pg_depend p join pg_attribute m on m.attrelid = c.oid and m.attnum = p.refobjsubid
              where p.classid = 'pg_attrdef'::regclass and p.objid = d.oid and p.refclassid = 'pg_class'::regclass
                and p.refobjid = c.oid and m.attnum <> a.attnum
              order by m.attnum)
  from pg_class c
  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  join pg_type t on t.oid = a.atttypid
  left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
 where c.relnamespace = to_regnamespace('integration')
   and c.relname in ('data_staging', 'data_staging_archive', 'audit_log') and c.relkind in ('r', 'p', 'v', 'm', 'f')
 order by c.relname, a.attnum
