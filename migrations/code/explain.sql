-- Why a message is not running. Everything here only reads and takes no lock.

-- The one answer to "why is this message not running?": the first row is the cause, further ones are what would hold it
-- when that is gone. code is for programs, sentence for people, fix what to do (null: nothing needs to be done): words,
-- or a command that changes what it names and nothing else; details the facts behind the sentence. Codes: not_found,
-- gone, archived, completed, failed, cancelled, scheduled, due, processing, owner_dead, foreign_claim, held, locked,
-- paused, breaker_open, breaker_half_open, in_flight_limit, rate_limited, no_consumer, type_not_accepted, suspect,
-- busy, queued, ready, set_aside, key_busy, key_waits, key_blocked, key_type, key_turn, not_visible, contract_broken;
-- of a topic's messages routed, unrouted; expired, expiring (it is to be cancelled), and, behind the cause, expires:
-- until when it may wait, coalesced: it may be replaced, asked: somebody waits for its reply, steps:
-- what of its handling is done already. Never empty.
create or replace function integration.explain(p_id bigint)
    returns table (code text, sentence text, fix text, details jsonb)
    language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    m      record;
    v_last record;
    v_held boolean;
begin
    select d.id, d.status, d.target_app, d.record_type, d.attempt, d.crash_count, d.error_message, d.updated_at,
           d.processed_at, d.xmax::text as locker, d.behind_at, d.headers ? 'reply_to' as is_request
      into m from integration.data_staging d where d.id = p_id;
    if m.id is null then
        return query select * from integration.explain_absent(p_id);
        return;
    end if;
    return query select * from integration.explain_set_aside(p_id);
    v_held := found;
    if m.status = 'processing' and v_held then
        return;
    end if;
    details := jsonb_build_object('attempt', m.attempt, 'at', m.updated_at, 'reason', m.error_message);
    case m.status
    when 'completed' then
        return query select * from integration.explain_routed(p_id);
        if found then
            return;
        end if;
        return query select 'completed', format('it was completed at %s by attempt %s%s',
            integration.time_in_words(m.processed_at), m.attempt, integration.replied_in_words(p_id)),
            null::text, details;
    when 'failed' then
        return query select * from integration.explain_breach(p_id);
        if not found then
            return query select 'failed', format('it failed for good at %s, by attempt %s: %s',
                integration.time_in_words(m.updated_at), m.attempt, coalesce(m.error_message, 'no reason was given')),
                'doorbell redrive ' || p_id, details;
        end if;
    when 'cancelled' then
        if m.error_message = integration.expiry_reason() then
            return query select 'expired', format('it expired, and was cancelled at %s: nobody took it in time%s',
                integration.time_in_words(m.updated_at), case when m.is_request then ', and who asked for a reply was '
                    'told so' end), 'doorbell redrive ' || p_id, details;
            return;
        end if;
        select * into v_last from integration.last_event(p_id, m.updated_at);
        return query select 'cancelled', format('it was cancelled at %s%s%s', integration.time_in_words(m.updated_at),
            ' by ' || v_last.app_name, ': ' || m.error_message),
            'doorbell redrive ' || p_id, details || jsonb_build_object('by', v_last.app_name);
    when 'processing' then
        return query select * from integration.explain_processing(p_id);
    when 'scheduled' then
        return query select * from integration.explain_expired(p_id);
        if m.behind_at is not null then
            return query select * from integration.explain_key(p_id);
        else
            return query select * from integration.explain_scheduled(p_id);
        end if;
        return query select * from integration.closed_gates(m.target_app);
        return query select * from integration.explain_consumers(m.target_app, m.record_type);
    when 'pending' then
        return query select * from integration.explain_expired(p_id);
        v_held := v_held or found;
        return query select * from integration.explain_locker(m.target_app, m.locker);
        v_held := v_held or found;
        return query select * from integration.explain_key(p_id);
        v_held := v_held or found;
        return query select * from integration.closed_gates(m.target_app);
        v_held := v_held or found;
        return query select * from integration.explain_consumers(m.target_app, m.record_type);
        v_held := v_held or found;
        -- Its place among the others is the cause only where nothing else is.
        if m.crash_count > 0 or not v_held then
            return query select * from integration.explain_queue(p_id);
        end if;
    end case;
    return query select 'expires', format('unless somebody has taken it by then, it expires at %s%s',
            integration.time_in_words(e.expires_at),
            case when m.is_request then ': whoever asked wants no reply then' end),
            null::text, jsonb_build_object('at', e.expires_at, 'request', coalesce(m.is_request, false))
      from integration.expiring e join integration.data_staging d on d.id = e.id and d.created_at = e.created_at
     where e.id = p_id and m.status in ('pending', 'scheduled') and e.expires_at > integration.clock();
    return query select * from integration.explain_coalesced(p_id);
    if m.status in ('pending', 'scheduled', 'processing') then
        return query select * from integration.explain_asked(p_id) where m.is_request;
        return query select * from integration.explain_steps(p_id);
    end if;
end $$;

-- For explain: a message that is not in data_staging.
create or replace function integration.explain_absent(p_id bigint)
    returns table (code text, sentence text, fix text, details jsonb)
    language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    v_archived record;
    v_last     record;
    v_ids_end  bigint;
begin
    select a.status, a.processed_at, a.attempt into v_archived
      from integration.data_staging_archive a where a.id = p_id limit 1;
    if v_archived.status is not null then
        return query select 'archived', format('it was %s at %s by attempt %s, and is in the archive',
            v_archived.status,
            integration.time_in_words(v_archived.processed_at), v_archived.attempt), null::text,
            jsonb_build_object('status', v_archived.status, 'at', v_archived.processed_at, 'attempt',
                v_archived.attempt);
        return;
    end if;
    -- Row level security hides what it hides without a word.
    if row_security_active('integration.data_staging') or row_security_active('integration.data_staging_archive') then
        return query select 'not_visible', format('policies of row level security keep messages from role %s: whether '
            'there is such a message, it cannot know', current_user), 'ask as a role that may see all messages',
            jsonb_build_object('role', current_user);
        return;
    end if;
    select * into v_last from integration.last_event(p_id, '-infinity');
    if v_last.action is not null then
        return query select 'gone', format('it is no longer there; the last that is known: %s by %s at %s%s',
            v_last.action, v_last.app_name,
            integration.time_in_words(v_last.created_at), ' (it was ' || v_last.old_status || ')'),
            'doorbell audit ' || p_id,
            jsonb_build_object('action', v_last.action, 'by', v_last.app_name, 'at', v_last.created_at);
        return;
    end if;
    if has_sequence_privilege('integration.data_staging_id_seq', 'select') then
        select s.last_value into v_ids_end from integration.data_staging_id_seq s where s.is_called;
        v_ids_end := coalesce(v_ids_end, 0);
    end if;
    return query select 'not_found', case
            when p_id > v_ids_end then format('there is no such message; the last id given out is %s', v_ids_end)
            else 'there is no such message: its transaction was rolled back or has not committed yet, or it was '
                'deleted' end,
        null::text, jsonb_build_object('last_id', v_ids_end);
end $$;

-- For explain: a message that waits for its time.
create or replace function integration.explain_scheduled(p_id bigint)
    returns table (code text, sentence text, fix text, details jsonb)
    language plpgsql stable set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    m       record;
    v_now   timestamptz := integration.clock();
    v_cause text;
begin
    select d.*, p.max_retries as retries into m
      from integration.data_staging d cross join lateral integration.policy(d.target_app, d.record_type) p
          where d.id = p_id;
    select case e.action when 'errored' then 'retry' when 'snoozed' then 'snooze' end into v_cause
      from integration.last_event(p_id, m.updated_at) e;
    v_cause := coalesce(v_cause, case when m.retry_count > 0 then 'retry' when m.attempt > 0 then 'snooze'
        else 'delay' end);
    return query select
        case when m.available_at > v_now then 'scheduled' else 'due' end,
        case when m.available_at > v_now
            then format('it waits until %s (%s)', integration.time_in_words(m.available_at),
                integration.in_words(-integration.since(m.available_at)))
            else format('it was due %s ago and is about to be made pending, by a consumer of %s or by maintenance',
                        integration.in_words(integration.since(m.available_at)), m.target_app) end
        || case v_cause
            when 'retry' then format(': retry %s of %s, because attempt %s failed: %s', m.retry_count,
                coalesce(m.max_retries, m.retries),
                                     m.attempt, coalesce(m.error_message, 'no reason was given'))
            when 'snooze' then ': its handler snoozed it'
            else ': it was published with a delay' end,
        'doorbell retry ' || p_id,
        jsonb_build_object('until', m.available_at, 'cause', v_cause, 'retry_count', m.retry_count,
                           'max_retries', coalesce(m.max_retries, m.retries), 'reason', m.error_message);
end $$;

-- For explain: why no live consumer would take a message of this kind. Consumers in plain SQL are not registered and
-- cannot be seen here. Empty result: at least one would.
create or replace function integration.explain_consumers(p_target text, p_type text)
    returns table (code text, sentence text, fix text, details jsonb)
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when k.live = 0 then 'no_consumer' else 'type_not_accepted' end,
           case when k.live = 0
               then format('no live consumer of %s is registered%s', p_target,
                           '; the last one, ' || k.last || ', stopped beating '
                               || integration.in_words(integration.since(k.last_beat)) || ' ago')
               when k.live = 1
               then format('the only live consumer process of %s does not accept %s; it accepts: %s', p_target,
                   p_type, k.types)
               else format('none of the %s live consumer processes of %s accepts %s; they accept: %s', k.live,
                   p_target, p_type, k.types) end,
           case when k.live = 0
               then 'start the service that handles the messages of ' || p_target
                   || coalesce('; the last one was ' || nullif(k.application, '') || ' on ' || k.host, '')
               else format('start a consumer of %s that accepts %s', p_target, p_type) end,
           jsonb_build_object('live', k.live, 'accepted', k.types)
      from (select count(*) filter (where c.lease_until > integration.clock()) as live,
                   coalesce(bool_or(integration.accepts(c.targets, p_target,
                       p_type)) filter (where c.lease_until > integration.clock()), false) as accepted,
                   string_agg(distinct t.types, ', ') filter (where c.lease_until > integration.clock()) as types,
                   (array_agg(c.owner order by c.beat_at desc))[1] as last, max(c.beat_at) as last_beat,
                   (array_agg(c.application order by c.beat_at desc))[1] as application,
                   (array_agg(c.host order by c.beat_at desc))[1] as host
              from integration.processes c
              left join lateral (
                   select string_agg(x.type, ', ' order by x.type) as types
                     from jsonb_array_elements_text(case jsonb_typeof(c.targets #> array[p_target, 'types'])
                              when 'array' then c.targets #> array[p_target, 'types'] else '[]' end) x (type)) t on true
             where c.targets ? p_target) k
     where not k.accepted;
$$;

-- For explain: who holds the row of a pending message, given its xmax: a consumer that handles it in a transaction, or
-- somebody else. Empty result: nobody does.
create or replace function integration.explain_locker(p_target text, p_xid text)
    returns table (code text, sentence text, fix text, details jsonb)
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when h.consuming then 'held' else 'locked' end,
           case when h.consuming then 'a consumer is handling it in a transaction: session '
               else 'another transaction holds its row: session ' end
               -- Since when, only those see who may see the activity of other roles.
               || format('%s (%s)%s', h.pid, h.name, ', open for '
                   || integration.in_words(integration.since(h.xact_start))),
           case when not h.consuming
               then format('have that transaction ended; that session can be ended, and all it did not commit is '
                   'undone then, with pg_terminate_backend(%s)', h.pid) end,
           jsonb_build_object('session', h.pid, 'application', h.name, 'since', h.xact_start)
      from (select a.pid, a.xact_start, coalesce(nullif(a.application_name, ''), a.usename) as name,
                   exists (select from integration.processes c
                            where c.lease_until > integration.clock() and c.application = a.application_name
                              and c.targets #>> array[p_target, 'holds'] = 'true') as consuming
              from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a on a.pid = l.pid
             where l.locktype = 'transactionid' and l.granted and l.transactionid::text = p_xid) h
$$;

-- Whether what a process says of its consumers (processes.targets) takes messages of a record type of a target.
create or replace function integration.accepts(p_targets jsonb, p_target text, p_type text) returns boolean
    language sql immutable parallel safe as $$
    select p_targets ? p_target
       and (coalesce(jsonb_typeof(p_targets #> array[p_target, 'types']), 'null') <> 'array'
            or (p_targets #> array[p_target, 'types']) ? p_type)
$$;
