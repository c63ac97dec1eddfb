/** Whom the embedded database tells, in whole sentences, what it found and did. */
export interface Narrator {
  info(message: string): void
  warn(message: string): void
}
