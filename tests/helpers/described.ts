/** What a relay says, held against its own descriptions under /docs/. */

import { Ajv, type ValidateFunction } from "ajv"
import { Ajv2020 } from "ajv/dist/2020.js"
import formats from "ajv-formats"
import type { AsyncApi } from "../../api/docs/asyncapi.ts"
import type { OpenApi } from "../../api/docs/openapi.ts"
import type { Received } from "./client.ts"

const addFormats = formats.default

const get = async <T>(url: string, path: string): Promise<T> => (await fetch(url + path)).json() as Promise<T>

export const asyncApiOf = (url: string): Promise<AsyncApi> => get(url, "/docs/asyncapi.json")
export const openApiOf = (url: string): Promise<OpenApi> => get(url, "/docs/openapi.json")

/** The name under which a frame of the relay is described. */
function nameOf({ action, tx, data, type, oversize }: Received): string {
  if (oversize === true) return "change.oversize"
  if (tx !== undefined) return action === undefined ? "message" : `change.${action}`
  return data === undefined ? type : "derived"
}

const faultsOf = ({ errors }: ValidateFunction, frame: unknown): string =>
  `${JSON.stringify(frame)}: ${JSON.stringify(errors)}`

/** @returns what says what is wrong with a payload of a message of that name; undefined: nothing. */
export function payloadCheck({
  components,
}: AsyncApi): (name: string, payload: unknown) => string | undefined {
  const ajv = new Ajv({ strict: true, allowUnionTypes: true })
  addFormats(ajv)
  const checks = new Map(
    Object.entries(components.messages).map(([name, { payload }]) => [name, ajv.compile(payload)]),
  )
  return (name, payload) => {
    const check = checks.get(name)
    if (check === undefined) return `${name} is not described`
    return check(payload) ? undefined : faultsOf(check, payload)
  }
}

/** @returns what says what is wrong with a frame of the relay; undefined: nothing. */
export function frameCheck(document: AsyncApi): (frame: Received) => string | undefined {
  const check = payloadCheck(document)
  return (frame) => check(nameOf(frame), frame)
}

/** Asks, and holds the answer against what is said of it. @returns what is wrong; undefined: nothing. */
export async function answerFault(
  url: string,
  { paths }: OpenApi,
  path: string,
  headers: Record<string, string> = {},
): Promise<{ status: number; fault: string | undefined }> {
  const answer = await fetch(url + path, { headers })
  const { status } = answer
  const described = paths[path.split("?")[0] ?? ""]?.get.responses[String(status)]
  if (described === undefined) return { status, fault: `${status} is not described` }
  const [type = "", { schema = {} } = {}] = Object.entries(described.content ?? {})[0] ?? []
  if (!answer.headers.get("content-type")?.startsWith(type)) return { status, fault: `it is no ${type}` }
  for (const header of Object.keys(described.headers ?? {}))
    if (!answer.headers.has(header)) return { status, fault: `there is no ${header}` }
  const ajv = new Ajv2020({ strict: true, allowUnionTypes: true })
  addFormats(ajv)
  const check = ajv.compile(schema)
  const body = type === "application/json" ? await answer.json() : await answer.text()
  return { status, fault: check(body) ? undefined : faultsOf(check, body) }
}
