/** A reading session on a changelog, as the feed has one. */

import type { Test } from "tap"
import { type Changelog, createChangelog } from "../../relay/feed/changelog.ts"
import type { Session } from "../../relay/feed/log-session.ts"

/** Both closed with the test. */
export async function openSession(
  t: Test,
  { url }: { url: string },
): Promise<{ changelog: Changelog; session: Session }> {
  const changelog = createChangelog(url, () => {})
  const session = await changelog.open()
  t.teardown(async () => {
    session.close()
    await changelog.close()
  })
  return { changelog, session }
}
