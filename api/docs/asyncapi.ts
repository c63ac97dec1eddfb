/** The sockets, as AsyncAPI 3.0 describes them. */

import type { z } from "zod"
import { ClientMessage } from "../../relay/protocol/client-message.ts"
import { CloseCode } from "../../relay/protocol/close-code.ts"
import {
  ApplicationMessage,
  CHANGES,
  DerivedMessage,
  OversizeMessage,
  ServerMessage,
} from "../../relay/protocol/server-message.ts"
import { SAMPLES } from "./samples.ts"
import { type JsonSchema, schemaOf } from "./schema.ts"

export interface Message {
  name: string
  title: string
  summary: string
  payload: JsonSchema
  examples: Array<{ payload: object }>
}

/** What a client is closed with, and what it means for it. */
const CLOSES: Record<CloseCode, string> = {
  [CloseCode.drain]:
    "The relay stops, or the connection is old. Come back after a random time of some seconds.",
  [CloseCode.tokenExpired]: "The token expired. Get another.",
  [CloseCode.slowConsumer]: "What was sent was not taken. Come back with the cursor.",
  [CloseCode.cannotContinue]:
    "Nobody can promise that nothing was missed. Come back with the cursor: the answer says whether to load anew.",
  [CloseCode.tryAgain]: "Not possible at this moment. Come back with the same cursor.",
  [CloseCode.noPong]: "No answer to a heartbeat.",
  [CloseCode.tooManyRequests]: "Too many frames in a second. Slow down.",
  [CloseCode.invalidToken]: "The token is not good.",
  [CloseCode.badMessage]: "A binary frame, two tokens, or a query string that cannot be read.",
  [CloseCode.notAuthenticated]: "No token, or no start, came in time.",
  [CloseCode.connectionLimit]: "The user has too many connections.",
  [CloseCode.tooManyChannels]: "The connection has joined too many channels.",
  [CloseCode.forbidden]: "A channel is not allowed, or the user or token was revoked.",
  [CloseCode.tooManyErrors]: "The connection was told too many errors.",
}

const SUMMARIES: Record<string, string> = {
  "client.ping": "Asks for a pong.",
  "client.pong": "Answers a ping, where the pong of RFC 6455 is not sent by itself.",
  "client.subscribe":
    "Joins channels, or states a filter, or both. With a cursor the position of the whole connection is set.",
  "client.unsubscribe": "Leaves channels.",
  "client.start":
    "With ?start=message: begins with what the URL and subscribe have asked for, since a cursor.",
  "client.authenticate":
    "The first token, where it did not come with the upgrade; or another of the same user.",
  connection_success: "The token is good. Everything after the cursor arrives.",
  subscribed: "The answer to subscribe: holds from its cursor on.",
  unsubscribed: "The answer to unsubscribe.",
  authenticated:
    "The later token holds. Channels that it does not allow were left. With ?start=message the first token too.",
  checkpoint: "Everything up to the cursor was sent: keep it in the place of the one before.",
  ping: "A heartbeat.",
  pong: "The answer to a client's ping.",
  error: "A message could not be obeyed. The connection goes on.",
  "change.create": "A row was inserted, or came into what is subscribed.",
  "change.update": "A row was updated.",
  "change.delete": "A row was deleted; the whole of it is here for the last time.",
  "change.leave": "A row left what is subscribed. Only its key is told.",
  "change.oversize": "A row that is too large to be sent: load it, by its key.",
  "change.truncate": "A table, or a part of it, was emptied.",
  "change.bulk_load": "Many rows were written at once and are not told one by one: load them.",
  message: "A message of the application.",
  derived: "A value that was computed: the latest, not each.",
}

function message(name: string, schema: z.ZodType, io: "input" | "output"): [string, Message] {
  const payload = schemaOf(schema, "draft-7", io)
  const summary = SUMMARIES[name] ?? ""
  return [name, { name, title: name, summary, payload, examples: [{ payload: SAMPLES[name] ?? {} }] }]
}

/** What clients may send. */
const received = (): Record<string, Message> =>
  Object.fromEntries(
    ClientMessage.options.map((option) => message(`client.${option.shape.type.value}`, option, "input")),
  )

/** What the relay sends. */
const sent = (): Record<string, Message> =>
  Object.fromEntries([
    ...ServerMessage.options.map((option) => message(option.shape.type.value, option, "output")),
    ...CHANGES.map((option) => message(`change.${option.shape.action.value}`, option, "output")),
    message("change.oversize", OversizeMessage, "output"),
    message("message", ApplicationMessage, "output"),
    message("derived", DerivedMessage, "output"),
  ])

const QUERY: Record<string, JsonSchema> = {
  token: { type: "string", description: "The token, where neither a header nor the first message has it." },
  channels: {
    type: "string",
    description: "The channels to begin with, with commas; election_updates by default.",
    examples: ["election:1,committee:7"],
  },
  channel: { type: "string", description: "One channel, as it is; several times for several." },
  where: { type: "string", description: "A filter by columns, as JSON.", examples: ['{"committee_id":7}'] },
  types: { type: "string", description: "A filter by message types, with commas." },
  actions: { type: "string", description: "A filter by actions, with commas." },
  start: {
    type: "string",
    enum: ["message"],
    description: "The client asks for more by subscribe, and then begins by start.",
  },
  cursor: { type: "string", description: "Where to go on, from the last checkpoint or from relay.cursor()." },
}

export interface AsyncApi {
  asyncapi: string
  info: { title: string; version: string; description: string }
  channels: {
    feed: { address: string; "x-close-codes": Record<string, string>; [field: string]: unknown }
  }
  components: { messages: Record<string, Message>; [field: string]: unknown }
  [field: string]: unknown
}

/** The document. @param wsPath where the sockets are. */
export function asyncApi({ version, wsPath }: { version: string; wsPath: string }): AsyncApi {
  const [incoming, outgoing] = [received(), sent()]
  const inChannel = (names: string[]) => names.map((name) => ({ $ref: `#/channels/feed/messages/${name}` }))
  return {
    asyncapi: "3.0.0",
    info: {
      title: "CommitCast",
      version,
      description:
        "Committed PostgreSQL changes over WebSocket, in commit order: JSON text frames, one message each. Fields and types that a client does not know are to be ignored.",
    },
    defaultContentType: "application/json",
    servers: {
      relay: {
        host: "127.0.0.1:8080",
        protocol: "ws",
        security: [
          { $ref: "#/components/securitySchemes/header" },
          { $ref: "#/components/securitySchemes/query" },
        ],
      },
    },
    channels: {
      feed: {
        address: wsPath,
        description:
          "Browsers offer the subprotocols commitcast.v1 and bearer.<token>, or send authenticate first.",
        messages: Object.fromEntries(
          [...Object.keys(incoming), ...Object.keys(outgoing)].map((name) => [
            name,
            { $ref: `#/components/messages/${name}` },
          ]),
        ),
        bindings: { ws: { method: "GET", query: { type: "object", properties: QUERY } } },
        "x-close-codes": CLOSES,
      },
    },
    operations: {
      receive: {
        action: "receive",
        channel: { $ref: "#/channels/feed" },
        summary: "What clients may send.",
        messages: inChannel(Object.keys(incoming)),
      },
      send: {
        action: "send",
        channel: { $ref: "#/channels/feed" },
        summary: "What the relay sends.",
        messages: inChannel(Object.keys(outgoing)),
      },
    },
    components: {
      messages: { ...incoming, ...outgoing },
      securitySchemes: {
        header: { type: "http", scheme: "bearer", bearerFormat: "JWT" },
        query: { type: "httpApiKey", in: "query", name: "token" },
      },
    },
  }
}
