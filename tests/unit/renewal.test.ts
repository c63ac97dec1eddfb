/** A renewed token counts from one moment on, with its rights and its end together; until then the old one does. */

import t from "tap"
import type { Identity } from "../../relay/access/auth.ts"
import { createRevocations } from "../../relay/access/revocations.ts"
import { type Cursor, parseSnapshot, type Snapshot } from "../../relay/change/cursor.ts"
import { readSettings } from "../../relay/config.ts"
import { Connection } from "../../relay/fanout/connection.ts"
import type { BatchPart } from "../../relay/feed/batch.ts"
import { createHub } from "../../relay/hub/hub.ts"
import { createReplayBuffer } from "../../relay/replay/replay-buffer.ts"
import { createLog } from "../../relay/telemetry/log.ts"
import { createMetrics } from "../../relay/telemetry/metrics.ts"

const cursor = (xmax: number): Cursor => ({
  lineage: "l",
  snapshot: parseSnapshot(`${xmax}:${xmax}:`) as Snapshot,
})
const part = (xmax: number, of: Pick<BatchPart, "first" | "final">): BatchPart => ({
  changes: [],
  revocations: [],
  cursor: cursor(xmax),
  ...of,
})

function identity(expiresAt: number, committees: string[] | null): Identity {
  const rights = {
    committees: committees && new Set(committees),
    elections: null,
    channels: null,
    roles: new Set<string>(),
  }
  return { user: "7", admin: false, rights, expiresAt }
}

const OLD = identity(1_000, null)
const NEW = identity(2_000, ["1"])

/** A hub in the middle of a batch, and somebody who came before it. */
async function inBatch() {
  const hub = createHub({
    log: createLog(readSettings({}), { write() {} }),
    metrics: createMetrics(),
    recent: createReplayBuffer(1_000_000),
    history: { read: async () => t.fail("nobody returns") as never, stop() {} },
    revocations: createRevocations(),
    refresh: async () => true,
    settings: {
      maxLanes: 1_000,
      laneBufferBytes: 1_000_000,
      heartbeatMs: 1_000_000,
      authTimeoutMs: 1_000_000,
    },
  })
  t.teardown(() => hub.drain({ perSecond: Number.POSITIVE_INFINITY, timeoutMs: 0 }))
  hub.consumer.adopt("l", new Set(["l"]))
  hub.consumer.begin(cursor(10), [])
  const closed: number[] = []
  const connection = new Connection({
    address: "127.0.0.1",
    onClosing: (closing, code) => {
      hub.release(closing)
      closed.push(code)
    },
    wire: {
      queued: 0,
      full: false,
      sent: 0,
      open: true,
      write() {},
      cork() {},
      uncork() {},
      close() {},
      terminate() {},
    },
  })
  connection.identity = OLD
  hub.join(connection, new Set(["committee:1", "committee:2"]), undefined, () => {})
  await hub.consumer.deliver(part(11, { first: true, final: false }))
  return { hub, connection, closed }
}

t.test("in the middle of a batch the old token counts, and ends, as long as its rights do", async (t) => {
  const { hub, connection, closed } = await inBatch()
  const told: Array<ReadonlySet<string>> = []
  t.equal(
    hub.reauthorise(connection, NEW, (channels) => told.push(channels)),
    true,
  )
  t.match(connection.identity, { expiresAt: OLD.expiresAt, rights: OLD.rights })
  t.same(told, [], "no answer before it counts")
  await hub.consumer.deliver(part(12, { first: false, final: true }))
  t.match(connection.identity, { expiresAt: NEW.expiresAt, rights: NEW.rights })
  t.same(closed, [])
  t.strictSame(told, [new Set(["committee:1"])], "what is not allowed any more has ended")
})

t.test("a renewal for which there is no room changes nothing", async (t) => {
  const { hub, connection } = await inBatch()
  while (
    hub.rejoin(
      connection,
      (channels) => channels,
      undefined,
      () => {},
    )
  );
  t.equal(
    hub.reauthorise(connection, NEW, () => t.fail("it was refused")),
    false,
  )
  t.match(connection.identity, { expiresAt: OLD.expiresAt, rights: OLD.rights })
  await hub.consumer.deliver(part(12, { first: false, final: true }))
  t.match(connection.identity, { expiresAt: OLD.expiresAt, rights: OLD.rights })
})

t.test("a token that is revoked while its turn has not come does not renew", async (t) => {
  const { hub, connection, closed } = await inBatch()
  const revoked = { kind: "jti" as const, value: "new", until: null, issued_before: null }
  t.equal(
    hub.reauthorise(connection, { ...NEW, jti: "new" }, () => t.fail("it was revoked")),
    true,
  )
  await hub.consumer.deliver({ ...part(12, { first: false, final: false }), revocations: [revoked] })
  t.same(closed, [], "the token that counts is another")
  await hub.consumer.deliver(part(12, { first: false, final: true }))
  t.same(closed, [4507])
})
