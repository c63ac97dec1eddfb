/**
 * A table whose statements have others nested in them, as triggers and functions do, with the log that the capture writes
 * of them. It knows when each change really happened, which the log does not show.
 */

import fc from "fast-check"
import { type Change, Image, type Meta, type RowChange, type TableChange } from "../../relay/change/change.ts"

export interface StoredRow {
  readonly version: string
  readonly key: number
  readonly value: number
}

/** What a statement does to one row, and the statements that run at moments of it. */
export interface RowPlan {
  readonly op: "insert" | "update" | "delete"
  /** Which of the rows, for update and delete. */
  readonly row: number
  /** The new key: as it was if undefined. */
  readonly key: number | undefined
  /** The new value: as it was if undefined. */
  readonly value: number | undefined
  readonly oversize: boolean
  /** As soon as the row is changed; before and after its trigger of the capture, at the end of the statement. */
  readonly within: readonly StatementPlan[]
  readonly before: readonly StatementPlan[]
  readonly after: readonly StatementPlan[]
}

export interface StatementPlan {
  readonly rows: readonly RowPlan[]
}

const KEYS = 5
const VALUES = 3

/** Statements with others nested in them. */
export const statements = fc.letrec<{ statement: StatementPlan; row: RowPlan }>((tie) => ({
  statement: fc.record({ rows: fc.array(tie("row"), { minLength: 1, maxLength: 3 }) }),
  row: fc.record({
    op: fc.constantFrom("insert", "update", "update", "delete"),
    row: fc.nat(7),
    key: fc.option(fc.nat(KEYS - 1), { nil: undefined }),
    value: fc.option(fc.nat(VALUES - 1), { nil: undefined }),
    oversize: fc.constantFrom(false, false, false, true),
    within: nested(tie("statement")),
    before: nested(tie("statement")),
    after: nested(tie("statement")),
  }),
})).statement

function nested(statement: fc.Arbitrary<StatementPlan>): fc.Arbitrary<readonly StatementPlan[]> {
  return fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    { weight: 5, arbitrary: fc.constant([]) },
    { weight: 1, arbitrary: fc.array(statement, { minLength: 1, maxLength: 1 }) },
  )
}

export interface TableOptions {
  /** Two rows may have the same key until the transaction ends. */
  readonly deferred: boolean
  /** Inserts are captured by statement, without versions. */
  readonly byStatement?: boolean
  /** All statements run in savepoints. */
  readonly savepoints?: boolean
}

const about = { xid: "7", at: "2026-11-03 20:15:00+00", table: "public.t", type: "t_update" }

export class NestedTable {
  readonly log: Change[] = []
  readonly #options: TableOptions
  #rows: StoredRow[]
  readonly #meta: Meta
  #versions = 0

  constructor(rows: readonly StoredRow[], options: TableOptions) {
    this.#rows = [...rows]
    this.#options = options
    this.#meta = { key: ["id"], exact: [], scope: {}, restricted: [], deferred: options.deferred }
  }

  get rows(): readonly StoredRow[] {
    return this.#rows
  }

  get isUnique(): boolean {
    return new Set(this.#rows.map(({ key }) => key)).size === this.#rows.length
  }

  /** Everything or a part of it goes, outside of any statement. */
  truncate(partition?: string): void {
    this.#rows = partition === undefined ? [] : this.#rows.filter(({ key }) => key % 2 === 0)
    this.#versions = partition === undefined ? 0 : this.#versions
    const change: TableChange = {
      kind: "table",
      op: "truncate",
      id: this.#nextId(),
      ...about,
      meta: partition === undefined ? this.#meta : { ...this.#meta, partition },
    }
    this.log.push(change)
  }

  run({ rows }: StatementPlan): void {
    // Another statement may change a row that this one has seen, which PostgreSQL then passes over or refuses.
    const seen = new Set(this.#rows)
    const queue: Array<{ plan: RowPlan; write: (() => void) | undefined }> = []
    const inserted: Array<() => void> = []
    for (const plan of rows) {
      const write = this.#change(plan, seen)
      if (write === undefined) continue
      const atEnd = plan.op === "insert" && this.#options.byStatement === true
      if (atEnd) inserted.push(write)
      queue.push({ plan, write: atEnd ? undefined : write })
      for (const statement of plan.within) this.run(statement)
    }
    for (const { plan, write } of queue) {
      for (const statement of plan.before) this.run(statement)
      write?.()
      for (const statement of plan.after) this.run(statement)
    }
    for (const write of inserted) write()
  }

  /** Changes a row at once. @returns what writes the change to the log; undefined if nothing was changed. */
  #change(plan: RowPlan, seen: ReadonlySet<StoredRow>): (() => void) | undefined {
    if (plan.op === "insert") {
      const row = { version: this.#nextVersion(), key: plan.key ?? 0, value: plan.value ?? 0 }
      if (this.#taken(row.key)) return undefined
      this.#rows.push(row)
      return () => this.#write("insert", undefined, row, plan.oversize)
    }
    const old = this.#rows[plan.row % Math.max(1, this.#rows.length)]
    if (old === undefined || !seen.has(old)) return undefined
    if (plan.op === "delete") {
      this.#rows = this.#rows.filter((row) => row !== old)
      return () => this.#write("delete", old, undefined, plan.oversize)
    }
    const row = {
      version: this.#nextVersion(),
      key: plan.key ?? old.key,
      value: plan.value ?? old.value,
    }
    if (row.key !== old.key && this.#taken(row.key)) return undefined
    this.#rows = this.#rows.map((each) => (each === old ? row : each))
    return () => this.#write("update", old, row, plan.oversize)
  }

  #write(
    op: RowChange["op"],
    old: StoredRow | undefined,
    row: StoredRow | undefined,
    oversize: boolean,
  ): void {
    const image = ({ key, value }: StoredRow) => new Image(imageText(key, oversize ? undefined : value), {})
    this.log.push({
      kind: "row",
      op,
      id: this.#nextId(),
      ...about,
      meta: this.#meta,
      oversize,
      oldVersion: old?.version,
      ...this.#versionOf(op, old, row),
      before: old && image(old),
      after: row && image(row),
    })
  }

  /** What the capture knows of versions when it writes. */
  #versionOf(op: RowChange["op"], old: StoredRow | undefined, row: StoredRow | undefined) {
    if (op === "delete") return { newVersion: undefined, live: false, oldXmin: this.#xminOf(old) }
    if (op === "update") return { newVersion: row?.version, live: false }
    if (this.#options.byStatement === true) return { newVersion: undefined, live: false }
    const live = row !== undefined && this.#rows.includes(row)
    return { newVersion: live ? undefined : row?.version, live }
  }

  #xminOf(old: StoredRow | undefined): string {
    if (old?.version.startsWith("(9,") === true) return "3"
    return this.#options.savepoints === true ? "8" : about.xid
  }

  #taken(key: number): boolean {
    return !this.#options.deferred && this.#rows.some((row) => row.key === key)
  }

  #nextVersion(): string {
    return `(0,${++this.#versions})`
  }

  #nextId(): string {
    return String(this.log.length + 1)
  }
}

function imageText(key: number, value: number | undefined): string {
  return value === undefined ? `{"id":${key}}` : `{"id":${key},"value":${value}}`
}
