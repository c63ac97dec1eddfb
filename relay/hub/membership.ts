/** Membership: who joins, what a connection subscribes to, and by which token. */

import type { Identity } from "../access/auth.ts"
import type { Revocations } from "../access/revocations.ts"
import { mayJoin } from "../access/rights.ts"
import { cursorText } from "../change/cursor.ts"
import type { Connection } from "../fanout/connection.ts"
import type { Router } from "../fanout/router.ts"
import { CloseCode } from "../protocol/close-code.ts"
import type { Filter } from "../protocol/filter.ts"
import type { Position } from "../replay/position.ts"
import type { Replays } from "../replay/replay.ts"
import type { Joined } from "../replay/returning.ts"
import { createDeferral } from "./deferral.ts"
import type { Live } from "./live.ts"

/** Receives the answer to a join before anything else is sent. */
type Answer = (joined: Joined) => void

/** What a connection subscribes to from now on. @returns undefined to change nothing; then there is no answer. */
type ChannelChange = (channels: ReadonlySet<string>, identity: Identity) => ReadonlySet<string> | undefined

export interface Membership {
  /** Whether there is a position from which clients can begin. */
  ready(): boolean
  track(connection: Connection): void
  /** Takes a closing connection out of its lane or replay. */
  release(connection: Connection): void
  /** Forgets a connection that is closed. */
  forget(connection: Connection): void
  /** Places an authenticated connection: live at once, or after a replay since a cursor. */
  join(connection: Connection, channels: ReadonlySet<string>, since: string | undefined, answer: Answer): void
  /**
   * Changes a connection's channels between two batches, so that it sees none by half.
   * @param change called with the channels and the identity of that moment.
   * @param since sets the position of the whole connection.
   * @returns false if too much waits already.
   */
  rejoin(connection: Connection, change: ChannelChange, since: string | undefined, answer: Answer): boolean
  /**
   * Gives a connection another identity, until which the old one is in force with its end. A replay has it at once; a
   * live connection takes another lane.
   * @param done receives the channels that are still allowed.
   * @returns false if too much waits already.
   */
  reauthorise(
    connection: Connection,
    identity: Identity,
    done: (channels: ReadonlySet<string>) => void,
  ): boolean
  /**
   * Whether a filter would make one lane too many. Channels and rights make lanes too, but refuse nobody: a connection
   * is in one lane only.
   */
  crowded(identity: Identity, channels: ReadonlySet<string>, filter: Filter | undefined): boolean
}

export interface MembershipDeps {
  /** All that are open; kept up to date here. */
  connections: Set<Connection>
  position: Position
  router: Router
  live: Live
  replays: Replays
  revocations: Revocations
  maxLanes: number
}

export function createMembership(deps: MembershipDeps): Membership {
  const { connections, position, router, live, replays, revocations, maxLanes } = deps
  const { whenLive } = createDeferral({ position, replays })

  const joinedNow = (): Joined => ({
    cursor: position.head === undefined ? "" : cursorText(position.head),
    recovered: false,
    replayed: 0,
    reason: "no_cursor",
  })

  function goLive(connection: Connection, channels: ReadonlySet<string>, answer: Answer): void {
    live.place(connection, channels)
    answer(joinedNow())
    connection.pump()
  }

  function release(connection: Connection): void {
    replays.cancel(connection)
    live.release(connection)
  }

  const rejoin: Membership["rejoin"] = (connection, change, since, answer) =>
    whenLive(connection, () => {
      const { lane, identity } = connection
      // Without a lane it was closed while this waited.
      if (lane === undefined || identity === undefined) return
      if (connection.overrun) return connection.close(CloseCode.slowConsumer, "slow consumer")
      const channels = change(lane.subscription.channels, identity)
      if (channels === undefined) return
      if (since === undefined) return goLive(connection, channels, answer)
      live.depart(connection)
      replays.start(connection, channels, since, answer)
    })

  return {
    ready: () => position.head !== undefined,
    track(connection) {
      connections.add(connection)
    },
    release,
    forget(connection) {
      release(connection)
      connections.delete(connection)
    },
    join(connection, channels, since, answer) {
      if (position.head === undefined)
        return connection.close(CloseCode.tryAgain, "no position to begin from")
      if (since === undefined) return goLive(connection, channels, answer)
      replays.start(connection, channels, since, answer)
    },
    rejoin,
    reauthorise(connection, identity, done) {
      let kept: ReadonlySet<string> = new Set()
      const change = (channels: ReadonlySet<string>) => {
        connection.identity = identity
        kept = allowedTo(identity, channels)
        return kept
      }
      const replayed = replays.channels(connection)
      if (replayed !== undefined) {
        replays.narrow(connection, change(replayed))
        done(kept)
        return true
      }
      const unlessRevoked = (channels: ReadonlySet<string>) => {
        if (!revocations.refuses(identity)) return change(channels)
        // It was revoked while it waited.
        connection.close(CloseCode.forbidden, "revoked")
        return undefined
      }
      return rejoin(connection, unlessRevoked, undefined, () => done(kept))
    },
    crowded: (identity, channels, filter) =>
      filter !== undefined &&
      router.size() >= maxLanes &&
      !router.has({ channels, rights: identity.rights, filter }),
  }
}

/** Those of the channels that an identity may join. */
const allowedTo = ({ user, rights }: Identity, channels: ReadonlySet<string>): ReadonlySet<string> =>
  new Set([...channels].filter((channel) => mayJoin(channel, user, rights)))
