-- Tracking: which tables are captured, and the code that is made for each.

create function relay.capture_functions(tracking_id integer) returns text[]
language sql immutable set search_path = pg_catalog, relay, pg_temp as $$
  select array['capture_rows_' || tracking_id, 'capture_insert_' || tracking_id, 'capture_update_' || tracking_id,
               'capture_delete_' || tracking_id, 'capture_statement_' || tracking_id]
$$;

create function relay.capture_code(t relay.tracking) returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_settings text := relay.settings_for(array(select (c->>'type')::oid from jsonb_array_elements(t.columns) c));
  v_head text := 'create or replace function relay.%I() returns trigger language plpgsql volatile security definer '
    || 'set search_path = pg_catalog, relay, pg_temp ' || v_settings || ' as %L';
  v_owner name := (select pg_get_userbyid(nspowner) from pg_namespace where nspname = 'relay');
  v_check text := format('relay.unaltered(%L::regclass, %s)', t.target::oid::text, t.id);
  v_running text := $w$pg_sequence_last_value('relay.pause_switch') is distinct from 1$w$;
  -- relay.ring asks the same, but while a relay polls the call alone would cost a fifth of the capture. Every transaction
  -- sets up each operator of an expression anew, so there are few: whether the lease is over is the relays' to ask.
  v_heard text := $w$pg_sequence_last_value('relay.lease') is not null and current_setting('relay.bell', true) is distinct from 'always'$w$;
  v_op text;
  v_name text;
begin
  execute format(v_head, 'capture_rows_' || t.id, format($code$
declare
  v_rows bigint;
  v_settings text[];
  v_bulk text := current_setting('relay.bulk_load', true);
begin
  if v_bulk = 'on' or not (%8$s) then
    return null;
  end if;
  if v_bulk = 'summary' then
    select count(*) into v_rows from new_rows;
    if v_rows > 0 then
      insert into relay.change ("table", op, type, meta)
      values (%1$L, 'bulk_load', %2$L, %3$L::jsonb || jsonb_build_object('op', 'insert', 'rows', v_rows));
    end if;
  elsif %4$s then
    %5$s;
    get diagnostics v_rows = row_count;
  else
    v_settings := relay.pin_settings();
    execute relay.capture_sql(%6$s, 'rows', TG_RELID);
    get diagnostics v_rows = row_count;
    perform relay.unpin_settings(v_settings);
  end if;
  if v_rows > 0 and (%7$s) is not true then
    perform relay.ring(%1$L, 'insert', v_rows);
  end if;
  return null;
end $code$, t.name, t.type, relay.meta_text(t), v_check, relay.capture_sql(t, 'rows', 'r', 'r', true, true), t.id, v_heard, v_running));

  -- One IF before the statement and one after it are the way of nearly every row. The rest is rare.
  execute format(v_head, 'capture_insert_' || t.id, format($code$
declare
  v_settings text[];
begin
  if %3$s and %4$s and new.xmax = 0 then
    %2$s;
    if %5$s then
      return null;
    end if;
  elsif not (%4$s) then
    return null;
  elsif not %3$s then
    v_settings := relay.pin_settings();
    execute relay.capture_sql(%6$s, 'insert', TG_RELID) using new;
    perform relay.unpin_settings(v_settings);
  -- The row was updated or locked before this trigger came to it: by a function in RETURNING, say. If that update is
  -- in the log already, the insert would come too late, so that clients are told to load the table again instead.
  -- Not in one condition with xmax: that would be planned for each row, and planning locks all partitions of the log.
  elsif exists (
      select 1 from relay.change c, (select %7$s) n
      where c.xid = pg_current_xact_id() and c."table" = %1$L and c.op in ('update', 'delete') and c.old = row_to_json(n.*)::text) then
    insert into relay.change ("table", op, type, meta)
    values (%1$L, 'bulk_load', %8$L, %9$L::jsonb || jsonb_build_object('op', 'insert', 'rows', 1));
  else
    %2$s;
  end if;
  perform relay.ring(%1$L, 'insert', 1);
  return null;
end $code$, t.name, relay.capture_sql(t, 'insert', 'old', 'new', true, true), v_check, v_running, v_heard, t.id,
    relay.row_columns(t.columns, t.target, 'new', true), t.type, relay.meta_text(t)));

  foreach v_op in array '{update,delete}'::text[] loop
    execute format(v_head, format('capture_%s_%s', v_op, t.id), format($code$
declare
  v_settings text[];
begin
  if %3$s and %4$s then
    %2$s;
    if not found or %5$s then
      return null;
    end if;
  elsif not (%4$s) then
    return null;
  else
    v_settings := relay.pin_settings();
    execute relay.capture_sql(%6$s, %7$L, TG_RELID) using %8$s;
    perform relay.unpin_settings(v_settings);
  end if;
  perform relay.ring(%1$L, %7$L, 1);
  return null;
end $code$, t.name, relay.capture_sql(t, v_op, 'old', 'new', true, true), v_check, v_running, v_heard, t.id, v_op,
      case v_op when 'update' then 'old, new' else 'old' end));
  end loop;

  execute format(v_head, 'capture_statement_' || t.id, format($code$
declare
  v_meta jsonb := %3$L;
begin
  if pg_sequence_last_value('relay.pause_switch') = 1 or current_setting('relay.bulk_load', true) = 'on' then
    return null;
  end if;
  if TG_OP = 'TRUNCATE' then
    if TG_RELID <> (select target from relay.tracking where id = %4$s) then
      v_meta := v_meta || jsonb_build_object('partition', format('%%I.%%I', TG_TABLE_SCHEMA, TG_TABLE_NAME));
    end if;
    insert into relay.change ("table", op, type, meta) values (%1$L, 'truncate', %2$L, v_meta);
  else
    insert into relay.change ("table", op, type, meta)
    values (%1$L, 'bulk_load', %2$L, v_meta || jsonb_build_object('op', lower(TG_OP)));
  end if;
  perform relay.ring(%1$L, lower(TG_OP), 0);
  return null;
end $code$, t.name, t.type, relay.meta_text(t), t.id));

  foreach v_name in array relay.capture_functions(t.id) loop
    execute format('revoke all on function relay.%I() from public', v_name);
    execute format('alter function relay.%I() owner to %I', v_name, v_owner);
  end loop;
end
$$;

create function relay.drop_capture(tracking_id integer) returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp set client_min_messages = 'warning' as $$
declare
  v_name text;
begin
  -- Through the functions: to drop a trigger itself takes the table's owner, to drop what it calls takes only us.
  foreach v_name in array relay.capture_functions(tracking_id) loop
    execute format('drop function if exists relay.%I() cascade', v_name);
  end loop;
end
$$;

create function relay.misses_applied(target regclass) returns boolean
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select exists (select from pg_subscription_rel s where s.srrelid = target)
     and exists (select from pg_trigger g where g.tgrelid = target and g.tgenabled <> 'A'
                   and g.tgname = any('{000_relay_insert,000_relay_update,000_relay_delete,000_relay_truncate}'))
$$;
comment on function relay.misses_applied(regclass) is
  'Whether a subscription writes to the table and its triggers, which then fire only if they always do, do not.';

create function relay.track(
  target regclass,
  type text default null,
  channels jsonb default null,
  columns text[] default null,
  exclude text[] default '{}',
  key text[] default null,
  level text default 'row',
  restricted jsonb default null
) returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
#variable_conflict use_variable
declare
  v_class pg_class := c from pg_class c where c.oid = target;
  v_name text := (select format('%I.%I', n.nspname, v_class.relname) from pg_namespace n where n.oid = v_class.relnamespace);
  v_unknown text;
  v_row relay.tracking;
  v_before relay.tracking;
  v_stricter boolean;
  v_remade boolean;
  v_partition regclass;
begin
  if v_class.relkind not in ('r', 'p') or v_class.relpersistence = 't' then
    raise exception '% cannot be tracked: only ordinary and partitioned tables can', v_name using errcode = 'wrong_object_type';
  end if;
  if v_class.relnamespace = 'relay'::regnamespace then
    raise exception '% cannot be tracked: it belongs to the relay itself', v_name using errcode = 'wrong_object_type';
  end if;
  if v_class.relispartition then
    raise exception '% is a partition', v_name using errcode = 'wrong_object_type',
      hint = format('Track its root: select relay.track(%L)', pg_partition_root(target)::text);
  end if;
  if v_class.relrowsecurity then
    raise warning '% has row level security, which the relay does not apply: it sends every captured row', v_name
      using hint = 'Who receives a row is decided by tokens: narrow them by committees, elections or channels, and leave out columns by exclude.';
  end if;
  if type is not null and (type !~ '^[a-z][a-z0-9_]{0,62}$' or type in ('connection_success', 'checkpoint', 'message',
      'subscribed', 'unsubscribed', 'ping', 'pong', 'authenticated', 'error', 'dashboard_update')) then
    raise exception 'type % cannot be used: lower-case letters, digits and underscores, and not a name of the protocol', type
      using errcode = 'invalid_parameter_value';
  end if;
  select string_agg(quote_ident(c), ', ') into v_unknown
  from unnest(coalesce(columns, '{}') || exclude || coalesce(key, '{}')) c
  where not exists (select 1 from pg_attribute a where a.attrelid = target and a.attname = c and a.attnum > 0 and not a.attisdropped);
  if v_unknown is not null then
    raise exception '% has no column %', v_name, v_unknown using errcode = 'undefined_column';
  end if;

  v_row.target := target;
  v_row.name := v_name;
  v_row.type := coalesce(type, case v_class.relname when 'vote' then 'voting_update'
    else regexp_replace(lower(left(v_class.relname, 56)), '[^a-z0-9_]', '_', 'g') || '_update' end);
  v_row.excluded := exclude;
  v_row.version := 1;
  -- Virtual columns are never computed in a trigger (PostgreSQL 18), so they are left out rather than sent as null.
  select coalesce(jsonb_agg(jsonb_build_object('num', a.attnum, 'name', a.attname, 'type', a.atttypid::bigint) order by a.attnum), '[]')
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
  select string_agg(quote_ident(k), ', ') into v_unknown from unnest(v_row.key) k
  where not exists (select 1 from jsonb_array_elements(v_row.columns) c where c->>'name' = k);
  if v_unknown is not null then
    raise exception 'key column % of % must be among the captured columns', v_unknown, v_name using errcode = 'invalid_parameter_value';
  end if;
  v_row.scope := coalesce(channels, (
    select coalesce(jsonb_object_agg(s.prefix, s.name), '{}')
    from (values ('committee', 'committee_id'), ('election', 'election_id'), ('user', 'user_id')) s(prefix, name)
    where exists (select 1 from jsonb_array_elements(v_row.columns) c where c->>'name' = s.name)));
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
  lock table relay.tracking in share row exclusive mode;
  perform relay.drop_capture(t.id) from relay.tracking t where not exists (select 1 from pg_class c where c.oid = t.target);
  delete from relay.tracking t where not exists (select 1 from pg_class c where c.oid = t.target);
  select * into v_before from relay.tracking t where t.target = target;
  -- Unlike the others, it is never lifted by being forgotten.
  v_row.restricted := coalesce(restricted, v_before.restricted, '{}');
  if (case when jsonb_typeof(v_row.restricted) = 'object'
       then jsonb_path_exists(v_row.restricted, 'strict $.* ? (@.type() != "array" || exists(@[*] ? (@.type() != "string")))')
         or exists (select from jsonb_object_keys(v_row.restricted) r where length(r) not between 1 and 128)
       else true end) then
    raise exception 'restricted must be an object of roles and their columns such as {"admin": ["voter_name"]}'
      using errcode = 'invalid_parameter_value';
  end if;
  select string_agg(quote_literal(r.name), ', ') into v_unknown from relay.restrictions(v_row.restricted) r
  where not exists (select 1 from jsonb_array_elements(v_row.columns) c where c->>'name' = r.name);
  if v_unknown is not null then
    raise exception 'restricted of %: % must be among the captured columns', v_name, v_unknown
      using errcode = 'invalid_parameter_value', hint = 'Say anew what is restricted, if anything: select relay.track(..., restricted => ''{}'').';
  end if;
  select string_agg(quote_ident(r.name), ', ') into v_unknown from relay.restrictions(v_row.restricted) r where r.name = any(v_row.key);
  if v_unknown is not null then
    raise exception 'key column % of % cannot be restricted: everybody is told which row it is', v_unknown, v_name
      using errcode = 'invalid_parameter_value', hint = 'Name other columns that identify a row: select relay.track(..., key => array[''id'']).';
  end if;
  select string_agg(quote_ident(r.name), ', ') into v_unknown from relay.restrictions(v_row.restricted) r
  where exists (select 1 from jsonb_each_text(v_row.scope) s where s.value = r.name);
  if v_unknown is not null then
    raise exception 'column % of % cannot be restricted: its value is in the names of channels', v_unknown, v_name
      using errcode = 'invalid_parameter_value', hint = 'Name the columns that make channels: select relay.track(..., channels => ''{}'').';
  end if;
  if level not in ('row', 'statement') then
    raise exception 'level must be row or statement' using errcode = 'invalid_parameter_value';
  end if;
  -- A statement trigger runs after all row triggers. If anything updates the new rows before the INSERT is over (an
  -- AFTER ROW trigger, also one of another table that the same WITH inserts into), the update would be logged first.
  -- Only the first of these can be seen here, so statement level is for those who ask for it.
  v_row.level := case when v_class.relkind = 'p'
      or exists (select 1 from pg_subscription_rel s where s.srrelid = target)
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
  insert into relay.tracking as t (target, name, type, columns, excluded, key, scope, restricted, level, version)
  values (v_row.target, v_row.name, v_row.type, v_row.columns, v_row.excluded, v_row.key, v_row.scope, v_row.restricted, v_row.level, v_row.version)
  on conflict on constraint tracking_target_key do update
    set name = excluded.name, type = excluded.type, columns = excluded.columns, excluded = excluded.excluded,
        key = excluded.key, scope = excluded.scope, restricted = excluded.restricted, level = excluded.level, version = excluded.version,
        tracked_at = clock_timestamp()
  returning * into v_row;

  -- Replacing functions locks nothing that writers use. Triggers are made anew only if other ones are needed, or if all
  -- must have ended who write by the rule before.
  v_remade := v_stricter or v_before.id is null or v_before.level <> v_row.level or v_class.relkind = 'p'
    or (select count(*) from pg_trigger g where g.tgrelid = target and g.tgname ~ '^000_relay_' and g.tgenabled in ('O', 'A')) <> 5
    or relay.misses_applied(target);
  if v_remade and v_before.id is not null then
    perform relay.drop_capture(v_row.id);
  end if;
  perform relay.capture_code(v_row);
  if not v_remade then
    return;
  end if;

  if v_row.level = 'statement' then
    execute format('create trigger "000_relay_insert" after insert on %s referencing new table as new_rows for each statement execute function relay.%I()',
      target, 'capture_rows_' || v_row.id);
  else
    execute format('create trigger "000_relay_insert" after insert on %s for each row when (relay.captures()) execute function relay.%I()',
      target, 'capture_insert_' || v_row.id);
  end if;
  execute format('create trigger "000_relay_update" after update on %s for each row when (relay.captures()) execute function relay.%I()',
    target, 'capture_update_' || v_row.id);
  execute format('create trigger "000_relay_delete" after delete on %s for each row when (relay.captures()) execute function relay.%I()',
    target, 'capture_delete_' || v_row.id);
  execute format('create trigger "000_relay_bulk" after %s on %s for each statement when (relay.summarises()) execute function relay.%I()',
    case v_row.level when 'statement' then 'update or delete' else 'insert or update or delete' end, target, 'capture_statement_' || v_row.id);
  for v_partition in select target union select relid from pg_partition_tree(target) loop
    execute format('create trigger "000_relay_truncate" after truncate on %s for each statement execute function relay.%I()',
      v_partition, 'capture_statement_' || v_row.id);
  end loop;
  -- A replication worker applies with session_replication_role = replica, which passes over ordinary triggers.
  if exists (select 1 from pg_subscription_rel s where s.srrelid = target) then
    if pg_has_role(current_user, v_class.relowner, 'usage') then
      execute format('alter table %s enable always trigger "000_relay_insert", enable always trigger "000_relay_update", enable always trigger "000_relay_delete", enable always trigger "000_relay_truncate"', target);
    else
      raise warning '% receives rows by logical replication, which are not captured', v_name
        using hint = format('As the table''s owner: alter table %s enable always trigger "000_relay_insert", and the same for _update, _delete and _truncate.', v_name);
    end if;
  end if;
  if v_stricter then
    perform relay.forget_log();
    perform relay.ring(v_name, 'track', 0);
  end if;
end
$$;
comment on function relay.track(regclass, text, jsonb, text[], text[], text[], text, jsonb) is
  'Captures a table''s changes from now on; call it again after ALTER TABLE. type: message type (default: the table''s name and _update). channels: {"prefix": "column"} (default: committee_id, election_id, user_id where they exist). columns, exclude: what is captured. key: what identifies a row (default: the primary key). level: statement captures the INSERT of many rows four times as cheaply, for tables whose new rows nothing else changes in the same statement. restricted: {"role": ["column"]}, columns that only clients with one of their roles may see (default: as before; ''{}'' lifts it); a stricter rule waits for the table''s writers, and every client loads its state again. Row level security of the table is not applied: every row is captured, and tokens decide who receives it.';


create function relay.is_current(t relay.tracking) returns boolean
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select exists (
    select 1 from pg_proc p
    where p.proname = 'capture_insert_' || t.id and p.pronamespace = 'relay'::regnamespace
      and position(format('relay.unaltered(%L', t.target::oid::text) in p.prosrc) > 0)
$$;
comment on function relay.is_current(relay.tracking) is
  'Whether the code was made for this very table; after a restore from a dump it was made for one with another oid.';

create function relay.renew() returns bigint
language sql volatile set search_path = pg_catalog, relay, pg_temp as $$
  select count(relay.capture_code(t)) from relay.tracking t
  where exists (select 1 from pg_class c where c.oid = t.target) and not relay.is_current(t)
$$;
comment on function relay.renew() is 'Makes the code of all tables anew that were restored from a dump. Takes no lock that writers need. Returns how many.';

create function relay.untrack(target regclass) returns boolean
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_id integer := t.id from relay.tracking t where t.target = untrack.target;
begin
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
       t.excluded, t.restricted, t.key, t.level, t.version, t.tracked_at,
       case
         when relay.is_paused() then 'the capture is paused: select relay.resume()'
         when k.oid is null then 'the table was dropped: select relay.untrack(' || t.target::oid || ')'
         when format('%I.%I', k.relnamespace::regnamespace::name, k.relname) <> t.name then 'the table was renamed: track it again'
         when not relay.is_current(t) then 'the database was restored from a dump, and the capture is slow until you track the table again'
         when not relay.layout_holds(t.target, t.id) then 'a captured column was renamed, retyped or dropped: track it again'
         when t.level = 'statement' and exists (
           select 1 from pg_trigger g where g.tgrelid = t.target and not g.tgisinternal
             and g.tgtype & 1 = 1 and g.tgtype & 2 = 0 and g.tgtype & 64 = 0 and g.tgname !~ '^000_relay_')
           then 'an AFTER ROW trigger was added: track it again, or inserts may be logged after its updates'
         when exists (
           select 1 from unnest(array['insert', 'update', 'delete', 'bulk', 'truncate']) w
           where not exists (select 1 from pg_trigger g where g.tgrelid = t.target and g.tgname = '000_relay_' || w and g.tgenabled in ('O', 'A')))
           then 'a trigger is missing or disabled: track it again'
         when relay.misses_applied(t.target) then 'a subscription writes to it, and is not captured: track it again as its owner'
         when exists (
           select 1 from pg_partition_tree(t.target) p
           where not exists (select 1 from pg_trigger g where g.tgrelid = p.relid and g.tgname = '000_relay_truncate'))
           then 'a partition was added, and its TRUNCATE would not be seen: track the table again'
       end as problem,
       array(select a.attname::text from pg_attribute a
             where a.attrelid = t.target and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v'
               and not a.attname = any(t.excluded)
               and not exists (select 1 from jsonb_array_elements(t.columns) c where (c->>'num')::int = a.attnum)) as not_captured,
       coalesce(k.relrowsecurity, false) as row_security
from relay.tracking t left join pg_class k on k.oid = t.target;
comment on view relay.tracked is
  'The captured tables. problem: what makes the capture incomplete and what to do, or null. not_captured: columns that are neither sent nor excluded, such as ones added later. row_security: the table has policies, which the relay does not apply.';

create function relay.send_to_user(user_id text, payload jsonb) returns void
language plpgsql volatile security definer set search_path = pg_catalog, relay, pg_temp as $$
begin
  perform relay.broadcast('user:' || user_id, payload);
end
$$;
comment on function relay.send_to_user(text, jsonb) is 'Sends a message of the application to all connections of one user, once the transaction commits.';

create function relay.broadcast(channel text, payload jsonb) returns void
language plpgsql volatile security definer set search_path = pg_catalog, relay, pg_temp as $$
begin
  if channel !~ '^[a-z][a-z0-9_]{0,62}(:[^\s:]{1,128})?$' then
    raise exception 'channel % cannot be used: a prefix, or a prefix and an id, such as committee:7', quote_literal(channel)
      using errcode = 'invalid_parameter_value';
  end if;
  insert into relay.change (op, type, new, meta)
  values ('message', 'message', payload::text, jsonb_build_object('channel', channel));
  perform relay.ring('', 'message', 1);
end
$$;
comment on function relay.broadcast(text, jsonb) is 'Sends a message of the application to everybody who is subscribed to the channel, once the transaction commits.';

create function relay.admit_relay(role name) returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
begin
  execute format('grant usage on schema relay to %I', role);
  execute format('grant select on relay.change, relay.horizon, relay.lineage, relay.migration, relay.tracking, relay.tracked, relay.revocation, relay.derived to %I', role);
  execute format('grant select on sequence relay.lease, relay.slot, relay.pause_switch to %I', role);
  execute format('grant execute on function relay.rotate(interval, bigint), relay.advance_slot(smallint), relay.meet_lineage(), relay.contains(pg_snapshot, pg_snapshot), relay.set_lease(integer), relay.end_lease(), relay.layout_holds(regclass, integer), relay.misses_applied(regclass), relay.is_current(relay.tracking), relay.column_name(regclass, integer), relay.is_paused(), relay.revocation_text(relay.revocation), relay.derived_function(text), relay.derive(text, text) to %I', role);
end
$$;
comment on function relay.admit_relay(name) is 'Grants a role what a relay process needs, and nothing that reads or writes the tables themselves.';

create function relay.admit_publisher(role name) returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
begin
  execute format('grant usage on schema relay to %I', role);
  execute format('grant execute on function relay.send_to_user(text, jsonb), relay.broadcast(text, jsonb) to %I', role);
end
$$;
comment on function relay.admit_publisher(name) is 'Grants a role the right to send messages of the application.';
