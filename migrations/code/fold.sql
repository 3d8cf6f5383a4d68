-- Folding deltas into counters, and checking them against the table.

-- Adds the open deltas up into counters, totals, traffic and outcomes, and deletes them: one transaction, so that every
-- snapshot sees each delta either open or folded. Returns how many deltas were folded; 0 also when another session is
-- at it.
-- Locks: the gate of folding, tried and never waited for; then rows that only folding changes. Publishers are never in
-- its way.
create or replace function integration.fold() returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    v_count bigint;
begin
    if not integration.pass_gate('fold') then
        return 0;
    end if;
    if not exists (select from integration.deltas) then
        return 0;
    end if;
    with gone as materialized (delete from integration.deltas returning *),
    counted as (
        insert into integration.counters as k (target_app, status, messages)
        select g.target_app, v.status, sum(v.messages)
          from gone g
         cross join lateral (values ('pending', g.pending), ('scheduled', g.scheduled), ('processing', g.processing),
                                    ('completed', g.completed), ('failed', g.failed),
                                        ('cancelled', g.cancelled)) v (status, messages)
         where v.messages is not null
         group by g.target_app, v.status
        on conflict (target_app, status) do update
           set messages = k.messages + excluded.messages, changed_at = integration.clock()),
    acted as materialized (
        select date_trunc('minute', g.at) as minute, g.target_app, v.action, sum(v.messages) as messages
          from gone g
         cross join lateral (values (g.action, g.messages),
                                    ('claimed', case when g.action is null then g.processing end),
                                    ('completed', case when g.action is null then g.completed end),
                                    ('failed', case when g.action is null then g.failed end),
                                    ('cancelled', case when g.action is null then g.cancelled end)) v (action, messages)
         where v.action is not null and v.messages > 0
         group by 1, g.target_app, v.action),
    totalled as (
        insert into integration.totals as k (target_app, action, messages)
        select a.target_app, a.action, sum(a.messages) from acted a group by a.target_app, a.action
        on conflict (target_app, action) do update set messages = k.messages + excluded.messages),
    timed as (
        insert into integration.traffic as k (minute, target_app, action, messages)
        select a.minute, a.target_app, a.action, a.messages from acted a
        on conflict (minute, target_app, action) do update set messages = k.messages + excluded.messages),
    ended as (
        insert into integration.outcomes as k (created_at, source_app, target_app, published, failed)
        select g.created_at, g.source_app, g.target_app,
               coalesce(sum(g.messages) filter (where g.action = 'published'), 0),
               sum(case when g.action is null then g.messages else coalesce(g.failed, 0) end)
          from gone g where g.source_app is not null
         group by g.created_at, g.source_app, g.target_app
        on conflict (created_at, source_app, target_app) do update
           set published = k.published + excluded.published, failed = k.failed + excluded.failed)
    select count(*) into v_count from gone;
    return v_count;
end $$;

-- Where the counters differ from the table, counted in one snapshot. Reads all of data_staging. Empty: they are right.
create or replace view integration.wrong_counters with (security_invoker = true) as
    select coalesce(c.target_app, m.target_app) as target_app, coalesce(c.status, m.status) as status,
           coalesce(c.messages, 0) as counted, coalesce(m.messages, 0) as messages
      from integration.current_counters c
      full join (select d.target_app, d.status, count(*) as messages
                   from integration.data_staging d group by d.target_app, d.status) m
        on m.target_app = c.target_app and m.status = c.status
     where coalesce(c.messages, 0) <> coalesce(m.messages, 0)
     order by 1, 2;

-- The same as a function. Inlined, so that the tables are locked before the snapshot is taken: a TRUNCATE that was
-- waited for would be seen in the table and not in the counters.
create or replace function integration.check_counters()
    returns table (target_app text, status text, counted bigint, messages bigint)
    language sql stable as $$
    select w.target_app, w.status, w.counted, w.messages from integration.wrong_counters w
$$;

-- Repairs what check_counters finds (triggers were off: session_replication_role = replica, a restore), and returns it.
-- The difference is found in one snapshot and written down as one more delta, so that publishing and claiming go on
-- meanwhile.
-- Locks: the gate of folding. SQLSTATEs: 0A000 in another isolation level than READ COMMITTED.
create or replace function integration.recount() returns table (target_app text, status text, counted bigint,
    messages bigint)
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'recount() needs a READ COMMITTED transaction' using errcode = 'feature_not_supported';
    end if;
    -- Two at a time would both repair the same. Waited for: folding takes a moment.
    lock table integration.gate_fold in share row exclusive mode;
    return query
        with wrong as materialized (select w.* from integration.wrong_counters w),
        repaired as (
            insert into integration.deltas (at, pending, scheduled, processing, completed, failed, cancelled,
                messages, target_app, action)
            select integration.clock(),
                   sum(w.messages - w.counted) filter (where w.status = 'pending'),
                   sum(w.messages - w.counted) filter (where w.status = 'scheduled'),
                   sum(w.messages - w.counted) filter (where w.status = 'processing'),
                   sum(w.messages - w.counted) filter (where w.status = 'completed'),
                   sum(w.messages - w.counted) filter (where w.status = 'failed'),
                   sum(w.messages - w.counted) filter (where w.status = 'cancelled'),
                   sum(abs(w.messages - w.counted)), w.target_app, 'recounted'
              from wrong w group by w.target_app)
        select w.* from wrong w;
end $$;
