-- Extracts: rows of tables that bear no triggers, and of queries, as messages.

-- Makes an extract of a table or a query, or changes how the one of that name publishes. Every row is published as
-- {"table", "op": "read", "new"} with the record type p_type (where it is not given, schema.table or the name) and
-- .read; its ordering key is the table (or the name) and p_key, which tells rows apart (of a table: its primary key).
-- With p_watermark, a column that grows with every change of a row (a time, or a number from a sequence without a
-- cache), maintenance looks for new and changed rows every p_every. None is lost that commits late: the place moves
-- only past what no open transaction can still write. Published is each version of a row that a look finds, once; what
-- changes between two looks is seen once, and what is deleted not at all. p_grace: how late a clock that writes the
-- watermark may be. p_after: only what is greater than this. Without a watermark all rows are read once, in the order
-- of p_key, by who calls extract_more until it is done. Where a table is captured for the same target, its rows are
-- published as the capture says, and locked until they are, so that the last message of a row is its newest image.
-- Tables are read in the name of this schema's owner, who alone makes extracts; in a query they have their schemas'
-- names. Returns false where it was there already; its place stays.
-- SQLSTATEs: MQ002 for a table, query or column that cannot be read so; MQ003 where the one of that name reads
-- something else; 42501 for who does not own the schema.
create or replace function integration.set_extract(
    p_name text, p_target text, p_table regclass default null, p_query text default null, p_watermark text default null,
    p_key text[] default null, p_type text default null, p_source text default 'extract',
    p_every interval default '5 s', p_grace interval default '10 s', p_after text default null
) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD'
        set timezone = 'UTC' set row_security = off as $$
declare
    v_is   integration.extracts;
    x      integration.extracts;
    v_name text;
    v_type text;
    v_plan jsonb;
    v_new  boolean;
begin
    if not pg_has_role(integration.asking_role(), (select c.relowner from pg_class c
            where c.oid = 'integration.data_staging'::regclass), 'usage') then
        raise insufficient_privilege using message = format('role %s does not own the schema %s, in the name of whose '
            'owner extracts read', integration.asking_role(), 'integration');
    elsif (p_table is null) = (p_query is null) then
        raise exception 'an extract reads either a table or a query' using errcode = 'MQ002';
    end if;
    if p_table is not null then
        select n.nspname || '.' || c.relname into v_name from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where c.oid = p_table and c.relkind in ('r', 'p', 'm', 'v', 'f');
    end if;
    x.name := p_name;
    x.table_id := p_table;
    x.query := p_query;
    x.keys := coalesce(p_key, nullif(integration.keys_of_table(p_table), '{}'));
    x.watermark := p_watermark;
    x.place := p_after;
    if x.keys is null then
        raise exception '% has no primary key', coalesce(v_name, 'a query') using errcode = 'MQ002',
            hint = 'name the columns that tell its rows apart';
    end if;
    begin
        foreach v_type in array x.keys || x.watermark loop
            continue when v_type is null;
            execute format('select pg_typeof(a.%I)::text from (values (1)) v left join (select * from %s q limit 0) a '
                'on true', v_type, integration.extract_query(p_table, p_query)) into x.mark_type;
        end loop;
    exception when syntax_error_or_access_rule_violation then
        raise exception 'it cannot be read: %', sqlerrm using errcode = 'MQ002',
            hint = 'name tables with their schemas, grant select on them to the owner of the schema integration';
    end;
    if p_watermark is null then
        x.mark_type := null;
    else
        x.mark_type := case x.mark_type when 'timestamp with time zone' then 'timestamptz'
            when 'timestamp without time zone' then 'timestamp' else x.mark_type end;
        if x.mark_type not in ('timestamptz', 'timestamp', 'bigint', 'integer', 'smallint') then
            raise exception '"%" is of type %, which is no watermark', p_watermark, x.mark_type
                using errcode = 'MQ002', hint = 'use a time that is set with every change, or a number of a sequence';
        end if;
        execute format('select %L::%s', p_after, x.mark_type);
    end if;
    execute 'explain (format json) ' || integration.extract_query(p_table, p_query) into v_plan;
    select * into v_is from integration.extracts e where e.name = p_name;
    if (v_is.table_id, v_is.query, v_is.keys, v_is.watermark, v_is.mark_type) is distinct from
        (x.table_id, x.query, x.keys, x.watermark, x.mark_type) and v_is.name is not null then
        raise exception 'the extract "%" reads something else', p_name using errcode = 'MQ003',
            hint = 'take another name, or end it first; then it begins at its beginning again';
    end if;
    insert into integration.extracts as e (name, table_id, query, source_app, target_app, record_type, keys, watermark,
        mark_type, every, grace, place, estimate, next_at)
    values (p_name, p_table, p_query, p_source, p_target, coalesce(p_type, v_name, p_name), x.keys, p_watermark,
            x.mark_type, case when p_watermark is not null then p_every end,
            case when p_watermark is not null then p_grace end, case when p_watermark is not null then p_after end,
            (v_plan #>> '{0,Plan,Plan Rows}')::float8::bigint,
            case when p_watermark is not null then integration.clock() end)
    on conflict (name) do update
       set source_app = excluded.source_app, target_app = excluded.target_app, record_type = excluded.record_type,
           every = excluded.every, grace = excluded.grace, next_at = excluded.next_at
    returning e.xmax = 0 into v_new;
    insert into integration.audit_log (app_name, action, target_app, record_type, details)
    values (integration.actor(), 'extract_made', p_target, coalesce(p_type, v_name, p_name), jsonb_strip_nulls(
        jsonb_build_object('extract', p_name, 'table', v_name, 'query', p_query, 'watermark', p_watermark)));
    return v_new;
end $$;

-- Ends an extract; what it published stays. False: there was none. Locks: the row.
create or replace function integration.forget_extract(p_name text) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_target text;
begin
    delete from integration.extracts e where e.name = p_name returning e.target_app into v_target;
    if v_target is null then
        return false;
    end if;
    delete from integration.extract_seen s where s.name = p_name;
    insert into integration.audit_log (app_name, action, target_app, details)
    values (integration.actor(), 'extract_ended', v_target, jsonb_build_object('extract', p_name));
    return true;
end $$;

-- Pauses an extract, or lets it go on from where it was. False: it was so, or there is none. Locks: the row.
create or replace function integration.pause_extract(p_name text, p_paused boolean default true) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_target text;
begin
    update integration.extracts e
       set paused_at = case when p_paused then integration.clock() end,
           paused_by = case when p_paused then integration.actor() end,
           next_at = case when e.every is not null then integration.clock() end
     where e.name = p_name and (e.paused_at is not null) <> p_paused returning e.target_app into v_target;
    if v_target is null then
        return false;
    end if;
    insert into integration.audit_log (app_name, action, target_app, details)
    values (integration.actor(), case when p_paused then 'paused' else 'resumed' end, v_target,
            jsonb_build_object('extract', p_name));
    return true;
end $$;

-- For maintenance: which extract is due, if any is. It is due again after a minute at least, unless the look that
-- follows comes to its end: so one that takes too long is not begun again and again.
-- Locks: the row, SKIP LOCKED.
create or replace function integration.next_extract() returns text
    language sql security definer set search_path = pg_catalog, pg_temp as $$
    update integration.extracts e
       set began_at = integration.clock(), next_at = integration.clock() + greatest(e.every, interval '1 min')
     where e.name = (select x.name from integration.extracts x
                      where x.next_at <= integration.clock() and x.paused_at is null
                      order by x.next_at limit 1 for no key update skip locked)
    returning e.name
$$;

-- For maintenance: a look of the extract that next_extract has named. Returns how many messages it published. What
-- fails is kept as its last_error, and said in a warning.
create or replace function integration.extract_look(p_name text) returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    return coalesce((select m.published from integration.extract_more(p_name) m), 0);
exception when others then
    if integration.is_passing(sqlstate) then
        raise;
    end if;
    raise warning 'extract %: %', p_name, sqlerrm;
    update integration.extracts e set last_error = integration.clean_text(sqlerrm), began_at = null
     where e.name = p_name;
    return 0;
end $$;

-- Looks of all extracts that are due, p_looks at most; returns how many messages they published. For schedulers in the
-- database; maintain() calls it.
create or replace function integration.extract_due(p_looks integer default 20) returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_name  text;
    v_count integer := 0;
begin
    for i in 1 .. p_looks loop
        v_name := integration.next_extract();
        exit when v_name is null;
        v_count := v_count + integration.extract_look(v_name);
    end loop;
    return v_count;
end $$;

-- Publishes the next rows of an extract, p_limit at most, in one transaction with the place that they move. A row that
-- cannot be published, because it is too large or a rule refuses it, is left out where others can be: the audit log has
-- it as extract_skipped. is_done: there are no more, for now or, without a watermark, at all. published is null while
-- somebody else does it, or it is paused.
-- Locks: the extract, SKIP LOCKED; rows of captured tables, FOR SHARE. SQLSTATEs: MQ004 when there is none; those of
-- the table, of the query, and of publishing.
create or replace function integration.extract_more(
    p_name text, p_limit integer default 1000, out published integer, out skipped integer, out is_done boolean
)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off set lock_timeout = '2 s'
        set datestyle = 'ISO, YMD' set timezone = 'UTC' set row_security = off as $$
declare
    x        integration.extracts;
    v_passed boolean := false;
    v_rows   jsonb[];
    v_keys   text[];
    v_marks  text[];
    v_last   text;
    v_count  integer;
begin
    p_limit := least(greatest(p_limit, 1), 10000);
    select * into x from integration.extracts e where e.name = p_name for no key update skip locked;
    if x.name is null and not exists (select from integration.extracts e where e.name = p_name) then
        raise exception 'there is no extract "%"', p_name using errcode = 'MQ004';
    elsif x.name is null or x.paused_at is not null then
        is_done := false;
        return;
    elsif x.ended_at is not null then
        published := 0;
        skipped := 0;
        is_done := true;
        return;
    end if;
    -- Before the look, which then sees all that they have committed. Where snapshots last, it may not.
    if x.reached is not null and current_setting('transaction_isolation') = 'read committed' then
        if x.barrier is not null then
            v_passed := integration.oldest_xid() >= x.barrier;
        elsif not x.running && integration.running_transactions() then
            if exists (select from pg_prepared_xacts p where p.database = current_database()) then
                x.barrier := integration.next_xid();
            else
                v_passed := true;
            end if;
        end if;
    end if;
    execute integration.extract_rows(p_name, p_limit) into v_rows, v_keys, v_marks, v_last, v_count;
    select p.published, p.skipped into published, skipped from integration.publish_extract(p_name, v_rows, v_keys) p;
    is_done := v_count < p_limit;
    if x.watermark is not null then
        insert into integration.extract_seen (name, key, watermark)
        select p_name, s.key, s.mark from unnest(v_keys, v_marks) s (key, mark) on conflict do nothing;
        perform integration.move_extract(p_name, v_passed, case when not is_done then v_marks[v_count] end);
    end if;
    update integration.extracts e
       set place = case when e.watermark is null then coalesce(v_last, e.place) else e.place end,
           -- Of what was reached before this look only.
           barrier = case when e.reached = x.reached then x.barrier end,
           -- Now that it is chosen: who begins later writes what is greater.
           running = case when e.reached is not null then coalesce(e.running, integration.running_transactions()) end,
           published = e.published + extract_more.published, skipped = e.skipped + extract_more.skipped,
           ended_at = case when is_done and e.watermark is null then integration.clock() end,
           next_at = integration.clock() + case when is_done then e.every when e.every is not null then '0' end,
           looked_at = integration.clock(), began_at = null, last_error = null
     where e.name = p_name;
end $$;

-- What an extract reads, without an order and a limit.
create or replace function integration.extract_query(p_table regclass, p_query text) returns text
    language sql stable set search_path = pg_catalog, pg_temp as $$
    -- A line of its own, so that a comment at a query's end is none of ours.
    select format('(%s%s)', coalesce(p_query, 'table ' || p_table), chr(10))
$$;

-- The statement that reads the next rows of an extract: the rows, their keys and watermarks, the keys of the last one,
-- and how many there are. What was seen in front of the place is left out.
create or replace function integration.extract_rows(p_name text, p_limit integer) returns text
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    x          integration.extracts;
    v_columns  text[];
    v_captured boolean;
    v_keys     text;
    v_after    text := 'true';
begin
    select * into x from integration.extracts e where e.name = p_name;
    select string_agg(format('a.%I', u.k), ', ' order by u.n) into v_keys
      from unnest(x.keys) with ordinality u (k, n);
    select case when c.columns is not null then c.columns || c.keys end, true into v_columns, v_captured
      from integration.captures c
     where c.table_id = x.table_id and c.target_app = x.target_app;
    if x.watermark is not null then
        v_after := format('a.%I %s and not exists (select from integration.extract_seen s where s.name = %L '
            'and s.key = w.key and s.watermark = a.%1$I::text)', x.watermark,
            case when x.place is null then 'is not null' else format('> %L::%s', x.place, x.mark_type) end, x.name);
    elsif x.place is not null then
        v_after := format('(%s) > (%s)', v_keys, (select string_agg(format('%L', p.value), ', ' order by p.ordinality)
            from jsonb_array_elements_text(x.place::jsonb) with ordinality p));
    end if;
    if v_captured and x.watermark is null then
        -- Which rows is asked once, and their newest versions are locked and read: one whose key has changed meanwhile
        -- is not among them, and its capture has said so.
        return format('with page as materialized (select %1$s from %2$s a where %3$s order by %1$s limit %4$s), '
            'locked as materialized (select a.* from %2$s a join page p on (%1$s) = (%5$s) for share of a) '
            'select array_agg(w.row order by %1$s), array_agg(w.key order by %1$s), null::text[], '
            '(select jsonb_build_array(%6$s)::text from page a order by %7$s limit 1), (select count(*) from page) '
            'from locked a cross join lateral (select w.row, %8$s as key from (select %9$s as row offset 0) w '
            'offset 0) w',
            v_keys, x.table_id, v_after, p_limit,
            (select string_agg(format('p.%I', u.k), ', ' order by u.n) from unnest(x.keys) with ordinality u (k, n)),
            (select string_agg(format('a.%I::text', u.k), ', ' order by u.n)
               from unnest(x.keys) with ordinality u (k, n)),
            (select string_agg(format('a.%I desc', u.k), ', ' order by u.n)
               from unnest(x.keys) with ordinality u (k, n)),
            integration.captured_key(x.keys), format('(select to_jsonb(r.*) from (select %s) r)',
                integration.captured_columns(x.table_id, v_columns)));
    end if;
    return format('select array_agg(r.row), array_agg(r.key), array_agg(r.mark), (array_agg(r.place))[count(*)]::text, '
        'count(*) from (select w.row, w.key, %s as mark, jsonb_build_array(%s) as place from %s a '
        -- Offset: once for each row.
        'cross join lateral (select w.row, coalesce(%s, md5(w.row::text)) as key from (select %s as row offset 0) w '
        'offset 0) w where %s order by %s limit %s) r',
        case when x.watermark is null then 'null::text' else format('a.%I::text', x.watermark) end,
        (select string_agg(format('a.%I::text', u.k), ', ' order by u.n) from unnest(x.keys) with ordinality u (k, n)),
        case when x.table_id is null then integration.extract_query(null, x.query) else x.table_id::text end,
        integration.captured_key(x.keys),
        case when x.table_id is null then 'to_jsonb(a.*)'
             else format('(select to_jsonb(r.*) from (select %s) r)',
                         integration.captured_columns(x.table_id, v_columns)) end,
        v_after, concat_ws(', ', case when x.watermark is not null then format('a.%I', x.watermark) end, v_keys),
        p_limit);
end $$;

-- Publishes rows of an extract, in their order; or, where one of them is refused, those that are not.
create or replace function integration.publish_extract(
    p_name text, p_rows jsonb[], p_keys text[], out published integer, out skipped integer
)
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_error text;
begin
    skipped := 0;
    begin
        published := integration.publish_rows(p_name, p_rows, p_keys);
        return;
    exception when others then
        if integration.is_passing(sqlstate) or cardinality(p_rows) = 1 then
            raise;
        end if;
        v_error := sqlerrm;
    end;
    published := 0;
    for i in 1 .. cardinality(p_rows) loop
        begin
            published := published + integration.publish_rows(p_name, p_rows[i : i], p_keys[i : i]);
        exception when others then
            if integration.is_passing(sqlstate) then
                raise;
            end if;
            skipped := skipped + 1;
            insert into integration.audit_log (app_name, action, target_app, record_type, details)
            select integration.actor(), 'extract_skipped', e.target_app, e.record_type || '.read', jsonb_build_object(
                       'extract', e.name, 'key', p_keys[i], 'error', integration.clean_text(sqlerrm))
              from integration.extracts e where e.name = p_name;
        end;
    end loop;
    -- Then it is not the rows that are wrong.
    if skipped = cardinality(p_rows) then
        raise exception 'none of % rows can be published: %', skipped, v_error using errcode = 'MQ002';
    end if;
end $$;

-- Publishes rows of an extract; returns how many, which are those that a capture of the table would publish.
create or replace function integration.publish_rows(p_name text, p_rows jsonb[], p_keys text[]) returns integer
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    x       integration.extracts;
    v_label text;
    v_count integer;
begin
    select * into x from integration.extracts e where e.name = p_name;
    select n.nspname || '.' || c.relname into v_label
      from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = x.table_id;
    v_label := coalesce(v_label, p_name);
    insert into integration.data_staging (source_app, target_app, record_type, data, ordering_key)
    select x.source_app, x.target_app, x.record_type || '.read', m.data,
           case when char_length(m.key) > 200 then md5(m.key) else m.key end
      from (select jsonb_build_object('table', v_label, 'op', 'read', 'new', r.row) as data,
                   v_label || ':' || r.key as key, r.nth
              from unnest(p_rows, p_keys) with ordinality r (row, key, nth)) m
      left join integration.captures c on c.table_id = x.table_id and c.target_app = x.target_app
     where c.condition is null or coalesce(m.data @@ c.condition, false)
     order by m.nth;
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- Moves the place of an extract with a watermark after a look. p_passed: nobody can write anything before what was
-- reached any more; the look saw all of that where it came to its end, or to a greater watermark, p_last. Then the
-- greatest of what was seen is reached, but for what our clock does not know yet: a time of tomorrow moves no place.
create or replace function integration.move_extract(p_name text, p_passed boolean, p_last text) returns void
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    x       integration.extracts;
    v_short boolean;
begin
    select * into x from integration.extracts e where e.name = p_name;
    execute format('select $1::%1$s <= $2::%1$s', x.mark_type) into v_short using p_last, x.reached;
    if p_passed and v_short is not true then
        execute format('delete from integration.extract_seen s where s.name = $1 and s.watermark::%1$s <= $2::%1$s',
            x.mark_type) using p_name, x.reached;
        update integration.extracts e set place = x.reached, reached = null, running = null where e.name = p_name;
        x.reached := null;
    end if;
    if x.reached is null then
        execute format('select max(s.watermark::%1$s)::text from integration.extract_seen s where s.name = $1 and %2$s',
            x.mark_type, case x.mark_type when 'timestamptz' then 's.watermark::timestamptz <= $2'
                when 'timestamp' then 's.watermark::timestamp <= $2 at time zone $3' else 'true' end)
           into x.reached using p_name, integration.clock() - x.grace, 'UTC';
        update integration.extracts e set reached = x.reached where e.name = p_name and x.reached is not null;
    end if;
end $$;
