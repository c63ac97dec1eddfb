/** JSON from elsewhere: text in, whatever it holds out. */

/** @returns undefined if it is no JSON. */
export function readJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
