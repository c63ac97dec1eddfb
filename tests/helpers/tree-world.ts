/** The trees model's world: one session that writes tables, and a follower that must hold what they hold at every rest. */

import type pg from "pg"
import { copyIn } from "./log.ts"
import type { TreeFollower } from "./tree-follower.ts"
import { type TablePlan, tableSql, trackedNames } from "./tree-schema.ts"
import {
  type AlterationPlan,
  type StatementPlan,
  statementOf,
  type Target,
  type TransactionPlan,
} from "./tree-statements.ts"
import { problemsOf, readRows, trackedTables } from "./tree-tables.ts"

/** A partition that was taken away, and where it belongs. */
interface Detached {
  readonly leaf: string
  readonly parent: string
  readonly bound: string
  readonly dropped: boolean
}

export interface Counts {
  transactions: number
  failed: number
  alterations: number
  rests: number
  loads: number
  compared: number
}

export class TreeWorld {
  readonly #session: pg.Client
  readonly #follower: TreeFollower
  readonly #schema: string
  readonly #counts: Counts
  readonly #plans: readonly TablePlan[]
  readonly #trail: string[] = []
  readonly #detached: Detached[] = []
  /** Changes of these went by unseen, as was asked for or is documented. */
  readonly #unseen = new Set<string>()
  #marks = 0

  constructor(
    session: pg.Client,
    follower: TreeFollower,
    schema: string,
    plans: readonly TablePlan[],
    counts: Counts,
  ) {
    this.#session = session
    this.#follower = follower
    this.#schema = schema
    this.#plans = plans
    this.#counts = counts
  }

  async build(): Promise<void> {
    await this.#run(`create schema ${this.#schema}`)
    await this.#run(`set search_path = ${this.#schema}, public; create type mood as enum ('calm', 'wild')`)
    for (const [i, plan] of this.#plans.entries()) {
      for (const statement of tableSql(`t${i}`, plan)) await this.#run(statement)
      await this.#track(i)
    }
    for (const [i, plan] of this.#plans.entries()) {
      const ids = plan.shape === "text key" ? "g::text" : "g"
      await this.#run(
        `insert into t${i} (id, k, v, link) select ${ids}, g % 3, 0, g + 1 from generate_series(1, 4) g`,
      )
    }
    await this.rest()
  }

  async clear(): Promise<void> {
    await this.#session.query("rollback")
    await this.#session.query(
      `select relay.untrack(target) from relay.tracked where name like '${this.#schema}.%'; drop schema ${this.#schema} cascade`,
    )
  }

  async transaction({ statements, bulk, end }: TransactionPlan): Promise<void> {
    this.#counts.transactions++
    await this.#run("begin")
    if (bulk !== "none") await this.#run(`set local relay.bulk_load = '${bulk}'`)
    let failed = false
    for (const plan of statements) {
      failed = !(await this.#statement(plan))
      if (failed) break
    }
    if (failed) this.#counts.failed++
    if (!(await this.#try(failed ? "rollback" : end))) this.#counts.failed++
    else if (bulk === "on")
      for (const { name } of await trackedTables(this.#session, this.#schema)) this.#unseen.add(name)
    await this.rest()
  }

  async alter(plan: AlterationPlan): Promise<void> {
    this.#counts.alterations++
    await this.#alter(plan)
    await this.#run("select relay.watch()")
    for (const { name, problem } of await problemsOf(this.#session, this.#schema)) {
      const mended = await this.#session.query<{ it: string | null }>(
        "select relay.mend($1::regclass) as it",
        [name],
      )
      this.#trail.push(`mend ${name}: ${problem}: ${mended.rows[0]?.it}`)
    }
    for (const { name, problem } of await problemsOf(this.#session, this.#schema)) {
      this.#trail.push(`track ${name} again: ${problem}`)
      this.#unseen.add(name)
      await this.#track(this.#indexOf(name))
    }
    await this.rest()
  }

  /** Waits until everything has come, loads what is to be loaded, and compares the rest. @throws where something differs. */
  async rest(): Promise<void> {
    this.#counts.rests++
    // The second is in a later batch: by then all of the first has come.
    for (let mark = 0; mark < 2; mark++) {
      const text = `${this.#schema} ${this.#marks++}`
      const seen = this.#follower.sees(text)
      await this.#session.query("select relay.broadcast('election_updates', to_jsonb($1::text))", [text])
      await seen.catch((error: Error) => {
        throw new Error(`${error.message}\n${this.#trail.join(";\n")}`)
      })
    }
    const arrived = this.#follower.trail
    for (const tracked of await trackedTables(this.#session, this.#schema)) {
      const rows = await readRows(
        this.#session,
        tracked,
        this.#plans[this.#indexOf(tracked.name)] as TablePlan,
      )
      if (this.#unseen.has(tracked.name) || this.#follower.mustLoad(tracked.name)) {
        this.#counts.loads++
        this.#follower.load(tracked.name, rows)
        continue
      }
      this.#counts.compared++
      const difference = this.#follower.difference(tracked.name, rows)
      if (difference === undefined) continue
      const last = arrived.slice(-20).join("\n  ")
      throw new Error(`${tracked.name}: ${difference}\n${this.#trail.join(";\n")}\ncame:\n  ${last}`)
    }
    this.#unseen.clear()
    this.#follower.forgetTrail()
  }

  async #statement(plan: StatementPlan): Promise<boolean> {
    const { sql, copy } = statementOf(plan, await this.#target(plan))
    if (plan.savepoint === "none") return this.#try(sql, copy)
    await this.#run("savepoint s")
    const done = await this.#try(sql, copy)
    return this.#try(plan.savepoint === "kept" && done ? "release s" : "rollback to s")
  }

  async #target({ table, leaf }: { table: number; leaf: number }): Promise<Target> {
    const index = table % this.#plans.length
    const { shape } = this.#plans[index] as TablePlan
    const name = `t${index}`
    const tables = await this.#tree(name)
    return { name, shape, written: tables[leaf] ?? name }
  }

  /** A table and all below it. */
  async #tree(name: string): Promise<string[]> {
    const { rows } = await this.#session.query<{ name: string }>(
      `select relid::regclass::text as name from pg_partition_tree($1::regclass)
       union select inhrelid::regclass::text from pg_inherits where inhparent = $1::regclass order by 1`,
      [name],
    )
    return rows.map((row) => row.name)
  }

  async #alter({ kind, table, leaf }: AlterationPlan): Promise<void> {
    const { name, written, shape } = await this.#target({ table, leaf })
    const id = shape === "text key" ? "'5'" : "5"
    const insert = `insert into %s (id, k, v) values (${id}, 1, 1) on conflict do nothing`
    switch (kind) {
      case "detach":
      case "drop partition":
        await this.#takeAway(written, kind === "drop partition")
        return
      case "attach":
      case "create partition":
        await this.#bringBack(kind === "create partition")
        return
      case "fill and attach":
        if (!(await this.#takeAway(written, false))) return
        await this.#try(insert.replace("%s", written))
        await this.#bringBack(false)
        return
      case "rename":
        await this.#run(`alter table ${name} rename to ${name}_away`)
        await this.#try(insert.replace("%s", `${name}_away`))
        await this.#run(`alter table ${name}_away rename to ${name}`)
        return
      case "rename column":
        await this.#run(`alter table ${name} rename note to memo`)
        await this.#try(`update ${name} set memo = 'memo', v = 3`)
        await this.#run(`alter table ${name} rename memo to note`)
        return
      case "add column":
        await this.#try(`alter table ${name} add extra int default 3`)
        await this.#try(`update ${name} set extra = 4, v = 3`)
        return
      case "drop column":
        await this.#try(`alter table ${name} drop spare`)
        await this.#try(`update ${name} set v = 2`)
        return
      case "disable trigger":
        await this.#try(`alter table ${written} disable trigger user`)
        await this.#try(insert.replace("%s", name))
        await this.#try(`alter table ${written} enable trigger user`)
        return
      case "drop and make again":
        await this.#run(`drop table ${name} cascade`)
        await this.#forgetDetached(name)
        for (const statement of tableSql(name, this.#plans[table % this.#plans.length] as TablePlan))
          await this.#run(statement)
    }
  }

  async #takeAway(leaf: string, drop: boolean): Promise<boolean> {
    const { rows } = await this.#session.query<{ parent: string; bound: string }>(
      `select inhparent::regclass::text as parent, pg_get_expr(relpartbound, oid) as bound
       from pg_class join pg_inherits on inhrelid = oid where oid = $1::regclass and relispartition and relkind = 'r'`,
      [leaf],
    )
    const [found] = rows
    if (found === undefined) return false
    if (drop) await this.#run(`drop table ${leaf}`)
    else await this.#run(`alter table ${found.parent} detach partition ${leaf}`)
    this.#detached.push({ leaf, ...found, dropped: drop })
    return true
  }

  async #forgetDetached(name: string): Promise<void> {
    const gone = this.#detached.filter(({ leaf }) => leaf.startsWith(`${name}_`))
    for (const { leaf } of gone) await this.#run(`drop table if exists ${leaf}`)
    for (const each of gone) this.#detached.splice(this.#detached.indexOf(each), 1)
  }

  async #bringBack(dropped: boolean): Promise<void> {
    const index = this.#detached.findIndex((each) => each.dropped === dropped)
    const [back] = index === -1 ? [] : this.#detached.splice(index, 1)
    if (back === undefined) return
    const { leaf, parent, bound } = back
    await this.#try(
      dropped
        ? `create table ${leaf} partition of ${parent} ${bound}`
        : `alter table ${parent} attach partition ${leaf} ${bound}`,
    )
  }

  async #track(index: number): Promise<void> {
    const plan = this.#plans[index] as TablePlan
    const level = plan.shape === "by statement" ? "statement" : "row"
    for (const name of trackedNames(`t${index}`, plan))
      await this.#run(
        `select relay.track('${this.#schema}.${name}', type => '${this.#schema}_${name}_update', exclude => '{secret}', level => '${level}')`,
      )
  }

  #indexOf(name: string): number {
    return Number(/\.t(\d)/.exec(name)?.[1] ?? 0)
  }

  async #run(sql: string): Promise<void> {
    this.#trail.push(sql)
    await this.#session.query(sql)
  }

  /** @returns false if it failed. */
  async #try(sql: string, copy?: string): Promise<boolean> {
    try {
      this.#trail.push(copy === undefined ? sql : `${sql} -- ${copy}`)
      if (copy === undefined) await this.#session.query(sql)
      else await copyIn(this.#session, sql, copy)
      return true
    } catch (error) {
      this.#trail.push(`-- failed: ${(error as Error).message}`)
      return false
    }
  }
}
