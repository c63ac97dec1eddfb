-- The triggers of a tracked table and of all that hang below it, and what may be wrong with them.

create function relay.tree(target oid) returns table (relid oid)
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select target union select p.relid from pg_partition_tree(target) p
$$;
comment on function relay.tree(oid) is 'A table and all its partitions, of every level.';

create function relay.trigger_names(tracking_id integer) returns table (place bigint, event text, name text, function text)
language sql immutable set search_path = pg_catalog, relay, pg_temp as $$
  select o, e, format('000_relay_%s_%s', e, tracking_id), format('capture_%s_%s', e, tracking_id)
  from unnest('{insert,update,delete,truncate}'::text[]) with ordinality u(e, o)
$$;
comment on function relay.trigger_names(integer) is 'Ours run first, by name. They are numbered, so that a tracked table can become a partition of another.';

create function relay.make_triggers(t relay.tracking) returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp set quote_all_identifiers = off as $$
declare
  v record;
  v_table regclass;
begin
  for v in select * from relay.trigger_names(t.id) where event <> 'truncate' loop
    execute format('create or replace trigger %I after %s on %s %s execute function relay.%I()', v.name, v.event, t.target,
      case when t.level = 'statement' and v.event = 'insert' then 'referencing new table as new_rows for each statement' else 'for each row' end,
      case when t.level = 'statement' and v.event = 'insert' then 'capture_rows_' || t.id else v.function end);
  end loop;
  for v_table in select relid from relay.tree(t.target) order by relid loop
    execute format('create or replace trigger %I after truncate on %s for each statement execute function relay.%I()',
      '000_relay_truncate_' || t.id, v_table, 'capture_truncate_' || t.id);
    -- What applies a subscription, and many a restore, passes over triggers that are not always fired.
    if (select pg_has_role(current_user, c.relowner, 'usage') from pg_class c where c.oid = v_table) then
      execute (select format('alter table %s %s', v_table, string_agg(format('enable always trigger %I', name), ', ' order by place))
               from relay.trigger_names(t.id));
    end if;
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

create function relay.trigger_problem(t relay.tracking) returns text
language sql stable set search_path = pg_catalog, relay, pg_temp set quote_all_identifiers = off as $$
  select format(case
      when g.oid is null then 'its trigger %1$I is missing on %2$s'
      when g.tgenabled in ('D', 'R') then 'its trigger %1$I is disabled on %2$s'
      else 'a subscription writes to %2$s, and does not fire its trigger %1$I' end || ': as the owner of the tables, select relay.mend(%3$L)', n.name, relay.qualified_name(m.relid), t.name)
  from relay.tree(t.target) m
  cross join relay.trigger_names(t.id) n
  left join pg_proc p on p.pronamespace = 'relay'::regnamespace
    and p.proname = case when t.level = 'statement' and n.event = 'insert' then 'capture_rows_' || t.id else n.function end
  left join pg_trigger g on g.tgrelid = m.relid and g.tgname = n.name and g.tgfoid = p.oid
  where g.oid is null or g.tgenabled in ('D', 'R')
     or (g.tgenabled <> 'A' and exists (select from relay.tree(t.target) s join pg_subscription_rel r on r.srrelid = s.relid))
  order by m.relid, n.place
  limit 1
$$;
comment on function relay.trigger_problem(relay.tracking) is 'What is wrong with its triggers on any table of its tree, and what to do; null: nothing.';

create function relay.strays(t relay.tracking) returns table (relid oid, name name)
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select g.tgrelid, g.tgname
  from pg_trigger g join pg_proc p on p.oid = g.tgfoid
  where p.pronamespace = 'relay'::regnamespace and p.proname = any(relay.capture_functions(t.id))
    and g.tgparentid = 0 and g.tgrelid not in (select relid from relay.tree(t.target))
$$;
comment on function relay.strays(relay.tracking) is
  'Triggers of a tracking on tables that are not part of it: a partition was detached, or a table was restored with triggers of another database.';

create function relay.stray_trigger(t relay.tracking) returns text
language sql stable set search_path = pg_catalog, relay, pg_temp set quote_all_identifiers = off as $$
  select format('its trigger %I stands on %s, which is not part of it, and captures nothing there: as the owner of that table, drop trigger %1$I on %2$s', s.name, relay.qualified_name(s.relid))
  from relay.strays(t) s
  order by s.relid, s.name
  limit 1
$$;

create function relay.drop_strays(t relay.tracking) returns bigint
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp set quote_all_identifiers = off as $$
declare
  v record;
  v_count bigint := 0;
begin
  for v in
    select s.name, relay.qualified_name(s.relid) as "table"
    from relay.strays(t) s join pg_class c on c.oid = s.relid where pg_has_role(current_user, c.relowner, 'usage')
  loop
    execute format('drop trigger %I on %s', v.name, v."table");
    v_count := v_count + 1;
  end loop;
  return v_count;
end
$$;
comment on function relay.drop_strays(relay.tracking) is
  'Drops the triggers of a tracking from tables that are not part of it, where whoever calls owns them. They captured nothing. Returns how many.';

create function relay.partition_columns(target oid) returns table (name text)
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select a.attname::text
  from relay.tree(target) m join pg_partitioned_table p on p.partrelid = m.relid
  join pg_attribute a on a.attrelid = m.relid and a.attnum = any(p.partattrs)
  union
  -- Of an expression, PostgreSQL notes what it uses: these columns cannot be dropped before the table.
  select a.attname::text
  from relay.tree(target) m join pg_partitioned_table p on p.partrelid = m.relid and p.partexprs is not null
  join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = m.relid and d.objsubid > 0
    and d.refclassid = 'pg_class'::regclass and d.refobjid = m.relid and d.refobjsubid = 0 and d.deptype = 'i'
  join pg_attribute a on a.attrelid = m.relid and a.attnum = d.objsubid
$$;
comment on function relay.partition_columns(oid) is 'The columns that decide in which partition a row lies: a row that moves is told as deleted and created.';

create function relay.track_again(t relay.tracking) returns text
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select format('select relay.track(%L, type => %L, channels => %L%s%s, key => %L%s%s%s)',
    coalesce(relay.qualified_name(t.target), t.name), t.type, t.scope,
    -- Only what was captured, should there be more by now.
    case when exists (
      select from pg_attribute a
      where a.attrelid = coalesce((select c.oid from pg_class c where c.oid = t.target), relay.table_named(t.name)) and a.attnum > 0 and not a.attisdropped
        and a.attgenerated <> 'v' and a.attname <> all(t.excluded)
        and not exists (select from jsonb_array_elements(t.columns) c where c->>'name' = a.attname))
      then format(', columns => %L', array(select c->>'name' from jsonb_array_elements(t.columns) c)) end,
    case when t.excluded <> '{}' then format(', exclude => %L', t.excluded) end, t.key,
    case when t.level <> 'row' then format(', level => %L', t.level) end,
    case when t.restricted <> '{}' then format(', restricted => %L', t.restricted) end,
    case when t.max_bytes <> 8388608 then format(', max_bytes => %s', t.max_bytes) end)
$$;
comment on function relay.track_again(relay.tracking) is
  'The statement that tracks a table, or the other one that has its name by now, as it was tracked: nothing is captured that was not.';

create function relay.standing_problem(t relay.tracking) returns text
language plpgsql stable set search_path = pg_catalog, relay, pg_temp set quote_all_identifiers = off as $$
declare
  v_present text := relay.qualified_name(t.target);
  v_namesake oid := relay.table_named(t.name);
  v_text text;
begin
  if relay.is_paused() then
    return 'the capture is paused: select relay.resume()';
  elsif not relay.log_is_there() then
    return 'parts of the relay''s schema are missing, and nothing is captured: install it again';
  elsif v_present is null and v_namesake is not null then
    return format('the table was dropped, and there is another of its name, which is not captured: %s', relay.track_again(t));
  elsif v_present is null then
    return format('the table was dropped: select relay.untrack(%s)', t.target::oid);
  elsif v_namesake <> t.target then
    return format('the table was renamed to %s, and there is another of its name: neither is captured until both are tracked again, by %s and the like of it', v_present, relay.track_again(t));
  elsif v_present <> t.name then
    return format('the table was renamed: track it again, by %s', relay.track_again(t));
  elsif (select count(*) from pg_proc p where p.pronamespace = 'relay'::regnamespace and p.proname = any(relay.capture_functions(t.id))) <> 5 then
    return format('the code of its triggers is missing: track it again, by %s', relay.track_again(t));
  end if;
  select case when o.rolsuper
      then format('its code runs with the rights of %I, a superuser: as %1$I, install it again', r.rolname)
      else format('its code runs with the rights of %I, who does not own the schema or is a superuser: as %1$I, alter function relay.%I() owner to %I', r.rolname, p.proname, o.rolname) end
    into v_text
  from pg_proc p join pg_roles r on r.oid = p.proowner, pg_namespace n join pg_roles o on o.oid = n.nspowner
  where n.nspname = 'relay' and p.pronamespace = n.oid and p.proname = any(relay.capture_functions(t.id)) and (r.rolsuper or r.oid <> o.oid)
  order by p.proname limit 1;
  return v_text;
end
$$;
comment on function relay.standing_problem(relay.tracking) is
  'What must be put right by somebody before anything else of a table can be.';

create function relay.against_statements(target oid) returns text
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select case
    when c.relkind = 'p' or c.relispartition or c.relhassubclass
      then 'it has become part of a tree, and rows that come through another of its tables are not captured'
    when exists (select from pg_subscription_rel s where s.srrelid = c.oid)
      then 'a subscription writes to it, and what that inserts is not captured' end
  from pg_class c where c.oid = target
$$;
comment on function relay.against_statements(oid) is
  'Why a table cannot be captured by statement: rows may come by ways for which its statement triggers do not fire. Null: it can.';

create function relay.problem(t relay.tracking) returns text
language plpgsql stable security definer set search_path = pg_catalog, relay, pg_temp set quote_all_identifiers = off as $$
declare
  v_text text := relay.standing_problem(t);
begin
  if v_text is not null then
    return v_text;
  elsif t.made_for <> t.target::oid then
    return case when relay.trigger_problem(t) is null
      then 'the table was restored from a dump, and its capture is slow: track it again, or select relay.renew()'
      else format('the table was restored from a dump, and not all of its triggers: once the restore is over, track it again, by %s', relay.track_again(t)) end;
  elsif not relay.layout_holds(t) then
    return 'a captured column was renamed, retyped or dropped: track it again';
  elsif t.level = 'statement' and relay.against_statements(t.target) is not null then
    return format('%s: as the owner of the tables, select relay.mend(%L)', relay.against_statements(t.target), t.name);
  elsif t.level = 'statement' and exists (
      select from pg_trigger g where g.tgrelid = t.target and not g.tgisinternal
        and g.tgtype & 1 = 1 and g.tgtype & 2 = 0 and g.tgtype & 64 = 0 and g.tgname !~ '^000_relay_') then
    return 'an AFTER ROW trigger was added: track it again, or inserts may be logged after its updates';
  end if;
  v_text := coalesce(relay.trigger_problem(t), relay.stray_trigger(t));
  if v_text is not null then
    return v_text;
  end if;
  select format('rows of %s, which inherits from it, are not captured: track it too', relay.qualified_name(i.inhrelid)) into v_text
  from pg_inherits i join pg_class c on c.oid = i.inhrelid and not c.relispartition
  where i.inhparent = t.target and not exists (select from relay.tracking o where o.target = i.inhrelid)
  order by i.inhrelid limit 1;
  if v_text is null then
    select format('column %I decides in which partition a row lies and is restricted: that it has changed would be told to everybody', p.name) into v_text
    from relay.partition_columns(t.target) p join relay.restrictions(t.restricted) r on r.name = p.name limit 1;
  end if;
  return v_text;
end
$$;
comment on function relay.problem(relay.tracking) is 'What makes the capture of a table incomplete, wrong or slow, and what to do; null: nothing.';

create function relay.fingerprint(t relay.tracking) returns text
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  with recursive below as (
    select t.target::oid as relid, '' as version
    union all
    select i.inhrelid, i.xmin::text from pg_inherits i join below b on b.relid = i.inhparent)
  -- First the log's oid: a log that was restored from a dump begins anew, and so does the watch.
  select to_regclass('relay.change_0')::oid || ' ' || md5(coalesce(string_agg(format('%s %s', b.relid, b.version), ',' order by b.relid, b.version), '') || coalesce((
    select string_agg(format('%s %s %s', g.oid, g.xmin, g.tgenabled), ',' order by g.oid)
    from pg_trigger g join relay.trigger_names(t.id) n on n.name = g.tgname where g.tgrelid in (select relid from below)), '')
    || coalesce(relay.table_named(t.name)::text, ''))
  from below b
$$;
comment on function relay.fingerprint(relay.tracking) is
  'Changes when a table is attached to its tree or detached, inherits from it, or is dropped, when one of its triggers was touched, and when another table takes its name: rows may then have come or gone without a change in the log.';

create function relay.notice(t relay.tracking, op text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, relay, pg_temp as $$
begin
  update relay.tracking k set seen = relay.fingerprint(k) where k.id = t.id;
  perform relay.log(t.what + 7, json_build_object('op', op)::text);
  perform relay.ring(t.name, 'bulk_load', 0);
end
$$;
comment on function relay.notice(relay.tracking, text) is 'Tells the clients of a table to load it again: rows of it may have changed unseen.';

create function relay.watch() returns table (name text)
language plpgsql volatile security definer set search_path = pg_catalog, relay, pg_temp set lock_timeout = '100ms' as $$
declare
  t relay.tracking;
begin
  if relay.is_paused() or not relay.log_is_there() then
    return;
  end if;
  -- At once as strong as it will be needed, or it would wait for who waits for it.
  if exists (select from relay.tracking k where exists (select from pg_class c where c.oid = k.target) and k.seen is distinct from relay.fingerprint(k)) then
    lock table relay.tracking in row exclusive mode;
  end if;
  for t in
    select k.* from relay.tracking k
    where exists (select from pg_class c where c.oid = k.target) and k.seen is distinct from relay.fingerprint(k)
    order by k.id for update skip locked
  loop
    if t.seen is null or split_part(t.seen, ' ', 1) <> to_regclass('relay.change_0')::oid::text then
      update relay.tracking k set seen = relay.fingerprint(k) where k.id = t.id;
    else
      -- Made anew as it is, so that sessions ask again whether the table is its own: that another took its name tells none.
      perform relay.capture_code(t);
      perform relay.notice(t, 'attach');
      name := t.name;
      return next;
    end if;
  end loop;
end
$$;
comment on function relay.watch() is
  'Looks whether tables were attached, detached or dropped, or triggers touched, since it looked last, and has the clients of those tables load them again. Returns the names of these.';

create function relay.mend(target regclass) returns text
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp set lock_timeout = '100ms' as $$
declare
  t relay.tracking;
  v_problem text;
  v_lost boolean;
begin
  select * into t from relay.tracking k where k.target = mend.target;
  if relay.problem(t) is null then
    return null;
  end if;
  -- One at a time, so that two relays do not tell of the same. The lock is at once as strong as it will be needed.
  lock table relay.tracking in row exclusive mode;
  select * into t from relay.tracking k where k.target = mend.target for update;
  v_problem := relay.problem(t);
  -- The restore of a table may not be over: it would fail where it finds its triggers made.
  if v_problem is null or relay.standing_problem(t) is not null or t.made_for <> t.target::oid then
    return null;
  end if;
  v_lost := relay.trigger_problem(t) is not null;
  if t.level = 'statement' and relay.against_statements(t.target) is not null then
    v_lost := true;
    update relay.tracking k set level = 'row' where k.id = t.id returning * into t;
    perform relay.drop_capture(t.id);
    perform relay.capture_code(t);
  end if;
  if v_lost then
    perform relay.make_triggers(t);
    perform relay.notice(t, 'track');
  end if;
  if relay.drop_strays(t) = 0 and not v_lost then
    return null;
  end if;
  return v_problem;
end
$$;
comment on function relay.mend(regclass) is
  'With the rights of whoever calls: makes and enables the triggers that are missing in a table''s tree, drops those that stand outside it, captures by row what can no more be captured by statement, and has the clients of the table load it again. Returns what was wrong, or null if there was nothing that it could mend.';

create function relay.mend_as_owner(target regclass) returns text
language sql volatile security definer set search_path = pg_catalog, relay, pg_temp as $$ select relay.mend(target) $$;
comment on function relay.mend_as_owner(regclass) is 'The same with the rights of the schema''s owner, for a relay that has none itself.';
