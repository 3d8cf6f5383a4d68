-- What hangs on the tables that were there before Doorbell. in_the_way: they cannot be moved without losing what it does,
-- and what to do about it; else: it goes along with the old tables. make: how the new ones get it, too, because it belongs
-- to columns that the document does not have ($1: those that are kept, $2: those that are left, as table.column).
with old as (
    select c.* from pg_class c
     where c.relnamespace = to_regnamespace('integration')
       and c.relname in ('data_staging', 'data_staging_archive', 'audit_log')),
found (in_the_way, what, make) as (
    select true, format('%s belongs to %s, and the owner of the schema, %s, is no member of that role: alter table %s '
                        'owner to %3$s; grant select, insert, update, delete on %4$s to %2$s',
                        o.relname, quote_ident(pg_get_userbyid(o.relowner)), quote_ident(pg_get_userbyid(n.nspowner)),
                        o.oid::regclass), null
      from old o join pg_namespace n on n.oid = o.relnamespace
     where not pg_has_role(n.nspowner, o.relowner, 'usage')
    union all
    select distinct true, format('%s %s reads %s and would go on reading the old table: drop it, and make it again '
                                 'afterwards', case v.relkind when 'm' then 'the materialized view' else 'the view' end,
                                 v.oid::regclass, o.relname), null
      from old o
      join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = o.oid
                      and d.classid = 'pg_rewrite'::regclass
      join pg_rewrite r on r.oid = d.objid
      join pg_class v on v.oid = r.ev_class
     where v.oid not in (select o.oid from old o)
    union all
    select distinct true, format('the function %s reads %s and would go on reading the old table: drop it, and make it '
                                 'again afterwards', d.objid::regprocedure, o.relname), null
      from old o
      join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = o.oid and d.classid = 'pg_proc'::regclass
    union all
    select true, format('%s refers to %s (%s): history outlives a message here, and so may your rows; alter table %s '
                        'drop constraint %s', k.conrelid::regclass, o.relname, pg_get_constraintdef(k.oid),
                        k.conrelid::regclass, quote_ident(k.conname)), null
      from old o join pg_constraint k on k.contype = 'f' and k.confrelid = o.oid
     where k.conrelid not in (select o.oid from old o)
    union all
    select true, format('%s has the trigger %s, which would not be there any more: drop it, and make it again '
                        'afterwards if it is still wanted', o.relname, quote_ident(t.tgname)), null
      from old o join pg_trigger t on t.tgrelid = o.oid and not t.tgisinternal
    union all
    select true, format('%s has the rule %s: drop it', o.relname, quote_ident(r.rulename)), null
      from old o join pg_rewrite r on r.ev_class = o.oid and o.relkind in ('r', 'p')
    union all
    select true, format('%s has row security, which would not be there any more: doorbell grant --app has rights of one '
                        'application; alter table %s disable row level security', o.relname, o.oid::regclass), null
      from old o where o.relrowsecurity
    union all
    select true, format('%s inherits, or is inherited from', o.relname), null
      from old o where exists (select from pg_inherits i where o.oid in (i.inhrelid, i.inhparent))
    union all
    select false, format(case when k.is_kept then 'the index %s of %s'
                         else 'the index %s of %s; those of Doorbell serve the statements of the document' end,
                         quote_ident(i.relname), o.relname),
           case when k.is_kept then pg_get_indexdef(i.oid) end
      from old o join pg_index x on x.indrelid = o.oid and not x.indisprimary join pg_class i on i.oid = x.indexrelid
     cross join lateral (
        -- Ours are partitioned but for data_staging, and then nothing is unique.
        select (o.relname = 'data_staging' or not x.indisunique) and bool_or(c.name = any ($1))
               and not bool_or(c.name = any ($2))
          from (select o.relname || '.' || a.attname from pg_depend d
                  join pg_attribute a on a.attrelid = o.oid and a.attnum = d.refobjsubid
                 where d.classid = 'pg_class'::regclass and d.objid = i.oid and d.refclassid = 'pg_class'::regclass
                   and d.refobjid = o.oid) c (name)) k (is_kept)
     where not exists (select from pg_constraint k where k.conindid = x.indexrelid)
    union all
    select false, format('the constraint %s of %s, %s', quote_ident(k.conname), o.relname, pg_get_constraintdef(k.oid)),
           case when c.is_kept then format('alter table %s add constraint %I %s', o.oid::regclass, k.conname,
                                           pg_get_constraintdef(k.oid)) end
      from old o join pg_constraint k on k.conrelid = o.oid and k.contype not in ('p', 'n', 't')
     cross join lateral (
        select case k.contype
                   when 'u' then o.relname = 'data_staging' and bool_or(a.name = any ($1)) and not bool_or(a.name = any ($2))
                   -- What it says of the document's columns, nobody says of a message.
                   when 'c' then bool_and(a.name = any ($1))
                   when 'f' then bool_and(a.name = any ($1)) and k.confrelid not in (select r.oid from old r) end
          from (select o.relname || '.' || a.attname from pg_attribute a
                 where a.attrelid = o.oid and a.attnum = any (k.conkey)) a (name)) c (is_kept)
    union all
    select false, format('%s in the publication %s', o.relname, quote_ident(p.pubname)), null
      from old o join pg_publication_rel r on r.prrelid = o.oid join pg_publication p on p.oid = r.prpubid
    union all
    select distinct false, format('the right to %s %s, of %s', lower(a.privilege_type), o.relname,
                         case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end), null
      from old o cross join lateral aclexplode(o.relacl) a
     where a.grantee <> o.relowner and a.privilege_type not in ('SELECT', 'INSERT', 'UPDATE', 'DELETE'))
select f.in_the_way, f.what, f.make from found f order by 1 desc, 2
