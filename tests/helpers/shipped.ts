/** The files of ops/, as they are shipped. */

import { readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

export const OPS = join(dirname(fileURLToPath(import.meta.url)), "../../ops")

export const shipped = (path: string): string => readFileSync(join(OPS, path), "utf8")

/** A text in which each of these stands once, with another in its place. @throws where one does not. */
export function adapted(text: string, changes: Record<string, string>): string {
  let result = text
  for (const [from, to] of Object.entries(changes)) {
    const times = result.split(from).length - 1
    if (times !== 1) throw new Error(`${JSON.stringify(from)} is there ${times} times`)
    result = result.replace(from, () => to)
  }
  return result
}
