-- Contracts: what the messages of a record type have to say, asked when they are published.

-- Says what messages of a record type that are published to a target have to fulfil: p_rule, a condition in jsonpath
-- over the payload, as 'strict $.cents > 0 && exists($.order)'. Where there are several versions, one of them is
-- enough. p_policy of the newest version says what becomes of a message that fulfils none: "reject" fails the publish,
-- "fail" stores it as failed with the rule as the reason, "warn" only counts it (breaches) and notes it in the audit
-- log. What is copied for subscribers is stored as failed where it would be rejected: who publishes to a topic is not
-- stopped by who has subscribed. False: that version was there, and is now as said.
-- SQLSTATEs: MQ002 for names that are none and a policy that there is not; 23502 without a rule.
create or replace function integration.set_contract(
    p_target text, p_type text, p_rule jsonpath, p_policy text default 'reject', p_version integer default 1
) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_new boolean;
begin
    if char_length(p_target) between 1 and integration.name_chars_max() is not true
        or char_length(p_type) between 1 and integration.name_chars_max() is not true then
        raise exception 'a target and a record type have 1 to % characters', integration.name_chars_max()
            using errcode = 'MQ002';
    elsif p_policy in ('reject', 'fail', 'warn') is not true or p_version >= 0 is not true then
        raise exception 'there is no policy "%", or no version %', p_policy, p_version using errcode = 'MQ002',
            hint = 'use reject, fail or warn, and a version of 0 or more';
    end if;
    insert into integration.contracts as c (target_app, record_type, version, rule, policy)
    values (p_target, p_type, p_version, p_rule, p_policy)
    on conflict (target_app, record_type, version) do update set rule = excluded.rule, policy = excluded.policy
    returning c.xmax = 0 into v_new;
    insert into integration.audit_log (app_name, action, target_app, record_type, details)
    values (integration.actor(), 'contract_set', p_target, p_type, jsonb_build_object(
        'version', p_version, 'rule', p_rule::text, 'policy', p_policy));
    return v_new;
end $$;

-- Ends a contract: one version, or all of them (null). False: there was none.
create or replace function integration.forget_contract(p_target text, p_type text, p_version integer default null)
    returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    delete from integration.contracts c
     where c.target_app = p_target and c.record_type = p_type and (p_version is null or c.version = p_version);
    if not found then
        return false;
    end if;
    insert into integration.audit_log (app_name, action, target_app, record_type, details)
    values (integration.actor(), 'contract_forgotten', p_target, p_type,
            jsonb_strip_nulls(jsonb_build_object('version', p_version)));
    return true;
end $$;

-- For on_published, of messages that have just been inserted: rejects them, or makes those failed that break their
-- contract; returns the ids of these. p_copies: made by us, for subscribers or again.
-- SQLSTATEs: 23514 with the column data as the constraint's name; its detail is a document for programs: whose contract
-- it is, "target_app", "record_type" and "version". Nothing here can count it, because all of it is rolled back.
create or replace function integration.keep_contracts(p_ids bigint[], p_copies boolean) returns bigint[]
    language plpgsql set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    v_now    timestamptz := integration.clock();
    v_breach record;
    v_failed bigint[] := '{}';
begin
    for v_breach in
        select d.id, d.target_app, d.record_type, d.attempt, d.status, n.rule, n.version, n.policy
          from integration.messages_of(p_ids) d
         cross join lateral (
            select c.rule, c.version, c.policy from integration.contracts c
             where c.target_app = d.target_app and c.record_type = d.record_type order by c.version desc limit 1) n
         where d.status in ('pending', 'scheduled') and not exists (
            select from integration.contracts c
             where c.target_app = d.target_app and c.record_type = d.record_type and d.data @@ c.rule)
    loop
        if v_breach.policy = 'reject' and not p_copies then
            raise exception 'a message of type % for % breaks its contract: % is not true of it', v_breach.record_type,
                v_breach.target_app, v_breach.rule
                using errcode = 'check_violation', column = 'data', constraint = 'data',
                    detail = jsonb_build_object('target_app', v_breach.target_app, 'record_type',
                        v_breach.record_type, 'version', v_breach.version)::text,
                    hint = format('version %s of the contract says so: integration.contracts', v_breach.version);
        end if;
        insert into integration.deltas (at, messages, target_app, action)
        values (v_now, 1, v_breach.target_app, 'breaches');
        insert into integration.audit_log (staging_id, app_name, action, target_app, record_type, attempt, details)
        values (v_breach.id, integration.actor(), 'breached', v_breach.target_app, v_breach.record_type,
                v_breach.attempt, jsonb_build_object('version', v_breach.version, 'rule', v_breach.rule::text,
                'policy', v_breach.policy));
        if v_breach.policy <> 'warn' then
            v_failed := v_failed || v_breach.id;
            update integration.data_staging d
               set status = 'failed', attempt = d.attempt + 1, updated_at = v_now, available_at = null,
                   error_message = integration.clean_text(integration.breach_reason(v_breach.version, v_breach.rule))
             where d.id = v_breach.id;
        end if;
    end loop;
    return v_failed;
end $$;

-- Why a message failed that was stored although it broke its contract. Who looks for such messages asks here, too.
create or replace function integration.breach_reason(p_version integer, p_rule jsonpath) returns text
    language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
    select format('breaks its contract, version %s: %s is not true of it', p_version, p_rule)
$$;

-- For explain: a message that its contract failed, and what the contract says by now. Empty result: it is none.
create or replace function integration.explain_breach(p_id bigint)
    returns table (code text, sentence text, fix text, details jsonb)
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select 'contract_broken', format('it failed when it was published, at %s, because version %s of the contract of '
               '%s for %s is not true of it: %s%s', integration.time_in_words(d.updated_at), b.version, d.record_type,
               d.target_app, b.rule, case when n.is_bound is null then '; there is no contract any more'
                   when n.keeps then '; what the contract says by now is true of it' end),
           format('mend whoever publishes it, or what the contract says (doorbell contracts); to have it handled all '
               'the same: doorbell redrive %s', p_id),
           jsonb_build_object('version', b.version, 'rule', b.rule, 'keeps_now', n.keeps, 'at', d.updated_at)
      from integration.data_staging d
     cross join lateral regexp_match(d.error_message,
           '^breaks its contract, version ([0-9]{1,9}): (.*) is not true of it$') with ordinality r (match)
     cross join lateral (select r.match[1]::integer as version, r.match[2] as rule) b
     cross join lateral (
        select bool_or(true) as is_bound, bool_or(coalesce(d.data @@ c.rule, false)) as keeps
          from integration.contracts c where c.target_app = d.target_app and c.record_type = d.record_type) n
     where d.id = p_id and d.status = 'failed' and r.match is not null
$$;

-- The contracts, and how many messages of their targets have broken one, since the beginning.
create or replace view integration.kept_contracts as
select c.target_app, c.record_type, c.version, c.rule::text as rule, c.policy, c.created_at, c.created_by,
       (select coalesce(sum(o.messages), 0)::bigint from integration.current_totals o
         where o.target_app = c.target_app and o.action = 'breaches') as breaches
  from integration.contracts c;

create or replace trigger contracts_made after insert on integration.contracts
    for each statement execute function integration.on_first('has_contracts');
