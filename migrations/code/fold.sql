-- Folding deltas into counters, and checking them against the table.

-- Folds a slice: adds the first p_limit of the open deltas up into counters, totals, traffic and outcomes, and deletes
-- them, in one transaction, so that every snapshot sees each delta either open or folded. Returns how many there were:
-- fewer than p_limit when no more are left, 0 also when another session is at it. Callers go on with the next slice in
-- a transaction of its own, so that nobody ever has to add up everything at once. SQLSTATEs: those of what keeps all of
-- it from being folded.
-- Locks: the gate of folding, tried and never waited for; then rows that only folding changes. Publishers are never in
-- its way.
create or replace function integration.fold(p_limit integer default 10000) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set lock_timeout = '1 s'
        set synchronize_seqscans = off as $$
declare
    v_slice  tid[];
    v_target text;
    v_stuck  text[] := '{}';
    v_count  bigint := 0;
    v_state  text;
    v_reason text;
begin
    p_limit := least(greatest(p_limit, 1), 100000);
    if not integration.pass_gate('fold') then
        return 0;
    end if;
    while v_count < p_limit loop
        select array_agg(x.ctid) into v_slice
          from (select d.ctid from integration.deltas d
                 where v_stuck = '{}' or d.target_app <> all (v_stuck) limit p_limit - v_count) x;
        exit when v_slice is null;
        begin
            return v_count + integration.fold_rows(v_slice);
        exception when others then
            if integration.is_passing(sqlstate) and sqlstate <> '55P03' then
                raise;
            end if;
            v_state := sqlstate;
            v_reason := sqlerrm;
        end;
        -- One target that cannot be counted, or that somebody has locked, stays as it is, and the slice takes others
        -- instead: nothing is lost by that.
        for v_target in select distinct d.target_app from integration.deltas d where d.ctid = any (v_slice) loop
            begin
                v_count := v_count + integration.fold_rows(array(select d.ctid from integration.deltas d
                    where d.ctid = any (v_slice) and d.target_app = v_target));
            exception when others then
                if integration.is_passing(sqlstate) and sqlstate <> '55P03' then
                    raise;
                end if;
                v_stuck := v_stuck || v_target;
                raise warning 'the counters of % cannot be folded: %', v_target, sqlerrm;
            end;
        end loop;
    end loop;
    if v_count = 0 and v_state is not null then
        raise exception '%', v_reason using errcode = v_state;
    end if;
    return v_count;
end $$;

-- For fold: of the deltas that are at these places. They are summed up once, by all that the tables tell apart, and
-- what the tables get comes from these sums.
create or replace function integration.fold_rows(p_slice tid[]) returns bigint
    language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    v_count bigint;
begin
    with gone as materialized (
        delete from integration.deltas d where d.ctid = any (p_slice) returning *),
    summed as materialized (
        select integration.minute_of(g.at) as minute, g.created_at, g.target_app, g.source_app, g.action,
               count(*) as deltas, sum(g.pending) as pending, sum(g.scheduled) as scheduled,
               sum(g.processing) as processing, sum(g.completed) as completed, sum(g.failed) as failed,
               sum(g.cancelled) as cancelled, sum(g.messages) as messages,
               sum(g.processing) filter (where g.processing > 0) as more_processing,
               sum(g.completed) filter (where g.completed > 0) as more_completed,
               sum(g.failed) filter (where g.failed > 0) as more_failed,
               sum(g.cancelled) filter (where g.cancelled > 0) as more_cancelled
          from gone g
         group by 1, g.created_at, g.target_app, g.source_app, g.action),
    counted as (
        insert into integration.counters as k (target_app, status, messages)
        select s.target_app, v.status, sum(v.messages)
          from summed s
         cross join lateral integration.changes_of(
            s.pending, s.scheduled, s.processing, s.completed, s.failed, s.cancelled) v
         group by s.target_app, v.status
        on conflict (target_app, status) do update
           set messages = k.messages + excluded.messages, changed_at = integration.clock()),
    acted as materialized (
        select s.minute, s.target_app, v.action, sum(v.messages) as messages
          from summed s
         cross join lateral integration.actions_of(s.action, s.messages, s.more_processing, s.more_completed,
            s.more_failed, s.more_cancelled) v
         group by s.minute, s.target_app, v.action),
    totalled as (
        insert into integration.totals as k (target_app, action, messages)
        select a.target_app, a.action, sum(a.messages) from acted a group by a.target_app, a.action
        on conflict (target_app, action) do update set messages = k.messages + excluded.messages),
    timed as (
        insert into integration.traffic as k (minute, target_app, action, messages)
        select a.minute, a.target_app, a.action, a.messages from acted a
        on conflict (target_app, minute, action) do update set messages = k.messages + excluded.messages),
    timed_by_ten as (
        insert into integration.traffic_tens as k (at, target_app, action, messages)
        select integration.ten_minutes(a.minute), a.target_app, a.action, sum(a.messages)
          from acted a group by 1, a.target_app, a.action
        on conflict (target_app, at, action) do update set messages = k.messages + excluded.messages),
    ended as (
        insert into integration.outcomes as k (created_at, source_app, target_app, published, failed)
        select s.created_at, s.source_app, s.target_app, sum(v.published), sum(v.failed)
          from summed s
         cross join lateral integration.outcomes_of(s.action, s.messages, s.failed) v
         where s.source_app is not null
         group by s.created_at, s.source_app, s.target_app
        on conflict (created_at, source_app, target_app) do update
           set published = k.published + excluded.published, failed = k.failed + excluded.failed)
    select coalesce(sum(s.deltas), 0) into v_count from summed s;
    return v_count;
end $$;

-- For who reads the numbers often: folds a slice first where many deltas wait, so that they are quick also while nobody
-- does the maintenance. Who may not (a role without the right, a transaction that only reads, a standby) simply reads,
-- and so does who fails. Returns how many deltas were folded.
create or replace function integration.fold_ahead(p_limit integer default 5000) returns bigint
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    -- The size of the table tells whether it is worth it: 10,000 deltas or so, or what is left of them until vacuum.
    if pg_relation_size('integration.deltas') < 1048576 or pg_is_in_recovery()
        or current_setting('transaction_read_only')::boolean
        or not has_function_privilege('integration.fold(integer)', 'execute') then
        return 0;
    end if;
    return integration.fold(p_limit);
exception when others then
    return 0;
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

-- Where the counters differ from the table, as the view wrong_counters has it. Inlined, so that the tables are locked
-- before the snapshot is taken: a TRUNCATE that was waited for would be seen in the table and not in the counters.
create or replace function integration.check_counters()
    returns table (target_app text, status text, counted bigint, messages bigint)
    language sql stable as $$
    select w.target_app, w.status, w.counted, w.messages from integration.wrong_counters w
$$;

-- Repairs what check_counters finds (triggers were off: session_replication_role = replica, a restore), and returns it.
-- The difference is found in one snapshot and written down as one more delta, so that publishing and claiming go on
-- meanwhile.
-- Locks: the gate of folding. SQLSTATEs: 0A000 in another isolation level than READ COMMITTED.
create or replace function integration.recount()
    returns table (target_app text, status text, counted bigint, messages bigint)
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_targets  text[];
    v_statuses text[];
    v_counted  bigint[];
    v_messages bigint[];
    v_changes  bigint[];
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'recount() needs a READ COMMITTED transaction' using errcode = 'feature_not_supported';
    end if;
    -- Two at a time would both repair the same. Waited for: folding takes a moment.
    lock table integration.gate_fold in share row exclusive mode;
    select array_agg(w.target_app), array_agg(w.status), array_agg(w.counted), array_agg(w.messages),
           array_agg(w.messages - w.counted)
      into v_targets, v_statuses, v_counted, v_messages, v_changes
      from integration.wrong_counters w;
    if v_targets is not null then
        perform integration.note_changes(v_targets, v_statuses, v_changes, 'recounted');
    end if;
    return query select * from unnest(v_targets, v_statuses, v_counted, v_messages);
end $$;
