/** Loads TypeScript line by line as it is written. tsx puts a file on one line, where no coverage can be told apart. */

import { readFile } from "node:fs/promises"
import { register } from "node:module"
import { fileURLToPath } from "node:url"
import { isMainThread } from "node:worker_threads"
import { transform } from "esbuild"

if (isMainThread) register(import.meta.url)

/** @type {import("node:module").LoadHook} */
export async function load(url, context, nextLoad) {
  if (!/^file:.*\.ts$/.test(url)) return nextLoad(url, context)
  const path = fileURLToPath(url)
  const options = { loader: "ts", target: "node20", sourcefile: path, sourcemap: "inline" }
  const { code } = await transform(await readFile(path, "utf8"), options)
  return { format: "module", source: code, shortCircuit: true }
}
