/**
 * Plants: what somebody makes in a schema of others' search_path so that it is run in place of PostgreSQL's own. Each
 * says in the server's log that it ran, and as whom, and then does what the original does.
 */

import type pg from "pg"

/** What a plant's line in the log begins with. */
export const PLANTED = "planted:"

/** Types that no function may take or return which is not written in C. */
const INTERNAL = `'{internal,cstring,any,trigger,event_trigger,language_handler,fdw_handler,index_am_handler,table_am_handler,tsm_handler,pg_ddl_command,unknown}'::text[]`
/** The types of values that our SQL has most. */
const COMMON = ["text", "name", "oid", "regclass", "int4", "int8", "bool", "jsonb"]
/** How many values a function that takes any is called with, when they are all texts. */
const MOST_VALUES = 10

const says = (what: string) =>
  `raise log '${PLANTED} % ran as %', '${what.replaceAll("'", "''")}', current_user;`

/** A function made with its result; a body that comes to no result returns null. */
const createFunction = (signature: string, what: string, result: string, returns = "return null;") =>
  `create function ${signature} returns ${result} language plpgsql as $plant$ begin ${says(what)} ${returns} end $plant$`

/**
 * Makes a double of everything in pg_catalog that SQL can call by a name: functions, aggregates, operators, types,
 * tables. They are what is meant wherever the search_path has this schema before pg_catalog.
 */
export async function plantDoubles(session: pg.Client, schema: string): Promise<number> {
  await session.query("set search_path = pg_catalog, pg_temp")
  const statements = [
    ...(await doublesOfFunctions(session, schema)),
    ...(await doublesOfAggregates(session, schema)),
    ...doublesOfAny(schema),
    ...(await doublesOfOperators(session, schema)),
    ...(await doublesOfTypes(session, schema)),
    ...(await doublesOfTables(session, schema)),
  ]
  return runAll(session, statements)
}

/** Makes functions and operators that fit better than PostgreSQL's, where it must convert an argument. */
export async function plantBetterMatches(session: pg.Client, schema: string): Promise<number> {
  await session.query("set search_path = pg_catalog, pg_temp")
  const { rows: operators } = await session.query<{ name: string; l: string; r: string; result: string }>(
    `with t(name) as (select unnest($1::text[] || '{char,varchar,xid8,interval,_text}'::text[])),
          symbol(name, result) as (select distinct on (oprname) oprname, format_type(oprresult, null)
            from pg_operator where oprnamespace = 'pg_catalog'::regnamespace and oprkind = 'b'
              and oprname in ('=','<>','<','<=','>','>=','||','+','-','%','~','!~','~~','->','->>','@>','<@')
            order by oprname, oprresult::regtype::text <> all ('{boolean,text}'))
     select s.name, format_type(l.oid, null) as l, format_type(r.oid, null) as r, s.result
     from symbol s, pg_type l join t a on a.name = l.typname, pg_type r join t b on b.name = r.typname
     where l.typnamespace = 'pg_catalog'::regnamespace and r.typnamespace = 'pg_catalog'::regnamespace
       and not exists (select from pg_operator o where o.oprname = s.name and o.oprleft = l.oid and o.oprright = r.oid
                         and o.oprnamespace = 'pg_catalog'::regnamespace)`,
    [COMMON],
  )
  const ofOperators = operators.flatMap(({ name, l, r, result }, n) => [
    createFunction(`${schema}.better_${n}(${l}, ${r})`, `${l} ${name} ${r}`, result),
    `create operator ${schema}.${name} (leftarg = ${l}, rightarg = ${r}, function = ${schema}.better_${n})`,
  ])
  // Each argument of a catalog's function in turn of another type that is converted without being asked for.
  const { rows: functions } = await session.query<{ name: string; args: string; result: string }>(
    `select distinct on (p.proname, args) p.proname as name, args, pg_get_function_result(p.oid) as result
     from pg_proc p, generate_series(1, p.pronargs) n, unnest($1::text[]) t(name),
       lateral (select string_agg(format_type(case when a.n = n.n then t.name::regtype::oid else a.type end, null), ', ' order by a.n) as args
                from unnest(p.proargtypes) with ordinality a(type, n)) x
     where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f' and p.pronargs between 1 and 3 and p.provariadic = 0
       and p.proallargtypes is null
       and not exists (select from unnest(p.proargtypes || p.prorettype) u(type), pg_type y where y.oid = u.type and (y.typname = any(${INTERNAL}) or y.typname ~ '^any'))
       and exists (select from pg_cast c where c.castsource = t.name::regtype and c.casttarget = p.proargtypes[n.n - 1] and c.castcontext = 'i')
       and not exists (select from pg_proc q where q.proname = p.proname and q.pronamespace = p.pronamespace
                         and pg_get_function_identity_arguments(q.oid) = args)
     order by p.proname, args`,
    [COMMON],
  )
  const ofFunctions = functions.map(({ name, args, result }) =>
    createFunction(
      `${schema}."${name}"(${args})`,
      `${name}(${args})`,
      result,
      /^SETOF|^void/.test(result) ? "return;" : "return null;",
    ),
  )
  return runAll(session, [...ofOperators, ...ofFunctions, ...doublesOfAny(schema)])
}

async function doublesOfFunctions(session: pg.Client, schema: string): Promise<string[]> {
  const { rows } = await session.query<{
    name: string
    args: string
    identity: string
    result: string
    call: string
    set: boolean
    out: boolean
  }>(
    `select p.proname as name, pg_get_function_arguments(p.oid) as args, pg_get_function_identity_arguments(p.oid) as identity,
            pg_get_function_result(p.oid) as result, p.proretset as set, p.proargmodes is not null and p.proargmodes && '{o,b,t}' as out,
            coalesce((select string_agg(case when p.provariadic <> 0 and n = p.pronargs then 'variadic ' else '' end || '$' || n, ', ' order by n)
                      from generate_series(1, p.pronargs) n), '') as call
     from pg_proc p
     where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f'
       and not exists (select from unnest(p.proargtypes || p.prorettype) u(type), pg_type y
                       where y.oid = u.type and y.typname = any(${INTERNAL}))`,
  )
  return rows.map(({ name, args, identity, result, call, set, out }) => {
    const original = `pg_catalog."${name}"(${call})`
    const returns = set
      ? `return query select * from ${original};`
      : result === "void"
        ? `perform ${original};`
        : out
          ? ""
          : `return ${original};`
    return createFunction(`${schema}."${name}"(${args})`, `${name}(${identity})`, result, returns)
  })
}

async function doublesOfAggregates(session: pg.Client, schema: string): Promise<string[]> {
  const { rows } = await session.query<{ oid: string; name: string; args: string; result: string }>(
    `select p.oid::text, p.proname as name, pg_get_function_identity_arguments(p.oid) as args, pg_get_function_result(p.oid) as result
     from pg_proc p join pg_aggregate a on a.aggfnoid = p.oid
     where p.pronamespace = 'pg_catalog'::regnamespace and a.aggkind = 'n' and p.provariadic = 0
       and not exists (select from unnest(p.proargtypes || p.prorettype) u(type), pg_type y
                       where y.oid = u.type and y.typname = any(${INTERNAL} || '{anycompatible}'))`,
  )
  const any = ["count", "json_object_agg", "jsonb_object_agg"].map((name) => ({
    oid: name,
    name,
    args: name === "count" ? "anyelement" : "anyelement, anycompatible",
    result: name === "count" ? "bigint" : name.replace("_object_agg", ""),
  }))
  return [...rows, ...any].flatMap(({ oid, name, args, result }) => {
    const step = `${schema}.step_${oid}`
    return [
      createFunction(`${step}(${args === "" ? result : `${result}, ${args}`})`, `${name}(${args})`, result),
      `create aggregate ${schema}."${name}"(${args === "" ? "*" : args}) (sfunc = ${step}, stype = ${result})`,
    ]
  })
}

/** Functions that take any number of values of any type, which only C can, for the types and numbers that are usual. */
function doublesOfAny(schema: string): string[] {
  const functions: Array<[name: string, first: string[], result: string]> = [
    ["format", ["text"], "text"],
    ["concat", [], "text"],
    ["concat_ws", ["text"], "text"],
    ["json_build_object", [], "json"],
    ["jsonb_build_object", [], "jsonb"],
    ["json_build_array", [], "json"],
    ["jsonb_build_array", [], "jsonb"],
    ["num_nulls", [], "integer"],
    ["num_nonnulls", [], "integer"],
    ["pg_typeof", [], "regtype"],
    ["pg_column_size", [], "integer"],
  ]
  const types = [...COMMON, "anyelement"]
  const values = [
    ...types.map((type) => [type]),
    ...COMMON.flatMap((l) => COMMON.map((r) => [l, r])),
    ...Array.from({ length: MOST_VALUES - 2 }, (_, n) => Array.from({ length: n + 3 }, () => "text")),
  ]
  return functions.flatMap(([name, first, result]) =>
    values.map((rest) => {
      const args = [...first, ...rest].join(", ")
      const call = [...first, ...rest].map((_, n) => `$${n + 1}`).join(", ")
      const single = name.startsWith("pg_") && rest.length > 1
      return createFunction(
        `${schema}.${name}(${args})`,
        `${name}(${args})`,
        result,
        single ? "return null;" : `return pg_catalog.${name}(${call});`,
      )
    }),
  )
}

async function doublesOfOperators(session: pg.Client, schema: string): Promise<string[]> {
  const { rows } = await session.query<{
    oid: string
    name: string
    l: string | null
    r: string
    result: string
  }>(
    `select o.oid::text, o.oprname as name, case when o.oprleft <> 0 then format_type(o.oprleft, null) end as l,
            format_type(o.oprright, null) as r, format_type(o.oprresult, null) as result
     from pg_operator o where o.oprnamespace = 'pg_catalog'::regnamespace and o.oprright <> 0`,
  )
  return rows.flatMap(({ oid, name, l, r, result }) => {
    const [left, call] =
      l === null
        ? ["", `operator(pg_catalog.${name}) $1`]
        : [`leftarg = ${l}, `, `$1 operator(pg_catalog.${name}) $2`]
    return [
      createFunction(
        `${schema}.operator_${oid}(${l === null ? r : `${l}, ${r}`})`,
        `${l ?? ""} ${name} ${r}`,
        result,
        `return ${call};`,
      ),
      `create operator ${schema}.${name} (${left}rightarg = ${r}, function = ${schema}.operator_${oid})`,
    ]
  })
}

/** Domains of the same name, which check each value. */
async function doublesOfTypes(session: pg.Client, schema: string): Promise<string[]> {
  const { rows } = await session.query<{ name: string }>(
    `select typname as name from pg_type where typnamespace = 'pg_catalog'::regnamespace and typtype in ('b', 'r')
       and typname !~ '^_' and typname <> all(${INTERNAL})`,
  )
  return rows.flatMap(({ name }) => [
    createFunction(
      `${schema}."check_${name}"(pg_catalog."${name}")`,
      `type ${name}`,
      "boolean",
      "return true;",
    ),
    `create domain ${schema}."${name}" as pg_catalog."${name}" check (${schema}."check_${name}"(value))`,
  ])
}

/** Views of the same name, which show the same. */
async function doublesOfTables(session: pg.Client, schema: string): Promise<string[]> {
  const { rows } = await session.query<{ name: string; columns: string }>(
    `select c.relname as name, string_agg(quote_ident(a.attname), ', ' order by a.attnum) as columns
     from pg_class c join pg_attribute a on a.attrelid = c.oid
     where c.relnamespace = 'pg_catalog'::regnamespace and c.relkind in ('r', 'v') and a.attnum > 0 and a.atttypid <> 'anyarray'::regtype
     group by c.relname`,
  )
  return rows.flatMap(({ name, columns }) => [
    createFunction(`${schema}."read_${name}"()`, `table ${name}`, "boolean", "return true;"),
    `create view ${schema}."${name}" as select ${columns} from pg_catalog."${name}" where ${schema}."read_${name}"()`,
    `grant select on ${schema}."${name}" to public`,
  ])
}

/** @returns how many PostgreSQL did not refuse. Some originals are of no kind that can be made again. */
async function runAll(session: pg.Client, statements: string[]): Promise<number> {
  let made = 0
  for (const statement of statements)
    await session.query(statement).then(
      () => made++,
      () => {},
    )
  return made
}
