-- Capture: what the code of a tracked table asks while it runs, and what it writes by the rare ways.

create table relay.tracking (
  id integer generated always as identity primary key,
  target regclass not null unique,
  made_for oid not null,
  name text not null,
  type text not null,
  columns jsonb not null,
  excluded text[] not null,
  key text[] not null,
  scope jsonb not null,
  restricted jsonb not null,
  level text not null check (level in ('row', 'statement')),
  max_bytes integer not null check (max_bytes between 1024 and 67108864),
  what integer not null,
  version integer not null,
  seen text,
  tracked_at timestamptz not null default clock_timestamp()
);
comment on table relay.tracking is 'The tables whose changes are captured. Read relay.tracked instead.';
comment on column relay.tracking.made_for is 'The oid of the target when its columns were numbered: a restored table has another.';
comment on column relay.tracking.columns is 'The captured columns: num (attnum), name (as tracked, and as sent), type.';
comment on column relay.tracking.what is 'The first of its eight rows of relay.what: insert, update, delete, each of these oversize, truncate, bulk_load.';
comment on column relay.tracking.seen is 'How its tree and its triggers were when relay.watch looked last.';

create function relay.qualified_name(target oid) returns text
language sql stable set search_path = pg_catalog, relay, pg_temp set quote_all_identifiers = off as $$
  select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = target
$$;

create function relay.type_name(of_type oid) returns text
language sql stable set search_path = pg_catalog, relay, pg_temp set quote_all_identifiers = off as $$
  select format_type(of_type, null)
$$;
comment on function relay.type_name(oid) is 'The name of a type, which outlives a dump, where its oid does not.';

create function relay.base_type(of_type oid) returns oid
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  with recursive chain as (
    select oid, typtype, typbasetype from pg_type where oid = of_type
    union all
    select t.oid, t.typtype, t.typbasetype from pg_type t, chain c where c.typtype = 'd' and t.oid = c.typbasetype)
  select oid from chain where typtype <> 'd'
$$;
comment on function relay.base_type(oid) is 'The type below any domains.';

-- 16384 is the first oid of objects that users make (FirstNormalObjectId). JSON functions look for a cast to json on
-- such types only, and that cast is somebody's code, which must not run with the rights of the changelog's owner.
create function relay.harmless(expression text, of_type oid) returns text
language plpgsql stable set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_base pg_type := t from pg_type t where oid = relay.base_type(of_type);
begin
  -- format uses the type's output function, which is PostgreSQL's own for all types but a superuser's.
  if v_base.typsubscript = 'array_subscript_handler'::regproc then
    return case when relay.base_type(v_base.typelem) < 16384 then expression
                else format('case when pg_catalog.num_nulls(%1$s) operator(pg_catalog.=) 0 then pg_catalog.format(''%%s'', %1$s)::pg_catalog.text[] end', expression) end;
  end if;
  return case when v_base.oid < 16384 then expression
              else format('case when pg_catalog.num_nulls(%1$s) operator(pg_catalog.=) 0 then pg_catalog.format(''%%s'', %1$s) end', expression) end;
end
$$;
comment on function relay.harmless(text, oid) is
  'An expression for JSON that runs no function which a user could have made: enums become their labels, other types that users make, and unknown ones (null), become PostgreSQL''s text.';

create function relay.harmless_today(expression text) returns text
language sql immutable set search_path = pg_catalog, relay, pg_temp as $$
  select format('case when pg_catalog.num_nulls(%1$s) operator(pg_catalog.=) 0 then case when pg_catalog.pg_typeof(%1$s)::pg_catalog.oid operator(pg_catalog.<) 16384 then pg_catalog.to_json(%1$s) else pg_catalog.to_json(pg_catalog.format(''%%s'', %1$s)) end end', expression)
$$;
comment on function relay.harmless_today(text) is
  'The same where the catalog cannot be asked for the type: the value is. PostgreSQL''s own types come as ever, all others as text.';

create function relay.settings_for(types oid[]) returns text
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  with base as (
    select distinct coalesce(nullif(case when t.typsubscript = 'array_subscript_handler'::regproc then relay.base_type(t.typelem) end, 0), t.oid)::regtype as type,
      t.typsubscript = 'array_subscript_handler'::regproc as is_array
    from unnest(types) u(oid), pg_type t where t.oid = relay.base_type(u.oid)),
  kind as (
    select case
      when type = any('{int2,int4,int8,numeric,bool,text,varchar,bpchar,"char",name,uuid,json,jsonb,date,timestamp,time,oid,inet,cidr,macaddr}'::regtype[])
        then 'none'
      when (select typtype from pg_type where oid = type) = 'e' then 'none'
      -- Of a timestamptz the reader writes the instant anew, in UTC: the clause would cost every writer.
      when type = 'timestamptz'::regtype and not is_array then 'none'
      when type = any('{timestamptz,timetz}'::regtype[]) then 'zone'
      when type = any('{float4,float8}'::regtype[]) then 'float'
      when type = any('{interval}'::regtype[]) then 'interval'
      when type = any('{regclass,regcollation,regconfig,regdictionary,regnamespace,regoper,regoperator,regproc,regprocedure,regrole,regtype}'::regtype[])
        or type::oid >= 16384 and (select typtype in ('c', 'r', 'm') from pg_type where oid = type) then 'path'
      else 'any' end as kind
    from base)
  select coalesce(string_agg(distinct s.setting, ' '), '')
  from kind, (values ('zone', 'set timezone = ''UTC'''), ('float', 'set extra_float_digits = 1'),
                     ('interval', 'set intervalstyle = ''iso_8601'''), ('any', 'set datestyle = ''ISO, YMD'''),
                     ('any', 'set bytea_output = ''hex'''), ('any', 'set lc_monetary = ''C'''),
                     ('path', 'set search_path = pg_catalog, pg_temp'), ('path', 'set quote_all_identifiers = off')) s(kind, setting)
  where kind.kind = s.kind or kind.kind = 'any' and s.kind <> 'path' or kind.kind = 'path'
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

create function relay.present_columns(t relay.tracking) returns table (name text, now_called text, type oid, place bigint)
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select c->>'name', n.name, a.atttypid, o
  from jsonb_array_elements(t.columns) with ordinality u(c, o)
  -- A restored table has its columns numbered anew.
  left join pg_attribute r on t.made_for <> t.target::oid and r.attrelid = t.target and r.attname = c->>'name' and not r.attisdropped
  cross join lateral (select case when t.made_for = t.target::oid then relay.column_name(t.target, (c->>'num')::int) else r.attname end) n(name)
  left join pg_attribute a on a.attrelid = t.target and a.attnum = case when t.made_for = t.target::oid then (c->>'num')::int else r.attnum end
  where n.name is not null
$$;
comment on function relay.present_columns(relay.tracking) is
  'The captured columns that are there: as sent, as called today, and their type if the snapshot shows it.';

create function relay.row_columns(t relay.tracking, record text, believe_types boolean, wanted text[] default null) returns text
language sql stable set search_path = pg_catalog, relay, pg_temp set quote_all_identifiers = off as $$
  select coalesce(string_agg(format('%s as %I', case
      when believe_types then relay.harmless(format('%s.%I', record, now_called), type)
      else relay.harmless_today(format('%s.%I', record, now_called)) end, name), ', ' order by place), '')
  from relay.present_columns(t)
  where wanted is null or name = any(wanted)
$$;
comment on function relay.row_columns(relay.tracking, text, boolean, text[]) is
  'The select list of a captured row: columns found by number as they are called today, sent under the names they were tracked with.';

create function relay.restrictions(restricted jsonb) returns table (name text, roles text[])
language sql immutable set search_path = pg_catalog, relay, pg_temp as $$
  select c, array_agg(distinct r.key order by r.key)
  from jsonb_each(restricted) r, jsonb_array_elements_text(r.value) c
  group by c
$$;
comment on function relay.restrictions(jsonb) is 'The restricted columns, each with all roles that may see it.';

create function relay.layout_holds(t relay.tracking) returns boolean
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select t.made_for = t.target::oid and not exists (
    select from jsonb_array_elements(t.columns) c
    left join pg_attribute a on a.attrelid = t.target and a.attnum = (c->>'num')::int
    where (relay.column_name(t.target, (c->>'num')::int), relay.type_name(a.atttypid)) is distinct from (c->>'name', c->>'type'))
$$;
comment on function relay.layout_holds(relay.tracking) is
  'Whether the captured columns still have the numbers, names and types with which they were tracked.';

create function relay.is_whole(t relay.tracking) returns boolean
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select coalesce((select c.relkind = 'r' from pg_class c where c.oid = t.target)
    and not exists (
      select from pg_attribute a
      where a.attrelid = t.target and a.attnum > 0 and not a.attisdropped
        and (relay.harmless('x', a.atttypid) <> 'x' or not exists (
          select from jsonb_array_elements(t.columns) c where (c->>'num')::int = a.attnum and c->>'name' = a.attname))), false)
$$;
comment on function relay.is_whole(relay.tracking) is
  'Whether a row of the table may be written as it is, for which PostgreSQL need not put another one together: all columns are captured, under the names that they have, and none has a type that users make.';

create function relay.table_named(name text) returns oid
language plpgsql stable set search_path = pg_catalog, relay, pg_temp as $$
begin
  return to_regclass(name);
exception when insufficient_privilege then
  -- The changelog's owner need not have USAGE of a tracked table's schema.
  return (select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace where array[n.nspname, c.relname]::text[] = parse_ident(name));
end
$$;
comment on function relay.table_named(text) is 'The table that has a qualified name today; null if none has. In a schema that is closed to whoever asks, as the snapshot shows it.';

create function relay.is_own(written oid, target oid, name text) returns boolean
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select (written = target or exists (select from pg_partition_ancestors(written) a(relid) where a.relid = target))
     and coalesce(relay.table_named(name), target) = target
$$;
comment on function relay.is_own(oid, oid, text) is
  'Whether a table is the tracked one or in its tree. A table that was renamed away is not, once there is another of its name; nor is one that was restored with its triggers.';

create function relay.log_is_there() returns boolean
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select num_nulls(to_regclass('relay.change_0'), to_regclass('relay.change_1'), to_regclass('relay.change_2'),
                   to_regclass('relay.change_seq'), to_regclass('relay.state'), to_regclass('relay.tracking'), to_regclass('relay.horizon')) = 0
$$;
comment on function relay.log_is_there() is 'Whether all is there that a writer needs: somebody may have restored a part of the schema.';

create function relay.layout(target regclass) returns text
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select array(select (attnum, attname, atttypid)::text from pg_attribute where attrelid = target and attnum > 0 and not attisdropped order by attnum)::text
$$;
comment on function relay.layout(regclass) is 'The numbers, names and types of a table''s columns.';

-- Each session computes it for each trigger that it meets, so what is asked always is asked here, and of few catalogs.
create function relay.fits(example anyelement, target regclass, name text, tracking_id integer, layout text, log regclass[]) returns boolean
language plpgsql immutable set search_path = pg_catalog, relay, pg_temp set quote_all_identifiers = off as $$
begin
  -- The plan of the condition that asks has the row in it, as relay.hush says of another.
  perform set_config('debug_print_plan', 'off', true);
  -- Nothing here may name what a part of the schema may lack, not even a type, before it is known to be there.
  if not relay.log_is_there() or not log <@ array[to_regclass('relay.change_0'), to_regclass('relay.change_1'), to_regclass('relay.change_2'),
                                                  to_regclass('relay.state'), to_regclass('relay.change_seq')] then
    return false;
  -- The row type of the tracked table has its name, and is its own if that is.
  elsif pg_typeof(example)::text <> name or relay.table_named(name) is distinct from target then
    if pg_typeof(example) <> 'integer'::regtype
       and not relay.is_own((select typrelid from pg_type where oid = pg_typeof(example)), target, name) then
      return false;
    end if;
  end if;
  if current_setting('transaction_isolation') = 'read committed' then
    return layout = array(
      select (attnum, attname, atttypid)::text from pg_attribute where attrelid = target and attnum > 0 and not attisdropped order by attnum)::text;
  end if;
  return relay.fits_snapshot((select typrelid from pg_type where oid = pg_typeof(example)), target, tracking_id, layout);
end
$$;
comment on function relay.fits(anyelement, regclass, text, integer, text, regclass[]) is
  'Whether code made for a table and for these parts of the log fits what it runs on. example is a null of the row type that is written, layout what relay.layout was when the code was made. Declared immutable on purpose: called with constants it is computed once, when a session plans the trigger of a table, and PostgreSQL plans again after any ALTER of the tracked one, and after a DROP of a part of the log. So the check costs nothing a row.';

create function relay.fits_snapshot(written oid, target regclass, tracking_id integer, layout text) returns boolean
language plpgsql stable set search_path = pg_catalog, relay, pg_temp as $$
declare
  t relay.tracking;
begin
  select * into t from relay.tracking where id = tracking_id;
  -- Not found: tracked after this transaction's snapshot. A partitioned table has no file that would tell of a rewrite.
  return case when found then t.target = fits_snapshot.target and relay.layout_holds(t) else written = fits_snapshot.target end
    and (select c.relkind <> 'p' from pg_class c where c.oid = fits_snapshot.target)
    and not relay.rewritten(target) and relay.layout(target) = layout
    -- The code may be newer than the snapshot, and the table newer than the code.
    and not exists (select from pg_attribute a where a.attrelid = target and a.attnum > 0 and not a.attisdropped and relay.column_name(target, a.attnum) is distinct from a.attname)
    -- The privilege tells of columns that a fixed snapshot does not show: it is null for those that do not exist.
    and has_column_privilege(target, ((select max(a.attnum) from pg_attribute a where a.attrelid = target) + 1)::smallint, 'select') is null;
end
$$;
comment on function relay.fits_snapshot(oid, regclass, integer, text) is
  'The same in a transaction with a fixed snapshot, which shows the catalogs as they were.';

create function relay.hush(what integer) returns integer
language plpgsql immutable set search_path = pg_catalog, relay, pg_temp as $$
begin
  perform set_config('debug_print_plan', 'off', true);
  return what;
end
$$;
comment on function relay.hush(integer) is
  'Returns its argument, and is computed while the statement is planned: that plan may have the row in it, and a writer who may not read the row could have the plan shown.';

create function relay.pin_settings() returns text[]
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_names text[] := '{timezone,extra_float_digits,intervalstyle,datestyle,bytea_output,lc_monetary}';
  v_values text[] := '{UTC,1,iso_8601,"ISO, YMD",hex,C}';
  v_before text[] := array(select current_setting(name) from unnest(v_names) with ordinality n(name, o) order by o);
begin
  perform set_config(name, value, true) from unnest(v_names, v_values) s(name, value);
  -- Not brought back: what is written next has the row, too.
  perform set_config('debug_print_plan', 'off', true);
  return v_before;
end
$$;
comment on function relay.pin_settings() is 'Sets everything that the text of some type depends on, and off what would show the row to who may not read it; returns what it was, for relay.unpin_settings.';

create function relay.unpin_settings(before text[]) returns void
language sql volatile set search_path = pg_catalog, relay, pg_temp as $$
  select set_config(name, value, true)
  from unnest('{timezone,extra_float_digits,intervalstyle,datestyle,bytea_output,lc_monetary}'::text[], before) s(name, value)
$$;

create function relay.log(what integer, data text) returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
begin
  -- First: a transaction that looks where to write and takes its xid later may be passed by a rotation, and by a reader
  -- who then looks no more where it writes.
  perform pg_current_xact_id();
  execute format('insert into relay.change_%s (what, data) values ($1, $2)', relay.slot()) using what, data;
end
$$;
comment on function relay.log(integer, text) is 'Writes one row to the log, wherever writers write at this moment.';

create function relay.is_tracked_as(tracking_id integer, written oid, target oid, name text) returns boolean
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select coalesce(
    (select t.name = is_tracked_as.name and relay.is_own(written, t.target, t.name) from relay.tracking t where t.id = tracking_id),
    relay.is_own(written, target, name))
$$;
comment on function relay.is_tracked_as(integer, oid, oid, text) is
  'Whether a table is in the tree that is tracked by this number and name, as relay.is_own has it. In a database that was restored the table has another oid than the code, which its tracking knows.';

create function relay.rare_way(tracking_id integer, target oid, name text, written oid) returns text
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
begin
  if not relay.log_is_there() or relay.is_paused() then
    return 'none';
  elsif not relay.is_tracked_as(tracking_id, written, target, name) then
    return 'none';
  elsif not exists (select from relay.tracking where id = tracking_id) then
    -- Tracked after this transaction's snapshot.
    return 'table';
  end if;
  return 'row';
end
$$;
comment on function relay.rare_way(integer, oid, text, oid) is
  'What to write of a row that does not go the usual way: nothing, that its table has to be loaded again, or the row.';

create function relay.data_sql(tracking_id integer, op text, written regclass, reduced boolean) returns text
language plpgsql stable set search_path = pg_catalog, relay, pg_temp set quote_all_identifiers = off as $$
declare
  t relay.tracking;
  v_believe boolean := not relay.rewritten(written);
  v_only text[];
  v_images text[] := case op when 'update' then array['($1)', '($2)'] else array['($1)'] end;
  v_from text;
  v_ctids text := case op when 'insert' then '$2' when 'delete' then '$2, $3' else '$3, $4' end;
  v_raw text;
begin
  select * into t from relay.tracking where id = tracking_id;
  if reduced then
    v_only := t.key || array(select s.value from jsonb_each_text(t.scope) s);
  else
    -- What these have, their JSON has too, so that what is too large is not even put together. It is asked of the
    -- values without reading them.
    select string_agg(format('coalesce(pg_catalog.octet_length(%s.%I), 0)', i, c.now_called), ' operator(pg_catalog.+) ') into v_raw
    from relay.present_columns(t) c, unnest(v_images) i
    where v_believe and relay.base_type(c.type) = any('{text,varchar,bpchar,bytea}'::regtype[]);
  end if;
  select string_agg(format('(select %s) i%s', relay.row_columns(t, i, v_believe, v_only), o), ', ' order by o) into v_from
  from unnest(v_images) with ordinality u(i, o);
  return format('select case when %s operator(pg_catalog.<=) %s then pg_catalog.json_build_array(%s, %s%s)::pg_catalog.text end from %s',
    coalesce(v_raw, '0'), t.max_bytes, case op when 'update' then 'i1.*, i2.*' else 'i1.*' end, v_ctids,
    case when written <> t.target then format(', %L', written::oid) else '' end, v_from);
end
$$;
comment on function relay.data_sql(integer, text, regclass, boolean) is
  'A query for the data of a change, whatever the table is like by now: found anew for each event, slower, never wrong. Its parameters are the row before (update, delete), the row after (insert, update), and what tells of their versions: ctids, and the xmin of a deleted one. reduced: only key and channels. Null where the row is too large.';

create function relay.log_row(tracking_id integer, what integer, op text, data text, reduced text) returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_number integer := array_position('{insert,update,delete}'::text[], op) - 1;
begin
  if octet_length(data) <= (select max_bytes from relay.tracking where id = tracking_id) then
    perform relay.log(what + v_number, data);
  elsif reduced is not null then
    perform relay.log(what + 3 + v_number, reduced);
  else
    perform relay.log(what + 7, json_build_object('op', op)::text);
  end if;
end
$$;
comment on function relay.log_row(integer, integer, text, text, text) is
  'Writes a change: its rows, or their keys alone if they are too large, or, if not even that could be had, that the table has to be loaded again.';

create function relay.summarise(tracking_id integer, what integer, target oid, name text, op text, written oid) returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_setting text := format('relay.summary_%s_%s', op, what);
  v_statement text := format('%s %s', pg_current_xact_id(), date_part('epoch', statement_timestamp()));
begin
  if current_setting(v_setting, true) = v_statement
     or not relay.log_is_there() or relay.is_paused() then
    return;
  elsif not relay.is_tracked_as(tracking_id, written, target, name) then
    return;
  end if;
  perform set_config(v_setting, v_statement, true);
  perform relay.log(what + 7, json_build_object('op', op)::text);
  perform relay.ring(name, op, 1);
end
$$;
comment on function relay.summarise(integer, integer, oid, text, text, oid) is
  'Writes one bulk_load for all rows that a statement changes, wherever in a tree and by whichever way they come.';

create function relay.log_truncate(tracking_id integer, what integer, target oid, name text, written oid) returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
begin
  if not relay.log_is_there() or relay.is_paused() or current_setting('relay.bulk_load', true) = 'on' then
    return;
  elsif not relay.is_tracked_as(tracking_id, written, target, name) then
    return;
  end if;
  perform relay.log(what + 6, case when written = coalesce((select t.target from relay.tracking t where t.id = tracking_id), target) then '{}' else json_build_object('partition', relay.qualified_name(written))::text end);
  perform relay.ring(name, 'truncate', 0);
end
$$;
