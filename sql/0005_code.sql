-- The code that is made for each tracked table: the functions of its triggers.

create function relay.capture_functions(tracking_id integer) returns text[]
language sql immutable set search_path = pg_catalog, relay, pg_temp as $$
  select array['capture_rows_' || tracking_id, 'capture_insert_' || tracking_id, 'capture_update_' || tracking_id,
               'capture_delete_' || tracking_id, 'capture_truncate_' || tracking_id]
$$;

create function relay.told_always(t relay.tracking) returns text[]
language sql stable set search_path = pg_catalog, relay, pg_temp as $$ select t.key || array(select s.value from jsonb_each_text(t.scope) s) $$;
comment on function relay.told_always(relay.tracking) is 'The columns that are told of a row also where it is too large: key and channels.';

create function relay.row_json(t relay.tracking, op text, whole boolean, live boolean, wanted text[] default null) returns text
language plpgsql stable set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_records text[] := case op when 'insert' then '{new}' when 'delete' then '{old}' else '{old,new}' end::text[];
  v_versions text := case when live then '' else case op when 'insert' then ', new.ctid' when 'update' then ', old.ctid, new.ctid' else ', old.ctid, old.xmin' end
    || case (select relkind from pg_class where oid = t.target) when 'p' then ', TG_RELID' else '' end end;
begin
  return (
    select format('pg_catalog.%s(%s%s)::pg_catalog.text%s', case when live then 'row_to_json' else 'json_build_array' end,
      string_agg(case when whole then r else format('row_%s.*', r) end, ', ' order by o), v_versions,
      case when whole then '' else ' from ' || string_agg(format('(select %s) row_%s', relay.row_columns(t, r, true, wanted), r), ', ' order by o) end)
    from unnest(v_records) with ordinality u(r, o));
end
$$;
comment on function relay.row_json(relay.tracking, text, boolean, boolean, text[]) is
  'The select list, and what it is selected from, of the data of one change. wanted: only these columns.';

create function relay.insert_sql(t relay.tracking, slot integer, op text, whole boolean, live boolean default false) returns text
language plpgsql stable set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_what integer := t.what + array_position('{insert,update,delete}'::text[], op) - 1;
  v_json text := relay.row_json(t, op, whole, live);
begin
  -- Below the default limit a small row may be too large, and has to be measured.
  if t.max_bytes < 8388608 then
    return format('insert into relay.change_%s (what, data) select case when s.small then relay.hush(%s) else relay.hush(%s) end, case when s.small then d.text else (select %s) end'
        || ' from (select %s offset 0) d(text), lateral (select pg_catalog.octet_length(d.text) operator(pg_catalog.<=) %s) s(small)',
      slot, v_what, v_what + 3, relay.row_json(t, op, false, live, relay.told_always(t)), v_json, t.max_bytes);
  end if;
  return format(case when whole then 'insert into relay.change_%s (what, data) values (relay.hush(%s), %s)'
                     else 'insert into relay.change_%s (what, data) select relay.hush(%s), %s' end, slot, v_what, v_json);
end
$$;
comment on function relay.insert_sql(relay.tracking, integer, text, boolean, boolean) is
  'The statement that writes one change. whole: the rows as they are, for which PostgreSQL need not put other ones together. live: of an inserted row that nothing has touched since, so that its version need not be told.';

create function relay.parts_of_log(slot integer) returns text
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select format('array[%s]', string_agg(format('%L::pg_catalog.regclass', c::oid::text), ', '))
  from unnest(array[to_regclass('relay.change_' || slot), to_regclass('relay.state'), to_regclass('relay.change_seq')]) c
$$;
comment on function relay.parts_of_log(integer) is 'What a writer uses of the log, by number: once one is dropped, PostgreSQL plans again whatever has it.';

create function relay.row_code(t relay.tracking, op text, slot integer) returns text
language plpgsql stable set search_path = pg_catalog, relay, pg_temp as $function$
declare
  v_whole boolean := relay.is_whole(t);
  v_number integer := array_position('{insert,update,delete}'::text[], op) - 1;
  v_record text := case op when 'delete' then 'old' else 'new' end;
  v_bulk text := $$pg_catalog.current_setting('relay.bulk_load', true)$$;
  -- By its number, because a name that is not there would be an error.
  v_state text := format('pg_catalog.pg_sequence_last_value(%L::pg_catalog.regclass)', to_regclass('relay.state')::oid::text);
  -- Constants to the planner: a null of the row type that this trigger is called with, and the tables as regclass.
  v_fits text := format('relay.fits(case when false then %s end, %L::pg_catalog.regclass, %L, %s, %L, %s)', v_record, t.target::oid::text, t.name, t.id, relay.layout(t.target), relay.parts_of_log(slot));
  -- A row of this size has no more than some 12 MB of JSON, however well it was compressed.
  v_small text := case op when 'update' then 'pg_catalog.pg_column_size(old) operator(pg_catalog.<) 8192 and ' else '' end
    || format('pg_catalog.pg_column_size(%s) operator(pg_catalog.<) 8192', v_record);
  -- A new row that was updated or deleted before its trigger came, by a function in RETURNING for example, has an xmax,
  -- and so has one that was locked. Its version is told then, by which a reader finds the order.
  v_live text := case op when 'insert' then ' and new.xmax operator(pg_catalog.=) 0' else '' end;
  v_using text := case op when 'insert' then 'new, new.ctid' when 'delete' then 'old, old.ctid, old.xmin' else 'old, new, old.ctid, new.ctid' end;
begin
  return format($code$
declare
  v_settings pg_catalog.text[];
  v_way pg_catalog.text;
  v_data pg_catalog.text;
  v_reduced pg_catalog.text;
begin
  if %1$s is null then
    if %2$s and %3$s operator(pg_catalog.=) %4$s and %5$s%15$s then
      %16$s;
      return null;
    end if;
  elsif %1$s operator(pg_catalog.=) 'on' then
    return null;
  elsif %1$s operator(pg_catalog.=) 'summary' then
    perform relay.summarise(%12$s, %7$s, %8$s, %9$L, %10$L, TG_RELID);
    return null;
  end if;
  if %2$s and %5$s and (%3$s operator(pg_catalog.=) %11$s or %3$s operator(pg_catalog.=) %4$s) then
    %6$s;
    perform relay.ring(%9$L, %10$L, 1);
    return null;
  end if;
  v_way := relay.rare_way(%12$s, %8$s, %9$L, TG_RELID);
  if v_way operator(pg_catalog.=) 'none' then
    return null;
  end if;
  if v_way operator(pg_catalog.=) 'row' then
    v_settings := relay.pin_settings();
    begin
      execute relay.data_sql(%12$s, %10$L, TG_RELID, false) into v_data using %13$s;
    exception when others then
      v_data := null;
    end;
    if v_data is null or pg_catalog.octet_length(v_data) operator(pg_catalog.>) %14$s then
      begin
        execute relay.data_sql(%12$s, %10$L, TG_RELID, true) into v_reduced using %13$s;
      exception when others then
        v_reduced := null;
      end;
    end if;
    perform relay.unpin_settings(v_settings);
  end if;
  perform relay.log_row(%12$s, %7$s, %10$L, v_data, v_reduced);
  perform relay.ring(%9$L, %10$L, 1);
  return null;
end $code$,
    v_bulk, v_fits, v_state, slot + 4, v_small, relay.insert_sql(t, slot, op, v_whole),
    t.what, t.target::oid, t.name, op, slot, t.id, v_using, t.max_bytes,
    v_live, relay.insert_sql(t, slot, op, v_whole, op = 'insert'));
end
$function$;
comment on function relay.row_code(relay.tracking, text, integer) is
  'The body of a row trigger''s function. Its first conditions are the way of nearly every row: no bulk flag; a relay polls, the usual table is filled, the code fits, the row is not large. The flag is asked by itself, since each transaction sets up all that stands in one condition. Everything is qualified, because a SET clause for search_path would cost more than the condition.';

create function relay.rows_sql(t relay.tracking) returns text
language plpgsql stable set search_path = pg_catalog, relay, pg_temp set quote_all_identifiers = off as $$
declare
  v_whole boolean := relay.is_whole(t);
  v_rows text := format('new_rows r, lateral (select %s) i', relay.row_columns(t, 'r', true));
  v_json text := format('pg_catalog.json_build_array(%s)::pg_catalog.text', case when v_whole then 'p.whole' else 'i.*' end);
  v_small text := format('pg_catalog.pg_column_size(%s) operator(pg_catalog.<=) 65536', case when v_whole then 'p.whole' else 'r.*' end);
  v_large text := format('lateral (select (%s) is not true) s(large)', v_small);
  v_told text := relay.row_columns(t, 'r', true, relay.told_always(t));
begin
  -- A whole row is put together once, below a limit of rows that keeps the planner from doing it at each mention. Columns
  -- are taken from beside it: PostgreSQL counts its fields anew where some were dropped. A column may be called r.
  if v_whole then
    select format('(select r.*::pg_catalog.record%s from new_rows r offset 0) p(whole%s)',
             string_agg(format(', r.%I', c.now_called), '' order by c.place), string_agg(', c' || c.place, '' order by c.place)),
           string_agg(format('p.c%s as %I', c.place, c.name), ', ' order by c.place)
      into v_rows, v_told
    from relay.present_columns(t) c where c.name = any(relay.told_always(t));
  end if;
  -- Below the default limit a small row may be too large, and has to be measured.
  if t.max_bytes < 8388608 then
    v_large := format('lateral (select case when %s then %s end offset 0) d(text), lateral (select (pg_catalog.octet_length(d.text) operator(pg_catalog.<=) %s) is not true) s(large)', v_small, v_json, t.max_bytes);
    v_json := 'd.text';
  end if;
  return format('select case when s.large then relay.hush(%s) else relay.hush(%s) end, case when s.large then pg_catalog.json_build_array(k.*)::pg_catalog.text else %s end from %s, lateral (select %s) k, %s',
    t.what + 3, t.what, v_json, v_rows, v_told, v_large);
end
$$;
comment on function relay.rows_sql(relay.tracking) is
  'A query for what the log gets of the new rows of a statement. Rows of more than 64 kB count as too large.';

create function relay.rows_code(t relay.tracking, slot integer) returns text
language plpgsql stable set search_path = pg_catalog, relay, pg_temp as $function$
declare
  v_name text[] := parse_ident(t.name);
  v_state text := format('pg_catalog.pg_sequence_last_value(%L::pg_catalog.regclass)', to_regclass('relay.state')::oid::text);
  v_fits text := format('relay.fits(null::pg_catalog.int4, %L::pg_catalog.regclass, %L, %s, %L, %s)', t.target::oid::text, t.name, t.id, relay.layout(t.target), relay.parts_of_log(slot));
begin
  return format($code$
declare
  v_rows pg_catalog.int8;
  v_bulk pg_catalog.text;
begin
  if coalesce(pg_catalog.current_setting('relay.bulk_load', true), '') operator(pg_catalog.=) ''
     and TG_RELID operator(pg_catalog.=) %1$s and TG_TABLE_NAME operator(pg_catalog.=) %2$L and TG_TABLE_SCHEMA operator(pg_catalog.=) %3$L
     and %4$s and %5$s operator(pg_catalog.=) any ('{%6$s,%7$s}') then
    insert into relay.change_%7$s (what, data) %8$s;
    if found and %5$s operator(pg_catalog.<>) %6$s then
      get diagnostics v_rows = row_count;
      perform relay.ring(%9$L, 'insert', v_rows);
    end if;
    return null;
  end if;
  v_bulk := pg_catalog.current_setting('relay.bulk_load', true);
  if v_bulk operator(pg_catalog.=) 'on' then
    return null;
  end if;
  if not relay.log_is_there() or relay.is_paused() or not relay.is_tracked_as(%10$s, TG_RELID, %1$s, %9$L) then
    return null;
  end if;
  if v_bulk operator(pg_catalog.=) 'summary' or not %4$s then
    select pg_catalog.count(*) into v_rows from new_rows;
    if v_rows operator(pg_catalog.>) 0 then
      perform relay.log(%11$s, pg_catalog.json_build_object('op', 'insert', 'rows', v_rows)::pg_catalog.text);
    end if;
  elsif relay.slot() operator(pg_catalog.=) %7$s then
    insert into relay.change_%7$s (what, data) %8$s;
    get diagnostics v_rows = row_count;
  else
    perform relay.log(l.what, l.data) from (%8$s) l(what, data);
    get diagnostics v_rows = row_count;
  end if;
  if v_rows operator(pg_catalog.>) 0 then
    perform relay.ring(%9$L, 'insert', v_rows);
  end if;
  return null;
end $code$,
    t.target::oid, v_name[2], v_name[1], v_fits, v_state, slot + 4, slot, relay.rows_sql(t), t.name, t.id, t.what + 7);
end
$function$;
comment on function relay.rows_code(relay.tracking, integer) is
  'The body of a statement trigger''s function, which logs all rows of an INSERT at once. Its first condition is the way of nearly every statement, as in relay.row_code. The table is known by its number and the name that it has at this moment, so that no other can have that: a table that was renamed goes the rare way.';

create function relay.code_of(t relay.tracking, function text) returns text
language sql stable set search_path = pg_catalog, relay, pg_temp set quote_all_identifiers = off as $$
  select case split_part(function, '_', 2)
    when 'rows' then relay.rows_code(t, relay.slot())
    when 'truncate' then format(' begin perform relay.log_truncate(%s, %s, %s, %L, TG_RELID); return null; end ', t.id, t.what, t.target::oid, t.name)
    else relay.row_code(t, split_part(function, '_', 2), relay.slot()) end
$$;

create function relay.is_current(t relay.tracking) returns boolean
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select not exists (
    select from unnest(relay.capture_functions(t.id)) f
    left join pg_proc p on p.proname = f and p.pronamespace = 'relay'::regnamespace
    where p.prosrc is distinct from relay.code_of(t, f))
$$;
comment on function relay.is_current(relay.tracking) is
  'Whether the code is the one that would be made now. After an ALTER of the table, a rotation, or a restore from a dump it is slow, and never wrong.';

create function relay.take_back(kind text, name text, acl aclitem[], owner oid) returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_grantee oid;
begin
  for v_grantee in select distinct a.grantee from aclexplode(coalesce(acl, acldefault('f', owner))) a where a.grantee <> owner loop
    execute format('revoke all on %s %s from %s', kind, name, case v_grantee when 0 then 'public' else v_grantee::regrole::text end);
  end loop;
end
$$;
comment on function relay.take_back(text, text, aclitem[], oid) is
  'Takes away what PostgreSQL grants to all by itself, and what somebody''s default privileges have granted.';

create function relay.capture_code(t relay.tracking) returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
declare
  v_settings text := relay.settings_for(array(select c.type from relay.present_columns(t) c where c.type is not null));
  v_owner name := (select pg_get_userbyid(nspowner) from pg_namespace where nspname = 'relay');
  v_name text;
begin
  foreach v_name in array relay.capture_functions(t.id) loop
    execute format('create or replace function relay.%I() returns trigger language plpgsql volatile security definer %s as %L',
      v_name, v_settings, relay.code_of(t, v_name));
    perform relay.take_back('function', p.oid::regprocedure::text, p.proacl, p.proowner) from pg_proc p
    where p.proname = v_name and p.pronamespace = 'relay'::regnamespace;
    execute format('alter function relay.%I() owner to %I', v_name, v_owner);
  end loop;
end
$$;

create function relay.renew() returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, relay, pg_temp set quote_all_identifiers = off as $$
declare
  t relay.tracking;
  v_ids integer[];
  v_count bigint := 0;
begin
  -- Of a restored table whose triggers are not back yet a restore may be under way, which brings them.
  v_ids := array(
    select k.id from relay.tracking k
    where exists (select from pg_class c where c.oid = k.target) and (k.made_for = k.target::oid or relay.trigger_problem(k) is null));
  if exists (select from relay.tracking k where k.id = any(v_ids) and not relay.is_current(k)) then
    lock table relay.tracking in share row exclusive mode;
    insert into relay.what (id, type, op) values (1, 'message', 'message'), (2, 'revocation', 'revocation'), (3, 'canary', 'canary')
    on conflict do nothing;
    for t in select k.* from relay.tracking k where k.id = any(v_ids) and exists (select from pg_class c where c.oid = k.target) loop
      -- A restored table has its columns numbered anew; one that has lost some is left for somebody to track again.
      if t.made_for <> t.target::oid and (select count(*) from relay.present_columns(t)) = jsonb_array_length(t.columns) then
        update relay.tracking k
        set made_for = t.target::oid, columns = (
          select jsonb_agg(c || jsonb_build_object('num', a.attnum) order by o)
          from jsonb_array_elements(t.columns) with ordinality u(c, o)
          join pg_attribute a on a.attrelid = t.target and a.attname = c->>'name')
        where k.id = t.id
        returning * into t;
      end if;
      if not relay.is_current(t) then
        perform relay.capture_code(t);
        v_count := v_count + 1;
      end if;
    end loop;
  end if;
  return v_count;
end
$$;
comment on function relay.renew() is
  'Makes the code of all tables anew whose code has become slow: that were altered or restored, or since the log was rotated. Columns stay as they were tracked. Takes no lock that writers need. Returns how many.';
