/** Tables for the trees model: plain ones and trees, with triggers and functions that change other rows of their table. */

import fc from "fast-check"

const SHAPES = [
  "plain",
  "text key",
  "bigint key",
  "composite key",
  "deferrable key",
  "by statement",
  "list",
  "range",
  "hash",
  "deep",
  "inherited",
] as const
export type Shape = (typeof SHAPES)[number]

/** What a row trigger of the application does to other rows. */
const TRIGGERS = ["none", "none", "updates", "deletes", "updates itself", "inserts again", "moves"] as const
type Trigger = (typeof TRIGGERS)[number]

export interface TablePlan {
  readonly shape: Shape
  readonly trigger: Trigger
  /** Whether it fires before the capture's. */
  readonly early: boolean
}

export const tablePlans: fc.Arbitrary<TablePlan[]> = fc.array(
  fc.record({
    shape: fc.constantFrom(...SHAPES),
    trigger: fc.constantFrom(...TRIGGERS),
    early: fc.boolean(),
  }),
  { minLength: 1, maxLength: 2 },
)

const idType = (shape: Shape): string =>
  shape === "text key" ? "text" : shape === "bigint key" ? "bigint" : "int"

const COLUMNS = `k int not null default 0, v int, link int, mood mood default 'calm', doc jsonb default '{"a": [1, 1.50]}',
  raw bytea default '\\xdeadbeef', note text default 'it''s', secret text default 'hush', spare int default 1`

const KEYS: Partial<Record<Shape, string>> = {
  "composite key": "primary key (id, k)",
  "deferrable key": "primary key (id) deferrable initially deferred",
  list: "primary key (id, k)",
  range: "primary key (id, k)",
  deep: "primary key (id, k)",
}

const PARTITIONED: Partial<Record<Shape, string>> = {
  list: "partition by list (k)",
  range: "partition by range (k)",
  hash: "partition by hash (id)",
  deep: "partition by list (k)",
}

const PARTS: Partial<Record<Shape, (name: string) => string[]>> = {
  list: (name) => [
    `create table ${name}_0 partition of ${name} for values in (0)`,
    `create table ${name}_1 partition of ${name} for values in (1)`,
    `create table ${name}_d partition of ${name} default`,
  ],
  range: (name) => [
    `create table ${name}_0 partition of ${name} for values from (minvalue) to (1)`,
    `create table ${name}_1 partition of ${name} for values from (1) to (2)`,
    // Its columns lie in another order, with a hole.
    `create table ${name}_2 (note text, gone int, raw bytea, id int not null, mood mood, v int, k int not null, link int, doc jsonb, secret text, spare int)`,
    `alter table ${name}_2 drop gone, alter note set default 'it''s'`,
    `alter table ${name} attach partition ${name}_2 for values from (2) to (maxvalue)`,
  ],
  hash: (name) => [
    `create table ${name}_0 partition of ${name} for values with (modulus 2, remainder 0)`,
    `create table ${name}_1 partition of ${name} for values with (modulus 2, remainder 1)`,
  ],
  deep: (name) => [
    `create table ${name}_0 partition of ${name} for values in (0) partition by range (id)`,
    `create table ${name}_0a partition of ${name}_0 for values from (minvalue) to (3)`,
    `create table ${name}_0b partition of ${name}_0 for values from (3) to (maxvalue) partition by hash (id)`,
    `create table ${name}_0b0 partition of ${name}_0b for values with (modulus 2, remainder 0)`,
    `create table ${name}_0b1 partition of ${name}_0b for values with (modulus 2, remainder 1)`,
    `create table ${name}_1 partition of ${name} for values in (1, 2)`,
  ],
  inherited: (name) => [`create table ${name}_c (primary key (id)) inherits (${name})`],
}

/** The statements that make a table; its schema is the first on the search path. */
export function tableSql(name: string, plan: TablePlan): string[] {
  const { shape } = plan
  const key = KEYS[shape] ?? "primary key (id)"
  const tables = [
    `create table ${name} (id ${idType(shape)} not null, ${COLUMNS}, ${key}) ${PARTITIONED[shape] ?? ""}`,
    ...(PARTS[shape]?.(name) ?? []),
  ]
  return [...tables, ...functionSql(name, shape), ...triggerSql(name, plan)]
}

/** Functions for RETURNING, each of which changes another row of the table. */
function functionSql(name: string, shape: Shape): string[] {
  const type = idType(shape)
  const next = shape === "text key" ? "(x::int + 1)::text" : "x + 1"
  const body = (statement: string) =>
    `(x ${type}) returns int language plpgsql volatile set search_path from current as $$ begin ${statement}; return 1; end $$`
  return [
    `create or replace function ${name}_touch${body(`update ${name} set v = coalesce(v, 0) + 1 where id = ${next}`)}`,
    `create or replace function ${name}_remove${body(`delete from ${name} where id = ${next}`)}`,
    `create or replace function ${name}_again${body(`insert into ${name} (id, k, v) select x, 0, 7 where not exists (select from ${name} where id = x)`)}`,
  ]
}

function triggerSql(name: string, { shape, trigger, early }: TablePlan): string[] {
  if (trigger === "none" || shape === "by statement") return []
  const cast = shape === "text key" ? "::text" : ""
  const bodies: Record<Exclude<Trigger, "none">, [event: string, statement: string]> = {
    updates: [
      "insert or update",
      `update ${name} set v = coalesce(v, 0) + 1 where id = new.link${cast} and id <> new.id`,
    ],
    deletes: ["update", `delete from ${name} where id = new.link${cast}`],
    "updates itself": ["insert", `update ${name} set note = 'seen', v = 5 where id = new.id`],
    "inserts again": ["delete", `insert into ${name} (id, k, v) values (old.id, old.k, old.v)`],
    moves: ["update of v", `update ${name} set k = (k + 1) % 3 where id = new.link${cast}`],
  }
  const [event, statement] = bodies[trigger]
  return [
    `create or replace function ${name}_trigger() returns trigger language plpgsql set search_path from current as $$
     begin if pg_trigger_depth() < 3 then ${statement}; end if; return null; end $$`,
    `create trigger ${early ? '"!app"' : "app"} after ${event} on ${name} for each row execute function ${name}_trigger()`,
  ]
}

/** The tables that are tracked for it: those that inherit from one are tracked by themselves. */
export const trackedNames = (name: string, { shape }: TablePlan): string[] =>
  shape === "inherited" ? [name, `${name}_c`] : [name]
