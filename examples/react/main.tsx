import { StrictMode } from "react"
import { createRoot } from "react-dom/client"
import { useRows } from "./use-rows.ts"

interface Vote {
  id: number
  votes: number
}

async function get(path: string, signal?: AbortSignal) {
  const response = await fetch(path, { signal: signal ?? null })
  if (!response.ok) throw new Error(`${path}: ${response.status}`)
  return response.json()
}

const { url } = await get("/relay-token")
const source = {
  url,
  type: "voting_update",
  getToken: async () => (await get("/relay-token")).token,
  load: (signal: AbortSignal) => get("/votes", signal),
}

function Votes() {
  const { rows, kind } = useRows<Vote>(source)
  return (
    <>
      <h1>
        <output id="total">{rows.reduce((sum, row) => sum + row.votes, 0)}</output> votes in{" "}
        <output id="entries">{rows.length}</output> entries
      </h1>
      <p id="state" role="status">
        {kind}
      </p>
    </>
  )
}

const root = document.getElementById("root")
if (root !== null)
  createRoot(root).render(
    <StrictMode>
      <Votes />
    </StrictMode>,
  )
