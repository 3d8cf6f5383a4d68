-- Publishing. A plain INSERT is a publish too; these functions add delays, deduplication that answers with the first
-- message's id, and one round trip for many.

-- Publishes one message and returns its id. With p_dedup_key: the id of the message already published under that key
-- by the same source inside the dedup window, if there is one. p_delay postpones it (status scheduled).
-- Locks: the dedup key's entry, then the new row. SQLSTATEs: 23514 when a value breaks a check, 23502 when one is null.
create or replace function integration.publish(
    p_source text, p_target text, p_type text, p_data jsonb,
    p_priority integer default 0, p_delay interval default null, p_headers jsonb default null,
    p_ordering_key text default null, p_dedup_key text default null, p_max_retries integer default null
) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_id  bigint;
    v_due timestamptz;
begin
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
        return v_id;
    end if;
    v_id := integration.take_dedup_key(p_source, p_dedup_key);
    if v_id < 0 then
        return -v_id;
    end if;
    insert into integration.data_staging
        (id, source_app, target_app, record_type, data, priority, status, available_at, headers, ordering_key,
            dedup_key, max_retries)
    values (v_id, p_source, p_target, p_type, p_data, coalesce(p_priority, 0),
            case when v_due is null then 'pending' else 'scheduled' end, v_due, p_headers, p_ordering_key,
                p_dedup_key, p_max_retries);
    return v_id;
end $$;

-- Publishes many in one statement, in the order given; returns (ordinal, id), 1-based. A null array means "none of
-- them"; a null element the default. Duplicates answer with the first message's id, as publish does.
-- Locks: dedup keys in the order given, then the new rows.
create or replace function integration.publish_many(
    p_source text, p_targets text[], p_types text[], p_data text[], p_priorities integer[] default null,
    p_delays_ms bigint[] default null, p_headers text[] default null, p_ordering_keys text[] default null,
    p_dedup_keys text[] default null, p_max_retries integer[] default null
) returns table (ordinal integer, id bigint)
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
    if p_dedup_keys is not null then
        -- A loop's variable is its own, it would hide the column.
        for v_at in 1 .. coalesce(cardinality(p_targets), 0) loop
            ordinal := v_at;
            id := integration.publish(
                p_source, p_targets[ordinal], p_types[ordinal], p_data[ordinal]::jsonb, p_priorities[ordinal],
                p_delays_ms[ordinal] * interval '1 ms', p_headers[ordinal]::jsonb, p_ordering_keys[ordinal],
                p_dedup_keys[ordinal], p_max_retries[ordinal]);
            return next;
        end loop;
        return;
    end if;
    -- unnest in parallel: subscripting a text array walks it from the start each time.
    return query
        with given as materialized (
            select g.*, nextval('integration.data_staging_id_seq') as id,
                   integration.clock() + nullif(greatest(g.delay_ms, 0), 0) * interval '1 ms' as due
              from unnest(p_targets, p_types, p_data, p_priorities, p_delays_ms, p_headers, p_ordering_keys,
                  p_max_retries)
                   with ordinality as g (target, type, data, priority, delay_ms, headers, ordering_key, max_retries,
                       ordinal)),
        published as (
            insert into integration.data_staging
                (id, source_app, target_app, record_type, data, priority, status, available_at, headers, ordering_key,
                    max_retries)
            select g.id, p_source, g.target, g.type, g.data::jsonb, coalesce(g.priority, 0),
                   case when g.due is null then 'pending' else 'scheduled' end, g.due,
                   g.headers::jsonb, g.ordering_key, g.max_retries
              from given g)
        select g.ordinal::integer, g.id from given g order by g.ordinal;
end $$;
