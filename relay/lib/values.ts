/** The values of a connection's keywords. */

import { ConninfoError } from "./conninfo.ts"

export type Values = (keyword: string) => string | undefined

/** @throws ConninfoError if the value is none of those; the first is what holds without one. */
export function oneOf<Value extends string>(
  values: Values,
  keyword: string,
  allowed: readonly [Value, ...Value[]],
): Value {
  const value = values(keyword)
  if (value === undefined) return allowed[0]
  const found = allowed.find((one) => one === value)
  if (found === undefined) throw new ConninfoError(`has a ${keyword} that is none of ${allowed.join(", ")}`)
  return found
}
