-- What all the others stand on: time, keys of locks, who acts, foreign text.
--
-- Functions pin their search_path. Those of one SQL expression, which are to be inlined, cannot: what is called from
-- outside names everything with its schema instead, operators too; what only other functions call need not.

-- The one clock. Every stored time comes from here, so that a test can set it by replacing this function;
-- it inlines to clock_timestamp(). now() is the start of the transaction and freezes in long ones.
create or replace function integration.clock() returns timestamptz
    language sql volatile parallel safe as $$
    select pg_catalog.clock_timestamp()
$$;

-- The first key of every advisory lock of ours, and the three numbers after it: away from applications' keys, and from
-- those of another installation in the same database.
create or replace function integration.lock_class() returns integer
    language sql immutable parallel safe as $$
    select pg_catalog.int4and(pg_catalog.hashtext('integration'), 2147483640)
$$;

-- Who acts: the session's application_name, else its role.
create or replace function integration.actor() returns text
    language sql stable as $$
    select left(coalesce(nullif(current_setting('application_name'), ''), session_user), 50)
$$;

-- The role that asks, in whoever's name a function runs: what SET ROLE chose, else who logged in.
create or replace function integration.asking_role() returns name
    language sql stable as $$
    select case current_setting('role') when 'none' then session_user else current_setting('role')::name end
$$;

-- How the history names who asked: who logged in, and the role it had chosen.
create or replace function integration.role_name() returns text
    language sql stable as $$
    select case when current_setting('role') in ('none', session_user) then session_user::text
                else session_user || ' as ' || current_setting('role') end
$$;

-- Whether one of our functions, named one after the other with bars between, is in a stack as "get diagnostics" tells
-- it: by their signatures, since the words around them are in the server's language. What others give such a name is in
-- quotes or in a schema of its own. On a server that does not quote statements as an English one does, the text of
-- somebody's statement may look like it: who may do something must not depend on this alone.
create or replace function integration.is_within(p_stack text, p_functions text) returns boolean
    language sql immutable parallel safe as $$
    select p_stack ~ ('(?n)^[^"(]*(?<![a-z0-9_])integration[.](' || p_functions || ')[(]')
$$;

-- How long a time is past; null when it is none, or infinitely far.
create or replace function integration.since(p_at timestamptz) returns interval
    language sql stable as $$
    select case when isfinite(p_at) then integration.clock() - p_at end
$$;

-- Foreign text made storable and printable: no control characters but line breaks and tabs, at most 8,000 characters.
create or replace function integration.clean_text(p_text text) returns text
    language sql immutable parallel safe as $$
    select left(regexp_replace(p_text, E'[\\x01-\\x08\\x0b-\\x1f\\x7f-\\x9f]', '', 'g'), 8000)
$$;

-- The most characters of a name (source_app, target_app, record_type). Who publishes from a library asks here, too.
create or replace function integration.name_chars_max() returns integer
    language sql immutable parallel safe as $$
    select 50
$$;

-- The most characters of a key (ordering_key, dedup_key).
create or replace function integration.key_chars_max() returns integer
    language sql immutable parallel safe as $$
    select 200
$$;
