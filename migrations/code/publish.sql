-- Publishing. A plain INSERT is a publish too; these functions add delays, deduplication that answers with the first
-- message's id, and one round trip for many. They run as whoever calls them, so that the table knows who publishes (see
-- app_rights.sql).

-- Publishes one message and returns its id. With p_dedup_key: the id of the message already published under that key
-- by the same source inside the dedup window, if there is one. p_delay postpones it (status scheduled). Where it still
-- waits after p_expires_after it is cancelled, see expire_after. With p_coalesce_key: while the message published last
-- under that key (of the same source, target and record type) waits and nobody has taken it, its payload and headers
-- are replaced, its delay begins anew (p_max_wait after its publish at most, ten times the delay unless given), and its
-- id is the answer; see replace_waiting.
-- Locks: the coalesce key's row; the new row, then the dedup key's entry. SQLSTATEs: 23514 when a value breaks a check,
-- 23502 when one is null, 42501 for what the role may not publish, 53400 when too many messages wait, MQ002 for a
-- coalesce key beside a dedup key, or of a topic.
create or replace function integration.publish(
    p_source text, p_target text, p_type text, p_data jsonb,
    p_priority integer default 0, p_delay interval default null, p_headers jsonb default null,
    p_ordering_key text default null, p_dedup_key text default null, p_max_retries integer default null,
    p_expires_after interval default null, p_coalesce_key text default null, p_max_wait interval default null
) returns bigint
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_id    bigint;
    v_due   timestamptz;
    v_which text;
begin
    if p_coalesce_key is not null or p_max_wait is not null then
        v_id := integration.replace_waiting(current_user, p_source, p_target, p_type, p_data, p_delay, p_headers,
            p_ordering_key, p_dedup_key, p_expires_after, p_coalesce_key, p_max_wait);
        if v_id is not null then
            return v_id;
        end if;
        if p_max_wait is not null then
            p_delay := least(p_delay, greatest(p_max_wait, '0'));
        end if;
    end if;
    if p_delay > interval '0' then
        v_due := integration.clock() + p_delay;
    end if;
    if p_dedup_key is null then
        insert into integration.data_staging
            (source_app, target_app, record_type, data, priority, status, available_at, headers, ordering_key,
                max_retries)
        values (p_source, p_target, p_type, p_data, coalesce(p_priority, 0),
                case when v_due is null then 'pending' else 'scheduled' end, v_due, p_headers, p_ordering_key,
                    p_max_retries)
        returning id into v_id;
        if p_expires_after is not null then
            perform integration.expire_after(array[v_id], array[p_expires_after]);
        end if;
        if p_coalesce_key is not null then
            perform integration.coalesce_into(v_id, p_coalesce_key);
        end if;
        return v_id;
    end if;
    loop
        select f.id into v_id from integration.published_under(p_source, array[p_dedup_key]) f;
        if found then
            return v_id;
        end if;
        begin
            insert into integration.data_staging
                (source_app, target_app, record_type, data, priority, status, available_at, headers, ordering_key,
                    dedup_key, max_retries)
            values (p_source, p_target, p_type, p_data, coalesce(p_priority, 0),
                    case when v_due is null then 'pending' else 'scheduled' end, v_due, p_headers, p_ordering_key,
                    p_dedup_key, p_max_retries)
            returning id into v_id;
            if p_expires_after is not null then
                perform integration.expire_after(array[v_id], array[p_expires_after]);
            end if;
            return v_id;
        exception when unique_violation then
            get stacked diagnostics v_which = constraint_name;
            -- Somebody else published under the key at the same time.
            if v_which <> 'dedup_key' then
                raise;
            end if;
        end;
    end loop;
end $$;

-- Publishes many in one statement, in the order given; returns (ordinal, id), 1-based. A null array means "none of
-- them"; a null element the default. Duplicates answer with the first message's id, as publish does, and so do those
-- of a coalesce key, of which the last counts; where there is one, each message is published by a statement of its own.
-- Locks: the coalesce keys in their order; the new rows, then the dedup keys in their order.
create or replace function integration.publish_many(
    p_source text, p_targets text[], p_types text[], p_data text[], p_priorities integer[] default null,
    p_delays_ms bigint[] default null, p_headers text[] default null, p_ordering_keys text[] default null,
    p_dedup_keys text[] default null, p_max_retries integer[] default null, p_expires_ms bigint[] default null,
    p_coalesce_keys text[] default null, p_max_waits_ms bigint[] default null
) returns table (ordinal integer, id bigint)
    language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    v_ids   bigint[];
    v_fresh boolean[];
    v_taken integer;
    v_which text;
begin
    if p_coalesce_keys is not null or p_max_waits_ms is not null then
        v_taken := integration.take_coalesce_keys(current_user, p_source, p_targets, p_types, p_coalesce_keys);
        return query
            select g.ordinal::integer, integration.publish(p_source, g.target, g.type, g.data::jsonb, g.priority,
                       g.delay_ms * interval '1 ms', g.headers::jsonb, g.ordering_key, g.dedup_key, g.max_retries,
                       g.expires_ms * interval '1 ms', g.coalesce_key, g.max_wait_ms * interval '1 ms')
              from (select u.* from unnest(p_targets, p_types, p_data, p_priorities, p_delays_ms, p_headers,
                        p_ordering_keys, p_dedup_keys, p_max_retries, p_expires_ms, p_coalesce_keys, p_max_waits_ms)
                        with ordinality as u (target, type, data, priority, delay_ms, headers, ordering_key,
                            dedup_key, max_retries, expires_ms, coalesce_key, max_wait_ms, ordinal)
                     order by u.ordinal) g;
        return;
    end if;
    -- unnest in parallel: subscripting a text array walks it from the start each time. Ids are given out in the order
    -- in which rows are inserted, so the nth id is that of the nth message.
    if p_dedup_keys is null and p_expires_ms is null then
        return query
            with published as (
                insert into integration.data_staging
                    (source_app, target_app, record_type, data, priority, status, available_at, headers, ordering_key,
                        max_retries)
                select p_source, g.target, g.type, g.data::jsonb, coalesce(g.priority, 0),
                       case when g.delay_ms > 0 then 'scheduled' else 'pending' end,
                       case when g.delay_ms > 0 then integration.clock() + g.delay_ms * interval '1 ms' end,
                       g.headers::jsonb, g.ordering_key, g.max_retries
                  from unnest(p_targets, p_types, p_data, p_priorities, p_delays_ms, p_headers, p_ordering_keys,
                      p_max_retries)
                       with ordinality as g (target, type, data, priority, delay_ms, headers, ordering_key,
                           max_retries, ordinal)
                 order by g.ordinal
                returning data_staging.id)
            select row_number() over (order by p.id)::integer, p.id from published p order by p.id;
        return;
    end if;
    loop
        begin
            with given as materialized (
                select g.*, f.id as first_id,
                       case when g.dedup_key is null then g.ordinal
                            else min(g.ordinal) over (partition by g.dedup_key) end as first_ordinal
                  from unnest(p_targets, p_types, p_data, p_priorities, p_delays_ms, p_headers, p_ordering_keys,
                      p_dedup_keys, p_max_retries)
                       with ordinality as g (target, type, data, priority, delay_ms, headers, ordering_key,
                           dedup_key, max_retries, ordinal)
                  left join integration.published_under(p_source, p_dedup_keys) f on f.dedup_key = g.dedup_key),
            published as (
                insert into integration.data_staging
                    (source_app, target_app, record_type, data, priority, status, available_at, headers, ordering_key,
                        dedup_key, max_retries)
                select p_source, g.target, g.type, g.data::jsonb, coalesce(g.priority, 0),
                       case when g.delay_ms > 0 then 'scheduled' else 'pending' end,
                       case when g.delay_ms > 0 then integration.clock() + g.delay_ms * interval '1 ms' end,
                       g.headers::jsonb, g.ordering_key, g.dedup_key, g.max_retries
                  from given g where g.first_id is null and g.ordinal = g.first_ordinal order by g.ordinal
                returning data_staging.id),
            new as (
                select p.id, row_number() over (order by p.id) as nth from published p),
            fresh as (
                select g.ordinal, row_number() over (order by g.ordinal) as nth
                  from given g where g.first_id is null and g.ordinal = g.first_ordinal)
            select array_agg(coalesce(g.first_id, n.id) order by g.ordinal),
                   array_agg(g.first_id is null and g.ordinal = g.first_ordinal order by g.ordinal) into v_ids, v_fresh
              from given g
              left join fresh f on f.ordinal = g.first_ordinal
              left join new n on n.nth = f.nth;
            if p_expires_ms is not null then
                perform integration.expire_after(v_ids,
                    array(select case when e.fresh then e.ms * interval '1 ms' end
                            from unnest(p_expires_ms, v_fresh) with ordinality e (ms, fresh, nth) order by e.nth));
            end if;
            return query select k.ordinal::integer, k.id from unnest(v_ids) with ordinality k (id, ordinal);
            return;
        exception when unique_violation then
            get stacked diagnostics v_which = constraint_name;
            -- Somebody else published under one of the keys at the same time.
            if v_which <> 'dedup_key' then
                raise;
            end if;
        end;
    end loop;
end $$;
