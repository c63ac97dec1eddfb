/** The file descriptors that this process may have, of which each client takes one. */

import { readFileSync } from "node:fs"

/** For the sessions in the database, files, name resolution and what Node itself has open. */
const RESERVED = 64
/** For requests that are no connections: health and metrics answer when all places for clients are taken. */
const FOR_REQUESTS = 32
/** However few there are. */
const LEAST = 8

export interface Room {
  readonly descriptors: number
  /** How many clients may be connected. */
  readonly clients: number
  /** How many sockets there may be at all. */
  readonly sockets: number
}

/** The room for sockets beside what the relay itself needs; undefined where the system does not tell (it is not Linux). */
export function roomForSockets(): Room | undefined {
  const descriptors = limitOf(limitsOfProcess())
  if (descriptors === undefined) return undefined
  const sockets = Math.max(LEAST, descriptors - RESERVED)
  return { descriptors, sockets, clients: Math.max(LEAST, sockets - FOR_REQUESTS) }
}

const limitOf = (text: string): number | undefined => {
  const [, soft] = /^Max open files +(\d+)/m.exec(text) ?? []
  return soft === undefined ? undefined : Number(soft)
}

function limitsOfProcess(): string {
  try {
    return readFileSync("/proc/self/limits", "utf8")
  } catch {
    return ""
  }
}
