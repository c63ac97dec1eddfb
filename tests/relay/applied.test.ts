/**
 * A client that applies one change after another, as the protocol says, holds what the table holds: where keys move, where
 * triggers and functions change what their own statement changes, live and when it returns.
 */

import t, { type Test } from "tap"
import type { Client, Received } from "../helpers/client.ts"
import { type Database, database } from "../helpers/database.ts"
import { cursorNow } from "../helpers/log.ts"
import { startRelay } from "../helpers/relay.ts"

interface Case {
  name: string
  /** The table `job` of another kind; and triggers and functions. */
  schema?: string
  rows: string
  /** Each is a transaction. */
  transactions: string[]
  /** After which of them the table is loaded, because there is no order in which the changes could be applied. */
  loads?: number[]
}

const JOB = "create table job (id int primary key, state text, next int)"
const DEFERRABLE = "create table job (id int primary key deferrable, state text, next int)"
const DEFERRED = "create table job (id int primary key deferrable initially deferred, state text, next int)"
const TREE = `create table job (id int, state text, next int, primary key (id, state)) partition by list (state);
  create table job_new partition of job for values in ('new');
  create table job_other partition of job default`

const trigger = (event: string, body: string, level = "row", name = "app") => `
  create function ${name}() returns trigger language plpgsql as $$ begin ${body}; return null; end $$;
  create trigger ${name} after ${event} on job for each ${level} execute function ${name}()`

const CHAIN = "(1, 'new', 2), (2, 'new', 3), (3, 'new', null)"

const CASES: Case[] = [
  {
    name: "all keys move up by one",
    schema: DEFERRABLE,
    rows: CHAIN,
    transactions: ["update job set id = id + 1", "update job set id = id - 1"],
  },
  {
    name: "two rows swap their keys",
    schema: DEFERRABLE,
    rows: CHAIN,
    transactions: ["update job set id = 3 - id where id < 3"],
    loads: [1],
  },
  {
    name: "two rows swap their keys by way of a third",
    rows: CHAIN,
    transactions: [
      "update job set id = -1 where id = 1; update job set id = 1 where id = 2; update job set id = 2 where id = -1",
    ],
  },
  {
    name: "a key moves away, and another row takes it",
    rows: CHAIN,
    transactions: [
      "update job set id = 9 where id = 2; insert into job values (2, 'other', null)",
      "delete from job where id = 1; update job set id = 1 where id = 9; insert into job values (9, 'x', 9)",
    ],
  },
  {
    name: "two rows have the same key until the transaction ends",
    schema: DEFERRED,
    rows: CHAIN,
    transactions: [
      "insert into job values (2, 'newer', null); delete from job where id = 2 and state = 'new'",
      "update job set id = 1 where id = 3; delete from job where id = 1 and next = 2",
    ],
  },
  {
    name: "a trigger deletes a row that its statement updates as well",
    schema: `${JOB}; ${trigger("update", "delete from job where id = new.next")}`,
    rows: "(1, 'new', 2), (2, 'new', null)",
    transactions: ["update job set state = 'done'"],
  },
  {
    name: "a trigger updates the rows that its statement updates as well",
    schema: `${JOB}; ${trigger(
      "update",
      "update job set state = state || new.id where id = new.next and pg_trigger_depth() < 3",
    )}`,
    rows: CHAIN,
    transactions: ["update job set state = 'done'", "update job set state = 'again' where id > 1"],
  },
  {
    name: "a trigger inserts again what was deleted",
    schema: `${JOB}; ${trigger("delete", "insert into job values (old.id, old.state || '+', old.next)")}`,
    rows: CHAIN,
    transactions: ["delete from job where id = 2", "delete from job"],
  },
  {
    name: "a trigger inserts what was deleted and deletes what was inserted",
    schema: `${JOB}; ${trigger(
      "insert or delete",
      `if tg_op = 'DELETE' and pg_trigger_depth() < 4 then insert into job values (old.id, old.state || '-', old.next);
       elsif tg_op = 'INSERT' and new.state = 'gone' then delete from job where id = new.id; end if`,
    )}`,
    rows: CHAIN,
    transactions: ["insert into job values (7, 'gone', 1), (8, 'stays', 1)", "delete from job where id < 3"],
  },
  {
    name: "a trigger moves the key of the row that was updated",
    schema: `${JOB}; ${trigger(
      "update",
      "if new.state = 'move' then update job set id = new.id + 10, state = 'moved' where id = new.id; end if",
    )}`,
    rows: CHAIN,
    transactions: ["update job set state = 'move' where id <> 2", "update job set state = 'move'"],
  },
  {
    name: "a trigger of the new row updates it and its neighbours",
    schema: `${JOB}; ${trigger("insert", "update job set next = coalesce(next, 0) + new.id")}`,
    rows: "(1, 'new', 0)",
    transactions: ["insert into job values (2, 'new', 0), (3, 'new', 0)"],
  },
  {
    name: "a statement's trigger updates all of its rows",
    schema: `${JOB}; ${trigger("insert", "update job set next = id where next is null", "statement", '"000_a"')}`,
    rows: "(1, 'new', 0)",
    transactions: ["insert into job values (2, 'new', null), (3, 'new', null)"],
  },
  {
    name: "functions in RETURNING change and delete the new rows",
    schema: `${JOB};
      create function touch(job) returns void language sql as 'update job set state = state || 1 where id = $1.id';
      create function drop_it(job) returns void language sql as 'delete from job where id = $1.id'`,
    rows: "(1, 'new', 0)",
    transactions: [
      "insert into job values (2, 'new', 0), (3, 'new', 0) returning touch(job)",
      "insert into job values (4, 'new', 0) returning drop_it(job)",
      "update job set next = 5 where id > 1 returning touch(job)",
    ],
  },
  {
    name: "one WITH deletes, updates and inserts",
    rows: CHAIN,
    transactions: [
      `with gone as (delete from job where id = 1 returning *),
            changed as (update job set state = 'done' where id = 2 returning *)
       insert into job select id + 10, state, next from gone union all select id + 10, state, next from changed`,
    ],
  },
  {
    name: "ON CONFLICT and MERGE",
    rows: CHAIN,
    transactions: [
      "insert into job values (1, 'twice', 1), (4, 'new', 1) on conflict (id) do update set state = excluded.state",
      `merge into job using (values (1), (2), (9)) v(n) on id = n when matched and n = 1 then delete
       when matched then update set state = 'merged' when not matched then insert values (n, 'merged', n)`,
    ],
  },
  {
    name: "savepoints",
    rows: CHAIN,
    transactions: [
      `savepoint a; delete from job where id = 1; rollback to a; update job set state = 'kept' where id = 1;
       savepoint b; delete from job where id = 2; release b; insert into job values (2, 'again', 2);
       savepoint c; update job set id = 5 where id = 3; insert into job values (3, 'three', 5); release c`,
    ],
  },
  {
    name: "rows move between partitions, and a trigger moves them on",
    schema: `${TREE}; ${trigger(
      "insert",
      "if new.state = 'moving' then update job set state = 'new', next = 77 where id = new.id; end if",
    )}`,
    rows: CHAIN,
    transactions: [
      "update job set state = 'done' where id < 3",
      "update job set state = 'moving' where id = 1",
    ],
  },
  {
    name: "the table is emptied and filled again",
    rows: CHAIN,
    transactions: [
      "update job set state = 'last' where id = 1; truncate job; insert into job values (1, 'first', 1)",
      "insert into job values (5, 'x', 5); delete from job where id = 5; insert into job values (5, 'y', 5)",
    ],
  },
]

/** What the table held after each transaction, the rows as text. */
type States = string[][]

const texts = (rows: Iterable<unknown>): string[] => [...rows].map((row) => JSON.stringify(row)).sort()

/** A client that applies changes by the rule of the protocol, and loads the table when it is told to. */
class Copy {
  readonly #rows = new Map<string, unknown>()
  #mustLoad = false
  /** After which transactions it had to load the table. */
  readonly loads: number[] = []
  readonly #key: string[]

  constructor(key: string[]) {
    this.#key = key
  }

  apply({ action, key, previous_key, data }: Received): void {
    if (previous_key !== undefined) this.#rows.delete(JSON.stringify(previous_key))
    if (action === "create" || action === "update") this.#rows.set(JSON.stringify(key), data)
    else if (action === "delete" || action === "leave") this.#rows.delete(JSON.stringify(key))
    else if (action === "truncate") this.#rows.clear()
    else this.#mustLoad = true
  }

  /** What it holds after a transaction, when it has loaded the table if it had to. */
  held(transaction: number, state: string[]): string[] {
    if (this.#mustLoad) {
      this.loads.push(transaction)
      this.#mustLoad = false
      this.#rows.clear()
      for (const text of state) {
        const row = JSON.parse(text) as Record<string, unknown>
        this.#rows.set(JSON.stringify(Object.fromEntries(this.#key.map((name) => [name, row[name]]))), row)
      }
    }
    return texts(this.#rows.values())
  }
}

/** Runs the transactions, each with a mark after it. */
async function run(db: Database, transactions: string[]): Promise<States> {
  const states: States = []
  for (const [i, statements] of transactions.entries()) {
    await db.query(`begin; ${statements}; commit`)
    const rows = await db.query<{ row: unknown }>("select row_to_json(j) as row from job j")
    states.push(texts(rows.map(({ row }) => row)))
    await db.query(`select relay.broadcast('election_updates', '${i}')`)
  }
  return states
}

/** Follows the marks, and compares at each. @returns after which transactions the table was loaded. */
async function follow(t: Test, client: Client, states: States, key: string[]): Promise<number[]> {
  await client.first("the last mark", ({ payload }) => payload === states.length - 1)
  const copy = new Copy(key)
  for (const change of client.changes()) {
    if (change.type !== "message") {
      copy.apply(change)
      continue
    }
    const transaction = Number(change.payload)
    const state = states[transaction] ?? []
    t.same(copy.held(transaction, state), state, `after transaction ${transaction}`)
  }
  return copy.loads
}

for (const { name, schema = JOB, rows, transactions, loads = [] } of CASES)
  t.test(name, async (t) => {
    const db = await database(t)
    await db.query(`${schema}; select relay.track('job')`)
    const [tracked] = await db.query<{ key: string[] }>(
      "select key from relay.tracked where type = 'job_update'",
    )
    const key = tracked?.key ?? []
    const relay = await startRelay(t, db)
    const cursor = await cursorNow(db)
    const live = await relay.connect()
    const states = await run(db, [`insert into job values ${rows}`, ...transactions])
    t.same(await follow(t, live, states, key), loads, "live")
    const returned = await (await startRelay(t, db)).connect({}, `?cursor=${cursor}`)
    t.same(await follow(t, returned, states, key), loads, "from the log")
  })
