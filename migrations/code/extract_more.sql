-- Reading for extracts: what is asked of the database that one reads, this or another, and what becomes of the answers.

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
    v_before jsonb;
    v_after  jsonb;
    v_rows   jsonb[];
    v_keys   text[];
    v_marks  text[];
    v_last   text;
    v_count  integer;
begin
    p_limit := least(greatest(p_limit, 1), 10000);
    x := integration.extract_now(p_name);
    if x.is_foreign then
        raise exception 'the extract "%" reads another database', p_name using errcode = 'MQ003',
            hint = 'who knows the way there reads it: doorbell extract';
    elsif x.ended_at is not null then
        published := 0;
        skipped := 0;
        is_done := true;
        return;
    elsif x.name is null then
        is_done := false;
        return;
    end if;
    -- Before the look, which then sees all that they have committed. Where snapshots last, it may not.
    if x.watermark is not null and current_setting('transaction_isolation') = 'read committed' then
        execute integration.extract_moment() into v_before;
    end if;
    execute integration.extract_rows(p_name, p_limit) into v_rows, v_keys, v_marks, v_last, v_count
      using integration.seen_of(p_name);
    if x.watermark is not null then
        execute integration.extract_moment() into v_after;
    end if;
    select t.* into published, skipped, is_done
      from integration.extract_take(p_name, integration.as_of(x.looks, x.created_at), p_limit, v_before, v_after,
               v_rows, v_keys, v_marks, v_last, v_count, integration.clock()) t;
end $$;

-- An extract as it stands, locked; nothing while somebody else has it locked, or it is paused.
-- SQLSTATEs: MQ004 when there is none.
create or replace function integration.extract_now(p_name text) returns integration.extracts
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    x integration.extracts;
begin
    select * into x from integration.extracts e where e.name = p_name for no key update skip locked;
    if x.name is null and not exists (select from integration.extracts e where e.name = p_name) then
        raise exception 'there is no extract "%"', p_name using errcode = 'MQ004';
    elsif x.paused_at is not null then
        x := null;
    end if;
    return x;
end $$;

-- What an extract has published in front of its place, each as a watermark and a key.
create or replace function integration.seen_of(p_name text) returns text[]
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select array(select concat(s.watermark, ' ', s.key) from integration.extract_seen s where s.name = p_name)
$$;

-- After which look of which extract.
create or replace function integration.as_of(p_looks bigint, p_created_at timestamptz) returns text
    language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
    select p_looks || ' of ' || extract(epoch from p_created_at)
$$;

-- For who reads another database for an extract, p_limit rows at most: what to ask there, in a transaction in READ
-- COMMITTED: moment, rows, with seen as its parameter, and moment again; the answers are for extract_take, with as_of.
-- Without a watermark nothing needs to be known of moments. every: after how many seconds to look again. Nothing else:
-- it is paused.
-- SQLSTATEs: MQ003 for an extract that reads this database, MQ004 when there is none.
create or replace function integration.extract_asks(
    p_name text, p_limit integer default 1000, out as_of text, out rows text, out moment text, out seen text[],
    out every float8
)
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    x integration.extracts;
begin
    select * into x from integration.extracts e where e.name = p_name;
    if x.name is null then
        raise exception 'there is no extract "%"', p_name using errcode = 'MQ004';
    elsif not x.is_foreign then
        raise exception 'the extract "%" reads this database', p_name using errcode = 'MQ003';
    end if;
    every := extract(epoch from x.every);
    if x.paused_at is not null then
        return;
    end if;
    as_of := integration.as_of(x.looks, x.created_at);
    -- As text, so that whoever carries them need not understand them.
    rows := format('select r.rows::text[], r.keys, r.marks, r.last, r.count from (%s) r (rows, keys, marks, last, '
        'count)', integration.extract_rows(p_name, least(greatest(p_limit, 1), 10000)));
    if x.watermark is not null then
        moment := integration.extract_moment();
        seen := integration.seen_of(p_name);
    end if;
end $$;

-- The statement that asks the database that an extract reads who writes there, in the words of the functions that say
-- so here; one document. A transaction that is not running any more has ended or is prepared: so who is prepared is
-- asked after who is running. barrier: the first xid after those that are prepared.
create or replace function integration.extract_moment() returns text
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('with r as materialized (select (%s) as running) '
        'select jsonb_build_object(''running'', r.running, ''oldest_xid'', (%s), ''clock'', clock_timestamp(), '
        '''is_standby'', pg_is_in_recovery(), ''barrier'', (select max((%s) - age(p.transaction)) + 1 '
        'from pg_prepared_xacts p where p.database = current_database() and r.running is not null)) from r',
        w.running, w.oldest, replace(w.next, 'integration.oldest_xid()', '(' || w.oldest || ')'))
      from (select integration.words_of('integration.running_transactions()') as running,
                   integration.words_of('integration.oldest_xid()') as oldest,
                   integration.words_of('integration.next_xid()') as next) w
$$;

-- Publishes what was read of an extract, in one transaction with its place. p_as_of: as it stood when that was asked
-- for; published is null where somebody else has published since, or it is paused: then nothing is done. p_before and
-- p_after: what extract_moment said, p_before null where nothing is known of then. p_now: the clock, where not that of
-- p_before is meant. Else as extract_more.
-- Locks: the extract, SKIP LOCKED. SQLSTATEs: MQ002 for what a standby says, MQ004 when there is none; those of
-- publishing.
create or replace function integration.extract_take(
    p_name text, p_as_of text, p_limit integer, p_before jsonb, p_after jsonb, p_rows jsonb[], p_keys text[],
    p_marks text[], p_last text, p_count integer, p_now timestamptz default null, out published integer,
    out skipped integer, out is_done boolean
)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off
        set datestyle = 'ISO, YMD' set timezone = 'UTC' as $$
declare
    x        integration.extracts;
    v_passed boolean := false;
begin
    is_done := false;
    x := integration.extract_now(p_name);
    if x.name is null or integration.as_of(x.looks, x.created_at) <> p_as_of then
        return;
    end if;
    if (p_before ->> 'is_standby')::boolean then
        raise exception 'the extract "%" reads a standby, which does not know who writes', p_name
            using errcode = 'MQ002', hint = 'with a watermark it has to read the primary';
    elsif x.reached is not null and p_before is not null then
        if x.barrier is not null then
            v_passed := (p_before ->> 'oldest_xid')::bigint >= x.barrier;
        elsif not x.running && array(select jsonb_array_elements_text(p_before -> 'running')) then
            -- What of them is prepared has not ended.
            x.barrier := (p_before ->> 'barrier')::bigint;
            v_passed := x.barrier is null;
        end if;
    end if;
    select p.published, p.skipped into published, skipped
      from integration.publish_extract(p_name, coalesce(p_rows, '{}'), coalesce(p_keys, '{}')) p;
    is_done := p_count < p_limit;
    if x.watermark is not null then
        insert into integration.extract_seen (name, key, watermark)
        select p_name, s.key, s.mark from unnest(p_keys, p_marks) s (key, mark) on conflict do nothing;
        perform integration.move_extract(p_name, v_passed, case when not is_done then p_marks[p_count] end,
            coalesce(p_now, (p_before ->> 'clock')::timestamptz));
    end if;
    update integration.extracts e
       set place = case when e.watermark is null then coalesce(p_last, e.place) else e.place end,
           -- Of what was reached before this look only.
           barrier = case when e.reached = x.reached then x.barrier end,
           -- Of a time after it was chosen: who begins later writes what is greater.
           running = case when e.reached is not null then coalesce(e.running,
               array(select jsonb_array_elements_text(p_after -> 'running'))) end,
           published = e.published + extract_take.published, skipped = e.skipped + extract_take.skipped,
           ended_at = case when is_done and e.watermark is null then integration.clock() end,
           next_at = case when not e.is_foreign then
               integration.clock() + case when is_done then e.every when e.every is not null then '0' end end,
           looks = e.looks + 1, looked_at = integration.clock(), began_at = null, last_error = null
     where e.name = p_name;
end $$;

-- What an extract reads, without an order and a limit.
create or replace function integration.extract_query(p_table regclass, p_query text) returns text
    language sql stable set search_path = pg_catalog, pg_temp as $$
    -- A line of its own, so that a comment at a query's end is none of ours.
    select format('(%s%s)', coalesce(p_query, 'table ' || p_table), chr(10))
$$;

-- The statement that reads the next rows of an extract: the rows, their keys and watermarks, the keys of the last one,
-- and how many there are. What was seen in front of the place, which is its parameter, is left out.
create or replace function integration.extract_rows(p_name text, p_limit integer) returns text
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    x          integration.extracts;
    v_columns  text[];
    v_captured boolean;
    v_keys     text;
    v_after    text := 'true';
    v_order    text;
    v_from     text;
begin
    select * into x from integration.extracts e where e.name = p_name;
    select string_agg(format('a.%I', u.k), ', ' order by u.n) into v_keys
      from unnest(x.keys) with ordinality u (k, n);
    select case when c.columns is not null then c.columns || c.keys end, true into v_columns, v_captured
      from integration.captures c
     where c.table_id = x.table_id and c.target_app = x.target_app;
    v_order := concat_ws(', ', case when x.watermark is not null then format('a.%I', x.watermark) end, v_keys);
    v_from := case when x.table_id is null then integration.extract_query(null, x.query) else x.table_id::text end;
    if x.watermark is not null then
        -- As many as may be left out: of what is guessed to be left over afterwards no plan is made.
        v_from := format('(select a.* from %s a where a.%I %s order by %s limit %s + cardinality($1::text[]))', v_from,
            x.watermark, case when x.place is null then 'is not null' else format('> %L::%s', x.place, x.mark_type) end,
            v_order, p_limit);
        v_after := format('concat(a.%I, '' '', w.key) <> all ($1::text[])', x.watermark);
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
        v_from, integration.captured_key(x.keys),
        case when x.table_id is null then 'to_jsonb(a.*)'
             else format('(select to_jsonb(r.*) from (select %s) r)',
                         integration.captured_columns(x.table_id, v_columns)) end,
        v_after, v_order, p_limit);
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
    v_label := coalesce(v_label, x.label, p_name);
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
-- greatest of what was seen is reached, but for what the clock does not know yet: a time of tomorrow moves no place.
create or replace function integration.move_extract(
    p_name text, p_passed boolean, p_last text, p_now timestamptz
) returns void
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
           into x.reached using p_name, p_now - x.grace, 'UTC';
        update integration.extracts e set reached = x.reached where e.name = p_name and x.reached is not null;
    end if;
end $$;
