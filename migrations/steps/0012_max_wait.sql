-- For how long a message may be put off that waits under a coalesce key: who looks at one is told so.

-- After it was published, as whoever has published under the key last has said (with max_wait, or by its delay):
-- replace_waiting. Null: without a delay.
alter table integration.coalescing add column max_wait interval;
