-- Tracking: which tables are captured, and how.

create function relay.default_type(target regclass) returns text
language plpgsql stable set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_schema text;
  v_table text;
  v_candidate text;
begin
  select n.nspname, c.relname into v_schema, v_table from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = target;
  foreach v_candidate in array array[case v_table when 'vote' then 'voting' else v_table end, v_schema || '_' || v_table] loop
    v_candidate := regexp_replace(lower(v_candidate), '[^a-z0-9_]', '_', 'g');
    v_candidate := left(v_candidate, 56) || '_update';
    if v_candidate ~ '^[a-z]' and v_candidate <> all(relay.reserved_types())
       and not exists (select from relay.tracking t where t.type = v_candidate and t.target <> default_type.target) then
      return v_candidate;
    end if;
  end loop;
  raise exception 'there is no message type of its own for %', relay.qualified_name(target) using errcode = 'invalid_parameter_value',
    hint = format('Its name gives %s, which another table has or the protocol, or which does not begin with a letter from a to z. Name one: select relay.track(%L, type => ''..._update'').', v_candidate, relay.qualified_name(target));
end
$$;
comment on function relay.default_type(regclass) is
  'The message type of a table that is tracked without one: its name and _update, with its schema before it where another table has that already.';

create function relay.reserved_types() returns text[]
language sql immutable set search_path = pg_catalog, relay, pg_temp as $$
  select '{connection_success,checkpoint,message,subscribed,unsubscribed,ping,pong,authenticated,error,dashboard_update}'::text[]
$$;

create function relay.default_channels(target regclass, columns jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_channels jsonb := (
    select coalesce(jsonb_object_agg(s.prefix, s.name), '{}')
    from (values ('committee', 'committee_id'), ('election', 'election_id'), ('user', 'user_id')) s(prefix, name)
    where exists (select from jsonb_array_elements(columns) c where c->>'name' = s.name));
  v_shared record;
begin
  select p.prefix, t.name into v_shared
  from jsonb_object_keys(v_channels) p(prefix), relay.tracking t join pg_class c on c.oid = t.target
  where t.scope ? p.prefix and c.relnamespace <> (select k.relnamespace from pg_class k where k.oid = default_channels.target)
  order by 1, 2 limit 1;
  if found then
    raise exception 'the channels %:... are those of % already, of another schema: a token for one would show rows of both', v_shared.prefix, v_shared.name
      using errcode = 'invalid_parameter_value',
        hint = format('If that is meant: select relay.track(%L, channels => %L). If not, name other prefixes, or none: channels => ''{}''.', relay.qualified_name(target), v_channels);
  end if;
  return v_channels;
end
$$;
comment on function relay.default_channels(regclass, jsonb) is
  'The channels of a table that is tracked without any: by committee_id, election_id and user_id, where it has them.';

create function relay.new_what(t relay.tracking) returns integer
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_meta text := json_strip_nulls(json_build_object(
    'key', to_json(t.key),
    'exact', (select coalesce(json_agg(c.name), '[]') from relay.present_columns(t) c
              where c.name = any(t.key) and relay.base_type(c.type) in ('int8'::regtype, 'numeric'::regtype, 'oid'::regtype, 'xid8'::regtype)),
    'scope', t.scope,
    'instants', (select json_agg(c.name order by c.place) from relay.present_columns(t) c where relay.base_type(c.type) = 'timestamptz'::regtype),
    -- Two rows may have the same key until the transaction ends, or for good.
    'deferred', case when not exists (
      select from pg_index i where i.indrelid = t.target and i.indisunique and i.indimmediate and i.indpred is null and i.indexprs is null
        and not exists (
          select from unnest(i.indkey::int2[]) with ordinality k(num, o) join pg_attribute a on a.attrelid = t.target and a.attnum = k.num
          where o <= i.indnkeyatts and not a.attname = any(t.key))) then true end,
    'restricted', (select json_agg(json_build_array(name, roles) order by name) from relay.restrictions(t.restricted))))::text;
  v_what integer;
begin
  select w.id into v_what from relay.what w where w.id = t.what and (w."table", w.type, w.meta) = (t.name, t.type, v_meta);
  if not found then
    select coalesce(max(id), 0) + 1 into v_what from relay.what;
    insert into relay.what (id, "table", type, op, oversize, meta)
    select v_what + k.number, t.name, t.type, k.op, k.number between 3 and 5, v_meta
    from unnest('{insert,update,delete,insert,update,delete,truncate,bulk_load}'::text[]) with ordinality u(op, place),
         lateral (select op, place::integer - 1) k(op, number);
  end if;
  return v_what;
end
$$;
comment on function relay.new_what(relay.tracking) is
  'The first of the eight rows of relay.what that say what a tracked table''s rows in the log are: those that it has, or new ones if anything differs. Call it with relay.tracking locked.';

create function relay.track(
  target regclass,
  type text default null,
  channels jsonb default null,
  columns text[] default null,
  exclude text[] default '{}',
  key text[] default null,
  level text default 'row',
  restricted jsonb default null,
  max_bytes integer default null
) returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp set quote_all_identifiers = off as $$
#variable_conflict use_variable
declare
  v_class pg_class := c from pg_class c where c.oid = target;
  v_name text := relay.qualified_name(target);
  v_unknown text;
  v_row relay.tracking;
  v_before relay.tracking;
  v_stricter boolean;
  v_problem text;
begin
  exclude := coalesce(exclude, '{}');
  level := coalesce(level, 'row');
  if v_class.oid is null then
    raise exception '% is no table that can be tracked', coalesce(target::text, 'null') using errcode = 'undefined_table',
      hint = 'Name one: select relay.track(''public.vote'').';
  end if;
  if v_class.relkind not in ('r', 'p') or v_class.relpersistence = 't' then
    raise exception '% cannot be tracked: only ordinary and partitioned tables can', v_name using errcode = 'wrong_object_type';
  end if;
  if v_class.relnamespace = 'relay'::regnamespace then
    raise exception '% cannot be tracked: it belongs to the relay itself', v_name using errcode = 'wrong_object_type';
  end if;
  if v_class.relispartition and not exists (select from relay.tracking t where t.target = target) then
    raise exception '% is a partition', v_name using errcode = 'wrong_object_type',
      hint = format('Track its root: select relay.track(%L)', relay.qualified_name(pg_partition_root(target)));
  end if;
  if v_class.relrowsecurity then
    raise warning '% has row level security, which the relay does not apply: it sends every captured row', v_name
      using hint = 'Who receives a row is decided by tokens: narrow them by committees, elections or channels, and leave out columns by exclude.';
  end if;
  if v_class.relpersistence = 'u' then
    raise warning '% is unlogged: PostgreSQL empties it after a crash, of which clients are not told', v_name
      using hint = format('alter table %s set logged', v_name);
  end if;
  if type is not null and (type !~ '^[a-z][a-z0-9_]{0,62}$' or type = any(relay.reserved_types())) then
    raise exception 'type % cannot be used: lower-case letters, digits and underscores, and not a name of the protocol', type
      using errcode = 'invalid_parameter_value';
  end if;
  select string_agg(coalesce(quote_ident(c), 'NULL'), ', ') into v_unknown
  from unnest(coalesce(columns, '{}') || exclude || coalesce(key, '{}')) c
  where not exists (select 1 from pg_attribute a where a.attrelid = target and a.attname = c and a.attnum > 0 and not a.attisdropped);
  if v_unknown is not null then
    raise exception '% has no column %', v_name, v_unknown using errcode = 'undefined_column';
  end if;
  lock table relay.tracking in share row exclusive mode;
  perform relay.drop_capture(t.id) from relay.tracking t where not exists (select 1 from pg_class c where c.oid = t.target);
  delete from relay.tracking t where not exists (select 1 from pg_class c where c.oid = t.target);
  select * into v_before from relay.tracking t where t.target = target;

  v_row.target := target;
  v_row.made_for := target;
  v_row.name := v_name;
  v_row.type := coalesce(type, relay.default_type(target));
  v_row.excluded := exclude;
  v_row.version := 1;
  v_row.what := coalesce(v_before.what, 0);
  v_row.max_bytes := coalesce(max_bytes, v_before.max_bytes, 8388608);
  if v_row.max_bytes not between 1024 and 67108864 then
    raise exception 'max_bytes must be between 1024 and 67108864 (64 MB)' using errcode = 'invalid_parameter_value';
  end if;
  -- Virtual columns are never computed in a trigger (PostgreSQL 18), so they are left out rather than sent as null.
  select coalesce(jsonb_agg(jsonb_build_object('num', a.attnum, 'name', a.attname, 'type', relay.type_name(a.atttypid)) order by a.attnum), '[]')
    into v_row.columns
  from pg_attribute a
  where a.attrelid = target and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v'
    and (columns is null or a.attname = any(columns)) and not a.attname = any(exclude);
  v_row.key := coalesce(key, (
    select array_agg(a.attname::text order by k.n)
    from pg_index i, unnest(i.indkey::int2[]) with ordinality k(num, n), pg_attribute a
    where i.indrelid = target and i.indisprimary and a.attrelid = target and a.attnum = k.num));
  if v_row.key is null then
    raise exception '% has no primary key', v_name using errcode = 'invalid_table_definition',
      hint = 'Name the columns that identify a row: select relay.track(..., key => array[''id'']).';
  end if;
  if cardinality(v_row.key) <> (select count(distinct k) from unnest(v_row.key) k) or cardinality(v_row.key) = 0 then
    raise exception 'key of % must name one column or more, each once', v_name using errcode = 'invalid_parameter_value',
      hint = 'Name the columns that identify a row: select relay.track(..., key => array[''id'']).';
  end if;
  select string_agg(quote_ident(k), ', ') into v_unknown from unnest(v_row.key) k
  where not exists (select 1 from jsonb_array_elements(v_row.columns) c where c->>'name' = k);
  if v_unknown is not null then
    raise exception 'key column % of % must be among the captured columns', v_unknown, v_name using errcode = 'invalid_parameter_value';
  end if;
  v_row.scope := coalesce(channels, relay.default_channels(target, v_row.columns));
  if jsonb_typeof(v_row.scope) <> 'object' then
    raise exception 'channels must be an object such as {"committee": "committee_id"}' using errcode = 'invalid_parameter_value';
  end if;
  select string_agg(quote_nullable(s.value), ', ') into v_unknown from jsonb_each_text(v_row.scope) s
  where s.key !~ '^[a-z][a-z0-9_]{0,62}$' or s.key in ('dashboard', 'election_updates')
     or not exists (select 1 from jsonb_array_elements(v_row.columns) c where c->>'name' = s.value);
  if v_unknown is not null then
    raise exception 'channels of %: % must name a captured column, under a prefix of lower-case letters', v_name, v_unknown
      using errcode = 'invalid_parameter_value';
  end if;
  -- Unlike the others, it is never lifted by being forgotten.
  v_row.restricted := coalesce(restricted, v_before.restricted, '{}');
  perform relay.check_restricted(v_row);
  if level not in ('row', 'statement') then
    raise exception 'level must be row or statement' using errcode = 'invalid_parameter_value';
  end if;
  -- A statement trigger runs after all row triggers, and for the table alone that the statement names. If anything
  -- updates the new rows before the INSERT is over (an AFTER ROW trigger, also one of another table that the same WITH
  -- inserts into), the update would be logged first. Only some of this can be seen here, so statement level is for
  -- those who ask for it.
  v_row.level := case when relay.against_statements(target) is not null
      or exists (select 1 from pg_trigger g where g.tgrelid = target and not g.tgisinternal
                   and g.tgtype & 1 = 1 and g.tgtype & 2 = 0 and g.tgtype & 64 = 0 and g.tgname !~ '^000_relay_')
    then 'row' else level end;

  -- Whatever was not restricted as strictly may lie in the log, also from an earlier time under capture.
  v_stricter := exists (
    select from relay.restrictions(v_row.restricted) r left join relay.restrictions(v_before.restricted) b using (name)
    where (b.roles <@ r.roles) is not true);
  if v_stricter and (current_setting('transaction_isolation') not in ('read committed', 'read uncommitted')
      or exists (select from relay.change c where c.xid = pg_current_xact_id() and c."table" is not null)) then
    raise exception 'columns can be restricted only in READ COMMITTED, and in a transaction that has changed no tracked table'
      using errcode = 'active_sql_transaction';
  end if;
  v_row.what := relay.new_what(v_row);
  insert into relay.tracking as t (target, made_for, name, type, columns, excluded, key, scope, restricted, level, max_bytes, what, version)
  values (v_row.target, v_row.made_for, v_row.name, v_row.type, v_row.columns, v_row.excluded, v_row.key, v_row.scope, v_row.restricted, v_row.level, v_row.max_bytes, v_row.what, v_row.version)
  on conflict on constraint tracking_target_key do update
    set made_for = excluded.made_for, name = excluded.name, type = excluded.type, columns = excluded.columns, excluded = excluded.excluded,
        key = excluded.key, scope = excluded.scope, restricted = excluded.restricted, level = excluded.level,
        max_bytes = excluded.max_bytes, what = excluded.what, version = excluded.version, tracked_at = clock_timestamp()
  returning * into v_row;

  -- Replacing functions locks nothing that writers use. Triggers are made anew only if other ones are needed, or if all
  -- must have ended who write by the rule before.
  if v_before.id is not null then
    v_problem := relay.trigger_problem(v_row);
    if v_stricter or v_before.level <> v_row.level then
      perform relay.drop_capture(v_row.id);
    end if;
  end if;
  perform relay.capture_code(v_row);
  if v_before.id is null or v_stricter or v_problem is not null then
    perform relay.make_triggers(v_row);
  end if;
  perform relay.drop_strays(v_row);
  update relay.tracking t set seen = relay.fingerprint(t) where t.id = v_row.id;
  if v_stricter then
    perform relay.forget_log();
    perform relay.ring(v_name, 'track', 0);
  elsif v_problem is not null and v_before.level = v_row.level then
    perform relay.notice(v_row, 'track');
  end if;
end
$$;
comment on function relay.track(regclass, text, jsonb, text[], text[], text[], text, jsonb, integer) is
  'Captures a table''s changes from now on; call it again after ALTER TABLE. type: message type (default: the table''s name and _update). channels: {"prefix": "column"} (default: committee_id, election_id, user_id where they exist). columns, exclude: what is captured. key: what identifies a row (default: the primary key). level: statement captures the INSERT of many rows at less than half the price, for tables in no tree whose new rows nothing else changes in the same statement. restricted: {"role": ["column"]}, columns that only clients with one of their roles may see (default: as before; ''{}'' lifts it); a stricter rule waits for the table''s writers, and every client loads its state again. max_bytes: of a change with more JSON only key and channels are told (default 8 MB). Row level security of the table is not applied: every row is captured, and tokens decide who receives it.';

create function relay.check_restricted(t relay.tracking) returns void
language plpgsql stable set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_unknown text;
begin
  if (case when jsonb_typeof(t.restricted) = 'object'
       then jsonb_path_exists(t.restricted, 'strict $.* ? (@.type() != "array" || exists(@[*] ? (@.type() != "string")))')
         or exists (select from jsonb_object_keys(t.restricted) r where length(r) not between 1 and 128)
       else true end) then
    raise exception 'restricted must be an object of roles and their columns such as {"admin": ["voter_name"]}'
      using errcode = 'invalid_parameter_value';
  end if;
  select string_agg(quote_literal(r.name), ', ') into v_unknown from relay.restrictions(t.restricted) r
  where not exists (select 1 from jsonb_array_elements(t.columns) c where c->>'name' = r.name);
  if v_unknown is not null then
    raise exception 'restricted of %: % must be among the captured columns', t.name, v_unknown
      using errcode = 'invalid_parameter_value', hint = 'Say anew what is restricted, if anything: select relay.track(..., restricted => ''{}'').';
  end if;
  select string_agg(quote_ident(r.name), ', ') into v_unknown from relay.restrictions(t.restricted) r where r.name = any(t.key);
  if v_unknown is not null then
    raise exception 'key column % of % cannot be restricted: everybody is told which row it is', v_unknown, t.name
      using errcode = 'invalid_parameter_value', hint = 'Name other columns that identify a row: select relay.track(..., key => array[''id'']).';
  end if;
  select string_agg(quote_ident(r.name), ', ') into v_unknown from relay.restrictions(t.restricted) r
  where exists (select 1 from jsonb_each_text(t.scope) s where s.value = r.name);
  if v_unknown is not null then
    raise exception 'column % of % cannot be restricted: its value is in the names of channels', v_unknown, t.name
      using errcode = 'invalid_parameter_value', hint = 'Name the columns that make channels: select relay.track(..., channels => ''{}'').';
  end if;
  select string_agg(quote_ident(r.name), ', ') into v_unknown
  from relay.restrictions(t.restricted) r join relay.partition_columns(t.target) p on p.name = r.name;
  if v_unknown is not null then
    raise exception 'column % of % cannot be restricted: it decides in which partition a row lies, and a row that moves is told as deleted and created', v_unknown, t.name
      using errcode = 'invalid_parameter_value', hint = 'Exclude it: select relay.track(..., exclude => array[...]), or lift the restriction: restricted => ''{}''.';
  end if;
end
$$;
comment on function relay.check_restricted(relay.tracking) is 'Raises an error, with what to do, where the restrictions of a table cannot be kept.';

create function relay.untrack(target regclass) returns boolean
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_id integer := t.id from relay.tracking t where t.target = untrack.target;
begin
  if target is null then
    raise exception 'target must not be null' using errcode = 'invalid_parameter_value',
      hint = 'Name a table: select relay.untrack(''public.vote''). relay.tracked shows those that there are.';
  end if;
  if v_id is null then
    return false;
  end if;
  perform relay.drop_capture(v_id);
  delete from relay.tracking where id = v_id;
  return true;
end
$$;
comment on function relay.untrack(regclass) is
  'Ends the capture of a table and removes its triggers. Returns whether it was tracked.';

create view relay.tracked as
select t.target, t.name, t.type, t.scope as channels,
       array(select c->>'name' from jsonb_array_elements(t.columns) c) as columns,
       t.excluded, t.restricted, t.key, t.level, t.max_bytes, t.version, t.tracked_at,
       relay.problem(t) as problem,
       array(select a.attname::text from pg_attribute a
             where a.attrelid = t.target and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v'
               and not a.attname = any(t.excluded)
               and not exists (select 1 from jsonb_array_elements(t.columns) c where (c->>'num')::int = a.attnum)) as not_captured,
       coalesce(k.relrowsecurity, false) as row_security
from relay.tracking t left join pg_class k on k.oid = t.target;
comment on view relay.tracked is
  'The captured tables. problem: what makes the capture incomplete and what to do, or null. not_captured: columns that are neither sent nor excluded, such as ones added later. row_security: the table has policies, which the relay does not apply.';
