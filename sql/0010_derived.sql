-- Derived messages: totals and the like, which functions of the application compute and relays keep current.

create table relay.derived (
  type text not null,
  channel text not null,
  action text,
  function text not null,
  tables text[] not null,
  min_interval interval not null,
  max_age interval not null,
  defined_at timestamptz not null default clock_timestamp(),
  primary key (type, channel)
);
comment on table relay.derived is
  'What relays compute: by which function, from which tables, for which channel, how often at most (min_interval) and at least (max_age). relay.define_derived writes it.';

-- The oid of a function with such a name and no arguments; null if there is none. A table cannot hold the oid: a dump would not keep it.
create function relay.derived_function(name text) returns oid
language sql stable set search_path = pg_catalog, relay, pg_temp as $$
  select to_regprocedure(name || '()')::oid
$$;

create function relay.derive(type text, channel text) returns table (id text, data text)
language plpgsql stable set search_path = pg_catalog, relay, pg_temp as $$
#variable_conflict use_variable
declare
  v_name text := d.function from relay.derived d where (d.type, d.channel) = (type, channel);
  v_function pg_proc := p from pg_proc p where p.oid = relay.derived_function(v_name);
begin
  if v_name is null then
    raise exception 'there is no derived message % of %', coalesce(type, 'null'), coalesce(channel, 'null') using errcode = 'invalid_parameter_value',
      hint = 'Those that there are: select type, channel from relay.derived.';
  end if;
  if v_function.oid is null then
    raise exception 'the function of % is gone', type using errcode = 'undefined_function',
      hint = format('Make %s() again, or select relay.drop_derived(%L, %L).', v_name, type, channel);
  end if;
  -- The application's function finds its tables as in any other session of this role. Undone at the end of this one.
  perform set_config('search_path', (select reset_val from pg_settings where name = 'search_path'), true);
  return query execute pg_catalog.format(
    case when v_function.proretset or v_function.prorettype operator(pg_catalog.=) 'pg_catalog.record'::pg_catalog.regtype
         then 'select f.id::pg_catalog.text, f.data::pg_catalog.text from %s() f(id, data)'
         else 'select null::pg_catalog.text, f.data::pg_catalog.text from %s() f(data)' end, v_name);
end
$$;
comment on function relay.derive(text, text) is
  'Computes a derived message now: its values, with the id of the channel that each is for. Runs the function with the rights of whoever calls.';

create function relay.define_derived(
  type text,
  function regproc,
  tables regclass[],
  channel text default 'dashboard',
  min_interval interval default '1 second',
  max_age interval default '10 seconds',
  action text default null
) returns void
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp set quote_all_identifiers = off as $$
#variable_conflict use_variable
declare
  v_name text := (select format('%I.%I', n.nspname, p.proname) from pg_proc p join pg_namespace n on n.oid = p.pronamespace where p.oid = function);
  v_untracked regclass := (select t from unnest(tables) t where not exists (select from relay.tracking k where k.target = t) limit 1);
begin
  if (type ~ '^[a-z][a-z0-9_]{0,62}$') is not true or type in ('connection_success', 'checkpoint', 'message',
      'subscribed', 'unsubscribed', 'ping', 'pong', 'authenticated', 'error') then
    raise exception 'type % cannot be used: lower-case letters, digits and underscores, and not a name of the protocol', quote_nullable(type)
      using errcode = 'invalid_parameter_value';
  end if;
  if action !~ '^[a-z][a-z0-9_]{0,62}$' or action in ('create', 'update', 'delete', 'leave', 'truncate', 'bulk_load') then
    raise exception 'action % cannot be used: lower-case letters, digits and underscores, and not what is said of rows', quote_literal(action)
      using errcode = 'invalid_parameter_value';
  end if;
  if action is null and exists (select 1 from relay.tracking t where t.type = type) then
    raise exception 'type % is that of a tracked table', quote_literal(type) using errcode = 'invalid_parameter_value',
      hint = 'Tell the messages apart by an action of their own: action => ''results''.';
  end if;
  if (channel ~ '^[a-z][a-z0-9_]{0,62}$') is not true or channel = 'user' then
    raise exception 'channel % cannot be used: a prefix without an id, and not user', quote_nullable(channel)
      using errcode = 'invalid_parameter_value', hint = 'Ids are what the function returns beside each value.';
  end if;
  if (min_interval >= '100 milliseconds' and max_age >= min_interval and max_age <= '1 day') is not true then
    raise exception 'min_interval must be 100 ms or more, and max_age between it and a day' using errcode = 'invalid_parameter_value';
  end if;
  if v_name is null then
    raise exception 'function must name a function that is there' using errcode = 'invalid_parameter_value',
      hint = 'Such as public.election_results, without its parentheses.';
  end if;
  if (cardinality(tables) > 0) is not true or array_position(tables, null) is not null then
    raise exception 'tables must name one tracked table or more' using errcode = 'invalid_parameter_value',
      hint = 'The function runs again when one of them has changed: tables => ''{vote,guarantee}''.';
  end if;
  if relay.derived_function(v_name) is distinct from function then
    raise exception 'the function % cannot be used: it must be called without arguments', v_name using errcode = 'invalid_parameter_value';
  end if;
  if (select p.prorettype = 'record'::regtype and (select count(*) from unnest(p.proargmodes) m where m in ('o', 't')) <> 2 from pg_proc p where p.oid = function) then
    raise exception 'the function % cannot be used: it must return one json value, or rows of an id and a json value', v_name
      using errcode = 'invalid_parameter_value';
  end if;
  if v_untracked is not null then
    raise exception '% is not tracked, so that its changes would not be noticed', v_untracked using errcode = 'invalid_parameter_value',
      hint = format('First: select relay.track(%L)', v_untracked::text);
  end if;
  insert into relay.derived as d (type, channel, action, function, tables, min_interval, max_age)
  values (type, channel, action, v_name, array(select k.name from relay.tracking k where k.target = any(tables) order by 1), min_interval, max_age)
  on conflict on constraint derived_pkey do update
    set action = excluded.action, function = excluded.function, tables = excluded.tables,
        min_interval = excluded.min_interval, max_age = excluded.max_age, defined_at = clock_timestamp();
  -- What it returns is found out here rather than on an election night.
  perform from relay.derive(type, channel) limit 1;
end
$$;
comment on function relay.define_derived(text, regproc, regclass[], text, interval, interval, text) is
  'Has relays compute a message: the function returns one json value for the channel, or rows of an id and a json value, each for channel:id. It runs again when one of the tables has changed, at most once each min_interval, and after max_age in any case. Subscribers receive a value when it differs, and the latest at once. The relay''s role must be allowed to run the function; what the function reads is not narrowed to the receiver.';

create function relay.drop_derived(type text, channel text default 'dashboard') returns boolean
language plpgsql volatile set search_path = pg_catalog, relay, pg_temp as $$
#variable_conflict use_variable
begin
  if type is null or channel is null then
    raise exception 'type and channel must not be null' using errcode = 'invalid_parameter_value',
      hint = 'Those that there are: select type, channel from relay.derived.';
  end if;
  delete from relay.derived d where (d.type, d.channel) = (type, channel);
  return found;
end
$$;
comment on function relay.drop_derived(text, text) is 'Ends a derived message. Returns whether there was one.';
