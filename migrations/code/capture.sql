-- Tables as sources: what an application writes into a table of its own is published, in its transaction.

-- Captures a table: from now on every change of it is published, in the transaction that makes it, as {"table", "op",
-- "new", "old"}: op is insert, update, delete or truncate, new and old are rows. The record type is p_type (where it is
-- not given, schema.table), a dot and op. The ordering key is the table and the row's primary key, so that changes of a
-- row are handled in order; one that changes the key is a delete and an insert. p_columns: only these, and the key; an
-- update that changes none of them is not published. p_when, a condition in jsonpath: only changes of which it is true,
-- as '$.new.total > 100'. Who writes into the table needs no right here. What cannot be published (because it is too
-- large, or the target refuses it) cannot be written. For a table that is captured already it changes how: false.
-- For who owns the table; its owner may have to grant TRIGGER on it to the owner of this schema. Writes to a partition
-- by its own name are seen where the partition is captured.
-- Locks: the table, SHARE ROW EXCLUSIVE, for a moment. SQLSTATEs: MQ002 for what is no ordinary table, has no primary
-- key, or is ours; 23514 for names that are too long; 42501 for who does not own it; 55P03 when writers are in the way
-- for two seconds.
create or replace function integration.capture(
    p_table regclass, p_target text, p_source text default 'capture', p_type text default null,
    p_columns text[] default null, p_when jsonpath default null
) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2 s' as $$
declare
    v_table   record;
    v_name    text;
    v_keys    text[];
    v_strange text;
    v_new     boolean;
begin
    select c.oid, c.relname, n.nspname, c.relkind, c.relowner, c.relpersistence into v_table
      from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = p_table;
    v_name := v_table.nspname || '.' || v_table.relname;
    if not pg_has_role(integration.asking_role(), v_table.relowner, 'usage') then
        raise insufficient_privilege using message = format('%s does not belong to role %s', v_name,
            integration.asking_role()), hint = 'a table is captured by its owner';
    elsif v_table.relkind not in ('r', 'p') or v_table.relpersistence = 't' or v_table.nspname in ('integration',
        'pg_catalog', 'information_schema') then
        raise exception '% is no table whose changes can be captured', v_name using errcode = 'MQ002';
    end if;
    v_keys := integration.keys_of_table(v_table.oid);
    if v_keys = '{}' then
        raise exception '% has no primary key', v_name using errcode = 'MQ002',
            hint = 'without one nobody can tell which row an update has changed';
    end if;
    select c.name into v_strange from unnest(p_columns) c (name)
     where not exists (select from pg_attribute a where a.attrelid = v_table.oid and a.attname = c.name
                          and a.attnum > 0 and not a.attisdropped) limit 1;
    if v_strange is not null then
        raise exception '% has no column "%"', v_name, v_strange using errcode = 'MQ002';
    end if;
    insert into integration.captures as x (table_id, source_app, target_app, record_type, keys, columns, condition)
    values (p_table, p_source, p_target, coalesce(p_type, v_name), v_keys, p_columns, p_when)
    on conflict (table_id) do update
       set source_app = excluded.source_app, target_app = excluded.target_app, record_type = excluded.record_type,
           keys = excluded.keys, columns = excluded.columns, condition = excluded.condition
    returning x.xmax = 0 into v_new;
    if not integration.is_captured(p_table) then
        -- One each, because of a trigger for several events no rows can be had.
        execute format('create or replace trigger doorbell_insert after insert on %s referencing new table as after '
            'for each statement execute function integration.on_captured()', p_table);
        execute format('create or replace trigger doorbell_update after update on %s referencing old table as before '
            'new table as after for each statement execute function integration.on_captured()', p_table);
        execute format('create or replace trigger doorbell_delete after delete on %s referencing old table as before '
            'for each statement execute function integration.on_captured()', p_table);
        execute format('create or replace trigger doorbell_truncate after truncate on %s '
            'for each statement execute function integration.on_captured()', p_table);
    end if;
    insert into integration.audit_log (app_name, action, target_app, record_type, details)
    values (integration.actor(), 'captured', p_target, coalesce(p_type, v_name), jsonb_build_object('table', v_name));
    return v_new;
end $$;

-- The columns of a table's primary key, in its order. Empty: it has none.
create or replace function integration.keys_of_table(p_table oid) returns text[]
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select array(
        select a.attname::text from pg_index i
         cross join lateral unnest(i.indkey::smallint[]) with ordinality k (attnum, nth)
          join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
         where i.indrelid = p_table and i.indisprimary order by k.nth)
$$;

-- Whether all four triggers are on the table and fire.
create or replace function integration.is_captured(p_table oid) returns boolean
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select count(*) = 4 from pg_trigger t
     where t.tgrelid = p_table and t.tgname in ('doorbell_insert', 'doorbell_update', 'doorbell_delete',
         'doorbell_truncate') and t.tgenabled in ('O', 'A')
       and t.tgfoid = 'integration.on_captured()'::regprocedure
$$;

-- Publishes no more changes of a table; what was published stays. False: it was not captured. Its triggers go where the
-- owner of this schema may drop them; else they stay and do nothing, which is said in a warning.
-- Locks: the table, ACCESS EXCLUSIVE, for a moment, tried for two seconds. SQLSTATEs: 42501 for who does not own it.
create or replace function integration.uncapture(p_table regclass) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2 s' as $$
declare
    v_target text;
    v_op     text;
begin
    -- A table that was dropped belongs to nobody.
    if exists (select from pg_class c where c.oid = p_table
                  and not pg_has_role(integration.asking_role(), c.relowner, 'usage')) then
        raise insufficient_privilege using message = format('%s does not belong to role %s', p_table,
            integration.asking_role()), hint = 'the capture of a table is ended by its owner';
    end if;
    delete from integration.captures x where x.table_id = p_table returning x.target_app into v_target;
    if v_target is null then
        return false;
    end if;
    insert into integration.audit_log (app_name, action, target_app, details)
    values (integration.actor(), 'uncaptured', v_target, jsonb_build_object('table', p_table::text));
    if not exists (select from pg_class c where c.oid = p_table) then
        return true;
    end if;
    begin
        foreach v_op in array array['insert', 'update', 'delete', 'truncate'] loop
            execute format('drop trigger if exists doorbell_%s on %s', v_op, p_table);
        end loop;
    exception when insufficient_privilege or lock_not_available then
        raise warning 'the triggers of % stay, and do nothing: %', p_table, sqlerrm
            using hint = 'its owner can drop doorbell_insert, doorbell_update, doorbell_delete, doorbell_truncate';
    end;
    return true;
end $$;

-- The tables that are captured, and whether their triggers are there and fire.
create or replace view integration.captured as
select x.table_id::text as "table", x.source_app, x.target_app, x.record_type, x.keys, x.columns,
       x.condition::text as condition, integration.is_captured(x.table_id)
           and integration.keys_of_table(x.table_id) = x.keys as is_on, x.created_at, x.created_by, x.table_id
  from integration.captures x;

-- The columns of a table as they are published, for the statements of on_captured, which names its rows a. Types of
-- other people are given as their text: a cast that somebody has made of them would run in the name of the owner.
create or replace function integration.captured_columns(p_table oid, p_columns text[]) returns text
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return (
        select string_agg(case when coalesce(nullif(t.typbasetype, 0), t.oid) < 16384 then format('a.%I', c.attname)
                               else format('case when num_nulls(a.%1$I) = 0 then format(''%%s'', a.%1$I) end as %1$I',
                                    c.attname) end, ', ' order by c.attnum)
          from pg_attribute c join pg_type t on t.oid = c.atttypid
         where c.attrelid = p_table and c.attnum > 0 and not c.attisdropped
           and (p_columns is null or c.attname = any (p_columns)));
end $$;

-- The expression for the key of a row that is w.row, as JSON.
create or replace function integration.captured_key(p_keys text[]) returns text
    language sql immutable set search_path = pg_catalog, pg_temp as $$
    select case count(*) when 1 then min(format('w.row ->> %L', u.k))
           else format('jsonb_build_array(%s)::text', string_agg(format('w.row ->> %L', u.k), ', ' order by u.n)) end
      from unnest(p_keys) with ordinality u (k, n)
$$;

-- Of a row, the columns that are published.
create or replace function integration.captured_part(p_row jsonb, p_columns text[]) returns jsonb
    language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_object_agg(c.key, c.value), '{}') from jsonb_each(p_row) c where c.key = any (p_columns)
$$;

-- Of a row, the columns of a key that has several.
create or replace function integration.captured_keys(p_row jsonb, p_keys text[]) returns text
    language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
    select jsonb_agg(p_row ->> u.k order by u.n)::text from unnest(p_keys) with ordinality u (k, n)
$$;

-- The key that orders the changes of a row.
create or replace function integration.captured_as(p_table text, p_key text) returns text
    language sql immutable parallel safe as $$
    select case when char_length(p_table) + char_length(p_key) < 200 then p_table || ':' || p_key
                else md5(p_table || ':' || p_key) end
$$;

-- AFTER every statement on a captured table: publishes what it has changed. SECURITY DEFINER, so that who writes there
-- needs no right here; and it does so only for tables that are in captures, whoever makes a trigger of it.
-- Where all columns are of PostgreSQL's own types, by statements that a session plans once for each table: to plan them
-- costs a change of one row more than all the rest. A full join is no nested loop, so plans that were made for one row
-- do for many.
create or replace function integration.on_captured() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    x      integration.captures;
    v_op   text := lower(tg_op);
    v_name text := tg_table_schema || '.' || tg_table_name;
    v_only text[];
    v_rows text;
begin
    select * into x from integration.captures c where c.table_id = tg_relid;
    if x.table_id is null then
        -- One of ours that uncapture could not drop is no reason to stop who writes there.
        if tg_name = 'doorbell_' || v_op then
            return null;
        end if;
        raise insufficient_privilege using message = format('%s is not captured', v_name);
    elsif v_op = 'truncate' then
        insert into integration.data_staging (source_app, target_app, record_type, data)
        values (x.source_app, x.target_app, x.record_type || '.truncate',
                jsonb_build_object('table', v_name, 'op', v_op));
        return null;
    end if;
    if x.columns is not null then
        v_only := x.columns || x.keys;
    end if;
    if exists (select from pg_attribute a
                where a.attrelid = tg_relid and a.attnum > 0 and a.atttypid >= 16384 and not a.attisdropped) then
        v_rows := format('select %s as key, w.row from (select to_jsonb(r.*) as row from (select %s from %%s a) r) w',
            replace(integration.captured_key(x.keys), '%', '%%'),
            replace(integration.captured_columns(tg_relid, v_only), '%', '%%'));
        execute 'insert into integration.data_staging (source_app, target_app, record_type, data, ordering_key) '
            'select $1, $2, $3 || ''.'' || m.op, m.data, integration.captured_as($4, m.key) '
            'from (select c.op, c.key, jsonb_build_object(''table'', $4, ''op'', c.op) '
            '|| case when c.new is null then ''{}'' else jsonb_build_object(''new'', c.new) end '
            '|| case when c.old is null then ''{}'' else jsonb_build_object(''old'', c.old) end as data from ('
            || case v_op
            when 'insert' then format('select ''insert'' as op, n.key, n.row as new, null::jsonb as old from (%s) n',
                format(v_rows, 'after'))
            when 'delete' then format('select ''delete'' as op, o.key, null::jsonb as new, o.row as old from (%s) o',
                format(v_rows, 'before'))
            else format('select case when n.key is null then ''delete'' when o.key is null then ''insert'' '
                'else ''update'' end as op, coalesce(n.key, o.key) as key, n.row as new, o.row as old '
                'from (%s) o full join (%s) n on n.key = o.key where n.row is distinct from o.row',
                format(v_rows, 'before'), format(v_rows, 'after')) end
            || ') c) m where $5 is null or coalesce(m.data @@ $5, false)'
            using x.source_app, x.target_app, x.record_type, v_name, x.condition;
    elsif v_op = 'insert' then
        insert into integration.data_staging (source_app, target_app, record_type, data, ordering_key)
        select x.source_app, x.target_app, x.record_type || '.insert', m.data, integration.captured_as(v_name, m.key)
          from (select w.key, jsonb_build_object('table', v_name, 'op', 'insert', 'new',
                       case when v_only is null then w.row else integration.captured_part(w.row, v_only) end) as data
                  from (select w.row, case when cardinality(x.keys) = 1 then w.row ->> x.keys[1]
                                           else integration.captured_keys(w.row, x.keys) end as key
                          from (select to_jsonb(a.*) as row from after a offset 0) w) w) m
         where x.condition is null or coalesce(m.data @@ x.condition, false);
    elsif v_op = 'delete' then
        insert into integration.data_staging (source_app, target_app, record_type, data, ordering_key)
        select x.source_app, x.target_app, x.record_type || '.delete', m.data, integration.captured_as(v_name, m.key)
          from (select w.key, jsonb_build_object('table', v_name, 'op', 'delete', 'old',
                       case when v_only is null then w.row else integration.captured_part(w.row, v_only) end) as data
                  from (select w.row, case when cardinality(x.keys) = 1 then w.row ->> x.keys[1]
                                           else integration.captured_keys(w.row, x.keys) end as key
                          from (select to_jsonb(a.*) as row from before a offset 0) w) w) m
         where x.condition is null or coalesce(m.data @@ x.condition, false);
    else
        insert into integration.data_staging (source_app, target_app, record_type, data, ordering_key)
        select x.source_app, x.target_app, x.record_type || '.' || m.op, m.data, integration.captured_as(v_name, m.key)
          from (select c.op, c.key, jsonb_build_object('table', v_name, 'op', c.op)
                       || case when c.new is null then '{}' else jsonb_build_object('new', c.new) end
                       || case when c.old is null then '{}' else jsonb_build_object('old', c.old) end as data
                  from (select case when n.key is null then 'delete' when o.key is null then 'insert'
                                    else 'update' end as op, coalesce(n.key, o.key) as key, n.row as new, o.row as old
                          from (select case when v_only is null then w.row
                                            else integration.captured_part(w.row, v_only) end as row,
                                       case when cardinality(x.keys) = 1 then w.row ->> x.keys[1]
                                            else integration.captured_keys(w.row, x.keys) end as key
                                  from (select to_jsonb(a.*) as row from before a offset 0) w) o
                          full join (
                               select case when v_only is null then w.row
                                           else integration.captured_part(w.row, v_only) end as row,
                                      case when cardinality(x.keys) = 1 then w.row ->> x.keys[1]
                                           else integration.captured_keys(w.row, x.keys) end as key
                                 from (select to_jsonb(a.*) as row from after a offset 0) w) n on n.key = o.key
                         where n.row is distinct from o.row) c) m
         where x.condition is null or coalesce(m.data @@ x.condition, false);
    end if;
    return null;
end $$;
