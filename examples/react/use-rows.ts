/** The rows of a table as they are now, for a component. */

import { connect } from "commitcast-client"
import { useEffect, useState } from "react"

/** Make it once, outside of the component: another one is another feed. */
export interface Source<Row> {
  /** The relay. */
  url: string
  getToken: () => Promise<string>
  /** The table's message type, such as `voting_update`. */
  type: string
  /** All rows, and the cursor of the same snapshot. */
  load: (signal: AbortSignal) => Promise<{ rows: Row[]; cursor: string }>
}

export interface View<Row> {
  rows: Row[]
  /** What the feed is doing: they are up to date while it is `live`. */
  kind: string
}

export function useRows<Row extends { id: number }>(source: Source<Row>): View<Row> {
  const [view, setView] = useState<View<Row>>({ rows: [], kind: "authenticating" })

  useEffect(() => {
    const rows = new Map<number, Row>()
    let frame = 0

    // Once for each frame of the screen, however many changes came meanwhile.
    const show = () => {
      frame ||= requestAnimationFrame(() => {
        frame = 0
        setView({ rows: [...rows.values()], kind: feed.state.kind })
      })
    }

    const feed = connect({
      url: source.url,
      getToken: source.getToken,
      types: [source.type],
      async resync({ signal }) {
        const loaded = await source.load(signal)
        rows.clear()
        for (const row of loaded.rows) rows.set(row.id, row)
        show()
        return loaded
      },
    })
    feed.on("state", show)
    feed.on("change", (change) => {
      if ("previous_key" in change && change.previous_key) rows.delete(Number(change.previous_key.id))
      if (change.action === "truncate") rows.clear()
      else if (change.action === "delete" || change.action === "leave") rows.delete(Number(change.key.id))
      // Without data, for a bulk load or a row that is too large, the feed has everything loaded again.
      else if ("data" in change && change.data) rows.set(Number(change.key.id), change.data as Row)
      show()
    })
    return () => {
      feed.close()
      cancelAnimationFrame(frame)
    }
  }, [source])

  return view
}
