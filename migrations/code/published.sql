-- What happens to every statement that publishes, in its own transaction: it is checked, counted, rung for, and handed
-- on to who has subscribed.

-- AFTER INSERT, once per statement: one bell per distinct target, whatever the number of rows; the counting; the dedup
-- keys of plain INSERTs; and copies for subscribers (see fan_out). SECURITY DEFINER so that a publisher needs no right
-- but INSERT. Nearly every statement publishes rows that are alike; those are counted by the cheapest statements there
-- are, because a plan with an aggregate and a sort costs a lone message more than all the rest of this function.
-- Locks: dedup_keys entries, in key order. SQLSTATEs: 23505 when a dedup key is taken, 23514 for what may not be
-- published (see check_published).
create or replace function integration.on_published() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_target  text;
    v_source  text;
    v_status  text;
    v_keys    boolean;
    v_due     timestamptz;
    v_since   timestamptz;
    v_alike   boolean;
    v_many    boolean;
    v_asked   boolean;
    v_copy    boolean;
begin
    if tg_relid <> 'integration.data_staging'::regclass then
        raise insufficient_privilege using message = 'this trigger belongs to integration.data_staging';
    end if;
    -- A statement, a condition and a variable that begins with a value each cost a lone message more than what they are
    -- for. So nearly all lone messages are told from everything else by one statement and one condition.
    select p.target_app, p.source_app, p.status, p.dedup_key is not null, p.available_at,
           integration.ten_minutes(p.created_at), p.origin_id is not null,
           integration.is_plain(p.id, coalesce(pg_sequence_last_value('integration.data_staging_id_seq'), 0),
               p.target_app, p.source_app, p.record_type, p.ordering_key, p.dedup_key, p.status,
               p.created_at, p.updated_at, p.available_at, p.max_retries, p.attempt, p.retry_count, p.crash_count,
               p.redrive_count, p.owner, p.lease_until, p.processed_at, p.requeued_at, p.error_message, p.behind_at,
               p.series, p.headers, p.data),
           exists (select from published offset 1),
           coalesce((select s.known_targets_only or s.has_topics or s.has_bells or s.has_contracts
                           or s.has_expiry
                       from integration.settings s), true)
      into v_target, v_source, v_status, v_keys, v_due, v_since, v_copy, v_alike, v_many, v_asked
      from published p limit 1;
    if v_alike and not (v_many or v_keys or v_copy or v_asked) then
        insert into integration.deltas (at, created_at, pending, scheduled, messages, target_app, action, source_app)
        values (integration.clock(), v_since, case v_status when 'pending' then 1 end,
                case v_status when 'scheduled' then 1 end, 1, v_target, 'published', v_source);
        if v_status <> 'pending' then
            perform integration.ring_due(v_target, v_due);
        -- Asked here what ring asks first of nearly all targets: calling it costs as much as all the checks.
        elsif integration.somebody_is_parked(v_target) then
            perform integration.ring(v_target);
        end if;
        return null;
    end if;
    -- Everything else.
    declare
        v_messages bigint := 1;
        v_strict  boolean;
        v_pending boolean;
        v_routed  boolean := false;
        v_topics  text[];
        v_bound   boolean;
        v_expiry  boolean;
        v_failed  bigint[] := '{}';
        v_stack   text;
        -- A message takes its id from the sequence: one that is ahead of it would be in somebody's way.
        v_last    bigint := coalesce(pg_sequence_last_value('integration.data_staging_id_seq'), 0);
    begin
        if v_target is null then
            return null;
        end if;
        if v_many then
            select count(*) into v_messages from published;
        end if;
        -- What is rare has one condition for all of it.
        if v_asked or v_copy then
            select s.known_targets_only, s.has_topics and (
                       exists (select from integration.subscriptions t where t.topic = v_target)
                       or exists (select from integration.targets t
                                   where t.target_app = v_target and t.kind = 'topic')),
                   s.has_contracts, s.has_expiry
              into v_strict, v_routed, v_bound, v_expiry from integration.settings s;
            if v_copy then
                get diagnostics v_stack = pg_context;
                v_copy := integration.is_copying(v_stack);
                -- Several copies have several targets.
                v_alike := v_alike and v_copy and not v_many;
            end if;
            if v_strict and not v_copy then
                perform integration.must_be_known(array_agg(distinct p.target_app)) from published p;
            end if;
            if v_bound then
                v_failed := integration.keep_contracts(array(
                    select p.id from published p
                     where exists (select from integration.contracts c where c.target_app = p.target_app)), v_copy);
                v_routed := v_routed and cardinality(v_failed) < v_messages;
            end if;
            if v_expiry then
                perform integration.expire_by_default(array_agg(p.id)) from published p
                  where exists (select from integration.targets t
                                 where t.target_app = p.target_app and t.expire_after is not null)
                 having count(*) > 0;
            end if;
        end if;
        if v_alike and v_many then
            -- Each condition depends on the row, because PostgreSQL would plan anew for every statement what is nothing
            -- once the variables are known.
            v_alike := not exists (
                select from published p
                 where p.target_app <> v_target or p.source_app <> v_source or p.status <> v_status
                    or (p.dedup_key is not null) <> v_keys or (p.available_at is null) <> (v_due is null)
                    or p.origin_id is not null and not v_copy
                    or p.created_at < v_since or p.created_at >= v_since + interval '10 min'
                    or not integration.is_plain(p.id, v_last, p.target_app, p.source_app, p.record_type, p.ordering_key,
                       p.dedup_key, p.status, p.created_at, p.updated_at, p.available_at, p.max_retries, p.attempt,
                       p.retry_count, p.crash_count, p.redrive_count, p.owner, p.lease_until, p.processed_at,
                       p.requeued_at, p.error_message, p.behind_at, p.series, p.headers, p.data));
        end if;
        if not v_alike then
            -- Rows that are not as nearly all are, each by what says what is wrong.
            perform integration.check_contents(integration.bytes_of(p.data), octet_length(p.data::text),
                        jsonb_typeof(p.headers), pg_column_size(p.headers)),
                    integration.check_edited(p.status, p.retry_count, p.available_at),
                    integration.check_published(to_jsonb(m.*), v_last)
               from published p
              cross join lateral (
                select p.source_app, p.target_app, p.record_type, p.ordering_key, p.dedup_key, p.max_retries, p.id,
                       p.status, p.attempt, p.retry_count, p.crash_count, p.redrive_count, p.owner, p.lease_until,
                       p.processed_at, p.requeued_at, p.error_message, p.created_at, p.updated_at, p.available_at,
                       p.behind_at, p.series, case when not v_copy then p.origin_id end as origin_id) m
              where p.origin_id is not null and not v_copy
                 or not integration.is_plain(p.id, v_last, p.target_app, p.source_app, p.record_type, p.ordering_key,
                    p.dedup_key, p.status, p.created_at, p.updated_at, p.available_at, p.max_retries, p.attempt,
                    p.retry_count, p.crash_count, p.redrive_count, p.owner, p.lease_until, p.processed_at,
                    p.requeued_at, p.error_message, p.behind_at, p.series, p.headers, p.data);
            v_keys := exists (select from published p where p.dedup_key is not null);
        end if;
        if v_keys then
            perform integration.take_dedup_keys(array_agg(p.source_app), array_agg(p.dedup_key), array_agg(p.id))
               from published p where p.dedup_key is not null;
        end if;
        if v_alike then
            insert into integration.deltas
                (at, created_at, pending, scheduled, messages, target_app, action, source_app)
            values (integration.clock(), v_since, case v_status when 'pending' then v_messages end,
                    case v_status when 'scheduled' then v_messages end, v_messages, v_target, 'published', v_source);
            if v_status <> 'pending' then
                perform integration.ring_due(v_target, (select min(p.available_at) from published p));
            elsif v_asked or integration.somebody_is_parked(v_target) then
                perform integration.ring(v_target);
            end if;
            if v_routed then
                perform integration.fan_out(v_target,
                    array(select p.id from published p where p.id <> all (v_failed)), true);
            end if;
            return null;
        end if;
        -- The owner of the schema may move messages from elsewhere, in any status.
        insert into integration.deltas (at, created_at, pending, scheduled, processing, completed, failed, cancelled,
            messages, target_app, action, source_app)
        select integration.clock(), integration.ten_minutes(p.created_at),
               nullif(count(*) filter (where p.status = 'pending'), 0),
               nullif(count(*) filter (where p.status = 'scheduled'), 0),
               nullif(count(*) filter (where p.status = 'processing'), 0),
               nullif(count(*) filter (where p.status = 'completed'), 0),
               nullif(count(*) filter (where p.status = 'failed'), 0),
               nullif(count(*) filter (where p.status = 'cancelled'), 0), count(*), p.target_app, 'published',
               p.source_app
          from published p group by p.target_app, p.source_app, integration.ten_minutes(p.created_at);
        if v_asked then
            v_topics := array(
                select t.target_app from (select distinct p.target_app from published p) t
                 where exists (select from integration.subscriptions s where s.topic = t.target_app)
                    or exists (select from integration.targets q
                                where q.target_app = t.target_app and q.kind = 'topic'));
        end if;
        for v_target, v_pending, v_due in
            select p.target_app, bool_or(p.status = 'pending'),
                   min(p.available_at) filter (where p.status = 'scheduled')
              from published p group by p.target_app order by p.target_app
        loop
            if v_pending then
                perform integration.ring(v_target);
            end if;
            if v_due is not null then
                perform integration.ring_due(v_target, v_due);
            end if;
            if v_target = any (v_topics)
                and exists (select from published p where p.target_app = v_target and p.id <> all (v_failed)) then
                perform integration.fan_out(v_target, array(
                    select p.id from published p where p.target_app = v_target and p.id <> all (v_failed)), true);
            end if;
        end loop;
        return null;
    end;
end $$;

-- Where only known targets are published to: what something names, messages of others aside from those that are being
-- published.
-- SQLSTATEs: 23514 with the column as the constraint's name.
create or replace function integration.must_be_known(p_targets text[]) returns void
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    v_unknown text;
begin
    select t.target_app into v_unknown from unnest(p_targets) t (target_app)
     where not integration.is_known(t.target_app) limit 1;
    if v_unknown is not null then
        raise exception 'nothing knows the target "%"', left(v_unknown, 60)
            using errcode = 'check_violation', column = 'target_app', constraint = 'target_app',
                hint = 'start its consumer first, or name it: select integration.set_target(TARGET, ''{}''); '
                    'settings.known_targets_only says that only known ones are published to';
    end if;
end $$;

-- Whether a message is as nearly all are: what check_contents, check_edited and check_published ask, in one expression
-- of as few calls as can be, because each costs a lone message, for which all is prepared anew, more than its answer.
-- False says nothing: a large payload is left to them, too.
create or replace function integration.is_plain(
    p_id bigint, p_last_id bigint, p_target text, p_source text, p_record_type text, p_ordering_key text,
    p_dedup_key text, p_status text, p_created_at timestamptz, p_updated_at timestamptz, p_available_at timestamptz,
    p_max_retries integer, p_attempt integer, p_retry_count integer, p_crash_count integer, p_redrive_count integer,
    p_owner text, p_lease_until timestamptz, p_processed_at timestamptz, p_requeued_at timestamptz,
    p_error_message text, p_behind_at timestamptz, p_series bigint, p_headers jsonb, p_data jsonb
) returns boolean
    language sql stable parallel safe as $$
    select p_id between 1 and p_last_id
       and least(p_target collate "C", p_source, p_record_type, p_ordering_key, p_dedup_key) > ''
       and greatest(char_length(p_target), char_length(p_source), char_length(p_record_type))
           <= integration.name_chars_max()
       and (greatest(char_length(p_ordering_key), char_length(p_dedup_key)) <= integration.key_chars_max()) is not false
       and p_status = case when p_available_at is null then 'pending' else 'scheduled' end
       and least(p_created_at, p_updated_at, p_available_at) >= '0001-01-01 UTC'
       and greatest(p_created_at, p_updated_at, p_available_at) <= '9999-12-31 UTC'
       and (p_max_retries >= 0) is not false
       and p_attempt = 0 and p_retry_count = 0 and p_crash_count = 0 and p_redrive_count = 0
       and p_owner is null and p_lease_until is null and p_processed_at is null and p_requeued_at is null
       and p_error_message is null and p_behind_at is null and p_series is null
       and (p_headers is null or p_headers @> '{}' and pg_column_size(p_headers) <= 65536)
       and octet_length(p_data::text) <= 65536
$$;

-- What every message must satisfy when it is published, beside check_contents and check_edited (for why no constraint
-- says it see steps/0001): names and keys of at least one character and not too many, no negative number of retries,
-- and times that can be reckoned with. And what only our verbs write, unless the owner of the schema inserts: he may
-- move messages from elsewhere.
-- SQLSTATEs: 23514 with the column as the constraint's name.
create or replace function integration.check_published(p_message jsonb, p_last_id bigint) returns void
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    v_column text;
    v_most   integer;
    v_length integer;
    v_hint   text;
begin
    for v_column, v_most in values
        ('source_app', integration.name_chars_max()), ('target_app', integration.name_chars_max()),
        ('record_type', integration.name_chars_max()), ('ordering_key', integration.key_chars_max()),
        ('dedup_key', integration.key_chars_max())
    loop
        v_length := char_length(p_message ->> v_column);
        if v_length not between 1 and v_most then
            raise exception '% has % characters; 1 to % are allowed: "%"', v_column, v_length, v_most,
                left(p_message ->> v_column, 60)
                using errcode = 'check_violation', column = v_column, constraint = v_column;
        end if;
    end loop;
    if (p_message ->> 'max_retries')::integer < 0 then
        raise exception 'max_retries is %; it cannot be negative', p_message ->> 'max_retries'
            using errcode = 'check_violation', column = 'max_retries', constraint = 'max_retries';
    end if;
    foreach v_column in array '{created_at, updated_at, available_at}'::text[] loop
        if not (p_message ->> v_column)::timestamptz between '0001-01-01 UTC' and '9999-12-31 UTC' then
            raise exception '% is %', v_column, p_message ->> v_column
                using errcode = 'check_violation', column = v_column, constraint = v_column,
                    hint = 'use a time of the years 1 to 9999, or leave it out';
        end if;
    end loop;
    v_column := null;
    if not (p_message ->> 'status') in ('pending', 'scheduled') then
        v_column := 'status';
        v_hint := 'publish it pending or scheduled';
    elsif not (p_message ->> 'id')::bigint between 1 and p_last_id then
        v_column := 'id';
        v_hint := 'leave it out, or take it from nextval(''integration.data_staging_id_seq'')';
    else
        select c.key into v_column from jsonb_each_text(p_message) c
         where c.key in ('attempt', 'retry_count', 'crash_count', 'redrive_count') and c.value <> '0'
            or c.key in ('owner', 'lease_until', 'processed_at', 'requeued_at', 'error_message', 'behind_at',
                    'series', 'origin_id')
                and c.value is not null limit 1;
        v_hint := 'leave it out: our functions write it';
    end if;
    if v_column is null or pg_has_role(integration.asking_role(), (
            select c.relowner from pg_class c where c.oid = 'integration.data_staging'::regclass), 'usage') then
        return;
    end if;
    raise exception '% cannot be %', v_column, left(p_message ->> v_column, 60)
        using errcode = 'check_violation', column = v_column, constraint = v_column, hint = v_hint;
end $$;

-- The ten minutes a time belongs to: what error rates are counted by.
create or replace function integration.ten_minutes(p_at timestamptz) returns timestamptz
    language sql immutable parallel safe as $$
    select date_bin('10 min', p_at, '2000-01-01 00:00:00 UTC')
$$;

create or replace trigger data_staging_published after insert on integration.data_staging
    referencing new table as published
    for each statement execute function integration.on_published();

-- AFTER INSERT, level 'all' only. A publish does not fail because its history cannot be written.
create or replace function integration.audit_published() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if tg_relid <> 'integration.data_staging'::regclass then
        raise insufficient_privilege using message = 'this trigger belongs to integration.data_staging';
    end if;
    begin
        insert into integration.audit_log
            (staging_id, app_name, action, source_app, target_app, record_type, attempt, new_status)
        select p.id, integration.actor(), 'published', p.source_app, p.target_app, p.record_type, p.attempt, p.status
          from published p;
    exception when others then
        if integration.is_passing(sqlstate) then
            raise;
        end if;
        perform integration.note_unaudited(array_agg(p.target_app)) from published p;
        raise warning 'what was published is not in the audit log: %', sqlerrm;
    end;
    return null;
end $$;
