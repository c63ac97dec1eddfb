/** Text on one line: whatever is in a row, a change that is printed is a line. */

/**
 * JSON as one line with the same values.
 * @param json valid, so that line breaks are white space, and the other characters stand in strings.
 */
export const jsonLine = (json: string): string =>
  json.replace(/[\n\r\t]/g, " ").replace(/[\u007f-\u009f\u2028\u2029]/g, escaped)

/** Text for a terminal, which it can neither break into lines nor command. */
export const textLine = (text: string): string =>
  text.replace(/[\p{Cc}\p{Bidi_Control}\u2028\u2029]/gu, escaped)

const SHORT: Partial<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }

const escaped = (character: string): string =>
  SHORT[character] ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`
