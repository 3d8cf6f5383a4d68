-- What must hold after everything has healed. Ledgers (op, run) are kept outside the database while faults are about and
-- loaded afterwards; effect is written by handlers in the transaction that completes the message, and has no unique
-- constraint, so that doubles show. One row of chk.violation is one broken promise.
create schema chk;
create table chk.op (
    op text primary key, target_app text not null, intent text not null, body_md5 text not null,
    outcome text not null check (outcome in ('ack', 'unknown', 'refused')), message_id bigint,
    -- Published while the standby lagged, and not there when that was promoted.
    forgettable boolean not null default false,
    -- place: of those of a key in the order in which they were published; null where it may be due or committed late.
    ordering_key text, place integer);
create table chk.effect (
    n bigint generated always as identity, op text not null, staging_id bigint not null, attempt integer not null, consumer text not null);
create table chk.run (staging_id bigint not null, attempt integer not null, op text not null, found text not null, consumer text not null,
    -- When it began and when it ended; null: its process was killed.
    at bigint not null, ended bigint);

-- How often the server crashed: claims do not wait for the WAL, so each crash may undo the last ones, and their attempts are
-- handed out once more.
create table chk.crashes (n bigint not null);
insert into chk.crashes values (0);

-- Consumer processes that were really killed.
create table chk.killed (consumer text not null);
-- Those that were silent for longer than their lease.
create table chk.frozen (consumer text not null);
-- Runs that ended because the consumer was taken for dead.
create view chk.death as
    select a.staging_id, a.owner, exists (
               select from (select k.consumer from chk.killed k union select f.consumer from chk.frozen f) d
                where a.owner like '%-' || d.consumer || '-%') as is_lawful
      from integration.audit_log a
     where a.action = 'rescued' or a.action = 'failed' and a.details ->> 'reason' like '% consumers died one after the other %';

create view chk.every as
    select 'hot' as place, d.* from integration.data_staging d
    union all
    select 'archive', a.* from integration.data_staging_archive a;
-- What the producers published; see routes.sql for the others.
create view chk.msg as select m.* from chk.every m where m.target_app in ('plain', 'tx');

-- Every message's history, each event beside the one before it.
create view chk.story as
    select a.*, lag(a.action) over w as action_before, lag(a.new_status) over w as status_before,
           max(a.attempt) over (partition by a.staging_id order by a.id rows between unbounded preceding and 1 preceding) as attempt_before,
           lead(a.id) over w is null as is_last
      from integration.audit_log a where a.staging_id is not null and coalesce(a.target_app, 'tx') in ('plain', 'tx')
    window w as (partition by a.staging_id order by a.id);

-- Runs of messages with keys, and whether who ran one said what became of it: then it was his until then.
create view chk.keyed as
    select r.*, o.target_app, o.ordering_key, o.place,
           exists (select from integration.audit_log a
                    where a.staging_id = r.staging_id and a.attempt = r.attempt and a.owner like '%-' || r.consumer || '-%'
                      and a.action in ('completed', 'errored', 'snoozed', 'failed')) as is_settled,
           row_number() over (partition by r.op order by r.at) = 1 as is_first,
           count(*) over (partition by r.op, r.attempt) = 1 as is_only
      from chk.run r join chk.op o on o.op = r.op where o.ordering_key is not null;

-- Those whose order nothing has changed: acknowledged one after the other, and neither put back nor lost.
create view chk.placed as
    select o.* from chk.op o
     where o.place is not null and o.outcome = 'ack' and not o.forgettable
       and not exists (select from integration.audit_log a join chk.msg m on m.id = a.staging_id
                        where m.data->>'op' = o.op and a.action in ('cancelled', 'redriven'));

create view chk.violation as
-- S1 no acknowledged publish is lost that the server has kept.
select 'S1 lost' as rule, o.op as subject, 'acknowledged, not found' as detail from chk.op o
 where o.outcome = 'ack' and not o.forgettable and not exists (select from chk.msg m where m.data->>'op' = o.op)
union all
-- S2 one publish, one message; the id that was answered is its id.
select 'S2 doubled', data->>'op', count(*)::text from chk.msg group by data->>'op' having count(*) > 1
union all
select 'S2 id reused', id::text, count(*)::text from chk.msg group by id having count(*) > 1
union all
select 'S2 wrong id', o.op, format('answered %s, is %s', o.message_id, m.id) from chk.op o join chk.msg m on m.data->>'op' = o.op
 where o.outcome = 'ack' and o.message_id is not null and o.message_id <> m.id
union all
-- S3 nothing appears that nobody published, or that was refused.
select 'S3 phantom', m.data->>'op', coalesce(o.outcome, 'never published') from chk.msg m left join chk.op o on o.op = m.data->>'op'
 where o.op is null or o.outcome = 'refused'
union all
-- S4 the payload is what was sent.
select 'S4 altered', o.op, m.place from chk.msg m join chk.op o on o.op = m.data->>'op' where md5(m.data->>'body') is distinct from o.body_md5
union all
-- S5 transactional: one effect for each completion, none for anything else. Otherwise: a run for each completion.
select 'S5 effects', m.data->>'op', format('%s, completed %s times, effects: %s', m.status, c.n, e.n)
  from chk.msg m
 cross join lateral (select count(*) as n from integration.audit_log a where a.staging_id = m.id and a.action = 'completed') c
 cross join lateral (select count(*) as n from chk.effect e where e.op = m.data->>'op') e
 where m.target_app = 'tx' and e.n <> c.n
union all
select 'S5 effect without message', e.op, e.staging_id::text from chk.effect e where not exists (select from chk.msg m where m.id = e.staging_id)
union all
select 'S5 completed unhandled', m.data->>'op', 'no run' from chk.msg m
 where m.target_app = 'plain' and m.status = 'completed' and not exists (select from chk.run r where r.staging_id = m.id and r.op = m.data->>'op')
union all
-- S6 the effect belongs to the attempt and the process that completed the message.
select 'S6 foreign effect', e.op, format('effect of attempt %s by %s, completed by %s', e.attempt, e.consumer, coalesce(string_agg(c.attempt || '/' || c.owner, ', '), 'nobody'))
  from chk.effect e left join integration.audit_log c on c.staging_id = e.staging_id and c.action = 'completed'
 group by e.n, e.op, e.attempt, e.consumer
having not coalesce(bool_or(c.attempt = e.attempt and c.owner like '%-' || e.consumer || '-%'), false)
union all
-- S7 an attempt is handed out once and run once, but for crashes of the server. What a transaction holds has no attempt before
-- it commits: there, effects are counted instead.
select 'S7 attempt reused', staging_id::text, format('attempt %s claimed %s times', attempt, count(*))
  from integration.audit_log where action = 'claimed' group by staging_id, attempt having count(*) > 1
union all
select 'S7 attempt reused', staging_id::text, format('attempt %s run by %s', attempt, string_agg(consumer, ', '))
  from chk.run r where not exists (select from chk.op o where o.op = r.op and o.target_app = 'tx')
 group by staging_id, op, attempt having count(*) > 1 + (select n from chk.crashes)
union all
select 'S7 attempt went down', staging_id::text, format('%s: %s after %s', action, attempt, attempt_before) from chk.story where attempt < attempt_before
union all
-- S8 what has ended stays ended until somebody puts it back.
select 'S8 undone', staging_id::text, action_before || ', then ' || action from chk.story
 where action_before in ('completed', 'failed', 'cancelled') and action not in ('redriven', 'archived', 'purged')
union all
-- S11 retries are bounded, and intents respected.
select 'S11 retries', m.data->>'op', retry_count::text from chk.msg m where retry_count > coalesce(max_retries, 1000) + 1
union all
select 'S11 failed although it can succeed', o.op, m.error_message from chk.msg m join chk.op o on o.op = m.data->>'op'
 where m.status = 'failed' and o.intent not in ('fail', 'reject')
   and (select count(*) from chk.death d where d.staging_id = m.id and d.is_lawful) < 3
union all
select 'S11 completed although it cannot', o.op, m.status from chk.msg m join chk.op o on o.op = m.data->>'op'
 where m.status = 'completed' and o.intent in ('fail', 'reject')
union all
select 'S11 cancelled by nobody', m.data->>'op', m.status from chk.msg m
 where m.status = 'cancelled' and not exists (select from integration.audit_log a where a.staging_id = m.id and a.action = 'cancelled' and a.app_name = 'operator')
union all
-- S12 the audit log tells the whole story, step by step, to the present state.
select 'S12 audit incomplete', m.id::text, 'not published' from chk.msg m
 where not exists (select from integration.audit_log a where a.staging_id = m.id and a.action = 'published')
union all
select 'S12 gap', staging_id::text, format('%s from %s, but it was %s', action, old_status, status_before) from chk.story s
 where old_status is distinct from status_before
   -- That it stands behind others of its key meanwhile is not worth a line.
   and not (old_status = 'scheduled' and status_before = 'pending'
            and exists (select from chk.msg m where m.id = s.staging_id and m.ordering_key is not null))
union all
select 'S12 audit disagrees', m.id::text, format('message %s attempt %s, last event %s (%s) attempt %s', m.status, m.attempt, s.action, s.new_status, s.attempt)
  from chk.msg m left join chk.story s on s.staging_id = m.id and s.is_last
 where m.place = 'hot' and s.new_status is distinct from m.status
union all
select 'S12 message vanished', s.staging_id::text, s.action from chk.story s
 where s.is_last and not exists (select from chk.msg m where m.id = s.staging_id) and s.action not in ('archived', 'purged', 'deleted')
union all
-- S13 conservation, as one number.
select 'S13 conservation', 'total', format('published %s, there are %s', p, a)
  from (select (select count(*) from chk.op o where o.outcome = 'ack' and not o.forgettable
                    or (o.outcome <> 'refused' and exists (select from chk.msg m where m.data->>'op' = o.op))) as p,
               (select count(*) from chk.msg) as a) c where p <> a
union all
-- S14 rules of a row.
select 'S14 state rule', id::text, status from chk.msg
 where (status = 'processing') <> (owner is not null) or (status = 'completed') <> (processed_at is not null)
    or (status = 'scheduled') <> (available_at is not null) or (lease_until is not null and status <> 'processing')
    or (place = 'archive' and status not in ('completed', 'failed', 'cancelled'))
union all
-- S15 only from the dead is anything rescued, and from the silent.
select 'S15 rescued from the living', d.staging_id::text, d.owner from chk.death d where not d.is_lawful
union all
-- K1 of one key, what was published first is begun first.
select 'K1 out of order', k.op, format('begun after %s', k.before)
  from (select k.op, k.place, k.target_app, k.ordering_key,
               max(k.place) over w as before
          from chk.keyed k join chk.placed p on p.op = k.op where k.is_first
        window w as (partition by k.target_app, k.ordering_key order by k.at
               rows between unbounded preceding and 1 preceding)) k
 where k.before > k.place
union all
-- K2 one of a key at a time: of two that ran side by side, one at least was not its process's any more.
select 'K2 side by side', k.op, format('with %s, by %s and %s', j.op, k.consumer, j.consumer)
  from chk.keyed k join chk.keyed j on j.target_app = k.target_app and j.ordering_key = k.ordering_key
   and j.at > k.at and j.at < k.ended
 where k.is_settled and j.is_settled and k.is_only and j.is_only
union all
-- K3 what transactions leave is in that order, too.
select 'K3 effects out of order', e.op, format('after that of %s', e.before)
  from (select e.op, p.place, max(p.place) over (partition by p.target_app, p.ordering_key order by e.n
               rows between unbounded preceding and 1 preceding) as before
          from chk.effect e join chk.placed p on p.op = e.op) e
 where e.before > e.place
union all
-- L1 nothing is stuck once the faults are over.
select 'L1 stuck', id::text, format('%s, claimed by %s, crashes %s', status, owner, crash_count) from chk.msg
 where status in ('pending', 'scheduled', 'processing')
union all
-- L2 no residue.
select 'L2 dead consumer', owner, lease_until::text from integration.processes
union all
select 'L2 bell queue', 'pg_notification_queue_usage', pg_notification_queue_usage()::text where pg_notification_queue_usage() > 0.001
union all
select 'L2 session', pid::text, application_name || ' ' || state from pg_stat_activity
 where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()
   and (state like 'idle in transaction%' or wait_event = 'ClientWrite')
union all
select 'L2 advisory lock', pid::text, classid || '/' || objid from pg_locks
 where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database());
