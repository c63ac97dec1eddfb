/** A list of hosts, each with a port or for all of them. */

/** Whether a Host header is one of the list. An empty list has all. */
export function isListedHost(list: readonly string[], host: string | undefined): boolean {
  if (list.length === 0) return true
  const asked = host?.toLowerCase() ?? ""
  const bare = asked.replace(/:\d+$/, "")
  return list.some((entry) => entry.toLowerCase() === asked || entry.toLowerCase() === bare)
}
