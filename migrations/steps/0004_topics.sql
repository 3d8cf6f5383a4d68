-- Topics: targets whose messages are handed on, a copy to each subscriber.

-- Whether anybody has ever subscribed or made a target a topic: what publishes asks for that first. Kept by on_first.
alter table integration.settings add column has_topics boolean not null default false;

-- kind: a topic's own messages are completed when they are published, and nobody consumes it. unrouted: what becomes of
-- a message of a topic that no subscription takes: it is kept and counted, or its publish fails.
alter table integration.targets
    add column kind     text not null default 'queue' check (kind in ('queue', 'topic')),
    add column unrouted text not null default 'keep' check (unrouted in ('keep', 'reject'));

-- Who gets a copy of what is published to a target, a topic or (a tap) a queue: one row per subscriber. Written by
-- subscribe and unsubscribe.
create table integration.subscriptions (
    topic         text collate "C" not null check (char_length(topic) between 1 and 50),
    target_app    text collate "C" not null check (char_length(target_app) between 1 and 50),
    -- Names and patterns of record types as they were given; null: all.
    types         text[] collate "C",
    -- The same made ready: names, and one regular expression for the patterns. Both null: all.
    exact         text[] collate "C",
    pattern       text,
    -- Of these sources only; null: of all.
    sources       text[] collate "C",
    created_at    timestamptz not null default integration.clock(),
    created_by    text        not null default integration.role_name(),
    -- For a late subscriber: from when on it gets what was published before it subscribed. And how far that has come:
    -- the transactions that ran when the subscription was first seen committed (they may not see it), the next xid when
    -- these had ended, the last id of history, and the id up to which it was copied. See catch_up.
    since         timestamptz,
    running       text[],
    barrier       bigint,
    last_id       bigint,
    copied_id     bigint,
    -- null: not yet.
    caught_up_at  timestamptz,
    primary key (topic, target_app),
    check (topic <> target_app)
);

-- While a late subscriber catches up: which messages it got as they were published, whatever became of the copies.
create table integration.live_copies (
    topic      text collate "C" not null,
    target_app text collate "C" not null,
    id         bigint not null,
    primary key (topic, target_app, id)
);
