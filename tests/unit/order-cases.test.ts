/** The order of a transaction's changes, case by case. */

import t from "tap"
import { type Change, Image, type RowChange, type TableChange } from "../../relay/change/change.ts"
import { TransactionOrder } from "../../relay/change/order.ts"

const idsOf = (changes: readonly Change[]): string[] => changes.map(({ id }) => id)
const opsOf = (changes: readonly Change[]): string[] => changes.map(({ op }) => op)
const whole = (log: readonly Change[]): readonly Change[] => new TransactionOrder().page(log, true)

function inPages(log: readonly Change[], size: number, order = new TransactionOrder()): Change[] {
  const sent: Change[] = []
  for (let from = 0; from < log.length; from += size)
    sent.push(...order.page(log.slice(from, from + size), from + size >= log.length))
  return sent
}

let seq = 0
const image = (key: number, value: number) => new Image(`{"id":${key},"value":${value}}`, {})
const row = {
  kind: "row",
  xid: "7",
  at: "2026-11-03 20:15:00+00",
  table: "public.t",
  type: "t_update",
} as const
const meta = { key: ["id"], exact: [], scope: {}, restricted: [] }
const id = () => String(seq++)

t.test("more than it remembers is loaded again, except where all are of one kind", async (t) => {
  const inserts = Array.from({ length: 30 }, (_, key) => insert(key))
  const order = new TransactionOrder({ remembered: 10 })
  t.same(inPages(inserts, 10, order), inserts)
  const updates = Array.from({ length: 30 }, (_, key) => update(key, key))
  const sent = inPages(updates, 10, new TransactionOrder({ remembered: 10 }))
  t.same(sent.slice(0, -1), updates)
  t.match(sent.at(-1), {
    kind: "table",
    op: "bulk_load",
    id: `${updates.at(-1)?.id}.end`,
    table: "public.t",
  })
  t.same(inPages(updates, 10), updates)
  const idle = Array.from({ length: 30 }, (_, key) => ({ ...update(key, key), after: image(key, 0) }))
  t.same(inPages(idle, 10, new TransactionOrder({ remembered: 10 })), [])
})

t.test("transactions and tables are ordered apart, and each stays in its places", async (t) => {
  const wrong = (about: Partial<RowChange>) => [
    { ...update(1, 1, "(0,2)", "(0,3)"), ...about, id: `${about.xid}${about.table}1` },
    { ...update(1, 1, "(0,1)", "(0,2)"), ...about, id: `${about.xid}${about.table}2` },
  ]
  const groups = [
    wrong({ xid: "1", table: "a" }),
    wrong({ xid: "1", table: "b" }),
    wrong({ xid: "2", table: "a" }),
  ]
  const log = [0, 1].flatMap((n) => groups.map((group) => group[n] as Change))
  t.strictSame(
    whole(log).map(({ id }) => id),
    ["1a2", "1b2", "2a2", "1a1", "1b1", "2a1"].map((id) => `${id}.ordered`),
  )
})

t.test(
  "an update that changes nothing is not sent, and still connects the versions of its row",
  async (t) => {
    const idle = { ...update(1, 1, "(0,2)", "(0,3)"), before: image(1, 2), after: image(1, 2) }
    t.same(whole([idle]), [])
    const log = [remove(1, "(0,3)"), { ...insert(1), newVersion: "(0,2)" }, idle]
    t.strictSame(
      whole(log).map(({ op }) => op),
      ["insert", "delete"],
    )
    t.strictSame(whole([{ ...idle, oversize: true }]).length, 1)
  },
)

t.test("what is right in the order of the log keeps its ids, and so do the pages of it", async (t) => {
  const log = [insert(1), update(1, 1, "(0,1)", "(0,11)"), remove(1, "(0,11)"), insert(2)]
  t.strictSame(whole(log), log)
  t.strictSame(inPages(log, 1), log)
})

t.test(
  "deleting a row and inserting the same again looks like inserting one that is then deleted",
  async (t) => {
    const again = { ...insert(1), newVersion: undefined }
    t.strictSame(opsOf(whole([remove(1, "(0,1)"), again])), ["bulk_load"])
    t.strictSame(opsOf(whole([again, remove(1, "(0,1)")])), ["bulk_load"])
    const another = { ...again, after: image(1, 7) }
    t.strictSame(opsOf(whole([remove(1, "(0,1)"), another])), ["delete", "insert"])
  },
)

t.test("what was inserted by statement and then updated is certain while the key stays", async (t) => {
  const made = { ...insert(1), newVersion: undefined }
  t.strictSame(opsOf(whole([made, update(1, 1)])), ["insert", "update"])
  t.strictSame(opsOf(whole([update(1, 1), made])), ["insert", "update"])
  t.strictSame(opsOf(whole([made, update(1, 2)])), ["bulk_load"])
  t.strictSame(opsOf(whole([made, update(1, 1), { ...insert(1), newVersion: undefined }])), ["bulk_load"])
})

t.test("an insert that was live when it was logged is older than what replaces its row", async (t) => {
  const made = { ...insert(1), newVersion: undefined, live: true }
  const removed = (oldXmin: string) => ({ ...remove(1, "(0,1)"), oldXmin })
  t.strictSame(opsOf(whole([removed("3"), made])), ["delete", "insert"])
  t.strictSame(opsOf(whole([made, removed("7")])), ["insert", "delete"])
  t.strictSame(opsOf(whole([made, removed("3")])), ["delete", "insert"], "the row of another transaction")
  t.strictSame(opsOf(whole([made, removed("8")])), ["bulk_load"], "of a savepoint, or of a later transaction")
  t.strictSame(opsOf(whole([made, update(1, 1), remove(1, "(1,1)")])), ["insert", "update", "delete"])
  t.strictSame(opsOf(whole([made, update(1, 2)])), ["bulk_load"])
})

t.test("xids are compared as PostgreSQL does, in a circle", async (t) => {
  const made = { ...insert(1), newVersion: undefined, live: true, xid: String(2n ** 32n + 5n) }
  const removed = (oldXmin: string) => ({ ...remove(1, "(0,1)"), oldXmin, xid: made.xid })
  t.strictSame(opsOf(whole([made, removed("5")])), ["insert", "delete"])
  t.strictSame(opsOf(whole([made, removed("4294967290")])), ["delete", "insert"])
})

t.test("versions that contradict one another are loaded again", async (t) => {
  t.strictSame(opsOf(whole([{ ...insert(1) }, { ...insert(2), newVersion: "(0,1)" }, remove(3, "(0,3)")])), [
    "bulk_load",
  ])
  // The row had another key meanwhile, of which the log has nothing.
  t.strictSame(opsOf(whole([insert(1), remove(2, "(0,1)")])), ["bulk_load"])
})

t.test("after a truncation nothing that came before it counts", async (t) => {
  const log = [remove(1, "(0,2)"), remove(2, "(0,1)"), truncate(), insert(1), update(1, 1, "(0,1)", "(0,2)")]
  t.strictSame(idsOf(whole(log)), idsOf(log))
  const deferred = { ...meta, deferred: true }
  const gone = [truncate(), { ...insert(1), meta: deferred }, { ...remove(1, "(0,1)"), meta: deferred }]
  t.strictSame(idsOf(whole(gone)), idsOf(gone))
  t.strictSame(opsOf(whole(gone.slice(1))), ["bulk_load"])
})

t.test("after a truncation of a part a row can have been replaced before it", async (t) => {
  const log = [remove(1, "(0,1)"), truncate("public.t_2"), insert(1)]
  t.strictSame(opsOf(whole(log)), ["bulk_load"])
  t.strictSame(opsOf(inPages(log, 2)), ["delete", "truncate", "insert", "bulk_load"])
})

t.test("a read that goes on for another one knows which tables were in a wrong order", async (t) => {
  const order = new TransactionOrder()
  order.page([update(1, 1, "(0,2)", "(0,3)"), update(1, 1, "(0,1)", "(0,2)")], false)
  const other = { ...insert(1), table: "public.other" }
  t.strictSame(opsOf(order.rest().page([other], true)), ["insert", "bulk_load"])
})

function truncate(partition?: string): TableChange {
  const about = { ...row, kind: "table", op: "truncate", id: id() } as const
  return { ...about, meta: partition === undefined ? meta : { ...meta, partition } }
}

function insert(key: number): RowChange {
  const versions = { oldVersion: undefined, newVersion: `(0,${key})`, live: false }
  return {
    ...row,
    op: "insert",
    id: id(),
    meta,
    oversize: false,
    ...versions,
    before: undefined,
    after: image(key, 0),
  }
}

function update(from: number, to: number, oldVersion = `(0,${from})`, newVersion = `(1,${from})`): RowChange {
  const images = { before: image(from, 0), after: image(to, 1) }
  return {
    ...row,
    op: "update",
    id: id(),
    meta,
    oversize: false,
    oldVersion,
    newVersion,
    live: false,
    ...images,
  }
}

function remove(key: number, oldVersion: string): RowChange {
  const versions = { oldVersion, newVersion: undefined, live: false }
  return {
    ...row,
    op: "delete",
    id: id(),
    meta,
    oversize: false,
    ...versions,
    before: image(key, 0),
    after: undefined,
  }
}
