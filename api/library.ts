/** The client library, as the page loads it: the page has no connection code of its own. */

import { readdirSync } from "node:fs"
import { fileURLToPath } from "node:url"
import express, { type RequestHandler } from "express"

/** Beside this file, wherever it runs. */
const CLIENT = fileURLToPath(new URL("../client/", import.meta.url))

/**
 * Answers `/client.js`. A built package serves what the build made, module by module. A checkout needs no build, and must not serve
 * one that is out of date: the sources are put into one module, by the bundler of the development tools, when they are first asked for.
 */
export function serveLibrary(): RequestHandler {
  if (readdirSync(CLIENT).includes("client.js")) return express.static(CLIENT, { index: false })
  let made: Promise<string> | undefined
  return async (request, response, next) => {
    if (request.method !== "GET" || request.path !== "/client.js") return next()
    made ??= bundle()
    response.type("js").send(await made)
  }
}

async function bundle(): Promise<string> {
  const { build } = await import("esbuild")
  const { outputFiles } = await build({
    absWorkingDir: CLIENT,
    entryPoints: ["client.ts"],
    bundle: true,
    format: "esm",
    target: "es2022",
    write: false,
  })
  return outputFiles[0]?.text ?? ""
}
