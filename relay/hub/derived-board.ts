/** The derived board: the present derived values, and the way of a new one to the lanes that see it. */

import type { DerivedValue, DerivedValues } from "../derived/value.ts"
import { flush } from "../fanout/flush.ts"
import type { Lane } from "../fanout/lane.ts"
import { seesValue, valueFrame } from "../fanout/latest-values.ts"
import type { Router } from "../fanout/router.ts"
import { TimeSlice } from "../lib/time-slice.ts"

export interface DerivedBoard {
  /** Replaces the values of a derived message, and sends those that differ. */
  show(set: DerivedValues): void
  /** Gives a new lane every value that it sees. */
  fill(lane: Lane): void
}

interface Entry {
  readonly value: DerivedValue
  readonly version: number
  readonly frame: Buffer
}

export function createDerivedBoard(router: Router): DerivedBoard {
  /** By the derived message, then by channel. */
  const sets = new Map<string, Map<string, Entry>>()
  let version = 0
  let showing: Promise<void> = Promise.resolve()

  const put = (lane: Lane, name: string, { value, version, frame }: Entry): void =>
    lane.latest.put(`${name} ${value.channel}`, version, frame)

  async function send(name: string, changed: readonly Entry[], gone: readonly string[]): Promise<void> {
    const slice = new TimeSlice()
    const touched = new Set<Lane>()
    for (const lane of router.lanes()) {
      for (const channel of gone) lane.latest.delete(`${name} ${channel}`)
      for (const entry of changed) {
        if (!seesValue(entry.value, lane.subscription)) continue
        put(lane, name, entry)
        touched.add(lane)
      }
      if (slice.over) await slice.turn()
    }
    await flush(touched, slice)
  }

  return {
    show({ name, values }) {
      const before = sets.get(name)
      const now = new Map<string, Entry>()
      const changed: Entry[] = []
      for (const value of values) {
        let entry = before?.get(value.channel)
        if (entry?.value.data !== value.data || entry.value.action !== value.action) {
          entry = { value, version: ++version, frame: valueFrame(value) }
          changed.push(entry)
        }
        now.set(value.channel, entry)
      }
      if (now.size === 0) sets.delete(name)
      else sets.set(name, now)
      const gone = [...(before?.keys() ?? [])].filter((channel) => !now.has(channel))
      // One after another, so that a lane's order is that of the versions.
      if (changed.length > 0 || gone.length > 0) showing = showing.then(() => send(name, changed, gone))
    },
    fill(lane) {
      const seen: Array<[string, Entry]> = []
      for (const [name, set] of sets)
        for (const entry of set.values())
          if (seesValue(entry.value, lane.subscription)) seen.push([name, entry])
      seen.sort(([, a], [, b]) => a.version - b.version)
      for (const [name, entry] of seen) put(lane, name, entry)
    },
  }
}
