-- Folding deltas into counters, and checking them against the table.

-- Adds the open deltas up into counters, totals, traffic and outcomes, and deletes them: one transaction, so that every
-- snapshot sees each delta either open or folded. Returns how many deltas were folded; 0 also when another session is
-- at it. SQLSTATEs: those of what keeps all of it from being folded.
-- Locks: the gate of folding, tried and never waited for; then rows that only folding changes. Publishers are never in
-- its way.
create or replace function integration.fold() returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set lock_timeout = '1 s' as $$
declare
    v_target text;
    v_count  bigint := 0;
    v_state  text;
    v_reason text;
begin
    if not integration.pass_gate('fold') then
        return 0;
    end if;
    if not exists (select from integration.deltas) then
        return 0;
    end if;
    begin
        return integration.fold_rows(null);
    exception when others then
        if integration.is_passing(sqlstate) and sqlstate <> '55P03' then
            raise;
        end if;
        v_state := sqlstate;
        v_reason := sqlerrm;
    end;
    -- One target that cannot be counted, or that somebody has locked, stays as it is: nothing is lost by that.
    for v_target in select distinct d.target_app from integration.deltas d loop
        begin
            v_count := v_count + integration.fold_rows(v_target);
        exception when others then
            raise warning 'the counters of % cannot be folded: %', v_target, sqlerrm;
        end;
    end loop;
    if v_count = 0 then
        raise exception '%', v_reason using errcode = v_state;
    end if;
    return v_count;
end $$;

-- For fold: of one target, or null: of all.
create or replace function integration.fold_rows(p_target text) returns bigint
    language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    v_count bigint;
begin
    with gone as materialized (
        delete from integration.deltas d where p_target is null or d.target_app = p_target returning *),
    counted as (
        insert into integration.counters as k (target_app, status, messages)
        select g.target_app, v.status, sum(v.messages)
          from gone g
         cross join lateral integration.changes_of(
            g.pending, g.scheduled, g.processing, g.completed, g.failed, g.cancelled) v
         group by g.target_app, v.status
        on conflict (target_app, status) do update
           set messages = k.messages + excluded.messages, changed_at = integration.clock()),
    acted as materialized (
        select date_trunc('minute', g.at) as minute, g.target_app, v.action, sum(v.messages) as messages
          from gone g
         cross join lateral integration.actions_of(
            g.action, g.messages, g.processing, g.completed, g.failed, g.cancelled) v
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
        select g.created_at, g.source_app, g.target_app, sum(v.published), sum(v.failed)
          from gone g
         cross join lateral integration.outcomes_of(g.action, g.messages, g.failed) v
         where g.source_app is not null
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
