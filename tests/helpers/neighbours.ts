/** The gateway's neighbours as fakes, which note what they are asked and answer when the test says so. */

import { setImmediate as turn } from "node:timers/promises"
import type { AuthResult, Identity } from "../../relay/access/auth.ts"
import { ALL } from "../../relay/change/change.ts"
import { readSettings } from "../../relay/config.ts"
import { Connection } from "../../relay/fanout/connection.ts"
import type { AuditEvent } from "../../relay/gateway/audit-event.ts"
import type { GatewayDeps } from "../../relay/gateway/gateway.ts"
import type { UpgradeParameters } from "../../relay/gateway/upgrade.ts"
import { createLog } from "../../relay/telemetry/log.ts"
import { readFrames, wordOf } from "./frame.ts"

export const quietLog = createLog(
  readSettings({ JWT_SECRET: "a secret of the tests, which is long enough" }),
  { write() {} },
)

export const identityOf = (user: string, more: Partial<Identity> = {}): Identity => ({
  user,
  admin: false,
  rights: { committees: null, elections: null, channels: null, roles: new Set() },
  expiresAt: Date.now() + 3_600_000,
  ...more,
})

/** The result of a good token. */
export const good = (user: string, more: Partial<Identity> = {}): AuthResult => ({
  ok: true,
  identity: identityOf(user, more),
})

/** Tokens are checked when the test says so, as with an issuer that takes its time. */
export function fakeAuth() {
  const checks: Array<{ token: string | undefined; resolve: (result: AuthResult) => void }> = []
  return {
    ready: () => true,
    verify: (token: string | undefined) =>
      new Promise<AuthResult>((resolve) => void checks.push({ token, resolve })),
    /** The tokens that are being checked. */
    checked: () => checks.map(({ token }) => token),
    /** Answers the oldest check, and waits until that has had its effect. */
    async answer(result: AuthResult): Promise<void> {
      checks.shift()?.resolve(result)
      await turn()
    },
  }
}

const JOINED = { cursor: "here", recovered: false, replayed: 0, reason: "no_cursor" } as const

/** A hub in which everything happens at once. */
export function fakeHub() {
  const asked: string[] = []
  const hub: GatewayDeps["hub"] = {
    ready: () => true,
    crowded: () => false,
    track: () => void asked.push("track"),
    release(connection) {
      asked.push("release")
      connection.leave()
    },
    forget: () => void asked.push("forget"),
    join(connection, channels, _since, answer) {
      asked.push(`join ${connection.user} ${[...channels]}`)
      answer(JOINED)
    },
    rejoin(connection, change, _since, answer) {
      const channels = change(new Set([ALL]), connection.identity as Identity)
      if (channels === undefined) return true
      asked.push(`rejoin ${[...channels]}`)
      answer(JOINED)
      return true
    },
    reauthorise(connection, identity, done) {
      asked.push(`reauthorise ${identity.user}`)
      connection.identity = identity
      done(new Set([ALL]))
      return true
    },
  }
  return { ...hub, asked }
}

/** Limits that nobody reaches, but for what a test replaces. */
export function fakeLimits() {
  const asked: string[] = []
  const limits: GatewayDeps["limits"] = {
    addressOf: () => "192.0.2.1",
    takeUpgrade: () => ({ allowed: true, address: "192.0.2.1" }),
    addSocket: (address) => void asked.push(`addSocket ${address}`),
    removeSocket: (address) => void asked.push(`removeSocket ${address}`),
    addresses: () => 0,
    addConnection: () => true,
    removeConnection() {},
    fitsChannels: () => true,
    allowsChannels: () => true,
    takeFrame(_connection, per) {
      asked.push(`takeFrame ${per}`)
      return true
    },
    record: (limit) => void asked.push(`record ${limit}`),
    reached: () => ({}),
  }
  return { ...limits, asked }
}

export function fakeAudit() {
  const events: AuditEvent[] = []
  return {
    record: (_subject: unknown, event: AuditEvent) => void events.push(event),
    events,
    names: () => events.map(({ event }) => event),
  }
}

/** A connection whose socket takes everything. What it is sent and how it is closed, in words. */
export function fakeConnection(): { connection: Connection; sent: string[] } {
  const sent: string[] = []
  const connection = new Connection({
    address: "192.0.2.1",
    onClosing() {},
    wire: {
      queued: 0,
      full: false,
      sent: 0,
      open: true,
      write: (frames) => void sent.push(...readFrames(frames).map(wordOf)),
      cork() {},
      uncork() {},
      close: (code, reason) => void sent.push(`closed ${code} ${reason}`),
      terminate() {},
    },
  })
  return { connection, sent }
}

/** What an upgrade asks for: by default nothing in particular. */
export const parameters = (more: Partial<UpgradeParameters> = {}): UpgradeParameters => ({
  tokens: [],
  channels: [],
  cursor: undefined,
  filter: {},
  byMessage: false,
  ...more,
})
