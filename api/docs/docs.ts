/** `/docs/`: the reference, for people and for programs. */

import { type RequestHandler, Router } from "express"
import { asyncApi } from "./asyncapi.ts"
import { openApi } from "./openapi.ts"
import { renderReference } from "./reference.ts"

/** Made when it is first asked for, and then kept: it says the same as long as the process runs. */
export function serveDocs(settings: { version: string; wsPath: string }): RequestHandler {
  let made: { sockets: object; requests: object; page: string } | undefined
  const documents = () => {
    if (made !== undefined) return made
    const [sockets, requests] = [asyncApi(settings), openApi(settings)]
    made = { sockets, requests, page: renderReference(sockets, requests) }
    return made
  }
  return Router({ strict: true })
    .get("/", (request, response) => {
      // Its links are relative to the folder.
      if (!request.originalUrl.split("?")[0]?.endsWith("/")) return response.redirect(301, "docs/")
      response.type("html").send(documents().page)
    })
    .get("/asyncapi.json", (_request, response) => {
      response.json(documents().sockets)
    })
    .get("/openapi.json", (_request, response) => {
      response.json(documents().requests)
    })
}
