-- What the ledgers say beside what is in the database, one number a line. Needs the temporary tables `op` and `ran`.
create temp table m as
    select d.id, d.target_app, d.status, d.data ->> 'op' as op from integration.data_staging d where d.target_app = any (:'targets')
    union all
    select a.id, a.target_app, a.status, a.data ->> 'op' from integration.data_staging_archive a where a.target_app = any (:'targets');
create index on m (op);
create index on op (op);
create index on ran (op);
create temp table fx as select e.* from lab.effect e where exists (select from op where op.op = e.op);
analyze;

select 'acknowledged', count(*)::text from op where answer = 'ack'
union all select '  lost', count(*)::text from op where answer = 'ack' and not exists (select from m where m.op = op.op)
union all select 'answer unknown', count(*)::text from op where answer = 'unknown'
union all select '  of these there', count(*)::text from op where answer = 'unknown' and exists (select from m where m.op = op.op)
union all select 'refused', count(*)::text from op where answer = 'refused'
union all select '  but there', count(*)::text from op where answer = 'refused' and exists (select from m where m.op = op.op)
union all select 'published twice', count(*)::text from (select from m group by op having count(*) > 1) x
union all select 'completed', count(*)::text from m where status = 'completed'
union all select '  unhandled', count(*)::text from m
    where status = 'completed' and not exists (select from ran where ran.op = m.op and ran.what = 'end')
union all select '  without effect', count(*)::text from m
    where status = 'completed' and target_app not like 'leased%' and not exists (select from fx where fx.op = m.op)
union all select '  with a stranger''s effect', count(*)::text from m join fx using (id) where fx.op <> m.op
union all select 'effects doubled', count(*)::text from (select from fx group by op having count(*) > 1) x
union all select 'effects of what is not completed', count(*)::text from fx join m using (op) where m.status <> 'completed'
union all select 'handled twice', count(*)::text from (select from ran where what = 'end' group by op having count(*) > 1) x
union all select 'failed though nobody failed them', count(*)::text from m where status = 'failed'
union all select 'stuck', count(*)::text from m where status in ('pending', 'scheduled', 'processing')
union all select 'rescued', count(*)::text from integration.audit_log where action = 'rescued' and target_app = any (:'targets')
union all (select 'longest pause of ' || split_part(target, '-', 1), max(gap)::numeric(8, 1) || ' s'
    from (select target, at - lag(at) over (partition by target order by at) as gap from ran where what = 'end') g
   group by target order by target)
union all select 'longest pause of acknowledgements', max(gap)::numeric(8, 1) || ' s'
    from (select at - lag(at) over (order by at) as gap from op where answer = 'ack') g;
