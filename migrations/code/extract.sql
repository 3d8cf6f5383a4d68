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
    x       integration.extracts;
    v_name  text;
    v_types jsonb;
    v_plan  jsonb;
begin
    perform integration.must_own_extracts();
    if (p_table is null) = (p_query is null) then
        raise exception 'an extract reads either a table or a query' using errcode = 'MQ002';
    end if;
    if p_table is not null then
        select n.nspname || '.' || c.relname into v_name from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where c.oid = p_table and c.relkind in ('r', 'p', 'm', 'v', 'f');
    end if;
    x.name := p_name;
    x.is_foreign := false;
    x.table_id := p_table;
    x.query := p_query;
    x.keys := coalesce(p_key, nullif(integration.keys_of_table(p_table), '{}'));
    x.watermark := p_watermark;
    x.place := p_after;
    perform integration.must_have_keys(x.keys, v_name);
    begin
        execute integration.extract_probe(integration.extract_query(p_table, p_query), x.keys || p_watermark)
           into v_types;
    exception when syntax_error_or_access_rule_violation then
        raise exception 'it cannot be read: %', sqlerrm using errcode = 'MQ002',
            hint = 'name tables with their schemas, grant select on them to the owner of the schema integration';
    end;
    x.mark_type := v_types ->> p_watermark;
    execute 'explain (format json) ' || integration.extract_query(p_table, p_query) into v_plan;
    x.estimate := (v_plan #>> '{0,Plan,Plan Rows}')::float8::bigint;
    x.target_app := p_target;
    x.source_app := p_source;
    x.record_type := coalesce(p_type, v_name, p_name);
    x.every := p_every;
    x.grace := p_grace;
    return integration.keep_extract(to_jsonb(x), v_name);
end $$;

-- Makes an extract of another database, or changes how the one of that name publishes; as set_extract, but that whoever
-- knows the way there reads in the name of a role there, now and then or all the time (see extract_asks). What p_query
-- says is read; p_found is what that database answered to extract_finds and extract_probe: {"table", "keys", "types",
-- "rows"}, of which only types must be there.
-- SQLSTATEs: as set_extract.
create or replace function integration.set_foreign_extract(
    p_name text, p_target text, p_query text, p_found jsonb, p_watermark text default null, p_key text[] default null,
    p_type text default null, p_source text default 'extract', p_every interval default '5 s',
    p_grace interval default '10 s', p_after text default null
) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD'
        set timezone = 'UTC' as $$
declare
    x integration.extracts;
begin
    perform integration.must_own_extracts();
    x.name := p_name;
    x.is_foreign := true;
    x.query := p_query;
    x.label := p_found ->> 'table';
    x.keys := coalesce(p_key, nullif(array(select jsonb_array_elements_text(p_found -> 'keys')), '{}'));
    perform integration.must_have_keys(x.keys, x.label);
    x.watermark := p_watermark;
    x.mark_type := p_found -> 'types' ->> p_watermark;
    x.place := p_after;
    x.estimate := (p_found ->> 'rows')::float8::bigint;
    x.target_app := p_target;
    x.source_app := p_source;
    x.record_type := coalesce(p_type, x.label, p_name);
    x.every := p_every;
    x.grace := p_grace;
    return integration.keep_extract(to_jsonb(x), x.label);
end $$;

-- For set_extract and set_foreign_extract: only the owner of the schema makes extracts.
create or replace function integration.must_own_extracts() returns void
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if not pg_has_role(integration.asking_role(), (select c.relowner from pg_class c
            where c.oid = 'integration.data_staging'::regclass), 'usage') then
        raise insufficient_privilege using message = format('role %s does not own the schema %s, whose owner alone '
            'makes extracts', integration.asking_role(), 'integration');
    end if;
end $$;

-- For both: an extract knows what tells rows apart.
create or replace function integration.must_have_keys(p_keys text[], p_table text) returns void
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if p_keys is null then
        raise exception '% has no primary key', coalesce(p_table, 'a query') using errcode = 'MQ002',
            hint = 'name the columns that tell its rows apart';
    end if;
end $$;

-- For set_extract and set_foreign_extract: writes an extract, a row as JSON, which the audit log calls p_table, unless
-- it is a query's.
create or replace function integration.keep_extract(p_extract jsonb, p_table text) returns boolean
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    x     integration.extracts := jsonb_populate_record(null::integration.extracts, p_extract);
    v_is  integration.extracts;
    v_new boolean;
begin
    if x.watermark is null then
        x.mark_type := null;
        x.place := null;
        x.every := null;
        x.grace := null;
    else
        x.mark_type := case x.mark_type when 'timestamp with time zone' then 'timestamptz'
            when 'timestamp without time zone' then 'timestamp' else x.mark_type end;
        if x.mark_type in ('timestamptz', 'timestamp', 'bigint', 'integer', 'smallint') is not true then
            raise exception '"%" is of type %, which is no watermark', x.watermark, x.mark_type
                using errcode = 'MQ002', hint = 'use a time that is set with every change, or a number of a sequence';
        end if;
        execute format('select %L::%s', x.place, x.mark_type);
    end if;
    select * into v_is from integration.extracts e where e.name = x.name;
    if (v_is.is_foreign, v_is.table_id, v_is.query, v_is.keys, v_is.watermark, v_is.mark_type) is distinct from
        (x.is_foreign, x.table_id, x.query, x.keys, x.watermark, x.mark_type) and v_is.name is not null then
        raise exception 'the extract "%" reads something else', x.name using errcode = 'MQ003',
            hint = 'take another name, or end it first; then it begins at its beginning again';
    end if;
    insert into integration.extracts as e (name, is_foreign, table_id, query, label, source_app, target_app,
        record_type, keys, watermark, mark_type, every, grace, place, estimate, next_at)
    values (x.name, x.is_foreign, x.table_id, x.query, x.label, x.source_app, x.target_app, x.record_type, x.keys,
            x.watermark, x.mark_type, x.every, x.grace, x.place, x.estimate,
            case when x.every is not null and not x.is_foreign then integration.clock() end)
    on conflict (name) do update
       set source_app = excluded.source_app, target_app = excluded.target_app, record_type = excluded.record_type,
           every = excluded.every, grace = excluded.grace, next_at = excluded.next_at
    returning e.xmax = 0 into v_new;
    insert into integration.audit_log (app_name, action, target_app, record_type, details)
    values (integration.actor(), 'extract_made', x.target_app, x.record_type, jsonb_strip_nulls(jsonb_build_object(
        'extract', x.name, 'table', p_table, 'query', case when p_table is null then x.query end,
        'watermark', x.watermark)));
    return v_new;
end $$;

-- The statement that asks for the types of columns of what an extract reads: one document, by name. Fails where it
-- cannot be read.
create or replace function integration.extract_probe(p_from text, p_columns text[]) returns text
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('select jsonb_build_object(%s) from (values (1)) v left join (select * from %s q limit 0) a on true',
        (select string_agg(format('%L, pg_typeof(a.%1$I)::text', c), ', ') from unnest(p_columns) c
          where c is not null), p_from)
$$;

-- The statement that asks another database for a table that its parameter names: how it is read, what it is called, and
-- the columns of its primary key; one document. In the words of the function that says so here.
create or replace function integration.extract_finds() returns text
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('select jsonb_build_object(''query'', format(''table %%I.%%I'', n.nspname, c.relname), '
        '''table'', n.nspname || ''.'' || c.relname, ''keys'', (%s)) '
        'from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = $1::text::regclass',
        replace(integration.words_of('integration.keys_of_table(oid)'), 'p_table', 'c.oid'))
$$;

-- The statement that a function consists of, for databases where it is not.
create or replace function integration.words_of(p_function regprocedure) returns text
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select p.prosrc from pg_proc p where p.oid = p_function
$$;

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
           next_at = case when e.every is not null and not e.is_foreign then integration.clock() end
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
    perform integration.note_extract(p_name, sqlerrm);
    return 0;
end $$;

-- Notes why an extract does not get on; until it does. Locks: the row.
create or replace function integration.note_extract(p_name text, p_error text) returns void
    language sql security definer set search_path = pg_catalog, pg_temp as $$
    update integration.extracts e set last_error = integration.clean_text(p_error), began_at = null
     where e.name = p_name
$$;

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
