/** Notifications: what may come on the channel of the bell. */

import { z } from "zod"
import { readJson } from "../lib/json.ts"

const Notification = z.union([
  /** A transaction was committed. */
  z.object({ v: z.literal(1), table: z.string(), op: z.string(), rows: z.number(), xid: z.string() }),
  /** A relay polls, so that writers do not ring. */
  z.object({ v: z.literal(1), lease: z.number() }),
  /** A relay sees whether its own notification comes back. */
  z.object({ v: z.literal(1), canary: z.string() }),
])
export type Notification = { xid: string } | { lease: number } | { canary: string }

/** Names of 63 characters, in quotes and escaped, and what stands beside them. A longer one is nobody's and is not parsed. */
const MAX_PAYLOAD = 2_000

/** A bell as the capture writes it: a read waits until it is known, and this finds it in no time. */
const BELL =
  /^\{"v":1,"table":"(?:[^"\\]|\\.)*","op":"[a-z_]{1,20}","rows":\d{1,15},"xid":"(?<xid>\d{1,20})"\}$/

/** @returns undefined for anything else: anybody may notify. */
export function readNotification(payload: unknown): Notification | undefined {
  if (typeof payload !== "string" || payload.length >= MAX_PAYLOAD) return undefined
  const xid = BELL.exec(payload)?.groups?.xid
  if (xid !== undefined) return { xid }
  return Notification.safeParse(readJson(payload)).data
}
