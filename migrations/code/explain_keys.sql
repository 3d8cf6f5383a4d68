-- Why a message is not running: those that wait for others of their key.

-- For explain: what of its key goes before a message that has one. Empty result: nothing does.
create or replace function integration.explain_key(p_id bigint)
    returns table (code text, sentence text, fix text, details jsonb)
    language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    m         record;
    b         record;
    v_key     text;
    v_blocker bigint;
    v_head    bigint;
    v_waiting bigint;
    v_session record;
begin
    select d.* into m from integration.data_staging d where d.id = p_id;
    if m.ordering_key is null then
        return;
    end if;
    v_key := left(m.ordering_key, 60);
    select k.id into v_blocker from integration.key_blockers(array[m.target_app], array[m.ordering_key]) k;
    v_head := integration.head_of_key(m.target_app, m.ordering_key);
    select d.* into b from integration.data_staging d where d.id = coalesce(v_blocker, v_head) and d.id <> p_id;
    details := jsonb_build_object('ordering_key', m.ordering_key, 'message', b.id, 'status', b.status,
        'owner', b.owner, 'reason', b.error_message, 'since', m.behind_at);
    if v_blocker is not null then
        case b.status
        when 'processing' then
            return query select 'key_busy', format('message %s of its key %s is being handled%s; this one comes after '
                'it', b.id, v_key, ' by ' || b.owner), null::text, details;
        when 'scheduled' then
            return query select 'key_waits', format('message %s of its key %s goes before it, and is tried again %s%s',
                b.id, v_key, integration.time_in_words(b.available_at), ': ' || b.error_message),
                'doorbell explain ' || b.id, details;
        when 'failed' then
            select count(*) into v_waiting from (
                select from integration.data_staging x
                 where x.target_app = m.target_app and x.ordering_key = m.ordering_key and x.ordering_key is not null
                   and (x.status = 'pending' or x.status = 'scheduled' and x.behind_at is not null) limit 1000) x;
            return query select 'key_blocked', format('message %s of its key %s failed for good at %s: %s; %s wait%s '
                'behind it', b.id, v_key, integration.time_in_words(b.updated_at),
                coalesce(b.error_message, 'no reason was given'),
                case when v_waiting = 1000 then '1,000 or more' else v_waiting::text end,
                case when v_waiting = 1 then 's' end),
                format('doorbell unblock %s %s --redrive', integration.shell_word(m.target_app),
                    integration.shell_word(m.ordering_key)), details;
        end case;
    elsif b.id < p_id and b.crash_count > 0 then
        return query select 'key_waits', format('message %s of its key %s goes before it, and runs alone because a '
            'consumer died that had it', b.id, v_key), 'doorbell explain ' || b.id, details;
    elsif b.id < p_id and not exists (
        select from integration.processes p
         where p.lease_until > integration.clock() and integration.accepts(p.targets, m.target_app, b.record_type))
    then
        return query select 'key_type', format('message %s of its key %s goes before it and is of type %s, which no '
            'running consumer accepts', b.id, v_key, b.record_type),
            'start a consumer that handles ' || b.record_type || ', or: doorbell cancel ' || b.id, details;
    elsif b.id < p_id then
        return query select 'key_waits', format('message %s of its key %s goes before it', b.id, v_key),
            'doorbell explain ' || b.id, details;
    elsif m.behind_at is not null then
        return query select 'key_waits', format('it is the next of its key %s, and will be claimed after the next '
            'round of maintenance', v_key), 'select integration.step_forward_forgotten()', details;
    end if;
    select a.pid, a.xact_start, a.application_name into v_session
      from integration.key_turns t join pg_stat_activity a on a.backend_xid = t.xmax
     where t.slot = integration.key_slot(m.target_app, m.ordering_key)
       and a.xact_start < clock_timestamp() - interval '1 s' limit 1;
    if v_session.pid is not null then
        return query select 'key_turn', format('session %s%s keeps the turn of its key %s and of one in sixteen '
            'others: it has claimed in a transaction that has been open for %s', v_session.pid,
            ' (' || nullif(v_session.application_name, '') || ')', v_key,
            integration.in_words(clock_timestamp() - v_session.xact_start)),
            'end that transaction, or: select pg_terminate_backend(' || v_session.pid || ')',
            details || jsonb_build_object('pid', v_session.pid, 'since', v_session.xact_start);
    end if;
end $$;

-- The message that is next of a key, whether or not the key is free: what waits again, else what comes after all that
-- was taken. Null: nothing waits. One that was committed late may be before it.
create or replace function integration.head_of_key(p_target text, p_key text) returns bigint
    language sql stable set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set enable_bitmapscan = off as $$
    select min(x.id) from (
        (select y.id from integration.data_staging y
          where y.target_app = p_target and y.ordering_key = p_key and y.series is not null
            and (y.status = 'pending' or y.status = 'scheduled' and y.behind_at is not null)
          order by y.target_app, y.ordering_key, y.id limit 1)
        union all
        (select y.id from integration.data_staging y
          where y.target_app = p_target and y.ordering_key = p_key and y.ordering_key is not null
            and (y.status = 'pending' or y.status = 'scheduled' and y.behind_at is not null)
            and y.id > coalesce((
                select t.id from integration.data_staging t
                 where t.target_app = p_target and t.ordering_key = p_key and t.series is not null
                   and t.behind_at is null and t.status <> 'pending'
                 order by t.target_app desc, t.ordering_key desc, t.series desc, t.id desc limit 1), 0)
          order by y.target_app, y.ordering_key, y.id limit 1)) x
$$;

-- The keys of a target of which messages wait, up to p_limit after p_after, by name: whether the key is free, busy (a
-- message of it is being handled), waits (for a message that is tried again, or runs alone) or is blocked (by one that
-- failed for good); which message that is and why; how many messages wait (counted up to 1,000), and since when the
-- oldest does.
create or replace function integration.waiting_keys(p_target text, p_limit integer default 100, p_after text default '')
    returns table (
        ordering_key text, state text, staging_id bigint, reason text, waiting bigint, since timestamptz
    )
    language sql stable set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        set enable_bitmapscan = off as $$
    with recursive keys as (
        (select d.ordering_key, 1 as place from integration.data_staging d
          where d.target_app = p_target and d.ordering_key is not null and d.ordering_key > p_after
            and (d.status = 'pending' or d.status = 'scheduled' and d.behind_at is not null)
          order by d.target_app, d.ordering_key limit 1)
        union all
        select n.ordering_key, k.place + 1 from keys k
         cross join lateral (
            select d.ordering_key from integration.data_staging d
             where d.target_app = p_target and d.ordering_key is not null and d.ordering_key > k.ordering_key
               and (d.status = 'pending' or d.status = 'scheduled' and d.behind_at is not null)
             order by d.target_app, d.ordering_key limit 1) n
         where k.place < least(p_limit, 10000))
    select k.ordering_key,
           case b.status when 'processing' then 'busy' when 'failed' then 'blocked' when 'scheduled' then 'waits'
                else case when b.crash_count > 0 then 'waits' else 'free' end end,
           b.id, b.error_message, w.waiting, w.since
      from keys k
      left join lateral integration.key_blockers(array[p_target], array[k.ordering_key]) x on true
      left join integration.data_staging b on b.id = coalesce(x.id, integration.head_of_key(p_target, k.ordering_key))
     cross join lateral (
        select count(*) as waiting, min(c.created_at) as since from (
            select d.created_at from integration.data_staging d
             where d.target_app = p_target and d.ordering_key = k.ordering_key and d.ordering_key is not null
               and (d.status = 'pending' or d.status = 'scheduled' and d.behind_at is not null)
             order by d.target_app, d.ordering_key, d.id limit 1000) c) w
     where p_limit > 0
     order by k.ordering_key
$$;
