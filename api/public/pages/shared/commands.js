// @ts-check
/** The commands that a page advises, as they are called where its relay was started. */

import { write } from "./element.js"

/** Completes them. A page that cannot ask says what holds where the package is installed. */
export async function showCommands() {
  const response = await fetch("page.json").catch(() => undefined)
  if (!response?.ok) return
  const { program } = await response.json()
  /** @type {NodeListOf<HTMLElement>} */
  const commands = document.querySelectorAll("[data-arguments]")
  for (const command of commands) write(command, `${program} ${command.dataset.arguments}`)
}
