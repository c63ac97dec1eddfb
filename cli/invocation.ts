/** How the command line is called from where this program was started. */

import { relative } from "node:path"
import { fileURLToPath } from "node:url"

const HERE = fileURLToPath(import.meta.url)

/** The call that works for whoever reads it, such as `npx commitcast install`. */
export const invocation = (args: string): string => `${programName()} ${args}`

/** What comes before a command. */
export const programName = (): string => programOf(HERE)

/** @param file a source of the command line, or what was built of it. */
export function programOf(file: string): string {
  if (/[\\/]node_modules[\\/]/.test(file)) return "npx commitcast"
  // A checkout runs its sources; a build elsewhere, such as a container's, has neither npm's script nor its bin.
  return file.endsWith(".ts")
    ? "npm run -s commitcast --"
    : `node ${relative(process.cwd(), file.replace(/invocation\.js$/, "main.js"))}`
}
