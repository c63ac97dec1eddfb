-- Capture: what a tracked table's triggers write to the changelog, and the bell they ring.

create table relay.tracking (
  id integer generated always as identity primary key,
  target regclass not null unique,
  name text not null,
  type text not null,
  columns jsonb not null,
  excluded text[] not null,
  key text[] not null,
  scope jsonb not null,
  restricted jsonb not null,
  level text not null check (level in ('row', 'statement')),
  version integer not null,
  tracked_at timestamptz not null default clock_timestamp()
);
comment on table relay.tracking is 'The tables whose changes are captured. Read relay.tracked instead.';
comment on column relay.tracking.columns is 'The captured columns: num (attnum), name (as tracked, and as sent), type (oid).';

create function relay.base_type(of_type oid) returns oid
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  with recursive chain as (
    select oid, typtype, typbasetype from pg_type where oid = of_type
    union all
    select t.oid, t.typtype, t.typbasetype from pg_type t, chain c where c.typtype = 'd' and t.oid = c.typbasetype)
  select oid from chain where typtype <> 'd'
$$;
comment on function relay.base_type(oid) is 'The type below any domains.';

-- 16384 is the first oid of objects that users make (FirstNormalObjectId). row_to_json looks for a cast to json on
-- such types only, and that cast is somebody's code, which must not run with the rights of the changelog's owner.
create function relay.harmless(expression text, of_type oid) returns text
language plpgsql stable set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_base pg_type := t from pg_type t where oid = relay.base_type(of_type);
begin
  -- format uses the type's output function, which is PostgreSQL's own for all types but a superuser's.
  if v_base.typsubscript = 'array_subscript_handler'::regproc then
    return case when relay.base_type(v_base.typelem) < 16384 then expression
                else format('case when num_nulls(%1$s) = 0 then format(''%%s'', %1$s)::text[] end', expression) end;
  end if;
  return case when v_base.oid < 16384 then expression
              else format('case when num_nulls(%1$s) = 0 then format(''%%s'', %1$s) end', expression) end;
end
$$;
comment on function relay.harmless(text, oid) is
  'An expression for row_to_json that runs no function which a user could have made: enums become their labels, other types that users make, and unknown ones (null), become PostgreSQL''s text.';

create function relay.harmless_today(expression text) returns text
language sql immutable set search_path = pg_catalog, relay, pg_temp as $$
  select format('case when num_nulls(%1$s) = 0 then case when pg_typeof(%1$s)::oid < 16384 then to_json(%1$s) else to_json(format(''%%s'', %1$s)) end end', expression)
$$;
comment on function relay.harmless_today(text) is
  'The same where the catalog cannot be asked for the type: the value is. PostgreSQL''s own types come as ever, all others as text.';

create function relay.settings_for(types oid[]) returns text
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  with base as (
    select distinct coalesce(nullif(case when t.typsubscript = 'array_subscript_handler'::regproc then relay.base_type(t.typelem) end, 0), t.oid)::regtype as type
    from unnest(types) u(oid), pg_type t where t.oid = relay.base_type(u.oid)),
  kind as (
    select case
      when type = any('{int2,int4,int8,numeric,bool,text,varchar,bpchar,"char",name,uuid,json,jsonb,date,timestamp,time,oid,inet,cidr,macaddr}'::regtype[])
        then 'none'
      when (select typtype from pg_type where oid = type) = 'e' then 'none'
      when type = any('{timestamptz,timetz}'::regtype[]) then 'zone'
      when type = any('{float4,float8}'::regtype[]) then 'float'
      when type = any('{interval}'::regtype[]) then 'interval'
      else 'any' end as kind
    from base)
  select coalesce(string_agg(distinct s.setting, ' '), '')
  from kind, (values ('zone', 'set timezone = ''UTC'''), ('float', 'set extra_float_digits = 1'),
                     ('interval', 'set intervalstyle = ''iso_8601'''), ('any', 'set datestyle = ''ISO, YMD'''),
                     ('any', 'set bytea_output = ''hex'''), ('any', 'set lc_monetary = ''C''')) s(kind, setting)
  where kind.kind = s.kind or (kind.kind = 'any')
$$;
comment on function relay.settings_for(oid[]) is
  'The SET clauses that make the text of these types the same whatever the writer''s session has set; none where no type depends on a setting, because each costs the writer.';

-- A transaction with a fixed snapshot (REPEATABLE READ, SERIALIZABLE) queries the catalogs as they were when it began,
-- while its statements and records are of today. So names are asked from a function that reads the newest catalog, and
-- types are believed only of a table that was not rewritten since; a change to or from a type that users make rewrites.
create function relay.column_name(target regclass, num integer) returns text
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select nullif((pg_identify_object_as_address('pg_class'::regclass, target, num)).object_names[3],
                format('........pg.dropped.%s........', num))
$$;
comment on function relay.column_name(regclass, integer) is 'What a column is called today, whatever the snapshot; null if it was dropped.';

create function relay.rewritten(target regclass) returns boolean
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select coalesce(pg_relation_filenode(target), 0) <> c.relfilenode from pg_class c where c.oid = target
$$;
comment on function relay.rewritten(regclass) is 'Whether the table was rewritten after the snapshot, so that its types may be others.';

create function relay.row_columns(columns jsonb, target regclass, record text, believe_types boolean) returns text
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select coalesce(string_agg(format('%s as %I', case
      when believe_types then relay.harmless(format('%s.%I', record, n.name), a.atttypid)
      else relay.harmless_today(format('%s.%I', record, n.name)) end, c->>'name'), ', ' order by o), '')
  from jsonb_array_elements(columns) with ordinality u(c, o)
  cross join lateral relay.column_name(target, (c->>'num')::int) n(name)
  left join pg_attribute a on a.attrelid = target and a.attnum = (c->>'num')::int
  where n.name is not null
$$;
comment on function relay.row_columns(jsonb, regclass, text, boolean) is
  'The select list of a captured row: columns found by number as they are called today, sent under the names they were tracked with.';

create function relay.restrictions(restricted jsonb) returns table (name text, roles text[])
language sql immutable set search_path = pg_catalog, relay, pg_temp as $$
  select c, array_agg(distinct r.key order by r.key)
  from jsonb_each(restricted) r, jsonb_array_elements_text(r.value) c
  group by c
$$;
comment on function relay.restrictions(jsonb) is 'The restricted columns, each with all roles that may see it.';

create function relay.meta_text(t relay.tracking) returns text
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select json_strip_nulls(json_build_object(
    'key', to_json(t.key),
    'exact', (select coalesce(json_agg(c->>'name'), '[]') from jsonb_array_elements(t.columns) c
              where c->>'name' = any(t.key)
                and relay.base_type((c->>'type')::oid) in ('int8'::regtype, 'numeric'::regtype, 'oid'::regtype, 'xid8'::regtype)),
    'scope', t.scope,
    'restricted', (select json_agg(json_build_array(name, roles) order by name) from relay.restrictions(t.restricted))))::text
$$;

create function relay.capture_sql(t relay.tracking, op text, old_record text, new_record text, whole boolean, believe_types boolean) returns text
language plpgsql stable set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_old text := format('(select %s) o', relay.row_columns(t.columns, t.target, old_record, believe_types));
  v_new text := format('(select %s) n', relay.row_columns(t.columns, t.target, new_record, believe_types));
  -- Answered when the statement is planned: nothing is left of the way that is not taken.
  v_whole text := format('relay.is_whole(%L::regclass, %s)', t.target::oid::text, t.id);
  v_old_text text := 'row_to_json(o.*)::text';
  v_new_text text := 'row_to_json(n.*)::text';
  v_differs text := 'o.* operator(pg_catalog.*<>) n.*';
begin
  if whole then
    v_old_text := format('case when %s then row_to_json(%s.*)::text else %s end', v_whole, old_record, v_old_text);
    v_new_text := format('case when %s then row_to_json(%s.*)::text else %s end', v_whole, new_record, v_new_text);
    v_differs := format('case when %s then %s.* operator(pg_catalog.*<>) %s.* else %s end', v_whole, old_record, new_record, v_differs);
  end if;
  return format('insert into relay.change ("table", type, meta, op, old, new) select %L, %L, %L, ', t.name, t.type, relay.meta_text(t))
    || case op
         when 'rows' then format('''insert'', null, %s from new_rows %I, lateral %s', v_new_text, new_record, v_new)
         when 'insert' then format('''insert'', null, %s from %s', v_new_text, v_new)
         when 'delete' then format('''delete'', %s, null from %s', v_old_text, v_old)
         when 'update' then format('''update'', %s, %s from %s, %s where %s', v_old_text, v_new_text, v_old, v_new, v_differs)
       end;
end
$$;
comment on function relay.capture_sql(relay.tracking, text, text, text, boolean, boolean) is
  'The statement that writes one change (op insert, update, delete) or a whole transition table (op rows). whole: the row as it is, for which PostgreSQL need not put another one together, if relay.is_whole says so when the statement is planned.';

create function relay.pin_settings() returns text[]
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_names text[] := '{timezone,extra_float_digits,intervalstyle,datestyle,bytea_output,lc_monetary,debug_print_plan}';
  v_values text[] := '{UTC,1,iso_8601,"ISO, YMD",hex,C,off}';
  v_before text[] := array(select current_setting(name) from unnest(v_names) with ordinality n(name, o) order by o);
begin
  perform set_config(name, value, true) from unnest(v_names, v_values) s(name, value);
  return v_before;
end
$$;
comment on function relay.pin_settings() is 'Sets everything that the text of some type depends on, and off what would show the row to who may not read it; returns what it was, for relay.unpin_settings.';

create function relay.unpin_settings(before text[]) returns void
language sql volatile set search_path = pg_catalog, relay, pg_temp as $$
  select set_config(name, value, true)
  from unnest('{timezone,extra_float_digits,intervalstyle,datestyle,bytea_output,lc_monetary,debug_print_plan}'::text[], before) s(name, value)
$$;

create function relay.capture_sql(tracking_id integer, op text, written regclass) returns text
language sql stable security definer set search_path = pg_catalog, relay, pg_temp as $$
  select relay.capture_sql(t, op, '($1)', case op when 'update' then '($2)' when 'rows' then 'r' else '($1)' end, false, not relay.rewritten(written))
  from relay.tracking t where t.id = tracking_id
$$;
comment on function relay.capture_sql(integer, text, regclass) is
  'The same for a table that was altered since it was tracked: found anew for each event, slower, never wrong. written is the partition where it is one.';

create function relay.layout_holds(target regclass, tracking_id integer) returns boolean
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select not exists (
    select 1
    from relay.tracking t
    cross join jsonb_array_elements(t.columns) c
    left join pg_attribute a on a.attrelid = target and a.attnum = (c->>'num')::int
    where t.id = tracking_id
      and (relay.column_name(target, (c->>'num')::int), a.atttypid) is distinct from (c->>'name', (c->>'type')::oid))
$$;
comment on function relay.layout_holds(regclass, integer) is
  'Whether the captured columns still have the numbers, names and types with which they were tracked.';

create function relay.unaltered(target regclass, tracking_id integer) returns boolean
language plpgsql immutable set search_path = pg_catalog, relay, pg_temp as $$
begin
  -- Tracked after this transaction's snapshot: the code that asks is the newer one, and nothing was altered since.
  if not exists (select 1 from relay.tracking where id = tracking_id) then
    return true;
  end if;
  -- Restored from a dump: the constant is an oid of the database that was dumped.
  if not exists (select 1 from relay.tracking t where t.id = tracking_id and t.target = unaltered.target) then
    return false;
  end if;
  -- A partitioned table has no file that would tell of a rewrite.
  if current_setting('transaction_isolation') <> 'read committed'
     and (select c.relkind = 'p' from pg_class c where c.oid = target) then
    return false;
  end if;
  return relay.layout_holds(target, tracking_id) and not relay.rewritten(target);
end
$$;
comment on function relay.unaltered(regclass, integer) is
  'Whether the code made for the table still fits it. Declared immutable on purpose: called with a regclass constant it is computed once, when a session plans the trigger, and PostgreSQL plans again after any ALTER of that table. So the check costs nothing a row.';

create function relay.is_whole(target regclass, tracking_id integer) returns boolean
language plpgsql immutable set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_last integer := (select max((c->>'num')::int) from relay.tracking t, jsonb_array_elements(t.columns) c where t.id = tracking_id);
begin
  -- The plan that is being made may have the row in it, and a writer who may not read that row could have the plan shown.
  perform set_config('debug_print_plan', 'off', true);
  -- The privilege tells of columns that a fixed snapshot does not show: it is null for those that do not exist.
  return coalesce(has_column_privilege(target, (v_last + 1)::smallint, 'select') is null
    and (select c.relkind = 'r' from pg_class c where c.oid = target)
    and not exists (
      select 1 from pg_attribute a
      where a.attrelid = target and a.attnum > 0 and not a.attisdropped
        and (relay.harmless('x', a.atttypid) <> 'x' or not exists (
          select 1 from relay.tracking t, jsonb_array_elements(t.columns) c
          where t.id = tracking_id and (c->>'num')::int = a.attnum))), false);
end
$$;
comment on function relay.is_whole(regclass, integer) is
  'Whether the row as it is may be sent: all columns are captured, and none has a type that users make. Declared immutable for the reason that relay.unaltered is, beside which alone it means something.';

create function relay.captures() returns boolean
language plpgsql stable as $$
begin
  return (pg_catalog.current_setting('relay.bulk_load', true) operator(pg_catalog.=) any ('{on,summary}'::pg_catalog.text[])) is not true;
end
$$;
comment on function relay.captures() is
  'Whether each row is captured in this session: relay.bulk_load is neither on nor summary. A condition of triggers, whose text PostgreSQL reads anew for every statement: to read and make this call costs less than half of what the expression would.';

create function relay.summarises() returns boolean
language plpgsql stable as $$
begin
  return pg_catalog.current_setting('relay.bulk_load', true) operator(pg_catalog.=) 'summary';
end
$$;
comment on function relay.summarises() is 'Whether each statement is captured as one bulk_load in this session.';

create sequence relay.pause_switch as smallint minvalue 0 maxvalue 1 start 0;
comment on sequence relay.pause_switch is 'Its value is 1 while the capture is paused; set outside any transaction, so that no writer reads it stale.';

create function relay.is_paused() returns boolean
language sql volatile set search_path = pg_catalog, relay, pg_temp as $$
  select (pg_sequence_last_value('relay.pause_switch') = 1) is true
$$;
comment on function relay.is_paused() is 'Whether the capture is paused.';

create function relay.pause() returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
begin
  perform setval('relay.pause_switch', 1);
end
$$;
comment on function relay.pause() is
  'Ends the capture of all tables at once, for everybody, without a lock: the way out when the changelog cannot be written. What is written meanwhile is not sent.';

create function relay.resume() returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_own numeric;
  v_fence numeric;
begin
  if not relay.is_paused() then
    return;
  end if;
  perform setval('relay.pause_switch', 0);
  -- Whoever wrote while nothing was captured had its xid before the switch was set, so it lies below an xid taken
  -- after that. setval has given this transaction its own, so it takes that of a subtransaction, which xmin shows.
  -- (A snapshot's xmax would be no fence: the youngest transactions lie above it.)
  begin
    update relay.horizon set rotated_at = rotated_at;
  exception when lock_not_available then
    raise;
  end;
  v_own := pg_current_xact_id()::text::numeric;
  select xmin::text::numeric into v_fence from relay.horizon;
  v_fence := v_fence + 4294967296 * (div(v_own, 4294967296) + case when v_fence < mod(v_own, 4294967296) then 1 else 0 end);
  update relay.horizon set h = format('%1$s:%1$s:', v_fence)::pg_snapshot
  where pg_snapshot_xmax(h)::text::numeric <= v_fence;
end
$$;
comment on function relay.resume() is
  'Captures again. No cursor from before can be continued: every client is told to load its state, once all transactions that are open now have ended.';

create function relay.ring(table_name text, op text, row_count bigint) returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_bell text := current_setting('relay.bell', true);
begin
  -- NOTIFY holds a lock of the whole cluster through the commit, so it is left out while a relay polls. The change is
  -- in the log by now and this transaction has its xid: a relay that lets its lease end waits for it.
  if v_bell = 'off' then
    return;
  end if;
  if v_bell = 'always' or pg_sequence_last_value('relay.lease') is null then
    perform pg_notify('election_updates',
      '{"v":1,"table":' || to_json(table_name)::text || ',"op":"' || op || '","rows":' || row_count
      || ',"xid":"' || pg_current_xact_id()::text || '"}');
  end if;
end
$$;
comment on function relay.ring(text, text, bigint) is
  'Wakes the relays at commit, unless one of them polls anyway. Setting relay.bell: off never rings (two-phase commit), always rings always.';
