/** Statements for the trees model. Any of them may fail, and then changes nothing. */

import fc from "fast-check"
import type { Shape } from "./tree-schema.ts"

export const STATEMENTS = [
  "insert",
  "insert",
  "insert several",
  "insert ignoring",
  "upsert",
  "update",
  "update",
  "update all",
  "change nothing",
  "move",
  "move the key",
  "move all keys",
  "swap keys",
  "delete",
  "delete several",
  "merge",
  "copy",
  "truncate",
  "several",
  "insert again",
  "touch",
  "remove",
  "delete and insert again",
  "insert and remove",
  "upsert and touch",
  "two with one key",
] as const

export interface StatementPlan {
  readonly kind: (typeof STATEMENTS)[number]
  /** Which table, and which of its tree: the root if it is beyond them. */
  readonly table: number
  readonly leaf: number
  readonly a: number
  readonly b: number
  readonly k: number
  readonly v: number
  /** In a savepoint of its own, which may be rolled back. */
  readonly savepoint: "none" | "kept" | "rolled back"
}

const id = fc.integer({ min: 1, max: 6 })

export const statementPlan: fc.Arbitrary<StatementPlan> = fc.record({
  kind: fc.constantFrom(...STATEMENTS),
  table: fc.nat(3),
  leaf: fc.nat(9),
  a: id,
  b: id,
  k: fc.nat(2),
  v: fc.nat(3),
  savepoint: fc.constantFrom("none", "none", "none", "kept", "rolled back"),
})

/** Where a statement writes. */
export interface Target {
  /** The root. */
  readonly name: string
  readonly written: string
  readonly shape: Shape
}

export type Statement = { readonly sql: string; readonly copy?: string }

const KEY_COLUMNS: Partial<Record<Shape, string>> = {
  "composite key": "id, k",
  list: "id, k",
  range: "id, k",
  deep: "id, k",
}

/** What a plan is for a table. */
export function statementOf(plan: StatementPlan, { name, written, shape }: Target): Statement {
  const { kind, a, b, k, v } = plan
  const text = shape === "text key"
  const lit = (n: number): string => (text ? `'${n}'` : String(n))
  const next = (column: string): string => (text ? `(${column}::int + 1)::text` : `${column} + 1`)
  const row = (n: number, extra = 0): string => `(${lit(n)}, ${k}, ${v + extra}, ${b})`
  const into = `insert into ${written} (id, k, v, link) values`
  const key = KEY_COLUMNS[shape] ?? "id"
  const upsert = `${into} ${row(a)} on conflict (${key}) do update set v = coalesce(${written}.v, 0) + 1, note = excluded.note`
  const fresh = (n: number): string =>
    `select ${lit(n)}, ${k}, ${v}, ${b} where not exists (select from ${name} where id = ${lit(n)})`
  const several = `id in (${lit(a)}, ${lit(b)})`
  const sql: Record<StatementPlan["kind"], string> = {
    insert: `insert into ${written} (id, k, v, link) ${fresh(a)}`,
    "insert several": `${into} ${row(a)}, ${row(b, 1)} on conflict do nothing`,
    "insert ignoring": `${into} ${row(a)} on conflict do nothing`,
    upsert,
    update: `update ${written} set v = ${v}, mood = 'wild', raw = '\\x00', link = ${b} where id = ${lit(a)}`,
    "update all": `update ${written} set v = coalesce(v, 0) + 1, doc = '{"b": null}', secret = 'other'`,
    "change nothing": `update ${written} set v = v, secret = 'hush ${v}' where id = ${lit(a)}`,
    move: `update ${written} set k = ${k} where ${several}`,
    "move the key": `update ${written} set id = ${lit(b)} where id = ${lit(a)} and not exists (select from ${name} where id = ${lit(b)})`,
    "move all keys": `update ${written} set id = ${next("id")}`,
    "swap keys": `update ${written} set id = case id when ${lit(a)} then ${lit(b)} else ${lit(a)} end where ${several}`,
    delete: `delete from ${written} where id = ${lit(a)}`,
    "delete several": `delete from ${written} where k = ${k}`,
    merge: `merge into ${written} t using (values (${lit(a)}), (${lit(b)})) s (id) on t.id = s.id
      when matched and t.v > 1 then delete when matched then update set v = ${v} when not matched then insert (id, k, v) values (s.id, ${k}, ${v})`,
    copy: `copy ${written} (id, k, v, link) from stdin`,
    truncate: `truncate ${written}`,
    several: `with gone as (delete from ${written} where id = ${lit(a)} returning *), changed as (update ${written} set v = ${v} where id = ${lit(b)} returning *)
      insert into ${name} (id, k, v) select ${next("id")}, k, ${v} from gone on conflict do nothing`,
    "insert again": `with gone as (delete from ${written} where ${several} returning *) select count(*) from gone, lateral ${name}_again(gone.id)`,
    touch: `update ${written} set v = ${v} where ${several} returning ${name}_touch(id)`,
    remove: `update ${written} set v = ${v} where ${several} returning ${name}_remove(id)`,
    "delete and insert again": `delete from ${written} where ${several} returning ${name}_again(id)`,
    "insert and remove": `${into} ${row(a)}, ${row(b, 1)} on conflict do nothing returning ${name}_remove(id)`,
    // Of a deferrable key there may be two until the transaction ends.
    "two with one key": `do $do$ begin insert into ${written} (id, k, v) values (${lit(a)}, ${k}, 99); delete from ${name} where id = ${lit(a)} and v = 99; end $do$`,
    "upsert and touch": `${upsert} returning ${name}_touch(id), ${name}_again(id)`,
  }
  return kind === "copy" ? { sql: sql.copy, copy: `${a}\t${k}\t${v}\t${b}\n` } : { sql: sql[kind] }
}

/** What is done to the tables themselves. */
export const ALTERATIONS = [
  "detach",
  "attach",
  "create partition",
  "drop partition",
  "rename",
  "rename column",
  "add column",
  "drop column",
  "disable trigger",
  "drop and make again",
  "fill and attach",
] as const

export interface AlterationPlan {
  readonly kind: (typeof ALTERATIONS)[number]
  readonly table: number
  readonly leaf: number
}

export const alterationPlan: fc.Arbitrary<AlterationPlan> = fc.record({
  kind: fc.constantFrom(...ALTERATIONS),
  table: fc.nat(3),
  leaf: fc.nat(9),
})

export interface TransactionPlan {
  readonly statements: readonly StatementPlan[]
  readonly bulk: "none" | "summary" | "on"
  readonly end: "commit" | "rollback"
}

export const transactionPlan: fc.Arbitrary<TransactionPlan> = fc.record({
  statements: fc.array(statementPlan, { minLength: 1, maxLength: 5 }),
  bulk: fc.constantFrom("none", "none", "none", "none", "none", "none", "none", "summary", "summary", "on"),
  end: fc.constantFrom("commit", "commit", "commit", "commit", "commit", "rollback"),
})
