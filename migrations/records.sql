-- What the schema says of itself: which steps and which code are in force, and what all of it looked like then.

-- The steps that were applied, and as number 0 the code: its checksum changes with every release that changes code/.
-- Who may read this can say whether there is anything to be done.
create table if not exists integration.migrations (
    version    integer primary key,
    name       text        not null,
    checksum   text        not null,
    -- Which doorbell did it.
    program    text        not null,
    applied_at timestamptz not null default clock_timestamp()
);

-- The parts of the code in force, by kind and name, and a checksum of the statement that made each.
create table if not exists integration.code (
    kind     text not null,
    name     text not null,
    checksum text not null,
    primary key (kind, name)
);

-- Each part of the schema and a hash of its definition. deparsed: the server wrote the definition, in the words of its
-- version, so a hash says something only to servers of the same one.
create table if not exists integration.fingerprints (
    kind     text    not null,
    name     text    not null,
    hash     text    not null,
    deparsed boolean not null,
    server   integer not null,
    primary key (kind, name)
);
