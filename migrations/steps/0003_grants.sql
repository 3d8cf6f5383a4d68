-- Rights per application: which role speaks for which, and how far.

-- One row per role and application. Roles by name, so that it survives a dump and a restore; what PostgreSQL itself has
-- to grant for it is in rights_of('publish_app') and rights_of('consume_app'). Written by grant_app and revoke_app.
create table integration.grants (
    role_name    name        not null,
    app          text collate "C" not null check (char_length(app) between 1 and 50),
    -- May publish as the application, to the targets in routes; '*': to any.
    publish      boolean     not null default false,
    routes       text[]      not null default '{}',
    -- May take and settle what was published for the application.
    consume      boolean     not null default false,
    -- The highest priority it may give; null: any.
    max_priority integer,
    -- How many of the application's messages may wait for each target (pending or scheduled); null: any number.
    max_pending  integer     check (max_pending >= 1),
    granted_at   timestamptz not null default integration.clock(),
    granted_by   text        not null default integration.role_name(),
    primary key (role_name, app),
    check (publish or consume),
    check (publish = (routes <> '{}'))
);

-- How many messages of a source waited for a target when they were last counted, for grants with max_pending; and the
-- last id that was given out then: no more can have come since than ids were given out.
create table integration.backlogs (
    source_app text collate "C" not null,
    target_app text collate "C" not null,
    messages   integer not null,
    last_id    bigint  not null,
    primary key (source_app, target_app)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- Which role registered it: of roles that may consume for some applications only, each renews and ends its own.
alter table integration.processes add column role_name text;
