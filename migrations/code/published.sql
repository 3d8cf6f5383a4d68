-- What happens to every statement that publishes, in its own transaction: it is checked, counted and rung for.

-- AFTER INSERT, once per statement: one bell per distinct target, whatever the number of rows; the counting; and the
-- dedup keys of plain INSERTs. SECURITY DEFINER so that a publisher needs no right but INSERT. Nearly every statement
-- publishes rows that are alike; those are counted by the cheapest statements there are, because a plan with an
-- aggregate and a sort costs a lone message more than all the rest of this function.
-- Locks: dedup_keys entries, in key order. SQLSTATEs: 23505 when a dedup key is taken, 23514 for what may not be
-- published (see check_published).
create or replace function integration.on_published() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_pending boolean;
    v_due     timestamptz;
    v_source  text;
    v_target  text;
    v_status  text;
    v_key     text;
    v_alike   boolean := false;
    v_keys    boolean;
    v_since   timestamptz;
    v_strict  boolean;
    -- A message takes its id from the sequence: one that is ahead of it would be in somebody's way.
    v_last    bigint := coalesce(pg_sequence_last_value('integration.data_staging_id_seq'), 0);
begin
    if tg_relid <> 'integration.data_staging'::regclass then
        raise insufficient_privilege using message = 'this trigger belongs to integration.data_staging';
    end if;
    select p.source_app, p.target_app, p.status, p.dedup_key, integration.ten_minutes(p.created_at),
           (select s.known_targets_only from integration.settings s)
      into v_source, v_target, v_status, v_key, v_since, v_strict from published p limit 1;
    if v_target is null then
        return null;
    end if;
    if v_strict then
        perform integration.must_be_known(array_agg(distinct p.target_app)) from published p;
    end if;
    -- Conditions of different kinds are asked one by one: PostgreSQL would plan a mixed one anew for every statement,
    -- seeing that it is nothing once the variables are known.
    if v_status in ('pending', 'scheduled') and v_since between '0001-01-01 UTC' and '9999-12-31 UTC' then
        v_alike := char_length(v_target) between 1 and integration.name_chars_max()
            and char_length(v_source) between 1 and integration.name_chars_max() and not exists (
            select from published p
             where p.target_app <> v_target or p.source_app <> v_source or p.status <> v_status
                or (p.dedup_key is null) <> (v_key is null)
                or p.created_at < v_since or p.created_at >= v_since + interval '10 min'
                or char_length(p.record_type) not between 1 and integration.name_chars_max()
                or char_length(p.ordering_key) not between 1 and integration.key_chars_max()
                or char_length(p.dedup_key) not between 1 and integration.key_chars_max() or p.max_retries < 0
                or p.attempt <> 0 or p.retry_count <> 0 or p.crash_count <> 0 or p.redrive_count <> 0
                or p.owner is not null or p.lease_until is not null or p.processed_at is not null
                or p.error_message is not null or p.id not between 1 and v_last
                or not p.available_at between '0001-01-01 UTC' and '9999-12-31 UTC'
                or not p.updated_at between '0001-01-01 UTC' and '9999-12-31 UTC'
                or pg_column_size(p.headers) > 65536
                or octet_length(p.data::text) > least(67108864, 1024 + 32 * pg_column_size(p.data)));
    end if;
    if not v_alike then
        perform integration.check_published(to_jsonb(p), v_last)
           from (select p.source_app, p.target_app, p.record_type, p.ordering_key, p.dedup_key, p.max_retries, p.id,
                        p.status, p.attempt, p.retry_count, p.crash_count, p.redrive_count, p.owner, p.lease_until,
                        p.processed_at, p.error_message, p.created_at, p.updated_at, p.available_at,
                        pg_column_size(p.headers) as headers, pg_column_size(p.data) as size,
                        octet_length(p.data::text) as data
                   from published p) p;
    end if;
    v_keys := v_key is not null;
    if not v_alike then
        v_keys := exists (select from published p where p.dedup_key is not null);
    end if;
    if v_keys then
        perform integration.take_dedup_keys(array_agg(p.source_app), array_agg(p.dedup_key), array_agg(p.id))
           from published p where p.dedup_key is not null;
    end if;
    if v_alike then
        insert into integration.deltas (at, created_at, pending, scheduled, messages, target_app, action, source_app)
        select integration.clock(), v_since, case v_status when 'pending' then c.messages end,
               case v_status when 'scheduled' then c.messages end, c.messages, v_target, 'published', v_source
          from (select count(*) as messages from published) c;
        if v_status = 'pending' then
            perform integration.ring(v_target);
        else
            perform integration.ring_due(v_target, (select min(p.available_at) from published p));
        end if;
        return null;
    end if;
    perform integration.note_changes(
                array_agg(g.target_app), array_agg(g.status), array_agg(g.messages), 'published',
                array_agg(g.source_app), array_agg(g.created_at))
       from (select p.target_app, p.source_app, p.status, integration.ten_minutes(p.created_at) as created_at,
                    count(*) as messages
               from published p group by 1, 2, 3, 4) g;
    for v_target, v_pending, v_due in
        select p.target_app, bool_or(p.status = 'pending'), min(p.available_at) filter (where p.status = 'scheduled')
          from published p group by p.target_app order by p.target_app
    loop
        if v_pending then
            perform integration.ring(v_target);
        end if;
        if v_due is not null then
            perform integration.ring_due(v_target, v_due);
        end if;
    end loop;
    return null;
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

-- What every message must satisfy and no check constraint says, for a reason given in 0001: names and keys of at least
-- one character and not too many, no negative number of retries; times that can be reckoned with; headers of 64 KiB,
-- and a payload that does not grow beyond measure as text (1e131000 is 12 bytes of jsonb). And what only our verbs
-- write, unless the owner of the schema inserts: he may move messages from elsewhere.
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
    if (p_message ->> 'headers')::integer > 65536 then
        raise exception 'headers have % bytes; 65536 are allowed', p_message ->> 'headers'
            using errcode = 'check_violation', column = 'headers', constraint = 'headers',
                hint = 'put what is large into the payload';
    end if;
    if (p_message ->> 'data')::bigint > least(67108864, 1024 + 32 * (p_message ->> 'size')::bigint) then
        raise exception 'data has % bytes, and % as text', p_message ->> 'size', p_message ->> 'data'
            using errcode = 'check_violation', column = 'data', constraint = 'data',
                hint = 'write numbers that large or that exact as strings';
    end if;
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
            or c.key in ('owner', 'lease_until', 'processed_at', 'error_message') and c.value is not null limit 1;
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
