/** The library as the relay serves it to the page: of a checkout without a build, and of a build. */

import { readFile } from "node:fs/promises"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import express from "express"
import t, { type Test } from "tap"
import { serveLibrary } from "../../api/library.ts"
import { buildPackage } from "../helpers/build.ts"

/** Serves it as api/app.ts does. @returns what a path answers. */
async function serve(t: Test, library: ReturnType<typeof serveLibrary>) {
  const server = createServer(express().use("/client", library))
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  return async (path: string) => {
    const response = await fetch(`http://127.0.0.1:${port}/client/${path}`)
    return {
      status: response.status,
      type: response.headers.get("content-type"),
      text: await response.text(),
    }
  }
}

const specifiers = (text: string): string[] =>
  [...text.matchAll(/^(?:import|export) .*from "(.+)";?$/gm)].map(([, specifier]) => specifier ?? "")

t.test("a checkout serves its sources, as one module", async (t) => {
  const get = await serve(t, serveLibrary())
  const { status, type, text } = await get("client.js")
  t.equal(status, 200)
  t.match(type, /^text\/javascript/)
  t.match(text, /^export \{\n {2}FeedError,\n.*connect\n\};$/m)
  t.same(specifiers(text), [])
  t.equal((await get("machine.js")).status, 404)
  t.equal((await get("../library.ts")).status, 404)
})

t.test("a build serves what it has made, and all that this asks for", async (t) => {
  const home = await buildPackage(t)
  const built = await import(pathToFileURL(join(home, "dist/api/library.js")).href)
  const get = await serve(t, built.serveLibrary())
  const asked = new Set(["client.js"])
  for (const name of asked) {
    const { status, type, text } = await get(name)
    t.equal(status, 200, name)
    t.match(type, /^text\/javascript/)
    t.equal(text, await readFile(join(home, "dist/client", name), "utf8"))
    for (const specifier of specifiers(text)) asked.add(specifier.replace("./", ""))
  }
  t.ok(asked.has("machine.js"), "the modules of the library were followed")
})
