/** The log: event names and fields, readable on a terminal, JSON elsewhere, always on standard error. */

import { type DestinationStream, type Logger, pino } from "pino"
import pretty from "pino-pretty"
import type { Settings } from "../config.ts"

export type Log = Logger

/**
 * Makes the logger. Standard output stays free for what programs read.
 * Tokens never reach it: nothing logs a URL, a header or a frame, and row data is not logged at all.
 */
export function createLog(settings: Pick<Settings, "LOG_LEVEL" | "LOG_FORMAT">, to?: DestinationStream): Log {
  const readable =
    settings.LOG_FORMAT === "pretty" || (settings.LOG_FORMAT === "auto" && process.stderr.isTTY)
  const stream =
    to ??
    (readable
      ? pretty({
          destination: 2,
          sync: true,
          colorize: process.stderr.isTTY,
          ignore: "pid,hostname",
          translateTime: "SYS:HH:MM:ss.l",
        })
      : pino.destination({ dest: 2, sync: true }))
  return pino({ level: settings.LOG_LEVEL, base: null, timestamp: pino.stdTimeFunctions.isoTime }, stream)
}
