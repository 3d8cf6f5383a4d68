-- What holds messages back before they are claimed: the gates of a target, the lack of a consumer, another session's lock.
-- Everything here only reads and takes no lock.

-- A length of time in words: 0.8 s, 42 s, 17 min, 5 h, 3 d.
create function integration.in_words(p_span interval) returns text
    language sql immutable strict parallel safe
    begin atomic
        select case when e.s < 10 then round(e.s, 1) || ' s' when e.s < 120 then floor(e.s) || ' s'
                    when e.s < 7200 then floor(e.s / 60) || ' min' when e.s < 172800 then floor(e.s / 3600) || ' h'
                    else floor(e.s / 86400) || ' d' end
          from (select greatest(extract(epoch from p_span), 0) as s) e;
    end;

-- A point in time in words: UTC, whole seconds.
create function integration.in_words(p_time timestamptz) returns text
    language sql stable parallel safe
    return to_char(p_time at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"');

-- A word as a shell reads it, for the commands that fixes propose.
create function integration.shell_word(p_text text) returns text
    language sql immutable parallel safe
    return case when p_text ~ '^[A-Za-z0-9_./:@%+,][A-Za-z0-9_./:@%+,-]*$' then p_text
                else '''' || replace(p_text, '''', '''\''''') || '''' end;

-- What keeps every message of a target from being claimed now: admit() as it would decide, without its locks and without
-- taking a canary. A test compares the two in every state. Empty result: messages of the target may be claimed.
create function integration.closed_gates(p_target text) returns table (code text, sentence text, fix text, details jsonb)
    language sql stable set jit = off
    begin atomic
        select 'paused' as code,
               format('%s was paused by %s %s ago%s', p_target, t.paused_by, integration.in_words(integration.clock() - t.paused_at),
                      ': ' || t.pause_reason),
               'doorbell resume ' || integration.shell_word(p_target),
               jsonb_build_object('since', t.paused_at, 'by', t.paused_by, 'reason', t.pause_reason)
          from integration.targets t
         where t.target_app = p_target and t.paused_at is not null
        union all
        select 'breaker_open' as code,
               format('the breaker %s was opened by %s %s ago%s; %s', b.breaker_key, b.changed_by,
                      integration.in_words(integration.clock() - b.changed_at), ': ' || b.reason,
                      coalesce('canaries go through in ' || integration.in_words(b.retry_at - integration.clock()),
                               'it stays open until somebody closes it')),
               'doorbell breaker close ' || integration.shell_word(b.breaker_key),
               jsonb_build_object('breaker', b.breaker_key, 'since', b.changed_at, 'by', b.changed_by, 'reason', b.reason,
                                  'retry_at', b.retry_at)
          from integration.breakers b
         where b.breaker_key = integration.breaker_of(p_target) and b.state = 'open'
           -- Once its time has come, the next claim lets the canaries through.
           and (b.retry_at is null or b.retry_at > integration.clock())
        union all
        select 'breaker_half_open' as code,
               format('the breaker %s has been half-open for %s%s; all its canaries are under way, %s came back well',
                      b.breaker_key, integration.in_words(integration.clock() - b.changed_at),
                      ' (it was opened: ' || b.reason || ')', b.canaries_passed),
               'doorbell breaker close ' || integration.shell_word(b.breaker_key),
               jsonb_build_object('breaker', b.breaker_key, 'since', b.changed_at, 'reason', b.reason,
                                  'canaries_passed', b.canaries_passed)
          from integration.breakers b, integration.settings s
         where b.breaker_key = integration.breaker_of(p_target) and b.state = 'half_open' and b.canaries_left = 0
           and b.changed_at >= integration.clock() - s.breaker_open_for
        union all
        select 'in_flight_limit' as code,
               format('%s messages of %s are being handled, and max_in_flight is %s', f.count, p_target, t.max_in_flight),
               format('update integration.targets set max_in_flight = %s where target_app = %L', t.max_in_flight * 2, p_target),
               jsonb_build_object('processing', f.count, 'max_in_flight', t.max_in_flight)
          from integration.targets t
         cross join lateral (
            select count(*) from integration.data_staging d where d.target_app = p_target and d.status = 'processing') f
         where t.target_app = p_target and f.count >= t.max_in_flight;
    end;

-- Every target that is known: named in p_names, with settings, or with a consumer; its live consumer processes, the messages
-- they handle at the same time, and the gates that are closed.
create function integration.target_states(p_names text[] default '{}') returns table (
    target_app text, consumers bigint, workers bigint, gate_codes text[], gate_sentences text[]
)
    language sql stable set jit = off
    begin atomic
        with consuming as materialized (
            select t.key as target_app, c.lease_until > integration.clock() as alive,
                   coalesce((t.value ->> 'capacity')::bigint, 0) as capacity
              from integration.consumers c cross join lateral jsonb_each(c.targets) t),
        names as (
            select n.name from unnest(p_names) n (name)
            union select t.target_app from integration.targets t
            union select c.target_app from consuming c)
        select n.name,
               (select count(*) from consuming c where c.target_app = n.name and c.alive),
               (select coalesce(sum(c.capacity), 0)::bigint from consuming c where c.target_app = n.name and c.alive),
               array(select g.code from integration.closed_gates(n.name) g),
               array(select g.sentence from integration.closed_gates(n.name) g)
          from names n order by n.name;
    end;

-- Whether what a process says of its consumers (consumers.targets) takes messages of a record type of a target.
create function integration.accepts(p_targets jsonb, p_target text, p_type text) returns boolean
    language sql immutable parallel safe
    return p_targets ? p_target
       and (coalesce(jsonb_typeof(p_targets #> array[p_target, 'types']), 'null') <> 'array'
            or (p_targets #> array[p_target, 'types']) ? p_type);

-- For explain: who holds the row of a pending message, given its xmax: a consumer that handles it in a transaction, or
-- somebody else. Empty result: nobody does.
create function integration.explain_locker(p_target text, p_xid text) returns table (code text, sentence text, fix text, details jsonb)
    language sql stable
    begin atomic
        select case when h.consuming then 'held' else 'locked' end,
               case when h.consuming then 'a consumer is handling it in a transaction: session ' else 'another transaction holds its row: session ' end
                   -- Since when, only those see who may see the activity of other roles.
                   || format('%s (%s)%s', h.pid, h.name, ', open for ' || integration.in_words(integration.clock() - h.xact_start)),
               case when not h.consuming then format('select pg_terminate_backend(%s)', h.pid) end,
               jsonb_build_object('session', h.pid, 'application', h.name, 'since', h.xact_start)
          from (select a.pid, a.xact_start, coalesce(nullif(a.application_name, ''), a.usename) as name,
                       exists (select from integration.consumers c
                                where c.lease_until > integration.clock() and c.application = a.application_name
                                  and c.targets #>> array[p_target, 'in_transaction'] = 'true') as consuming
                  from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a on a.pid = l.pid
                 where l.locktype = 'transactionid' and l.granted and l.transactionid::text = p_xid) h;
    end;

-- For explain: why no live consumer would take a message of this kind. Consumers in plain SQL are not registered and cannot
-- be seen here. Empty result: at least one would.
create function integration.explain_consumers(p_target text, p_type text) returns table (code text, sentence text, fix text, details jsonb)
    language sql stable
    begin atomic
        select case when k.live = 0 then 'no_consumer' else 'type_not_accepted' end,
               case when k.live = 0
                   then format('no live consumer of %s is registered%s', p_target,
                               '; the last one, ' || k.last || ', stopped beating ' || integration.in_words(integration.clock() - k.last_beat) || ' ago')
                   when k.live = 1
                   then format('the only live consumer process of %s does not accept %s; it accepts: %s', p_target, p_type, k.types)
                   else format('none of the %s live consumer processes of %s accepts %s; they accept: %s', k.live, p_target, p_type, k.types) end,
               'doorbell consume ' || integration.shell_word(p_target)
                   || case when k.live = 0 then '' else ' --type ' || integration.shell_word(p_type) end,
               jsonb_build_object('live', k.live, 'accepted', k.types)
          from (select count(*) filter (where c.lease_until > integration.clock()) as live,
                       coalesce(bool_or(integration.accepts(c.targets, p_target, p_type)) filter (where c.lease_until > integration.clock()), false) as accepted,
                       string_agg(distinct t.types, ', ') filter (where c.lease_until > integration.clock()) as types,
                       (array_agg(c.incarnation order by c.beat_at desc))[1] as last, max(c.beat_at) as last_beat
                  from integration.consumers c
                  left join lateral (
                       select string_agg(x.type, ', ' order by x.type) as types
                         from jsonb_array_elements_text(case jsonb_typeof(c.targets #> array[p_target, 'types'])
                                  when 'array' then c.targets #> array[p_target, 'types'] else '[]' end) x (type)) t on true
                 where c.targets ? p_target) k
         where not k.accepted;
    end;
