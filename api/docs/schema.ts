/** JSON Schemas of what the relay reads and writes, made of the schemas that it checks with. */

import { z } from "zod"
import { FilterFields, WhereText } from "../../relay/protocol/filter.ts"

/** As much of JSON Schema as is made here. */
export interface JsonSchema {
  [keyword: string]: unknown
  type?: string | string[]
  description?: string
  properties?: Record<string, JsonSchema>
  required?: string[]
  items?: JsonSchema
  anyOf?: JsonSchema[]
  oneOf?: JsonSchema[]
  enum?: unknown[]
  const?: unknown
  additionalProperties?: boolean | JsonSchema
}

/**
 * The JSON Schema of a schema.
 * @param target AsyncAPI is a superset of draft-7, OpenAPI 3.1 of draft-2020-12.
 * @param io whether what comes in is described or what goes out.
 */
export function schemaOf(
  schema: z.ZodType,
  target: "draft-7" | "draft-2020-12",
  io: "input" | "output",
): JsonSchema {
  const { $schema: _, ...made } = z.toJSONSchema(schema, {
    target,
    io,
    unrepresentable: "any",
    override({ zodSchema, jsonSchema }) {
      // A date's own pattern is longer than all else that is said of a message.
      if (jsonSchema.format === "date-time") delete jsonSchema.pattern
      // Fields that come later are to be ignored.
      if (io === "output" && jsonSchema.additionalProperties === false) delete jsonSchema.additionalProperties
      if (zodSchema !== FilterFields.shape.where) return
      // What it is read into cannot be described.
      for (const keyword of Object.keys(jsonSchema)) delete jsonSchema[keyword]
      Object.assign(jsonSchema, { anyOf: [schemaOf(WhereText, target, io), { type: "null" }] })
    },
  })
  return made as JsonSchema
}
