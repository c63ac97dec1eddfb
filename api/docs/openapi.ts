/** The requests, as OpenAPI 3.1 describes them. */

import { z } from "zod"
import { Report } from "../../relay/health/report.ts"
import { type JsonSchema, schemaOf } from "./schema.ts"

interface Answer {
  description: string
  content?: Record<string, { schema: JsonSchema }>
  headers?: Record<string, { description: string; schema: JsonSchema }>
}

interface Operation {
  summary: string
  security?: Array<Record<string, string[]>>
  parameters?: Array<{ name: string; in: "query"; description: string; schema: JsonSchema }>
  responses: Record<string, Answer>
}

export interface OpenApi {
  openapi: string
  info: { title: string; version: string; description: string }
  paths: Record<string, { get: Operation }>
  [field: string]: unknown
}

const json = (description: string, schema: z.ZodType): Answer => ({
  description,
  content: { "application/json": { schema: schemaOf(schema, "draft-2020-12", "output") } },
})
const Refusal = z.strictObject({ error: z.string() })
const Explained = z.strictObject({
  error: z.string(),
  message: z.string(),
  close_code: z.number().optional(),
})
const explained = (description: string): Answer => json(description, Explained)
const comeBack = { "Retry-After": { description: "Seconds.", schema: { type: "string" } } }
const refused = (description: string): Answer => json(description, Refusal)
const status = (word: string) => z.strictObject({ status: z.literal(word) })
const asks = { "WWW-Authenticate": { description: "Bearer", schema: { type: "string" } } }

/** The document. */
export function openApi({ version, wsPath }: { version: string; wsPath: string }): OpenApi {
  return {
    openapi: "3.1.0",
    info: {
      title: "CommitCast",
      version,
      description:
        "Health, metrics and the pages of a relay. Changes come over WebSocket: see asyncapi.json.",
    },
    servers: [{ url: "/" }],
    paths: {
      "/api/utils/websocket/health/": {
        get: {
          summary: "What operations may know: the report.",
          security: [{ token: [] }],
          parameters: [
            {
              name: "top",
              in: "query",
              description: "No more than so many users and channels, those with the most connections.",
              schema: { type: "integer", minimum: 0, maximum: 999_999 },
            },
          ],
          responses: {
            "200": json("The report.", Report),
            "400": refused("More than one token."),
            "401": { ...refused("No token, or one that is not good."), headers: asks },
            "403": refused("Not an admin's token."),
            "503": {
              ...refused("The token cannot be checked now."),
              headers: comeBack,
            },
          },
        },
      },
      "/health/live": {
        get: {
          summary: "Whether the process answers.",
          responses: { "200": json("It does.", status("live")) },
        },
      },
      "/health/ready": {
        get: {
          summary: "Whether clients are let in and changes arrive.",
          responses: {
            "200": json("They are.", status("ready")),
            "503": json("They are not.", status("not_ready")),
          },
        },
      },
      "/metrics": {
        get: {
          summary: "The metrics, for Prometheus.",
          security: [{}, { metrics: [] }],
          responses: {
            "200": {
              description: "The exposition.",
              content: { "text/plain": { schema: { type: "string" } } },
            },
            "401": { ...refused("METRICS_TOKEN is set, and it was not asked with it."), headers: asks },
          },
        },
      },
      [wsPath || "/"]: {
        get: {
          summary: "What an upgrade of this request would come to.",
          security: [{}, { token: [] }],
          responses: {
            "400": explained("Malformed, or the filter is none."),
            "401": explained("The token is not good."),
            "403": explained("The origin or a channel is not allowed."),
            "426": explained("It would be let in."),
            "429": { ...explained("A limit by address has been reached."), headers: comeBack },
            "503": { ...explained("Not ready, or a limit has been reached."), headers: comeBack },
          },
        },
      },
      "/page.json": {
        get: {
          summary: "What the page must know of the relay.",
          responses: {
            "200": json(
              "The path of its socket, and how the command line is called.",
              z.strictObject({ wsPath: z.string(), program: z.string() }),
            ),
          },
        },
      },
    },
    components: {
      securitySchemes: {
        token: { type: "http", scheme: "bearer", bearerFormat: "JWT", description: "An admin's token." },
        metrics: { type: "http", scheme: "bearer", description: "METRICS_TOKEN." },
      },
    },
  }
}
