/**
 * The order of a transaction's changes to one table. The capture writes the changes of a statement at its end, and those
 * that a trigger or a function made meanwhile before the rest of them, so the order of the log is not always the order of
 * the changes. Clients apply one change after another: an insert sets its key, an update removes the previous one and sets
 * its own, a delete removes. Here the changes come into an order in which that ends with what the table holds; where there
 * is none, clients are told to load the table again. Pure.
 */

import type { Change, RowChange, TableChange } from "./change.ts"
import { isIdle as isIdleRow, OrderProof } from "./order-proof.ts"
import { sortChanges } from "./order-sort.ts"

/** How many changes a batch in pages remembers, about 60 MB. Those of one kind alone need not be remembered. */
const REMEMBERED = 250_000

const KIND = { insert: 1, update: 2, delete: 4, truncate: 0, bulk_load: 0 } as const

/** The changes of one transaction to one table. */
class Group {
  readonly xid: string
  readonly table: string
  /** The kinds of row changes that it has, as a sum. */
  kinds = 0
  last: RowChange | TableChange
  /** Where they stand in the batch, if that is not in pages. */
  readonly places: number[] = []
  /** In pages; undefined where not everything is remembered. */
  proof: OrderProof | undefined
  /** Without a proof: whether the order is right all the same. */
  sound = true
  /** Another table of the same transaction. */
  next: Group | undefined

  constructor(change: RowChange | TableChange) {
    this.xid = change.xid
    this.table = change.table
    this.last = change
  }

  count(change: RowChange | TableChange): void {
    if (!isIdle(change)) this.kinds |= KIND[change.op]
    this.last = change
  }

  /** Only inserts, or only deletes: every order of them is right. */
  get ofOneKind(): boolean {
    return this.kinds === 0 || this.kinds === KIND.insert || this.kinds === KIND.delete
  }

  get isRight(): boolean {
    return this.ofOneKind || (this.proof?.holds() ?? this.sound)
  }
}

export interface TransactionOrderOptions {
  /** What earlier pages of the batch had is not known: these go on with a read that was cut. */
  readonly unknown?: boolean
  /** How many changes are remembered at the most. */
  readonly remembered?: number
}

/**
 * Orders the changes of one batch. Changes get another id where the order is another than that of the log, since a client
 * that was cut off within the batch may have had some of them by another read, in the order of the log.
 */
export class TransactionOrder {
  readonly #groups = new Groups()
  readonly #limit: number
  readonly #unknown: boolean
  #remembered = 0
  #paged: boolean

  constructor({ unknown = false, remembered = REMEMBERED }: TransactionOrderOptions = {}) {
    this.#unknown = unknown
    this.#paged = unknown
    this.#limit = remembered
  }

  /**
   * Takes the next page of the batch, in the order of the log, with the updates that change nothing.
   * @param final whether it is the last one.
   * @returns what to send of it. Pages that others follow stay in the order of the log; tables for which that was not the
   * right one are loaded again at the end of the last page.
   * @throws SyntaxError if a row is no JSON object.
   */
  page(changes: readonly Change[], final: boolean): readonly Change[] {
    if (!this.#paged && final) return orderOf(changes)
    this.#paged = true
    for (const change of changes) if (change.kind !== "message") this.#remember(change)
    const kept = changes.some(isIdle) ? changes.filter((change) => !isIdle(change)) : changes
    if (!final) return kept
    const doubtful = [...this.#groups.all()].filter((group) => !group.isRight)
    return doubtful.length === 0 ? kept : [...kept, ...doubtful.map(({ last }) => loadOf(last, "end"))]
  }

  /** For the pages after the present one, if another read brings them: it keeps nothing that grows with the rows. */
  rest(): TransactionOrder {
    const rest = new TransactionOrder({ unknown: this.#unknown, remembered: this.#limit })
    rest.#paged = true
    for (const group of this.#groups.all()) {
      const left = rest.#groups.add(new Group(group.last))
      left.kinds = group.kinds
      left.sound = group.isRight
    }
    return rest
  }

  #remember(change: RowChange | TableChange): void {
    const group = this.#groups.of(change) ?? this.#groups.add(this.#newGroup(change))
    group.count(change)
    if (change.kind === "table") return this.#pass(group, change)
    if (group.proof === undefined) {
      group.sound = false
      return
    }
    const before = group.proof.size
    group.proof.add(change)
    this.#remembered += group.proof.size - before
    if (this.#remembered > this.#limit) this.#forget(group)
  }

  #newGroup(change: RowChange | TableChange): Group {
    const group = new Group(change)
    if (this.#unknown) group.kinds = KIND.insert | KIND.delete
    else group.proof = new OrderProof()
    return group
  }

  #forget(group: Group): void {
    this.#remembered -= group.proof?.size ?? 0
    group.proof = undefined
    group.sound = false
  }

  #pass(group: Group, change: TableChange): void {
    if (isEmptying(change)) {
      this.#forget(group)
      group.proof = new OrderProof()
      group.kinds = 0
      return
    }
    const before = group.proof?.size ?? 0
    group.proof?.pass(change)
    this.#remembered += (group.proof?.size ?? 0) - before
  }
}

/** The changes of whole transactions in a right order. */
function orderOf(changes: readonly Change[]): readonly Change[] {
  const [only] = changes
  if (changes.length <= 1) return only === undefined || isIdle(only) ? [] : changes
  const groups = new Groups()
  let idle = false
  for (const [place, change] of changes.entries()) {
    if (change.kind === "message") continue
    const group = groups.of(change) ?? groups.add(new Group(change))
    group.count(change)
    group.places.push(place)
    idle ||= isIdle(change)
  }
  const mixed: Group[] = []
  for (const group of groups.all()) if (!group.ofOneKind && group.places.length > 1) mixed.push(group)
  if (mixed.length === 0) return idle ? changes.filter((change) => !isIdle(change)) : changes
  const ordered: Array<Change | undefined> = [...changes]
  for (const group of mixed) arrange(ordered, group)
  return ordered.filter((change) => change !== undefined && !isIdle(change)) as Change[]
}

/** Puts the changes of a group into a right order, in the places that they have. */
function arrange(changes: Array<Change | undefined>, { places, last }: Group): void {
  const proof = new OrderProof()
  let start = 0
  let loads = false
  for (const [i, place] of places.entries()) {
    const change = changes[place] as RowChange | TableChange
    if (change.kind === "row") {
      proof.add(change)
      continue
    }
    proof.pass(change)
    loads = !isEmptying(change)
    start = i + 1
  }
  if (proof.holds()) return
  const rows = places.slice(start).map((place) => changes[place] as RowChange)
  // Where the table has to be loaded in any case there is nothing to be gained.
  const sorted = loads ? undefined : sortChanges(rows)
  if (sorted === undefined) {
    for (const place of places) changes[place] = undefined
    changes[places.at(-1) as number] = loadOf(last, "all")
    return
  }
  const sent = places.slice(start).filter((place) => !isIdle(changes[place] as Change))
  if (sorted.every((change, i) => change === changes[sent[i] as number])) return
  for (const [i, change] of sorted.entries())
    changes[sent[i] as number] = { ...change, id: `${change.id}.ordered` }
}

/** Groups by transaction and table. Changes of one mostly follow one another. */
class Groups {
  readonly #byXid = new Map<string, Group>()
  #latest: Group | undefined

  of({ xid, table }: RowChange | TableChange): Group | undefined {
    const latest = this.#latest
    if (latest !== undefined && latest.xid === xid && latest.table === table) return latest
    let group = this.#byXid.get(xid)
    while (group !== undefined && group.table !== table) group = group.next
    if (group !== undefined) this.#latest = group
    return group
  }

  add(group: Group): Group {
    group.next = this.#byXid.get(group.xid)
    this.#byXid.set(group.xid, group)
    this.#latest = group
    return group
  }

  *all(): Generator<Group> {
    for (const group of this.#byXid.values())
      for (let next: Group | undefined = group; next !== undefined; next = next.next) yield next
  }
}

const isIdle = (change: Change): boolean => change.kind === "row" && isIdleRow(change)

/** Whether all rows that the table had are gone; after other truncations and loads the table is loaded again. */
const isEmptying = ({ op, meta }: TableChange): boolean => op === "truncate" && meta.partition === undefined

/** Has clients load the table of a change again. Its id is none that a change has by any other read. */
function loadOf(
  { id, xid, at, table, type, meta }: RowChange | TableChange,
  instead: "all" | "end",
): TableChange {
  const { op, rows, partition, ...rest } = meta
  return { kind: "table", op: "bulk_load", id: `${id}.${instead}`, xid, at, table, type, meta: rest }
}
