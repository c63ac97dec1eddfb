/** Watches over the process that started this one, for a shell of npm that ends without a word to its children. */

/** How often it is looked for. Milliseconds. */
const INTERVAL_MS = 500
/** Read at once: an orphan has another parent. */
const PARENT = process.ppid

/**
 * npm sends a signal to the shell that it runs a script with. Not every shell passes it on, and what it ran would go on, an orphan.
 * What was not started by npm may outlive who started it.
 * @returns what ends the watch.
 */
export function watchParent(onGone: () => void): () => void {
  if (process.env.npm_lifecycle_event === undefined) return () => {}
  const timer = setInterval(() => {
    if (isThere(PARENT)) return
    clearInterval(timer)
    onGone()
  }, INTERVAL_MS).unref()
  return () => clearInterval(timer)
}

/** Orphans get another parent, but for Windows, where a parent's id stays after it. */
function isThere(parent: number): boolean {
  if (process.ppid !== parent) return false
  if (process.platform !== "win32") return true
  try {
    process.kill(parent, 0)
    return true
  } catch {
    return false
  }
}
