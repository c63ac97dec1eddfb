/** The log: event names and fields, readable on a terminal, JSON elsewhere, always on standard error. */

import { createRequire } from "node:module"
import { Writable } from "node:stream"
import { type DestinationStream, type Logger, pino } from "pino"
import type { PinoPretty } from "pino-pretty"
import { ConfigError, type Settings } from "../config.ts"
import { LogOutput } from "./log-output.ts"

export type Log = Logger

/**
 * Makes the logger. Standard output stays free for what programs read.
 * Tokens never reach it: nothing logs a URL, a header or a frame, and row data is not logged at all.
 * @throws ConfigError if it must be readable and cannot be.
 */
export function createLog(
  settings: Pick<Settings, "LOG_LEVEL" | "LOG_FORMAT">,
  to: DestinationStream | LogOutput = new LogOutput(),
): Log {
  const stream = to instanceof LogOutput ? (readable(settings.LOG_FORMAT, to) ?? to) : to
  return pino({ level: settings.LOG_LEVEL, base: null, timestamp: pino.stdTimeFunctions.isoTime }, stream)
}

/** Lines for people, where they are wanted and pino-pretty is installed, which production leaves out. */
function readable(format: Settings["LOG_FORMAT"], output: LogOutput): DestinationStream | undefined {
  if (format === "json" || (format === "auto" && !process.stderr.isTTY)) return undefined
  let pretty: typeof PinoPretty
  try {
    pretty = createRequire(import.meta.url)("pino-pretty")
  } catch (error) {
    if (format === "auto") return undefined
    throw new ConfigError(
      "LOG_FORMAT (--log-format) pretty needs the package pino-pretty: run npm install --include=optional",
      { cause: error },
    )
  }
  return pretty({
    destination: new Writable({
      write(chunk, _encoding, done) {
        output.write(String(chunk))
        done()
      },
    }),
    colorize: process.stderr.isTTY,
    ignore: "pid,hostname",
    translateTime: "SYS:HH:MM:ss.l",
  })
}
