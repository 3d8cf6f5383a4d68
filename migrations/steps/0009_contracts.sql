-- Contracts: what messages of a record type have to say.

-- One row per target, record type and version. Written by set_contract and forget_contract.
create table integration.contracts (
    target_app  text collate "C" not null check (char_length(target_app) between 1 and 50),
    record_type text collate "C" not null check (char_length(record_type) between 1 and 50),
    version     integer     not null default 1 check (version >= 0),
    -- A condition in jsonpath, which the payload has to fulfil.
    rule        jsonpath    not null,
    -- What becomes of a message that fulfils none of the versions: the newest one says.
    policy      text        not null default 'reject' check (policy in ('reject', 'fail', 'warn')),
    created_at  timestamptz not null default integration.clock(),
    created_by  text        not null default integration.role_name(),
    primary key (target_app, record_type, version)
);

-- Whether there ever was one: only then publishing asks. Kept by on_first.
alter table integration.settings add column has_contracts boolean not null default false;
