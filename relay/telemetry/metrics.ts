/** Metrics: one registry for each relay, with bounded label values. */

import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client"
import { CloseCode } from "../protocol/close-code.ts"
import type { LogOutput } from "./log-output.ts"

/** Registers what a log has lost. */
export function observeLoss(metrics: Metrics, output: LogOutput | undefined): void {
  const help = "Lines of the log that could not be written"
  metrics.observeTotal("relay_log_lines_lost_total", help, () => output?.lost.lines ?? 0)
}

/** The limits on clients, each named like its setting without the MAX; descriptors are what `ulimit -n` leaves. */
const LIMITS = [
  "connections",
  "connections_per_address",
  "connections_per_user",
  "upgrade_rate",
  "upgrade_rate_per_address",
  "frame_rate",
  "frame_rate_per_user",
  "channels",
  "errors",
  "descriptors",
] as const
export type Limit = (typeof LIMITS)[number]

export type Metrics = ReturnType<typeof createMetrics>

/** Makes the registry. Gauges that mirror live state are filled by `observe` callbacks at the time of a scrape. */
export function createMetrics() {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const registers = [registry]
  const counter = <Label extends string = never>(name: string, help: string, labelNames: Label[] = []) =>
    new Counter<Label>({ name, help, labelNames, registers })
  /** Its series exist from the start, since a rate does not see a series that begins with 1. */
  const counterOf = <Label extends string>(
    name: string,
    help: string,
    label: Label,
    values: readonly string[],
  ) => {
    const made = counter<Label>(name, help, [label])
    for (const value of values) made.inc({ [label]: value } as Record<Label, string>, 0)
    return made
  }
  const gauge = <Label extends string>(name: string, help: string, labelNames: Label[]) =>
    new Gauge<Label>({ name, help, labelNames, registers })
  const histogram = (name: string, help: string, buckets: number[]) =>
    new Histogram({ name, help, buckets, registers })

  return {
    registry,
    connects: counter("relay_connects_total", "Upgrade requests by result", ["result"]),
    questions: counter("relay_questions_total", "Plain requests for the socket's path, by result", [
      "result",
    ]),
    authFailures: counterOf("relay_auth_failures_total", "Tokens refused, by reason", "reason", [
      "missing",
      "invalid",
      "expired",
      "unavailable",
      "revoked",
    ]),
    keyFetches: counterOf("relay_key_fetches_total", "Fetches of the issuer's keys, by result", "result", [
      "done",
      "failed",
    ]),
    limits: counterOf(
      "relay_limits_reached_total",
      "Times that a limit was reached, by limit",
      "limit",
      LIMITS,
    ),
    closes: counterOf(
      "relay_closes_total",
      "Connections closed by the relay, by close code",
      "code",
      Object.values(CloseCode).map(String),
    ),
    frames: counter("relay_client_frames_total", "Frames from clients, by type", ["type"]),
    errors: counter("relay_client_errors_total", "Error messages sent to clients, by code", ["code"]),
    resumes: counterOf("relay_resume_total", "Connections that brought a cursor, by result", "result", [
      "memory",
      "log",
      "malformed",
      "lineage",
      "too_old",
      "ahead",
      "interrupted",
      "refused",
    ]),
    replayed: counter("relay_replayed_total", "Changes sent again to who returned, by where they came from", [
      "source",
    ]),
    logReads: counterOf("relay_log_reads_total", "Reads of the log for who returned, by result", "result", [
      "done",
      "more",
      "cut",
      "failed",
    ]),
    events: counter("relay_events_total", "Changes read from the log, by table and operation", [
      "table",
      "op",
    ]),
    oversize: counter("relay_oversize_changes_total", "Changes whose rows were too large to be sent", [
      "table",
    ]),
    unreadable: counterOf(
      "relay_unreadable_rows_total",
      "Rows of the log that could not be read and were passed over, by why",
      "fault",
      ["unknown", "malformed", "too_large", "encoding"],
    ),
    deliveries: counter("relay_deliveries_total", "Changes handed to connections"),
    unrouted: counter("relay_unrouted_total", "Changes that no connection was subscribed to"),
    bells: counter("relay_bells_total", "Notifications, by what they were", ["kind"]),
    skips: counter("relay_bells_skipped_total", "Transactions that were read without a bell of theirs"),
    reads: counter("relay_reads_total", "Reads of the log, by why", ["why"]),
    bellMode: gauge("relay_bell_mode", "1 for the mode that the bell is in", ["mode"]),
    bellModes: counter("relay_bell_mode_changes_total", "Changes of the bell's mode", ["mode"]),
    listenerLost: counter("relay_listener_reconnects_total", "Losses of the listening session"),
    feedLost: counter("relay_feed_reconnects_total", "Losses of the reading session"),
    resets: counterOf(
      "relay_resets_total",
      "Times the feed could not continue and all clients were told",
      "reason",
      ["lineage", "horizon"],
    ),
    rotations: counterOf("relay_rotations_total", "Rotations of the log, by result", "result", [
      "done",
      "refused",
    ]),
    choresFailed: counterOf(
      "relay_chores_failed_total",
      "Attempts to look after the log and the capture that failed, by what",
      "chore",
      ["rotate", "renew", "watch", "tables", "mend", "size"],
    ),
    auditLines: counterOf(
      "relay_audit_lines_total",
      "Lines of the audit log, by what became of them",
      "result",
      ["told", "summed", "lost"],
    ),
    auditFailures: counter("relay_audit_failures_total", "Failures to open or write the audit log"),
    canaries: counterOf(
      "relay_canaries_total",
      "Attempts to write a canary to the log, by result",
      "result",
      ["written", "not_allowed", "failed"],
    ),
    canaryReturn: histogram(
      "relay_canary_seconds",
      "Time from writing a canary to reading it again",
      [0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 5],
    ),
    workerExits: counterOf("relay_worker_exits_total", "Worker processes that ended, by why", "reason", [
      "exit",
      "stuck",
    ]),
    derived: counter("relay_derived_total", "Runs of functions of derived messages, by type and result", [
      "type",
      "result",
    ]),
    derivation: histogram(
      "relay_derived_seconds",
      "Time of one run of a function of a derived message",
      [0.001, 0.005, 0.01, 0.05, 0.2, 1, 5],
    ),
    batch: histogram(
      "relay_batch_changes",
      "Changes in a batch",
      [1, 3, 10, 30, 100, 300, 1_000, 10_000, 100_000],
    ),
    read: histogram(
      "relay_read_seconds",
      "Time of one read of the log",
      [0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1, 5],
    ),
    send: histogram(
      "relay_send_seconds",
      "Age of a transaction when it has been handed to connections, from its last row",
      [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
    ),
    fanout: histogram(
      "relay_fanout_seconds",
      "Time to route a batch and write it to all sockets",
      [0.0005, 0.001, 0.005, 0.01, 0.05, 0.2, 1, 5],
    ),
    /** Registers a counter whose total somebody else keeps, and is read when it is scraped. */
    observeTotal(name: string, help: string, read: () => number) {
      new Counter({
        name,
        help,
        registers,
        collect() {
          this.reset()
          this.inc(read())
        },
      })
    },
    /**
     * Registers a gauge that is read when it is scraped.
     * @param aggregator how several processes add up: to their sum, or to the value of the first.
     */
    observe(
      name: string,
      help: string,
      read: () => number | Promise<number>,
      aggregator: "sum" | "first" = "sum",
    ) {
      new Gauge({
        name,
        help,
        registers,
        aggregator,
        async collect() {
          this.set(await read())
        },
      })
    },
  }
}
