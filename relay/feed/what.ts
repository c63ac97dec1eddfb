/** What rows of the log are (relay.what): the table, the type and the operation that many of them share. */

import { z } from "zod"
import { LogRow, Op, readMeta } from "../change/change.ts"

/** What a row is: a change with the same words, or one of the relay's own. */
export type What =
  | ({ kind: "change" } & Pick<LogRow, "table" | "type" | "op" | "oversize" | "meta">)
  | { kind: "revocation" }
  | { kind: "canary" }
  /** It is not what the capture writes. */
  | { kind: "broken"; table: string | null }

export type TableWhat = Extract<What, { kind: "change" }> & { table: string }

const WhatRow = z.object({
  id: z.string(),
  table: z.string().nullable(),
  type: z.string().nullable(),
  op: z.string().nullable(),
  oversize: z.enum(["true", "false"]).nullable(),
  meta: z.string().nullable(),
})

export interface WhatsDeps {
  /** The rows with these ids. */
  find(ids: readonly string[]): Promise<unknown[]>
  /** One kind of change of each table. */
  tables(): Promise<unknown[]>
}

/** Those that a session has met. They never change. */
export class Whats {
  readonly #deps: WhatsDeps
  readonly #known = new Map<string, What>()

  constructor(deps: WhatsDeps) {
    this.#deps = deps
  }

  /** Looks up those of these ids that are not known yet. */
  async learn(ids: Iterable<string | null>): Promise<void> {
    let unknown: Set<string> | undefined
    for (const id of ids) if (id !== null && !this.#known.has(id)) unknown = (unknown ?? new Set()).add(id)
    if (unknown === undefined) return
    for (const row of WhatRow.array().parse(await this.#deps.find([...unknown])))
      this.#known.set(row.id, whatOf(row))
  }

  /** Undefined if there is none with this id, or it was not learnt. */
  get(id: string | null): What | undefined {
    return id === null ? undefined : this.#known.get(id)
  }

  /** A kind of change of each table that was ever tracked. */
  async tables(): Promise<TableWhat[]> {
    const rows = WhatRow.array().parse(await this.#deps.tables())
    return rows.map(whatOf).filter((what): what is TableWhat => what.kind === "change" && what.table !== null)
  }
}

const ChangeWhat = LogRow.pick({ table: true, type: true, oversize: true, meta: true })

function whatOf({ table, type, op, oversize, meta }: z.infer<typeof WhatRow>): What {
  if (op === "revocation" || op === "canary") return { kind: op }
  const known = Op.safeParse(op)
  const change = ChangeWhat.safeParse({ table, type, meta, oversize: oversize === "true" })
  if (!known.success || !change.success || (known.data !== "message" && table === null))
    return { kind: "broken", table }
  try {
    readMeta(meta)
  } catch {
    return { kind: "broken", table }
  }
  return { kind: "change", op: known.data, ...change.data }
}
