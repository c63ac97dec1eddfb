/** The package's version. */

import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { z } from "zod"

/** As package.json has it. */
export function packageVersion(): string {
  const text = readFileSync(fileURLToPath(import.meta.resolve("#root/package.json")), "utf8")
  return z.object({ version: z.string() }).parse(JSON.parse(text)).version
}
