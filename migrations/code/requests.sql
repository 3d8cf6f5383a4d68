-- Requests: messages whose publisher waits for the answer. The reply is written by the transaction that completes the
-- request, so there is one, from who held the lease, and it is as durable as the completion.

-- Publishes a request and returns its id, and what the reply can be asked for with (see answers): a header "reply_to",
-- which who handles it sees, too. Until the first dot it names who waits, whom reply notifies on reply_channel; what is
-- behind it is the secret of the request. Nobody need wait: the answer is there for settings.reply_retention. When
-- nobody took it within p_within it is cancelled, unless p_keep. With p_dedup_key a second request is the first.
-- Commit before you wait: until then nobody sees it. SQLSTATEs: those of publish.
create or replace function integration.request(
    p_source text, p_target text, p_type text, p_data jsonb, p_within interval default '30 s',
    p_priority integer default 0, p_headers jsonb default null, p_ordering_key text default null,
    p_dedup_key text default null, p_max_retries integer default null, p_reply_to text default null,
    p_keep boolean default false, out id bigint, out reply_to text
)
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    reply_to := coalesce(p_reply_to, gen_random_uuid()::text);
    id := integration.publish(p_source, p_target, p_type, p_data, p_priority, null,
        coalesce(p_headers, '{}') || jsonb_build_object('reply_to', reply_to), p_ordering_key, p_dedup_key,
        p_max_retries, case when not p_keep then p_within end);
    if p_dedup_key is not null then
        reply_to := coalesce(integration.reply_to_of(id, p_source, p_target, p_dedup_key), reply_to);
    end if;
end $$;

-- For request: what the answer to the first request under a dedup key can be asked for with. Who may not publish for
-- the source and target is told nothing.
create or replace function integration.reply_to_of(p_id bigint, p_source text, p_target text, p_dedup_key text)
    returns text
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
begin
    if not has_table_privilege(integration.asking_role(), 'integration.data_staging'::regclass, 'insert') then
        perform integration.must_publish(integration.asking_role(), p_source, p_target, 0);
    end if;
    return (select m.headers ->> 'reply_to'
              from (select d.headers from integration.data_staging d
                     where d.id = p_id and d.source_app = p_source and d.target_app = p_target
                       and d.dedup_key = p_dedup_key
                    union all
                    select a.headers from integration.data_staging_archive a
                     where a.id = p_id and a.source_app = p_source and a.target_app = p_target
                       and a.dedup_key = p_dedup_key) m limit 1);
end $$;

-- The channel on which who waits is told that a request of his has ended: LISTEN there before you ask.
create or replace function integration.reply_channel(p_reply_to text) returns text
    language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
    select integration.channel('reply:' || split_part(p_reply_to, '.', 1))
$$;

-- Completes a request with its reply: complete, and the reply for who asked, in one transaction. A message that is no
-- request is completed; the reply is nobody's then. A client that claims by its own UPDATE gives the owner null.
-- Locks: the row. SQLSTATEs: MQ001 when the lease was lost.
create or replace function integration.reply(p_id bigint, p_attempt integer, p_owner text, p_reply jsonb,
    p_created_at timestamptz default null)
    returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    v_reply_to text;
    v_created  timestamptz;
begin
    select d.headers ->> 'reply_to', d.created_at into v_reply_to, v_created
      from integration.data_staging d where d.id = p_id;
    perform integration.complete(p_id, p_attempt, p_owner, coalesce(p_created_at, v_created));
    if v_reply_to is not null then
        insert into integration.replies as r (id, created_at, reply_to, reply, replied_at)
        values (p_id, v_created, v_reply_to, coalesce(p_reply, 'null'), integration.clock())
        on conflict (id) do update set created_at = excluded.created_at, reply_to = excluded.reply_to,
            reply = excluded.reply, replied_at = excluded.replied_at;
        perform integration.ring_requester(v_reply_to);
    end if;
end $$;

-- Tells who waits that a request has ended: NOTIFY with an empty payload, delivered at commit.
create or replace function integration.ring_requester(p_reply_to text) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if coalesce(current_setting('integration.notify', true), '') <> 'off' then
        perform integration.send(integration.reply_channel(p_reply_to));
    end if;
end $$;

-- What became of requests, each named by its id and what request returned with it; those that have not ended, and those
-- for which the two do not fit, are left out. state: replied; completed (without a reply); failed, cancelled, expired
-- (with a reason); gone (it was deleted, or is too long ago). Tells who knows both, whoever that is.
create or replace function integration.answers(p_ids bigint[], p_reply_tos text[])
    returns table (id bigint, state text, reply jsonb, reason text)
    language sql stable security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off
        as $$
    select u.id,
           case when r.id is not null then 'replied' when m.status is null then 'gone'
                when m.status = 'cancelled' and m.error_message = integration.expiry_reason() then 'expired'
                else m.status end,
           r.reply, case when r.id is null and m.status <> 'completed' then m.error_message end
      from unnest(p_ids, p_reply_tos) u (id, reply_to)
      left join integration.replies r on r.id = u.id and r.reply_to = u.reply_to
      left join lateral (
            select d.status, d.error_message, d.headers from integration.data_staging d where d.id = u.id
            union all
            select a.status, a.error_message, a.headers from integration.data_staging_archive a where a.id = u.id
             limit 1) m on r.id is null
     where r.id is not null or m.status is null
        or m.status in ('completed', 'failed', 'cancelled') and m.headers ->> 'reply_to' = u.reply_to
$$;

-- For explain: whether a completed request was replied to. Null: it is no request, or too long ago.
create or replace function integration.replied_in_words(p_id bigint) returns text
    language sql stable set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
    select case when exists (select from integration.replies r where r.id = p_id) then ', which replied'
                when d.headers ? 'reply_to' and d.processed_at > integration.clock() - s.reply_retention
                    then ', without a reply' end
      from integration.data_staging d cross join integration.settings s where d.id = p_id
$$;

-- For explain: who waits for the reply to a request that has not ended, where explain does not say when it expires.
create or replace function integration.explain_asked(p_id bigint)
    returns table (code text, sentence text, fix text, details jsonb)
    language sql stable set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
    select 'asked', case
               when e.expires_at is null then 'it is a request, and its reply is kept for whoever asked'
               when e.expires_at > integration.clock()
                   then 'it is a request, and whoever asked waits for its reply until '
                       || integration.time_in_words(e.expires_at)
               else 'it is a request, and whoever asked waited for its reply until '
                   || integration.time_in_words(e.expires_at) || ', and may ask for it later' end,
           null::text, jsonb_build_object('until', e.expires_at)
      from integration.data_staging d
      left join integration.expiring e on e.id = d.id and e.created_at = d.created_at
     where d.id = p_id and (d.status = 'processing' or e.id is null)
$$;

-- Ends a request whose time is over: it is cancelled where nobody has taken it, unless it is kept. Returns what became
-- of it as answers does; "waiting" where it is kept, or its time is not over, and nobody has taken it; "handled" where
-- somebody is at it: the reply is there when that is over. Null: the two do not fit. Before its time it is left alone,
-- because several may wait for it, published under one dedup key; a second early is a clock that is ahead of this one.
-- Locks: the row, SKIP LOCKED.
create or replace function integration.give_up(p_id bigint, p_reply_to text, out state text, out reply jsonb,
    out reason text)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set enable_seqscan = off as $$
declare
    v_fits boolean := coalesce((select d.headers ->> 'reply_to' = p_reply_to
                                  from integration.data_staging d where d.id = p_id), false);
    v_over boolean := exists (select from integration.expiring e
                               where e.id = p_id and e.expires_at <= integration.clock() + interval '1 s');
begin
    if v_fits and v_over then
        perform integration.expire_waiting(array[p_id]);
    end if;
    select a.state, a.reply, a.reason into state, reply, reason
      from integration.answers(array[p_id], array[p_reply_to]) a;
    if state is null and v_fits then
        select case when d.status = 'processing' or v_over then 'handled' else 'waiting' end into state
          from integration.data_staging d where d.id = p_id;
    end if;
end $$;

-- Waits until a request has ended, for who asks by hand: it looks after 10 ms, then twice as long each time, half a
-- second at most. When p_within is over it gives up as give_up does. The results are those of answers and give_up, so
-- that "waiting" may be awaited again; state is null where id and reply_to do not fit.
--
-- A procedure, because it commits between two looks: a function would hold the snapshot of the statement that called
-- it, and with it keep vacuum from its work in the whole cluster, for as long as it waits; this has one for half a
-- second at most. So it is to be called by itself: inside of a transaction, or of a function, the server refuses to
-- wait.
-- SQLSTATEs: 2D000 inside of a transaction.
create or replace procedure integration.await_reply(p_id bigint, p_reply_to text, p_within interval default '30 s',
    inout state text default null, inout reply jsonb default null, inout reason text default null)
    language plpgsql as $$
declare
    v_until timestamptz;
    v_pause double precision := 0.01;
begin
    loop
        -- A procedure that commits cannot have it set for itself; this is gone with each commit.
        perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        v_until := coalesce(v_until, clock_timestamp() + p_within);
        select a.state, a.reply, a.reason into state, reply, reason
          from integration.answers(array[p_id], array[p_reply_to]) a;
        exit when state is not null;
        if clock_timestamp() >= v_until then
            select g.state, g.reply, g.reason into state, reply, reason from integration.give_up(p_id, p_reply_to) g;
            exit;
        end if;
        commit;
        perform pg_catalog.pg_sleep(v_pause);
        commit;
        perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        v_pause := least(v_pause * 2, 0.5, extract(epoch from v_until - clock_timestamp())::double precision);
    end loop;
end $$;
