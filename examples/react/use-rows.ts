/** The rows of a table as they are now, for a component. */

import { connect, type Feed } from "commitcast-client"
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
    let feed: Feed
    let frame = 0

    // Once for each frame of the screen, however many changes came meanwhile.
    const show = () => {
      frame ||= requestAnimationFrame(() => {
        frame = 0
        setView({ rows: [...rows.values()], kind: feed.state.kind })
      })
    }

    function follow() {
      feed = connect({
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
        if (change.action === "truncate" || change.action === "bulk_load") {
          // These name no rows: load all of them.
          feed.close()
          return follow()
        }
        if (change.action === "update" && change.previous_key) rows.delete(Number(change.previous_key.id))
        if (change.action === "delete" || change.action === "leave") rows.delete(Number(change.key.id))
        else rows.set(Number(change.key.id), change.data as unknown as Row)
        show()
      })
    }

    follow()
    return () => {
      feed.close()
      cancelAnimationFrame(frame)
    }
  }, [source])

  return view
}
